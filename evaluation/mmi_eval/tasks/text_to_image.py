"""What the text-to-image benchmarks share: drawing from captions, choosing among candidates, comparing with photos.

The id of a sample is ``PICTURE-CAPTION`` (and a number where a caption is drawn several times), so the list of
predictions beside a score is the list of drawn and of real pictures.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from mmi_eval.formats.errors import FormatError
from mmi_eval.metrics.intervals import Score
from mmi_eval.model import Drawing, InterleavedModel
from mmi_eval.networks import Need, Networks, check_networks, matcher_hash, picture_text_matcher
from mmi_eval.sample import Picture, Sample

from .drawn_sets import DISTANCES, FEWEST, compare_sets, drawn_pictures, real_pictures
from .prompts import fill
from .protocol import Answer, PerSample, Scored, Seen, averaged, broken_down
from .similarity import similarity_to_texts


@dataclass(frozen=True)
class Captioned:
    """A caption to draw from and its real picture.

    Args:
        id: Of the sample.
        image_id: Of the picture.
        caption: As the model reads it.
        picture: The real one.
    """

    id: str
    image_id: str
    caption: str
    picture: Picture


@dataclass(frozen=True)
class TextToImage(ABC):
    """Settings of such a benchmark; which captions it takes is up to it (``captioned``).

    Args:
        captions: Captions of the split.
        images: Folder of the real pictures.
        networks: Where the judging networks lie; ``clip`` is needed for more than one candidate.
        split: Name of the split.
        n: How many pictures are drawn; ``None`` for one of each caption.
        prompt: With ``{caption}``.
        lowercase: Lower-case captions.
        drawing: How pictures are drawn.
        n_candidates: Pictures drawn of each caption, of which the one that matches the caption best is kept.
        n_reranked: Only the first so many captions get several candidates; ``None`` for all.
        seed: Added to the seeds of the samples; candidate ``k`` has the seed of its sample and ``k``.
        seen: What was trained on.

    Raises:
        ValueError: If a number of pictures is below 1.
    """

    captions: Path
    images: Path
    networks: Networks = field(default_factory=Networks)
    split: str = "val"
    n: int | None = 30000
    prompt: str = "{caption}"
    lowercase: bool = True
    drawing: Drawing = field(default_factory=lambda: Drawing(250, 3.5, "ddpm", "leading"))
    n_candidates: int = 1
    n_reranked: int | None = None
    seed: int = 0
    seen: Seen = field(default_factory=Seen)

    name: ClassVar[str]
    version: ClassVar[int] = 1
    raw_units: ClassVar[tuple[str, ...]] = DISTANCES
    lower_is_better: ClassVar[tuple[str, ...]] = DISTANCES
    result_keys: ClassVar[tuple[str, str] | None] = None

    def __post_init__(self) -> None:
        for name in ("n", "n_candidates"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{self.name} has {name} {value}; expected at least 1.")

    @property
    def protocol(self) -> str:
        """The protocol of the headline, and how many candidates were drawn."""
        headline = "micro-fid" if self.networks.judges is not None else "clean-fid"
        if self.n_candidates == 1 or self.n_reranked == 0:
            return headline
        among = "all" if self.n_reranked is None else f"the first {self.n_reranked}"
        return f"{headline}, best of {self.n_candidates} for {among}"

    @abstractmethod
    def captioned(self) -> list[Captioned]:
        """Return everything that can be drawn from, in order; the first ``n`` are."""

    def check(self) -> None:
        """Look for the judging networks.

        Raises:
            FileNotFoundError: If a configured file is missing.
            FormatError: If one that is needed is not configured.
        """
        needs: set[Need] = {"features"}
        if self.n_candidates > 1 or self.networks.clip is not None:
            needs.add("matcher")
        check_networks(self.networks, needs)

    def chosen_by(self) -> dict[str, str]:
        """Return the hash of the network that chooses among candidates, by name; nothing where there is one of each.

        Raises:
            FileNotFoundError: If the network is not there.
            FormatError: If none is configured.
        """
        return {} if self.n_candidates == 1 or self.n_reranked == 0 else matcher_hash(self.networks)

    def samples(self) -> list[Sample]:
        """Read captions and real pictures.

        Raises:
            FileNotFoundError: If the file of captions is not there.
            FormatError: If it is malformed or too short.
        """
        everything = self.captioned()
        if self.n is not None and len(everything) < self.n:
            raise FormatError(f"{self.captions} has {len(everything)} captions and n is {self.n}; set n to no more.")
        found = []
        for place, item in enumerate(everything[: self.n]):
            is_reranked = self.n_reranked is None or place < self.n_reranked
            meta = {"caption": item.caption, "candidates": self.n_candidates if is_reranked else 1}
            prompt = fill(self.prompt, {"caption": item.caption})
            found.append(Sample(item.id, prompt, (item.caption,), meta, "image", item.picture, item.image_id))
        return found

    def answer(self, model: InterleavedModel, batch: Sequence[Sample]) -> list[Image.Image]:
        """Ask for pictures; of several candidates the one nearest to the caption is kept, the first of equals."""
        candidates: list[list[Image.Image]] = [[] for _ in batch]
        for k in range(max(sample.meta["candidates"] for sample in batch)):
            rows = [row for row, sample in enumerate(batch) if sample.meta["candidates"] > k]
            prompts = [batch[row].opened() for row in rows]
            drawn = model.generate_image(prompts, self.drawing, [batch[row].seed + self.seed + k for row in rows])
            for row, picture in zip(rows, drawn, strict=True):
                candidates[row].append(picture)
        captions = [sample.meta["caption"] for sample in batch]
        return best_of(candidates, captions, self.networks)

    def score(self, samples: Sequence[Sample], answers: Sequence[Answer | None]) -> Scored:
        """Compare with the real pictures as sets, and each with its caption where there is a matcher."""
        drawn = drawn_pictures(answers)
        sets = _distances(drawn, real_pictures(samples), self.networks)
        notes = {**sets.notes, "sha256 of the ids": _ids_hash(samples)}
        if not self._has_matcher:
            return Scored(sets.values, counts=sets.counts, assets=sets.assets, notes=notes)
        name, column, assets = similarity_to_texts(drawn, [s.meta["caption"] for s in samples], self.networks)
        per_sample: PerSample = {name: {s.id: value for s, value in zip(samples, column, strict=True)}}
        if len({sample.meta["candidates"] for sample in samples}) > 1:
            kinds = {s.id: [str(s.meta["candidates"])] for s in samples}
            per_sample |= broken_down(per_sample[name], kinds, "candidates")
        values = sets.values | averaged(per_sample, samples)
        return Scored(values, per_sample, counts=sets.counts, assets={**sets.assets, **assets}, notes=notes)

    def baselines(self, samples: Sequence[Sample]) -> dict[str, Scored]:
        """Score real pictures: as many others as a set, and the very ones beside their captions."""
        found = {}
        real = real_pictures(samples)
        used = set(real)
        others = [item.picture for item in self.captioned() if item.picture not in used][: len(real)]
        if len(others) == len(real) >= FEWEST:
            found["other_real_pictures"] = compare_sets(others, real, self.networks)
        if self._has_matcher:
            name, column, _ = similarity_to_texts(real, [s.meta["caption"] for s in samples], self.networks)
            per_sample: PerSample = {name: {s.id: value for s, value in zip(samples, column, strict=True)}}
            found["real_pictures"] = Scored(averaged(per_sample, samples), per_sample)
        return found

    @property
    def _has_matcher(self) -> bool:
        return self.networks.clip is not None or self.networks.judges is not None


def best_of(
    candidates: Sequence[Sequence[Image.Image]], captions: Sequence[str], networks: Networks
) -> list[Image.Image]:
    """Return for each caption the candidate whose cosine with it is highest, the first of equals.

    Raises:
        FormatError: If a caption has several candidates and no matcher is configured.
    """
    choices = [row for row, pictures in enumerate(candidates) if len(pictures) > 1]
    best = [0] * len(candidates)
    if choices:
        matcher = picture_text_matcher(networks)
        texts = matcher.text_vectors([captions[row] for row in choices])
        for row, text in zip(choices, texts, strict=True):
            best[row] = int(np.argmax(matcher.picture_vectors(candidates[row]) @ text))
    return [pictures[place] for pictures, place in zip(candidates, best, strict=True)]


def read_results(folder: str | Path) -> dict[str, Picture]:
    """Read a folder of drawn pictures named like the ids of samples, ``PICTURE-CAPTION.png``.

    Raises:
        FileNotFoundError: If there is no folder.
        FormatError: If it holds no picture.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder; expected one of drawn pictures.")
    found = {file.stem: Picture(file) for file in sorted(folder.iterdir()) if file.suffix.lower() in _SUFFIXES}
    if not found:
        raise FormatError(f"{folder} holds no picture ({', '.join(_SUFFIXES)}); check the path.")
    return found


_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def _distances(drawn: Sequence[Picture | None], real: Sequence[Picture], networks: Networks) -> Scored:
    """Compare sets; of too few pictures only the lost ones are counted, unless nothing else could be said of them."""
    n_drawn = sum(picture is not None for picture in drawn)
    has_matcher = networks.clip is not None or networks.judges is not None
    if min(n_drawn, len(real)) < FEWEST and has_matcher:
        none: dict[str, Score] = {}
        return Scored(none, counts={"pictures lost": len(drawn) - n_drawn})
    return compare_sets(drawn, real, networks)


def _ids_hash(samples: Sequence[Sample]) -> str:
    return hashlib.sha256("\n".join(sample.id for sample in samples).encode()).hexdigest()
