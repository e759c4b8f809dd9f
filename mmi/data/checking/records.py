"""Every record of a source read once, rules off, its pictures decoded: what is broken, and how each picture looks."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from mmi.data.checking.picture_hashes import Hashes, hash_picture
from mmi.data.document import Document, ImageItem, TextItem
from mmi.data.filters_metadata import MetadataFilters
from mmi.data.images import ImageError, open_rgb
from mmi.data.reading import problems_of
from mmi.data.shards import open_indexed
from mmi.data.skips import BROKEN, UNREADABLE, SkipError
from mmi.data.sources import SOURCES, Source, SourceConfig, fetched
from mmi.data.sources.config import DROP_RULES
from mmi_eval.formats.caption_folder import PICTURES, pictures_below
from mmi_eval.formats.errors import FormatError

Progress = Callable[[int, int], None]
_RULES_OFF: dict[str, Any] = {
    "min_similarity": -1.0,
    "max_images": 1_000_000,
    "drop_single_image_probability": 0.0,
    "min_caption_chars": 0,
    "merge_probability": 0.0,
    "streaming": False,
    "filters": MetadataFilters(),
    "opt_out": None,
}
"""Values of ``SourceConfig`` under which a source leaves out nothing that is whole."""
_CHUNK, _AHEAD = 64, 4


@dataclass(frozen=True)
class Fault:
    """Something wrong with a record.

    Args:
        id: Which record.
        reason: A short phrase that is the same for every such case.
        detail: What exactly.
    """

    id: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class PictureMark:
    """A fingerprint of one picture.

    Args:
        document: Which record shows it.
        uri: Its file.
        digest: SHA-256 of its bytes.
        look: pHash and dHash, None for a nearly uniform picture.
    """

    document: str
    uri: str
    digest: bytes
    look: tuple[int, int] | None


@dataclass
class SourceFindings:
    """What was found in a source.

    Args:
        name: Its name.
        format: Its layout.
        records: Records it holds.
        documents: Those that could be read.
        characters: Characters of text in all documents.
        faults: What is wrong.
        pictures: Every picture that could be decoded, in order.
        contents: SHA-256 of text and pictures of each document, by id.
    """

    name: str
    format: str
    records: int = 0
    documents: int = 0
    characters: int = 0
    faults: list[Fault] = field(default_factory=list)
    pictures: list[PictureMark] = field(default_factory=list)
    contents: dict[str, bytes] = field(default_factory=dict)

    def looks(self) -> tuple[Hashes, list[int]]:
        """Return uint64[N, 2] the hashes of the pictures that have them, and which pictures these are."""
        return looks_of(self.pictures)


def looks_of(pictures: Sequence[PictureMark]) -> tuple[Hashes, list[int]]:
    """Return uint64[N, 2] the hashes of the pictures that have them, and which pictures these are."""
    known = [(mark.look, i) for i, mark in enumerate(pictures) if mark.look is not None]
    return np.array([look for look, _ in known], dtype=np.uint64).reshape(-1, 2), [i for _, i in known]


def check_source(
    name: str, config: SourceConfig, *, workers: int = 1, pictures: bool = True, progress: Progress | None = None
) -> SourceFindings:
    """Read every record of a source in file order.

    Args:
        name: Its name.
        config: Where it lies; rules that leave records out are switched off.
        workers: Processes; one is this process itself.
        pictures: Decode and hash pictures; off reads records only.
        progress: Told records done and all records.

    Raises:
        FileNotFoundError: If its path is not there.
    """
    config = fetched(rules_off(config), name)
    found = SourceFindings(name, config.format)
    try:
        source = _opened(name, config)
    except FormatError as error:
        found.faults.append(Fault(name, "cannot be opened", str(error)))
        return found
    found.faults += [Fault(problem.document_id, problem.reason, problem.detail) for problem in problems_of(source)]
    found.records = len(source)
    spans = [range(start, min(start + _CHUNK, len(source))) for start in range(0, len(source), _CHUNK)]
    for span, part in zip(spans, _parts(name, config, source, spans, workers, pictures), strict=True):
        found.documents += part.documents
        found.characters += part.characters
        found.faults += part.faults
        found.pictures += part.pictures
        found.contents |= part.contents
        if progress is not None:
            progress(span.stop, len(source))
    return found


def check_pictures(folder: str | Path, *, workers: int = 1, progress: Progress | None = None) -> SourceFindings:
    """Decode and hash every picture below a folder.

    Raises:
        FileNotFoundError: If it is no folder, or holds no picture.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is no folder; give a folder of pictures.")
    files = [root / name for name in pictures_below(root)]
    if not files:
        raise FileNotFoundError(f"{root} holds no pictures ({', '.join(PICTURES)}); check the path.")
    found = SourceFindings(root.name, "pictures", len(files))
    chunks = [files[start : start + _CHUNK] for start in range(0, len(files), _CHUNK)]
    for done, marks in enumerate(_mapped(partial(_mark_files, root), chunks, workers), start=1):
        for mark in marks:
            (found.faults if isinstance(mark, Fault) else found.pictures).append(mark)  # type: ignore[arg-type]
        if progress is not None:
            progress(min(done * _CHUNK, len(files)), len(files))
    found.documents = len(found.pictures)
    return found


