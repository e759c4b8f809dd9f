"""One question of a benchmark, and controls that take the answer away from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from PIL import Image, ImageOps

from .formats.errors import FormatError
from .model import Prompt

Request = Literal["text", "image", "images", "scores", "image_loss"]
Control = Literal["none", "blank", "swapped"]
CONTROLS: tuple[Control, ...] = get_args(Control)
_GREY = (128, 128, 128)
_ORIENTATION, _FIRST_SIDEWAYS = 0x0112, 5
"""EXIF's tag for how a camera was held; from this value on width and height change places."""
T = TypeVar("T")


@dataclass(frozen=True)
class Picture:
    """A picture on disk, opened when it is needed.

    Args:
        path: The file.
        blank: Show nothing but grey of its size.
    """

    path: Path
    blank: bool = False

    def open(self) -> Image.Image:
        """Return it upright, as RGB.

        Raises:
            FileNotFoundError: If it is not there.
            FormatError: If it is damaged or no picture.
        """
        try:
            with Image.open(self.path) as image:
                upright = ImageOps.exif_transpose(image).convert("RGB")
        except FileNotFoundError:
            raise
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise FormatError(f"{self.path} is no picture that can be read; replace it ({error}).") from error
        return Image.new("RGB", upright.size, _GREY) if self.blank else upright

    def size(self) -> tuple[int, int]:
        """Return the width and height that ``open`` would give; pixels are not read.

        Raises:
            FileNotFoundError: If it is not there.
            FormatError: If it is damaged or no picture.
        """
        try:
            with Image.open(self.path) as image:
                (width, height), turned = image.size, image.getexif().get(_ORIENTATION, 1) >= _FIRST_SIDEWAYS
        except FileNotFoundError:
            raise
        except (OSError, ValueError, SyntaxError, TypeError, Image.DecompressionBombError) as error:
            raise FormatError(f"{self.path} is no picture that can be read; replace it ({error}).") from error
        return (height, width) if turned else (width, height)


@dataclass(frozen=True)
class Sample:
    """One question.

    Args:
        id: Unique in its task.
        prompt: Texts and pictures in reading order.
        references: Texts that would be right.
        meta: What scoring needs besides, plain types; the paths of several real pictures, such as the frames of a
            story, stand in ``targets``.
        request: What the model is asked for; ``images`` is several pictures.
        target: The real picture that belongs after the prompt.
        group: Samples of one group, such as questions on one picture, are resampled together; empty is its own.
    """

    id: str
    prompt: tuple[str | Picture, ...]
    references: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)
    request: Request = "text"
    target: Picture | None = None
    group: str = ""

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The pictures of the prompt."""
        return tuple(piece for piece in self.prompt if isinstance(piece, Picture))

    @property
    def targets(self) -> tuple[Picture, ...]:
        """The real pictures that belong after the prompt."""
        several = tuple(Picture(Path(path)) for path in self.meta.get("targets", ()))
        return several if self.target is None else (self.target, *several)

    @property
    def seed(self) -> int:
        """A number that depends on the id alone, so that batches and order change no picture."""
        return int.from_bytes(hashlib.sha256(self.id.encode()).digest()[:4], "big") >> 1

    def opened(self) -> Prompt:
        """Return the prompt with its pictures read.

        Raises:
            FileNotFoundError: If a picture is not there.
            FormatError: If one cannot be read.
        """
        return [piece if isinstance(piece, str) else piece.open() for piece in self.prompt]


def spread(items: Sequence[T], n: int | None) -> list[T]:
    """Return ``n`` items evenly spread over all, or all: few questions on many pictures, not many on few.

    Example:
        >>> spread("abcdefg", 3), spread("ab", None), spread("ab", 5)
        (['a', 'c', 'e'], ['a', 'b'], ['a', 'b'])
    """
    if n is None or n >= len(items):
        return list(items)
    return [items[i * len(items) // n] for i in range(n)]


def controlled(samples: Sequence[Sample], control: Control) -> list[Sample]:
    """Take the pictures of the prompts away.

    Args:
        samples: All samples of a task.
        control: ``blank`` shows grey of the same size, ``swapped`` the pictures of another sample with as many of
            them (half the set away, further where that is the same picture), ``none`` changes nothing.

    Raises:
        FormatError: If there is no other picture to swap with.
    """
    if control == "blank":
        return [_with_pictures(s, [replace(picture, blank=True) for picture in s.pictures]) for s in samples]
    if control == "swapped":
        donors = _derangement([tuple(p.path for p in s.pictures) for s in samples])
        return [_with_pictures(s, samples[d].pictures) for s, d in zip(samples, donors, strict=True)]
    return list(samples)


def _with_pictures(sample: Sample, pictures: Iterable[Picture]) -> Sample:
    rest = iter(pictures)
    return replace(sample, prompt=tuple(p if isinstance(p, str) else next(rest) for p in sample.prompt))


def _derangement(keys: Sequence[tuple[Path, ...]]) -> list[int]:
    """Return for each sample one with other pictures, equally many; samples without pictures get themselves."""
    by_count: dict[int, list[int]] = {}
    for index, key in enumerate(keys):
        by_count.setdefault(len(key), []).append(index)
    donors = list(range(len(keys)))
    for count, members in by_count.items():
        for place, index in enumerate(members if count else ()):
            offsets = ((len(members) // 2 + k) % len(members) for k in range(len(members)))
            others = (members[(place + offset) % len(members)] for offset in offsets)
            found = next((other for other in others if not set(keys[other]) & set(keys[index])), None)
            if found is None:
                raise FormatError(f"no sample has {count} other pictures to swap with; use the control blank instead.")
            donors[index] = found
    return donors


def partners(samples: Sequence[Sample]) -> list[int]:
    """Return for each sample another one whose request differs, half the set away: the shuffled captions.

    Raises:
        FormatError: If all samples ask for the same.

    Example:
        >>> partners([Sample("a", ("x",)), Sample("b", ("x",)), Sample("c", ("y",))])
        [2, 2, 0]
    """
    n = len(samples)
    found = []
    for i, sample in enumerate(samples):
        others = ((i + (n // 2 + k) % n) % n for k in range(n))
        other = next((j for j in others if samples[j].prompt != sample.prompt), None)
        if other is None:
            raise FormatError(f"all {n} samples ask for the same; shuffling them compares nothing.")
        found.append(other)
    return found


def fingerprint(samples: Iterable[Sample]) -> str:
    """Return a short hash of everything asked: ids, texts, references, names and sizes of picture files."""
    digest = hashlib.sha256()
    for sample in samples:
        pieces = [piece if isinstance(piece, str) else _picture_key(piece) for piece in sample.prompt]
        target = None if sample.target is None else _picture_key(sample.target)
        meta = dict(sample.meta)
        if "targets" in meta:  # paths, and where files lie does not count
            meta["targets"] = [_picture_key(Picture(Path(path))) for path in meta["targets"]]
        record = [sample.id, pieces, sample.references, meta, sample.request, target]
        digest.update(json.dumps(record, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()[:16]


def _picture_key(picture: Picture) -> list[object]:
    size = picture.path.stat().st_size if picture.path.is_file() else -1
    return [picture.path.name, size, picture.blank]
