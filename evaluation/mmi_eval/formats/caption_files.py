"""Captions of pictures in any of the layouts that caption benchmarks come in, told apart by what they hold.

With file names of pictures (``read_captioned_pictures``): the three layouts of ``coco_captions``, Karpathy's
``dataset_*.json``, Flickr30k's token file. For scoring only (``read_caption_references``), besides these: COCO files
that list pictures by id alone or not at all, ``paragraphs_v1.json``, an object ``{picture: [captions]}``, and text
files with a caption on each line, whose pictures are called by the number of the line from 1; several such files are
several references.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from .coco_captions import CaptionedImage, read_coco_captions, read_references
from .errors import FormatError, as_object, existing_file, field, load_json, text_list
from .flickr30k import read_flickr30k
from .karpathy import read_karpathy
from .paragraphs import read_paragraphs

Part = Literal["train", "val", "test"]

_TOKEN_LINE = re.compile(rb"[^\t\n]+#\d+\t")


def read_captioned_pictures(path: str | Path, part: Part = "test") -> list[CaptionedImage]:
    """Read pictures and captions; rows of one picture are put together.

    Args:
        path: The file.
        part: Which pictures of a ``dataset_*.json`` file, the one layout that holds all of them.

    Raises:
        FileNotFoundError: If it is not there.
        FormatError: If it is malformed, or a ``dataset_*.json`` file has no picture of that part.
    """
    if not is_json(path):
        return read_flickr30k(path)
    if not _is_karpathy(load_json(path, "a JSON file of captions")):
        return merged(read_coco_captions(path))
    images = read_karpathy(path).of(part)
    if not images:
        raise FormatError(f'{path} has no picture of the split "{part}"; use a file that has.')
    return images


def read_caption_references(
    paths: str | Path | Sequence[str | Path], part: Part = "test"
) -> dict[str, tuple[str, ...]]:
    """Read references by picture id.

    Args:
        paths: A file, or text files of as many lines each.
        part: As in ``read_captioned_pictures``.

    Raises:
        FileNotFoundError: If a file is not there.
        FormatError: If one is malformed, or several are not all text files of as many lines.
    """
    files = [paths] if isinstance(paths, str | Path) else list(paths)
    if not files:
        raise FormatError("no file of references is given; name one, or text files with a caption on each line.")
    if len(files) > 1 or _is_plain_text(files[0]):
        return _read_lines(files)
    path = files[0]
    content = load_json(path, "a file of references") if is_json(path) else None
    if _is_paragraphs(content):
        return {str(paragraph.image_id): (paragraph.text,) for paragraph in read_paragraphs(path)}
    if (rows := _annotations_alone(content)) is not None:
        return _by_annotation(rows, str(path))
    if isinstance(content, dict) and not _is_karpathy(content):
        read = read_references(path) if "images" in content else _by_picture(content, str(path))
        return {str(picture): captions for picture, captions in read.items()}
    return {str(image.image_id): image.captions for image in read_captioned_pictures(path, part)}


def merged(images: Sequence[CaptionedImage]) -> list[CaptionedImage]:
    """Put the captions of rows of one picture together, in the order of first rows."""
    found: dict[int | str, CaptionedImage] = {}
    for image in images:
        first = found.get(image.image_id)
        captions = image.captions if first is None else (*first.captions, *image.captions)
        found[image.image_id] = CaptionedImage(image.image_id, image.file_name, captions, image.size)
    return list(found.values())


def read_text_lines(path: str | Path, what: str) -> tuple[str, ...]:
    r"""Return the lines of a text file; only ``\n`` and ``\r\n`` end one.

    Raises:
        FileNotFoundError: If it is not there.
        FormatError: If it is not UTF-8, or empty.
    """
    try:
        text = existing_file(path, what).read_bytes().removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is not UTF-8 (byte {error.start}); convert the file to UTF-8.") from None
    if not text:
        raise FormatError(f"{path} is empty; expected {what}.")
    return tuple(line.removesuffix("\r") for line in text.removesuffix("\n").split("\n"))


def is_json(path: str | Path) -> bool:
    """Whether a file begins as JSON objects and lists do.

    Raises:
        FileNotFoundError: If it is not there.
    """
    return _beginning(path)[:1] in (b"{", b"[")


def _beginning(path: str | Path) -> bytes:
    with existing_file(path, "a file of captions").open("rb") as stream:
        return stream.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()


def _is_karpathy(content: object) -> bool:
    return isinstance(content, dict) and "dataset" in content and "images" in content


def _is_paragraphs(content: object) -> bool:
    """Say whether rows are those of ``paragraphs_v1.json``, or of ``paragraphs_coco.json``, which hold addresses."""
    if isinstance(content, list):
        return bool(content) and isinstance(content[0], dict) and "paragraph" in content[0]
    rows = _annotations_alone(content)
    return bool(rows) and isinstance(rows[0], dict) and "url" in rows[0]


def _annotations_alone(content: object) -> list[Any] | None:
    """Return rows of ``{image_id, caption}`` that stand without a list of pictures."""
    if isinstance(content, dict) and "images" not in content and isinstance(content.get("annotations"), list):
        return content["annotations"]
    if isinstance(content, list) and content and isinstance(content[0], dict):
        named = content[0].keys() & {"image", "image_name", "file_name"}
        return content if "image_id" in content[0] and not named else None
    return None


def _by_annotation(rows: Sequence[Any], where: str) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for number, value in enumerate(rows):
        row = as_object(value, f"{where}, annotation {number}")
        picture = field(row, "image_id", (int, str), f"{where}, annotation {number}")
        found.setdefault(str(picture), []).append(field(row, "caption", str, f"{where}, annotation {number}"))
    return {picture: tuple(captions) for picture, captions in found.items()}


def _is_plain_text(path: str | Path) -> bool:
    return not is_json(path) and _TOKEN_LINE.match(_beginning(path)) is None


def _read_lines(paths: Sequence[str | Path]) -> dict[str, tuple[str, ...]]:
    files = []
    for path in paths:
        if is_json(path):
            raise FormatError(f"{path} is JSON; of several files of references each holds a caption on each line.")
        files.append(read_text_lines(path, "a caption on each line"))
        if len(files[-1]) != len(files[0]):
            raise FormatError(f"{path} has {len(files[-1])} lines, but {paths[0]} has {len(files[0])}; align them.")
    return {str(number): captions for number, captions in enumerate(zip(*files, strict=True), start=1)}


def _by_picture(content: Mapping[str, Any], where: str) -> dict[str, tuple[str, ...]]:
    return {
        picture: (captions,) if isinstance(captions, str) else text_list(captions, f'{where}, "{picture}"')
        for picture, captions in content.items()
    }