def rules_off(config: SourceConfig) -> SourceConfig:
    """Return a source's configuration under which only broken records are left out."""
    kept = [name for name in DROP_RULES if name not in config.rules.drops]
    return replace(config, **{name: value for name, value in _RULES_OFF.items() if name not in kept})


def _parts(
    name: str, config: SourceConfig, source: Source, spans: Sequence[range], workers: int, pictures: bool
) -> Iterator[SourceFindings]:
    if workers <= 1 or len(spans) <= 1:
        for span in spans:
            yield _read_span(source, config.format, pictures, span)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(spans)), context, _open_here, (name, config)) as pool:
        yield from _in_order(pool, partial(_read_span_here, pictures), spans, workers)


def _mapped(function: Callable[[Any], Any], chunks: Sequence[Any], workers: int) -> Iterator[Any]:
    if workers <= 1 or len(chunks) <= 1:
        yield from map(function, chunks)
        return
    with ProcessPoolExecutor(min(workers, len(chunks)), multiprocessing.get_context("spawn")) as pool:
        yield from _in_order(pool, function, chunks, workers)


def _in_order(
    pool: ProcessPoolExecutor, function: Callable[[Any], Any], chunks: Sequence[Any], workers: int
) -> Iterator[Any]:
    """Return results in order with a bounded number of them waiting, however long the list is."""
    running: deque[Future[Any]] = deque()
    for chunk in chunks:
        running.append(pool.submit(function, chunk))
        if len(running) >= workers * _AHEAD:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()


def _opened(name: str, config: SourceConfig) -> Source:
    """Open a source; of several files those that can be read, the others being its problems."""
    try:
        return SOURCES[config.format](name, config, 0)
    except FormatError:
        return open_indexed(name, config, 0, where=name)


_here: list[tuple[Source, str]] = []


def _open_here(name: str, config: SourceConfig) -> None:
    _here[:] = [(_opened(name, config), config.format)]


def _read_span_here(pictures: bool, span: range) -> SourceFindings:
    source, layout = _here[0]
    return _read_span(source, layout, pictures, span)


def _read_span(source: Source, layout: str, pictures: bool, span: range) -> SourceFindings:
    found = SourceFindings(source.name, layout)
    for index in span:
        try:
            document = source.document(index, 0)
        except SkipError as error:
            found.faults.append(Fault(error.document_id, error.reason, error.detail))
            continue
        except (FormatError, OSError) as error:
            found.faults.append(Fault(f"record {index}", BROKEN, str(error)))
            continue
        left_out = document.metadata.get("left_out")
        if isinstance(left_out, dict):
            found.faults += [Fault(document.id, reason) for reason, n in left_out.items() for _ in range(int(n))]
        _read_document(document, found, pictures)
    return found


def _read_document(document: Document, found: SourceFindings, pictures: bool) -> None:
    found.documents += 1
    content = sha256()
    for item in document.items:
        if isinstance(item, TextItem):
            found.characters += len(item.text)
            content.update(b"\0t" + item.text.encode("utf-8", "surrogatepass"))
        elif pictures:
            mark = _mark(item, document.id)
            if isinstance(mark, Fault):
                found.faults.append(mark)
                content.update(b"\0?" + item.uri.encode())
            else:
                found.pictures.append(mark)
                content.update(b"\0p" + mark.digest)
        else:
            content.update(b"\0u" + item.uri.encode())
    found.contents[document.id] = content.digest()


def _mark(item: ImageItem, document: str) -> PictureMark | Fault:
    try:
        image = open_rgb(item)
        with item.open() as stream:
            digest = sha256(stream.read()).digest()
    except (ImageError, OSError, FormatError) as error:
        return Fault(document, UNREADABLE, str(error))
    return PictureMark(document, item.uri, digest, hash_picture(image))


def _mark_files(root: Path, files: Sequence[Path]) -> list[PictureMark | Fault]:
    names = [path.relative_to(root).as_posix() for path in files]
    items = [ImageItem(partial(open, path, "rb"), path.as_posix()) for path in files]
    return [_mark(item, name) for item, name in zip(items, names, strict=True)]
