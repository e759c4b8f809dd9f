"""OBELICS: web pages as texts and pictures in reading order.

A row has ``images[]`` and ``texts[]`` of equal length with exactly one of the two set at each position; ``metadata``, a
JSON text: a list of that length with an object for each picture (``document_url``, ``unformatted_src``, ``src``,
``formatted_filename``, ``alt_text``, sizes) and null for each text; and ``general_metadata``, a JSON text: an object
with ``url`` and the place in the crawl (``warc_filename``, ``warc_record_offset``, ``warc_record_length``). Released as
parquet, with the address of each picture in ``images`` (https://huggingface.co/datasets/HuggingFaceM4/OBELICS). The
same rows are read from JSON lines, which need no further package.

Pictures lie in one folder: an entry that is a relative path is that file; an address (``https://...``) is the file
named by the SHA-256 of the address in hexadecimal, without ending.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from hashlib import sha256
from pathlib import Path
from typing import Any

from .errors import FormatError, as_object, dump_json, field, optional_field, parse_json, path_inside
from .parquet_rows import ColumnType, ParquetRows, write_parquet_rows
from .random_access import IndexedLines
from .shards import PathsLike, Sharded, shard_files, shard_names, write_lines

SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz", ".jsonl.zip")
_COLUMNS: dict[str, ColumnType] = {
    "images": "texts",
    "metadata": "text",
    "general_metadata": "text",
    "texts": "texts",
}


@dataclass(frozen=True)
class WebImage:
    """A picture of a page.

    Args:
        source: Address, or path below the picture folder.
        metadata: What the file says of it, as plain types.
    """

    source: str
    metadata: Mapping[str, Any] = dataclass_field(default_factory=dict)

    @property
    def file_name(self) -> str:
        """Name below the picture folder."""
        return sha256(self.source.encode()).hexdigest() if "://" in self.source else self.source

    @property
    def alt_text(self) -> str | None:
        """What the page shows in its place, if it says so."""
        text = self.metadata.get("alt_text")
        return text if isinstance(text, str) else None


@dataclass(frozen=True)
class ObelicsDocument:
    """A page.

    Args:
        items: Texts and pictures in reading order.
        metadata: Address and origin of the page, as plain types.
    """

    items: tuple[str | WebImage, ...]
    metadata: Mapping[str, Any] = dataclass_field(default_factory=dict)

    @property
    def images(self) -> tuple[WebImage, ...]:
        """Its pictures in order."""
        return tuple(item for item in self.items if isinstance(item, WebImage))

    @property
    def url(self) -> str | None:
        """Its address, if the file says it."""
        url = self.metadata.get("url")
        return url if isinstance(url, str) else None


class ObelicsShards(Sequence[ObelicsDocument]):
    """Pages of one or more files, each read and checked when asked for.

    Args:
        paths: Parquet or JSON-lines file, folder of files, name with ``{00000..01334}`` or ``*``, or a list of these.
        images: Folder of the pictures; needed for ``image_path`` only.

    Raises:
        FileNotFoundError: If there is no file.
        FormatError: If a file cannot be opened, or is parquet and pyarrow is not installed.
    """

    def __init__(self, paths: PathsLike, images: str | Path | None = None) -> None:
        self.images = images
        files = shard_files(paths, SUFFIXES)
        shards = [ParquetRows(f, list(_COLUMNS)) if f.suffix == ".parquet" else IndexedLines(f) for f in files]
        self._rows = Sharded(
            shards, shard_names(files, lambda file: file.name.removesuffix(".parquet").split(".jsonl")[0])
        )

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> ObelicsDocument:  # type: ignore[override]
        """Return a page.

        Raises:
            FormatError: If its row is malformed.
        """
        shard, place = self._rows.locate(index)
        where, row = shard.where(place), shard[place]
        return parse_obelics(as_object(parse_json(row, where), where) if isinstance(row, bytes) else row, where)

    def name(self, index: int) -> str:
        """Return ``file/row``, unique and stable."""
        return self._rows.name(index)

    def image_path(self, image: WebImage) -> Path:
        """Return where a picture lies.

        Raises:
            FormatError: If no folder was given, or the name leads out of it.
        """
        if self.images is None:
            raise FormatError("the picture folder of these OBELICS files is not known; set images.")
        return path_inside(self.images, image.file_name, "an OBELICS record")


def parse_obelics(row: Mapping[str, Any], where: str) -> ObelicsDocument:
    """Return the page of one row.

    Raises:
        FormatError: If a key is absent or of another type, the lists differ in length, or a position has not exactly
            one of picture and text.
    """
    images, texts = field(row, "images", list, where), field(row, "texts", list, where)
    if len(images) != len(texts):
        raise FormatError(f'{where}: "images" has {len(images)} places but "texts" {len(texts)}; correct the row.')
    listed = _parsed(row, "metadata", list, where)
    if listed is not None and len(listed) != len(images):
        raise FormatError(f'{where}: "metadata" has {len(listed)} places for {len(images)} items; correct the row.')
    items: list[str | WebImage] = []
    for place, (image, text) in enumerate(zip(images, texts, strict=True)):
        about = None if listed is None else listed[place]
        items.append(_item(image, text, about, f"{where}, place {place}"))
    return ObelicsDocument(tuple(items), _parsed(row, "general_metadata", dict, where) or {})


def _parsed(row: Mapping[str, Any], key: str, kind: type[Any], where: str) -> Any:
    text = optional_field(row, key, str, where)
    if text is None:
        return None
    value = parse_json(text, f'{where}, "{key}"')
    return optional_field({key: value}, key, kind, f"{where}, inside its JSON text")


def _item(image: object, text: object, about: object, where: str) -> str | WebImage:
    if (image is None) == (text is None):
        both = "neither picture nor text" if image is None else "a picture and a text"
        raise FormatError(f"{where} has {both}; expected exactly one. Correct the row.")
    if text is not None:
        if about is not None:
            raise FormatError(f'{where} is a text, but "metadata" tells of a picture there; correct the row.')
        return field({"texts": text}, "texts", str, where)
    metadata = {} if about is None else as_object(about, f"{where}, metadata")
    return WebImage(field({"images": image}, "images", str, where), metadata)


def write_obelics(path: str | Path, documents: Iterable[ObelicsDocument]) -> int:
    """Write a file and return its number of pages.

    Args:
        path: ``NAME.parquet`` (needs pyarrow), ``NAME.jsonl``, ``NAME.jsonl.gz`` or ``NAME.jsonl.zip``.
        documents: In file order.

    Raises:
        FormatError: If pyarrow is needed and not installed.
        ValueError: If the name ends otherwise.
    """
    path = Path(path)
    if not path.name.endswith(SUFFIXES):
        raise ValueError(f"{path} is not a name for OBELICS rows; expected one that ends in {' or '.join(SUFFIXES)}.")
    rows = (_row(document) for document in documents)
    if path.suffix == ".parquet":
        return write_parquet_rows(path, rows, _COLUMNS)
    return write_lines(path, (dump_json(row) for row in rows))


def _row(document: ObelicsDocument) -> dict[str, object]:
    about = [dict(item.metadata) if isinstance(item, WebImage) else None for item in document.items]
    return {
        "images": [item.source if isinstance(item, WebImage) else None for item in document.items],
        "texts": [item if isinstance(item, str) else None for item in document.items],
        "metadata": dump_json(about),
        "general_metadata": dump_json(dict(document.metadata)),
    }
