"""A plain folder of pictures with captions: a text beside each picture, or one list for all.

A list is ``captions.jsonl``, ``captions.csv``, ``metadata.jsonl`` or ``metadata.csv`` in the folder: the picture under
``file_name`` or ``image``, its caption under ``caption`` or ``text`` (JSON lines may have a list of them); several rows
of one picture are joined. Without a list the captions of ``a/x.jpg`` lie beside it (``captions_beside``). Folders below
are looked into. The lists of the ``imagefolder`` layout (https://huggingface.co/docs/datasets/image_dataset) are read
too.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from .coco_captions import CaptionedImage, number_in_name
from .errors import FormatError, as_object, dump_json, existing_file, field, load_json, parse_json, text_list
from .random_access import IndexedLines

ListName = Literal["captions.jsonl", "captions.csv", "metadata.jsonl", "metadata.csv"]
LISTS: tuple[ListName, ...] = ("captions.jsonl", "captions.csv", "metadata.jsonl", "metadata.csv")
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
"""Endings, in any case, by which files are taken for pictures wherever a folder of pictures is read."""
Row = tuple[str, tuple[str, ...]]
_NAME_KEYS, _TEXT_KEYS = ("file_name", "image"), ("caption", "text", "captions")


def read_caption_folder(folder: str | Path, problems: list[tuple[str, str]] | None = None) -> list[CaptionedImage]:
    """Read the pictures of a folder with their captions, by name or in the order of the list.

    A picture without a caption is there with none.

    Args:
        folder: The folder.
        problems: Takes the name of every picture or row whose captions are broken and what is wrong, in place of an
            error: the others are kept. ``None`` raises.

    Raises:
        FileNotFoundError: If there is no such folder, or neither a list nor a picture in it.
        FormatError: If there are two lists, one is no text at all, or (without ``problems``) captions are broken.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder; expected pictures with captions. Check the path.")
    lists = [folder / name for name in LISTS if (folder / name).is_file()]
    if len(lists) > 1:
        raise FormatError(f"{folder} holds {lists[0].name} and {lists[1].name}; keep one list of captions.")
    if lists:
        rows = _csv_rows(lists[0]) if lists[0].suffix == ".csv" else _json_rows(lists[0])
        return _joined(_whole(rows, problems))
    pictures = pictures_below(folder)
    if not pictures:
        raise FileNotFoundError(f"{folder} holds no picture; expected {', '.join(PICTURES)} with a .txt beside each.")
    beside = ((name, partial(_with_captions, folder, name)) for name in pictures)
    return _joined(_whole(beside, problems))


