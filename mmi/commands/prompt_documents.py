"""Prompts in files: our list of texts and pictures, and the official JSON (SPEC 5.4)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mmi.errors import UsageError

if TYPE_CHECKING:
    from PIL import Image

Piece = "str | Image.Image"
_EXPECTED = 'expected a list such as [{"text": "A story."}, {"image": "a.png"}]'
_OFFICIAL_KEYS = {
    "sentences",
    "images",
    "sentence_ixs",
    "image_first",
    "generate_mode",
    "num_iter",
    "multiround_context",
}


@dataclass(frozen=True)
class OfficialRules:
    """How a sample of the official JSON is gone on with.

    Args:
        first: What is generated first; texts and pictures then take turns as the model wants.
        n_iterations: Texts and pictures generated, together.
        replacements: Texts that take the place of generated ones, by number of the iteration; empty ones do not.
    """

    first: Literal["text", "image"]
    n_iterations: int
    replacements: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class PromptDocument:
    """One prompt of a file.

    Args:
        pieces: Texts and pictures in reading order.
        official: How to go on; None for the usual rules.
    """

    pieces: tuple[str | Image.Image, ...]
    official: OfficialRules | None = None


def read_documents(path: Path) -> list[PromptDocument]:
    """Read a prompt file.

    It holds a JSON list of ``{"text": ...}`` and ``{"image": FILE}``, in which plain strings are text, and is then one
    prompt; or the official list of samples, each with ``sentences``, ``images`` and ``generate_mode``.

    Raises:
        UsageError: If it is neither, or a picture cannot be read.
        FileNotFoundError: If the file does not exist.
    """
    try:
        items = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no JSON ({error}); expected a list of texts and images.") from error
    if not isinstance(items, list):
        raise UsageError(f"{path} holds a {type(items).__name__}; {_EXPECTED}.")
    if items and all(isinstance(item, dict) and "sentences" in item for item in items):
        return [_official(item, path, number) for number, item in enumerate(items)]
    prompt: list[tuple[str, str]] = []
    for number, item in enumerate(items):
        entry = {"text": item} if isinstance(item, str) else item
        if not isinstance(entry, dict) or len(entry) != 1 or not {"text", "image"} & set(entry):
            raise UsageError(f"{path}: entry {number} is {json.dumps(item)[:80]}; {_EXPECTED}.")
        ((kind, value),) = entry.items()
        if not isinstance(value, str):
            expected = "a text" if kind == "text" else "the name of a picture file"
            raise UsageError(f"{path}: entry {number}: {kind} is {json.dumps(value)[:60]}; expected {expected}.")
        prompt.append((kind, str(path.parent / value) if kind == "image" else value))
    return [PromptDocument(tuple(read_items(prompt)))]


def read_items(items: Sequence[tuple[str, str]] | None) -> list[str | Image.Image]:
    """Read the pictures among pairs of ``text`` or ``image`` and what stands for it."""
    return [open_picture(Path(value)) if kind == "image" else value for kind, value in items or ()]


def open_picture(path: Path) -> Image.Image:
    """Read a picture file upright, as RGB.

    Raises:
        FileNotFoundError: If it does not exist.
        UsageError: If it cannot be read or is too large.
    """
    from mmi.data.document import ImageItem
    from mmi.data.images import ImageError, open_rgb

    path.stat()
    try:
        return open_rgb(ImageItem(partial(open, path, "rb"), str(path)))
    except ImageError as error:
        reason = str(error).rstrip(".")
        raise UsageError(f"{path} is no picture that can be used; expected PNG, JPEG or the like: {reason}.") from error


def _official(sample: Mapping[str, Any], path: Path, number: int) -> PromptDocument:
    """Lay sentences and pictures out in reading order: each picture before or behind its sentence."""
    where = f"{path}: sample {number}"
    sentences, images = _strings(sample, "sentences", where), _strings(sample, "images", where)
    places = _listed(sample, "sentence_ixs", int, len(images), where)
    first = _listed(sample, "image_first", bool, len(images), where)
    mode, n_iterations = sample.get("generate_mode"), sample.get("num_iter", 1)
    unknown = sorted(set(sample) - _OFFICIAL_KEYS)
    if unknown:
        raise UsageError(f'{where} has the key "{unknown[0]}"; known keys are {", ".join(sorted(_OFFICIAL_KEYS))}.')
    if mode not in ("generate_texts", "generate_images"):
        raise UsageError(f"{where}: generate_mode is {json.dumps(mode)}; expected generate_texts or generate_images.")
    if not isinstance(n_iterations, int) or isinstance(n_iterations, bool) or n_iterations < 1:
        raise UsageError(f"{where}: num_iter is {json.dumps(n_iterations)}; expected a number of at least 1.")
    for place in places:
        if not 0 <= place < len(sentences):
            raise UsageError(f"{where}: sentence_ixs has {place}, but there are {len(sentences)} sentences.")
    laid: list[tuple[str, str]] = []
    for i, sentence in enumerate(sentences):
        own = [k for k, place in enumerate(places) if place == i]
        laid += [("image", str(k)) for k in own if first[k]]
        laid += [("text", sentence)] if sentence else []
        laid += [("image", str(k)) for k in own if not first[k]]
    if mode == "generate_images":
        # The last picture only says where one is to be drawn, and need not exist.
        if not laid or laid[-1] != ("image", str(len(images) - 1)):
            raise UsageError(
                f"{where}: with generate_images the last of images stands for the picture to draw, so it must come "
                "last; check sentence_ixs and image_first."
            )
        laid.pop()
    prompt = [(kind, str(path.parent / images[int(value)]) if kind == "image" else value) for kind, value in laid]
    rules = OfficialRules(
        "image" if mode == "generate_images" else "text",
        n_iterations,
        tuple(_strings(sample, "multiround_context", where)),
    )
    return PromptDocument(tuple(read_items(prompt)), rules)


def _strings(sample: Mapping[str, Any], key: str, where: str) -> list[str]:
    value = sample.get(key, [])
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise UsageError(f"{where}: {key} is {json.dumps(value)[:60]}; expected a list of strings.")
    return value


def _listed(sample: Mapping[str, Any], key: str, kind: type, count: int, where: str) -> list[Any]:
    value = sample.get(key, [])
    fits = isinstance(value, list) and len(value) == count and all(type(entry) is kind for entry in value)
    if not fits:
        raise UsageError(
            f"{where}: {key} is {json.dumps(value)[:60]}; expected a list with one {kind.__name__} for each of {count} "
            "images."
        )
    return value
