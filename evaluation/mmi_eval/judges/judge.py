"""The judges of a world, ready to use, and their folder on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from mmi_eval.formats.errors import FormatError, as_object, existing_file, field, load_json, text_list, write_json

from .attributes import AttributeNet, PictureAttributes
from .matcher import Matcher
from .pictures import CELL_KINDS, JudgeClasses
from .segmenter import Segmenter

SCHEMA_VERSION = 1
WEIGHTS, RECORD = "judges.safetensors", "judges.json"
_REMEDY = "make the judges again with mmi data microworld --judges"


@dataclass(frozen=True)
class Judges:
    """Networks that judge pictures of one world; scores that use them are named ``micro-*``.

    Args:
        classes: What they tell apart.
        attribute_net: Sees cells.
        matcher: Compares pictures and texts.
        segmenter: Sees pixels.
        accuracy: On held-out pictures, by what was judged; print it beside every score.
        settings: How they were made, plain types.
        digest: SHA-256 of the weights, empty before they are saved.
    """

    classes: JudgeClasses
    attribute_net: AttributeNet
    matcher: Matcher
    segmenter: Segmenter
    accuracy: dict[str, float]
    settings: Mapping[str, object]
    digest: str = ""

    def attributes(self, images: np.ndarray | Tensor) -> PictureAttributes:
        """Say what stands in each cell of uint8[N, 3, S, S].

        Raises:
            ValueError: If the pictures are of another type or size; so do the methods below.
        """
        _, background, cells = self._judge(images)
        return PictureAttributes(self.classes, background.numpy(), cells.numpy())

    def features(self, images: np.ndarray | Tensor) -> np.ndarray:
        """Return float32[N, 64] to compare sets of pictures with: the mean over cells of the last hidden layer."""
        return self._judge(images)[0].mean(1).numpy()

    def similarity(self, images: np.ndarray | Tensor, texts: Sequence[str]) -> np.ndarray:
        """Return float32[N] in [-1, 1], how well each picture and its text belong together.

        Raises:
            ValueError: If there are not as many texts as pictures.
        """
        if len(texts) != len(images):
            raise ValueError(f"{len(texts)} texts were given for {len(images)} pictures; expected one for each.")
        pictures, said = self.picture_vectors(images), self.text_vectors(texts)
        return (pictures * said).sum(-1)

    @torch.no_grad()
    def picture_vectors(self, images: np.ndarray | Tensor) -> np.ndarray:
        """Return unit vectors float32[N, D]; products with ``text_vectors`` are similarities."""
        return self.matcher.pictures(self._judge(images)[0]).numpy()

    @torch.no_grad()
    def text_vectors(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit vectors float32[N, D] of texts; words the judge never met count as one unknown word."""
        parts = [texts[start : start + 256] for start in range(0, len(texts), 256)]
        vectors = [self.matcher.texts(self.matcher.text.ids(part)) for part in parts]
        return torch.cat(vectors).numpy() if vectors else np.zeros((0, self.matcher.d_joint), np.float32)

    def segment(self, images: np.ndarray | Tensor) -> np.ndarray:
        """Return uint8[N, S, S], the layout's class of each pixel, never 0."""
        parts = [self.segmenter.segment(part) for part in self._images(images).split(64)]
        return torch.cat(parts).numpy()

    def save(self, folder: str | Path) -> str:
        """Write weights and record; the record comes last, so a folder with one is complete.

        Returns:
            SHA-256 of the weights.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RECORD).unlink(missing_ok=True)
        state = {name: tensor.contiguous() for name, tensor in _network(self).state_dict().items()}
        weights = save(state)
        digest = hashlib.sha256(weights).hexdigest()
        (folder / WEIGHTS).write_bytes(weights)
        record = {
            "schema_version": SCHEMA_VERSION,
            "settings": dict(self.settings),
            "accuracy": dict(self.accuracy),
            "classes": self.classes.record(),
            "words": list(self.matcher.text.words),
            "sha256": {WEIGHTS: digest},
        }
        write_json(folder / RECORD, record, indent=1)
        return digest

    def _judge(self, images: np.ndarray | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        parts = [self.attribute_net.judge(part) for part in self._images(images).split(64)]
        features, background, cells = zip(*parts, strict=True)
        return torch.cat(features), torch.cat(background), torch.cat(cells)

    def _images(self, images: np.ndarray | Tensor) -> Tensor:
        tensor = torch.as_tensor(images)
        side = self.classes.image_size
        if tensor.dtype != torch.uint8 or tensor.shape[1:] != (3, side, side):
            found = f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
            raise ValueError(f"pictures are {found}; these judges expect uint8[N, 3, {side}, {side}].")
        return tensor


def load_judges(folder: str | Path) -> Judges:
    """Load judges that ``Judges.save`` wrote; nothing but tensors and plain types is read.

    Raises:
        FileNotFoundError: If a file is missing.
        FormatError: If the record is malformed, of another version, or the weights are not the recorded ones.
    """
    folder = Path(folder)
    path = folder / RECORD
    record = as_object(load_json(path, f"the record of judges; {_REMEDY}"), str(path))
    version = field(record, "schema_version", int, str(path))
    if version != SCHEMA_VERSION:
        raise FormatError(f"{path} has schema_version {version}; expected {SCHEMA_VERSION}; {_REMEDY}.")
    classes = _classes(field(record, "classes", dict, str(path)), f"{path}, classes")
    words = text_list(record.get("words"), f"{path}, words")
    accuracy = field(record, "accuracy", dict, str(path))
    recorded = field(record, "sha256", dict, str(path)).get(WEIGHTS)
    weights = existing_file(folder / WEIGHTS, "the weights of judges").read_bytes()
    digest = hashlib.sha256(weights).hexdigest()
    if digest != recorded:
        raise FormatError(f"{folder / WEIGHTS} is not the file that {path} describes (SHA-256); {_REMEDY}.")
    with torch.random.fork_rng(devices=[]):
        judges = Judges(
            classes,
            AttributeNet(classes),
            Matcher(words),
            Segmenter(classes),
            {name: field(accuracy, name, (int, float), f"{path}, accuracy") for name in accuracy},
            field(record, "settings", dict, str(path)),
            digest,
        )
    try:
        _network(judges).load_state_dict(load(weights))
    except (SafetensorError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise FormatError(f"{folder / WEIGHTS} does not fit {path} ({first}); {_REMEDY}.") from None
    return judges


def _network(judges: Judges) -> nn.ModuleDict:
    parts = {"attributes": judges.attribute_net, "matcher": judges.matcher, "segmenter": judges.segmenter}
    return nn.ModuleDict(parts).eval().requires_grad_(False)


def _classes(record: Mapping[str, object], where: str) -> JudgeClasses:
    for key in record.keys() - {f.name for f in fields(JudgeClasses)}:
        raise FormatError(f'{where} has the unknown key "{key}"; {_REMEDY}.')

    def names(kind: str) -> tuple[str, ...]:
        return text_list(field(record, kind, list, where), f"{where}.{kind}")

    background, shape, colour, texture, size, printed, layout = map(names, ("background", *CELL_KINDS, "layout"))
    image_size, cell, offset = (field(record, name, int, where) for name in ("image_size", "cell", "offset"))
    try:
        return JudgeClasses(background, shape, colour, texture, size, printed, layout, image_size, cell, offset)
    except ValueError as error:
        raise FormatError(f"{where}: {error} {_REMEDY}.") from None