def pictures_below(folder: Path) -> list[str]:
    """Return the paths of all pictures below a folder, from there, in order."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in PICTURES and path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in found)


def captions_beside(picture: Path) -> tuple[str, ...]:
    """Return the captions that lie beside a picture ``x.jpg``; none where there are none.

    Every line of ``x.txt`` that is not empty is a caption. Without that file it is ``caption`` of ``x.json``, a text or
    a list of texts. What img2dataset writes has both with the same text, which then is one caption, whole.

    Raises:
        FormatError: If a file is not UTF-8, not JSON, cannot be read, or its ``caption`` is no text.
    """
    text, record = picture.with_suffix(".txt"), picture.with_suffix(".json")
    about: Mapping[str, Any] = {}
    try:
        if record.is_file():
            about = as_object(load_json(record, "what is known of a picture"), str(record))
        written = text.read_bytes().decode("utf-8-sig") if text.is_file() else None
    except UnicodeDecodeError as error:
        raise FormatError(f"{text} is not UTF-8 (byte {error.start}); convert the file to UTF-8.") from None
    except OSError as error:
        raise FormatError(f"{error.filename} cannot be read ({error.strerror}); check its permissions.") from None
    told = about.get("caption")
    if written is not None and (not isinstance(told, str) or told.strip() != written.strip()):
        return tuple(line.strip() for line in written.splitlines() if line.strip())
    if told is None:
        return ()
    return (told,) if isinstance(told, str) else text_list(told, f'{record}: "caption"')


def _with_captions(folder: Path, name: str) -> Row:
    return name, captions_beside(folder / name)


def _whole(rows: Iterable[tuple[str, Callable[[], Row]]], problems: list[tuple[str, str]] | None) -> Iterator[Row]:
    """Yield what each call returns; what is broken goes to ``problems`` under its name."""
    for name, row in rows:
        try:
            yield row()
        except FormatError as error:
            if problems is None:
                raise
            problems.append((name, str(error)))


def _joined(rows: Iterable[Row]) -> list[CaptionedImage]:
    captions: dict[str, tuple[str, ...]] = {}
    for name, texts in rows:
        captions[name] = captions.get(name, ()) + texts
    return [CaptionedImage(number_in_name(name), name, texts) for name, texts in captions.items()]


def _json_rows(path: Path) -> Iterator[tuple[str, Callable[[], Row]]]:
    lines = IndexedLines(path)

    def row(number: int) -> Row:
        where = lines.where(number)
        record = as_object(parse_json(lines[number], where), where)
        name_key, text_key = _keys(record, where)
        value = field(record, text_key, (str, list), where)
        texts = (value,) if isinstance(value, str) else text_list(value, f'{where}: "{text_key}"')
        return field(record, name_key, str, where), texts

    for number in range(len(lines)):
        yield f"{path.name}/{lines.row(number)}", partial(row, number)


def _csv_rows(path: Path) -> Iterator[tuple[str, Callable[[], Row]]]:
    data = existing_file(path, "a list of captions").read_bytes()
    try:
        records = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error):
        raise FormatError(f"{path} is no CSV file in UTF-8; check the path.") from None

    def row(number: int, record: Mapping[str, str]) -> Row:
        known = {key: value for key, value in record.items() if value is not None}
        name_key, text_key = _keys(known, f"{path}, row {number}")
        return record[name_key], (record[text_key],)

    for number, record in enumerate(records, start=2):
        yield f"{path.name}/{number}", partial(row, number, record)


def _keys(row: Mapping[str, Any], where: str) -> tuple[str, str]:
    name = next((key for key in _NAME_KEYS if key in row), None)
    text = next((key for key in _TEXT_KEYS if key in row), None)
    if name is None or text is None:
        present = ", ".join(sorted(map(str, row))) or "none"
        raise FormatError(f"{where} has the keys {present}; expected file_name or image, and caption or text.")
    return name, text


def write_caption_folder(
    folder: str | Path, images: Iterable[CaptionedImage], listed: ListName | None = "captions.jsonl"
) -> int:
    """Write the captions of a folder's pictures and return the number of pictures.

    Args:
        folder: Created if needed; the pictures are put there by others.
        images: In file order.
        listed: Name of the list; ``None`` writes a ``.txt`` beside each picture.

    Raises:
        ValueError: If a caption has line ends and there is no list.
    """
    folder, rows = Path(folder), list(images)
    folder.mkdir(parents=True, exist_ok=True)
    if listed is None:
        for image in rows:
            if any(len(caption.splitlines()) != 1 for caption in image.captions):
                raise ValueError(f"a caption of {image.file_name} is empty or has line ends; write a list.")
            text = (folder / image.file_name).with_suffix(".txt")
            text.parent.mkdir(parents=True, exist_ok=True)
            text.write_bytes("".join(f"{caption}\n" for caption in image.captions).encode())
    elif listed.endswith(".csv"):
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(("file_name", "caption"))
        writer.writerows((image.file_name, caption) for image in rows for caption in image.captions)
        (folder / listed).write_bytes(out.getvalue().encode())
    else:
        lines = [dump_json({"file_name": image.file_name, "caption": image.captions}) for image in rows]
        (folder / listed).write_bytes("".join(f"{line}\n" for line in lines).encode())
    return len(rows)
