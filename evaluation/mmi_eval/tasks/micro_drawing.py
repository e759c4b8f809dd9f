"""Micro-world drawing: does a drawn picture show what its caption asks for?

Data: captions of the micro-world whose first says everything, and the scene graphs behind them.
Metric, judged by the world's own networks (``micro-*``, their held-out accuracy stands beside it): the requested
background; for each requested thing its colour, shape, size, texture and print at the requested place; ``micro-fid``
against real pictures (feature network of the judge, not comparable with any other FID).
Shuffled captions: the same pictures judged by the requests of others, half the set away; paired differences.
Baseline: the judge on the real pictures (real_pictures), the most a model can reach.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from PIL import Image

from mmi_eval.formats.coco_captions import read_coco_captions
from mmi_eval.formats.errors import FormatError, as_object, existing_file, parse_json
from mmi_eval.formats.errors import field as key_of
from mmi_eval.metrics.frechet import frechet_score
from mmi_eval.metrics.intervals import Score
from mmi_eval.model import Drawing, InterleavedModel
from mmi_eval.sample import Picture, Sample, partners

from .coco_caption import merged
from .prompts import fill
from .protocol import Answer, PerSample, Scored, Seen, averaged, differences

if TYPE_CHECKING:
    from mmi_eval.judges import Judges, PictureContent

_CELLS = ("top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right")
_VALUES = {
    "background": "background",
    "colour at place": "colour",
    "shape at place": "shape",
    "colour and shape": "colour_and_shape",
    "whole thing": "thing",
    "size at place": "size",
    "texture at place": "texture",
    "print at place": "print",
    "empty cells": "no_more",
}
"""Name of each value and of the field of the judges' ``Agreement``."""
_FEWEST_FOR_FID = 8
_JUDGED = ("background", "shape", "colour", "texture", "size", "print", "thing", "empty")
"""Whose held-out accuracy belongs beside the scores, on pictures as they are and ``disturbed``."""


@dataclass(frozen=True)
class MicroDrawing:
    """Settings of the benchmark.

    Args:
        captions: Captions of the split.
        images: Folder of the real pictures.
        scenes: JSON lines with the scene graph of each picture.
        judges: Folder of the world's judges.
        split: Name of the split.
        n: How many pictures are drawn: the first captions of the split.
        n_real: Real pictures that ``micro-fid`` compares with: the last of the split.
        prompt: With ``{caption}``.
        lowercase: Lower-case captions, as in training.
        drawing: How pictures are drawn.
        seen: What was trained on.
    """

    captions: Path
    images: Path
    scenes: Path
    judges: Path
    split: str = "val"
    n: int = 64
    n_real: int = 512
    prompt: str = "{caption}"
    lowercase: bool = True
    drawing: Drawing = field(default_factory=Drawing)
    seen: Seen = field(default_factory=lambda: Seen(in_house=True))

    name: ClassVar[str] = "micro_drawing"
    version: ClassVar[int] = 1
    raw_units: ClassVar[tuple[str, ...]] = ("micro-fid",)
    lower_is_better: ClassVar[tuple[str, ...]] = ("micro-fid",)
    result_keys: ClassVar[tuple[str, str] | None] = None

    @property
    def protocol(self) -> str:
        """Whose judgement it is."""
        return "micro-judges"

    def check(self) -> None:
        """Look for the judges.

        Raises:
            FileNotFoundError: If they are not there.
            FormatError: If they are damaged.
        """
        self._judges()

    def samples(self) -> list[Sample]:
        """Read captions and what they ask for."""
        scenes = read_scenes(self.scenes)
        samples = []
        for image in merged(read_coco_captions(self.captions))[: self.n]:
            if image.file_name not in scenes:
                raise FormatError(f"{self.scenes} has no scene for {image.file_name}; use files of one world.")
            if not image.captions:
                raise FormatError(f"{self.captions}: picture {image.image_id} has no caption to draw from.")
            meta = {"scene": scenes[image.file_name], "caption": image.captions[0]}
            caption = image.captions[0].lower() if self.lowercase else image.captions[0]
            prompt = fill(self.prompt, {"caption": caption})
            target = Picture(image.path(self.images))
            samples.append(Sample(str(image.image_id), prompt, image.captions, meta, "image", target))
        return samples

    def answer(self, model: InterleavedModel, batch: Sequence[Sample]) -> list[Image.Image]:
        """Ask for pictures; each has the seed of its sample."""
        return model.generate_image([s.opened() for s in batch], self.drawing, [s.seed for s in batch])

    def score(self, samples: Sequence[Sample], answers: Sequence[Answer | None]) -> Scored:
        """Judge the pictures; one that could not be had shows nothing that was asked for."""
        judges = self._judges()
        drawn = {s.id: a for s, a in zip(samples, answers, strict=True) if isinstance(a, Picture)}
        pictures = np.stack([_pixels(drawn.get(s.id), judges.classes.image_size) for s in samples])
        lost = [s.id for s in samples if s.id not in drawn]
        own = _agreement(judges, pictures, samples, lost)
        values = averaged(own, samples)
        comparisons = {}
        if len({sample.prompt for sample in samples}) > 1:
            shuffled = _agreement(judges, pictures[partners(samples)], samples, lost)
            values |= {f"{name}, shuffled captions": s for name, s in averaged(shuffled, samples).items()}
            pairs = differences(Scored({}, own), Scored({}, shuffled), samples)
            comparisons = {f"{name} - shuffled captions": score for name, score in pairs.items()}
        if fid := self._fid(judges, pictures[[s.id in drawn for s in samples]]):
            values["micro-fid"] = fid
        return Scored(values, own, comparisons, {"pictures lost": len(lost)}, _hash(judges), _notes(judges))

    def baselines(self, samples: Sequence[Sample]) -> dict[str, Scored]:
        """Judge the real pictures."""
        judges = self._judges()
        pictures = np.stack([_pixels(sample.target, judges.classes.image_size) for sample in samples])
        own = _agreement(judges, pictures, samples, [])
        values = averaged(own, samples)
        if fid := self._fid(judges, pictures):
            values["micro-fid"] = fid
        return {"real_pictures": Scored(values, own, notes=_notes(judges))}

    def _judges(self) -> Judges:
        from mmi_eval.judges import load_judges

        return load_judges(self.judges)

    def _fid(self, judges: Judges, pictures: np.ndarray) -> Score | None:
        """Compare with the last real pictures of the split; ``None`` for too few."""
        images = merged(read_coco_captions(self.captions))
        real = [Picture(image.path(self.images)) for image in images[self.n :][-self.n_real :]]
        if min(len(pictures), len(real)) < _FEWEST_FOR_FID:
            return None
        pixels = np.stack([_pixels(picture, judges.classes.image_size) for picture in real])
        return frechet_score(judges.features(pictures), judges.features(pixels))


