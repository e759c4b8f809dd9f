"""A plain folder of pictures with captions: a text beside each picture, or one list for all.

A list is ``captions.jsonl``, ``captions.csv``, ``metadata.jsonl`` or ``metadata.csv`` in the folder: the picture under
``file_name`` or ``image``, its caption under ``caption`` or ``text`` (JSON lines may have a list of them); several rows
of one picture are joined. Without a list the captions of ``a/x.jpg`` are the lines of ``a/x.txt``. Folders below are
looked into. The lists of the ``imagefolder`` layout (https://huggingface.co/docs/datasets/image_dataset) are read too.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from .coco_captions import CaptionedImage, number_in_name
from .errors import FormatError, as_object, dump_json, existing_file, field, parse_json, text_list
from .random_access import IndexedLines

ListName = Literal["captions.jsonl", "captions.csv", "metadata.jsonl", "metadata.csv"]
LISTS: tuple[ListName, ...] = ("captions.jsonl", "captions.csv", "metadata.jsonl", "metadata.csv")
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
_NAME_KEYS, _TEXT_KEYS = ("file_name", "image"), ("caption", "text", "captions")


def read_caption_folder(folder: str | Path) -> list[CaptionedImage]:
    """Read the pictures of a folder with their captions, by name or in the order of the list.

    A picture without a caption is there with none.

    Raises:
        FileNotFoundError: If there is no such folder, or neither a list nor a picture in it.
        FormatError: If there are two lists, or one is malformed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder; expected pictures with captions. Check the path.")
    lists = [folder / name for name in LISTS if (folder / name).is_file()]
    if len(lists) > 1:
        raise FormatError(f"{folder} holds {lists[0].name} and {lists[1].name}; keep one list of captions.")
    if lists:
        return _joined(_csv_rows(lists[0]) if lists[0].suffix == ".csv" else _json_rows(lists[0]))
    pictures = sorted(f for f in folder.rglob("*") if f.suffix.lower() in PICTURES and f.is_file())
    if not pictures:
        raise FileNotFoundError(f"{folder} holds no picture; expected {', '.join(PICTURES)} with a .txt beside each.")
    return _joined((p.relative_to(folder).as_posix(), _beside(p)) for p in pictures)


def _beside(picture: Path) -> tuple[str, ...]:
    text = picture.with_suffix(".txt")
    if not text.is_file():
        return ()
    try:
        lines = text.read_bytes().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise FormatError(f"{text} is not UTF-8 (byte {error.start}); convert the file to UTF-8.") from None
    return tuple(line.strip() for line in lines if line.strip())


def _joined(rows: Iterable[tuple[str, tuple[str, ...]]]) -> list[CaptionedImage]:
    captions: dict[str, tuple[str, ...]] = {}
    for name, texts in rows:
        captions[name] = captions.get(name, ()) + texts
    return [CaptionedImage(number_in_name(name), name, texts) for name, texts in captions.items()]


def _json_rows(path: Path) -> Iterable[tuple[str, tuple[str, ...]]]:
    lines = IndexedLines(path)
    for number in range(len(lines)):
        where = lines.where(number)
        row = as_object(parse_json(lines[number], where), where)
        name_key, text_key = _keys(row, where)
        value = field(row, text_key, (str, list), where)
        texts = (value,) if isinstance(value, str) else text_list(value, f'{where}: "{text_key}"')
        yield field(row, name_key, str, where), texts


def _csv_rows(path: Path) -> Iterable[tuple[str, tuple[str, ...]]]:
    data = existing_file(path, "a list of captions").read_bytes()
    try:
        rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error):
        raise FormatError(f"{path} is no CSV file in UTF-8; check the path.") from None
    for number, row in enumerate(rows, start=2):
        where = f"{path}, row {number}"
        name_key, text_key = _keys({key: value for key, value in row.items() if value is not None}, where)
        yield row[name_key], (row[text_key],)


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
