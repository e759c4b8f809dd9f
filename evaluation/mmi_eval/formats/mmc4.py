"""MMC4: web documents as sentences and pictures, each picture matched to one sentence.

Released as ``<shard>.jsonl.zip`` with one document per line: ``text_list``, ``image_info[]`` of ``image_name``,
``matched_text_index``, ``matched_sim``, ``raw_url``, ``face_detections``; ``similarity_matrix`` (images x sentences),
``url``, ``could_have_url_duplicate`` (https://github.com/allenai/mmc4). Pictures lie in one folder by ``image_name``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import FormatError, as_object, dump_json, field, optional_field, parse_json, path_inside, text_list
from .shards import PathsLike, ShardedLines, shard_files, write_lines

SUFFIXES = (".jsonl", ".jsonl.zip")


@dataclass(frozen=True)
class MMC4Image:
    """A picture of a document.

    Args:
        image_name: File name below the picture folder.
        matched_text_index: The sentence it belongs to.
        matched_sim: CLIP similarity to that sentence.
        raw_url: Where it was found.
    """

    image_name: str
    matched_text_index: int
    matched_sim: float
    raw_url: str | None = None


@dataclass(frozen=True)
class MMC4Document:
    """Sentences in order and the pictures matched to them.

    Args:
        sentences: ``text_list``.
        images: ``image_info``.
        similarity_matrix: One row per picture, one column per sentence; ``None`` where the file has none.
        url: Page address.
        could_have_url_duplicate: Flag of the released files.
    """

    sentences: tuple[str, ...]
    images: tuple[MMC4Image, ...]
    similarity_matrix: tuple[tuple[float, ...], ...] | None = None
    url: str | None = None
    could_have_url_duplicate: int = 0


class MMC4Shards(Sequence[MMC4Document]):
    """Documents of one or more shards, each read and checked when asked for.

    Args:
        paths: Shard, folder of shards, name with ``{000..123}`` or ``*``, or a list of these.
        images: Folder of the pictures; needed for ``image_path`` only.

    Raises:
        FileNotFoundError: If there is no shard.
        FormatError: If a shard cannot be unpacked.
    """

    def __init__(self, paths: PathsLike, images: str | Path | None = None) -> None:
        self.images = images
        self._lines = ShardedLines(shard_files(paths, SUFFIXES), lambda file: file.name.split(".jsonl")[0])

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> MMC4Document:  # type: ignore[override]
        """Return a document.

        Raises:
            FormatError: If its line is malformed.
        """
        shard, line = self._lines.locate(index)
        return parse_mmc4(shard[line], shard.where(line))

    def name(self, index: int) -> str:
        """Return ``shard/row``, unique and stable."""
        return self._lines.name(index)

    def image_path(self, image: MMC4Image) -> Path:
        """Return where a picture lies.

        Raises:
            FormatError: If no folder was given, or the name leads out of it.
        """
        if self.images is None:
            raise FormatError("the picture folder of these MMC4 shards is not known; set images.")
        return path_inside(self.images, image.image_name, "an MMC4 record")


def parse_mmc4(line: bytes | str, where: str) -> MMC4Document:
    """Return the document of one line.

    Raises:
        FormatError: If a key is absent, of another type, or an index points to no sentence.
    """
    record = as_object(parse_json(line, where), where)
    sentences = text_list(field(record, "text_list", list, where), f'{where}: "text_list"')
    images = []
    for number, value in enumerate(field(record, "image_info", list, where)):
        there = f'{where}, "image_info" {number}'
        info = as_object(value, there)
        matched = field(info, "matched_text_index", int, there)
        if not 0 <= matched < len(sentences):
            raise FormatError(
                f'{there}: "matched_text_index" is {matched} but "text_list" has {len(sentences)} sentences; '
                "correct or remove the record."
            )
        similarity = float(field(info, "matched_sim", (int, float), there))
        images.append(
            MMC4Image(
                field(info, "image_name", str, there), matched, similarity, optional_field(info, "raw_url", str, there)
            )
        )
    matrix = optional_field(record, "similarity_matrix", list, where)
    return MMC4Document(
        sentences,
        tuple(images),
        None if matrix is None else _matrix(matrix, len(images), len(sentences), where),
        optional_field(record, "url", str, where),
        int(optional_field(record, "could_have_url_duplicate", (int, bool), where) or 0),
    )


def _matrix(value: list[object], n_images: int, n_sentences: int, where: str) -> tuple[tuple[float, ...], ...]:
    rows: list[tuple[float, ...]] = []
    for row in value:
        numbers = isinstance(row, list) and all(isinstance(v, int | float) for v in row)
        if not isinstance(row, list) or not numbers or len(row) != n_sentences:
            raise FormatError(f'{where}: "similarity_matrix" row {len(rows)} is not a list of {n_sentences} numbers.')
        rows.append(tuple(map(float, row)))
    if len(rows) != n_images:
        raise FormatError(
            f'{where}: "similarity_matrix" has {len(rows)} rows for {n_images} images; correct the record.'
        )
    return tuple(rows)


def write_mmc4(path: str | Path, documents: Iterable[MMC4Document]) -> int:
    """Write a shard and return its number of documents.

    Args:
        path: ``NAME.jsonl.zip`` or ``NAME.jsonl``.
        documents: In file order.
    """
    path = Path(path)
    if not path.name.endswith(SUFFIXES):
        raise ValueError(f"{path} is not a shard name; expected one that ends in .jsonl or .jsonl.zip.")
    return write_lines(path, (dump_json(_record(document)) for document in documents))


def _record(document: MMC4Document) -> dict[str, object]:
    images = [
        {
            "face_detections": None,
            "image_name": image.image_name,
            "matched_sim": image.matched_sim,
            "matched_text_index": image.matched_text_index,
            "raw_url": image.raw_url,
        }
        for image in document.images
    ]
    return {
        "could_have_url_duplicate": document.could_have_url_duplicate,
        "image_info": images,
        "similarity_matrix": document.similarity_matrix,
        "text_list": document.sentences,
        "url": document.url,
    }