def read_scenes(path: str | Path) -> dict[str, Mapping[str, Any]]:
    """Read scene graphs by picture name: JSON lines of ``image``, ``place`` and ``things``.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If a line is malformed.
    """
    path = existing_file(path, "a file of scene graphs")
    found: dict[str, Mapping[str, Any]] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        where = f"{path}, line {number}"
        row = as_object(parse_json(line, where), where)
        key_of(row, "place", str, where)
        for thing in key_of(row, "things", list, where):
            cell = key_of(as_object(thing, where), "cell", str, where)
            if cell not in _CELLS:
                raise FormatError(f'{where}: unknown cell "{cell}"; expected one of {", ".join(_CELLS)}.')
        found[key_of(row, "image", str, where)] = row
    return found


def _content(scene: Mapping[str, Any]) -> PictureContent:
    from mmi_eval.judges import CellContent, PictureContent

    things = []
    for thing in scene["things"]:
        printed = thing.get("print")
        look = thing["shape"], thing["colour"], thing.get("texture", "plain"), thing["size"]
        things.append(CellContent(_CELLS.index(thing["cell"]), *look, printed["text"] if printed else ""))
    return PictureContent(scene["place"], tuple(things))


def _agreement(judges: Judges, pictures: np.ndarray, samples: Sequence[Sample], lost: Sequence[str]) -> PerSample:
    agreement = judges.attributes(pictures).agreement([_content(sample.meta["scene"]) for sample in samples])
    found: PerSample = {}
    for name, attribute in _VALUES.items():
        numbers = getattr(agreement, attribute).tolist()
        column = {s.id: number for s, number in zip(samples, numbers, strict=True) if not math.isnan(number)}
        found[name] = column | {sample_id: 0.0 for sample_id in lost if sample_id in column}
    return {name: column for name, column in found.items() if column}


def _pixels(picture: Picture | None, side: int) -> np.ndarray:
    """Return uint8[3, side, side]; grey for no picture. Another size is resized, as a person would see it."""
    image = Image.new("RGB", (side, side), (128, 128, 128)) if picture is None else picture.open()
    if image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(image, np.uint8).transpose(2, 0, 1)


def _hash(judges: Judges) -> dict[str, str]:
    return {"micro-judges": f"sha256:{judges.digest}"}


def _notes(judges: Judges) -> dict[str, Any]:
    used = {*_JUDGED, *(f"disturbed/{kind}" for kind in _JUDGED)}
    return {"held-out accuracy of the judges": {k: v for k, v in judges.accuracy.items() if k in used}}
