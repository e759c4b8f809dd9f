"""Image-text pairs as lines: one ``{"image": path, "caption": text or list of texts}`` per line.

Files of the official system are JSON; some circulate with Python's quotes (``{'image': ...}``), which are read as
literals, never executed (SPEC 3.1).
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path

from .errors import FormatError, as_object, dump_json, field, parse_json, path_inside, text_list
from .shards import PathsLike, ShardedLines, shard_files

SUFFIXES = (".jsonl", ".jsonl.zip", ".txt")


@dataclass(frozen=True)
class LinePair:
    """A picture's path and its captions.

    Args:
        image: Path below the picture folder.
        captions: At least one text.
        metadata: What else the line says, such as scores, as plain types.
    """

    image: str
    captions: tuple[str, ...]
    metadata: Mapping[str, object] = dataclass_field(default_factory=dict)

    @property
    def text(self) -> str:
        """The captions joined by a space, as the official loader does."""
        return " ".join(self.captions)


class PairLines(Sequence[LinePair]):
    """Pairs of one or more line files, each read and checked when asked for.

    Args:
        paths: File, folder of files, name with ``{000..123}`` or ``*``, or a list of these.
        images: Folder the picture paths start from; the first file's own folder unless given.

    Raises:
        FileNotFoundError: If there is no file.
    """

    def __init__(self, paths: PathsLike, images: str | Path | None = None) -> None:
        files = shard_files(paths, SUFFIXES)
        self.images = Path(images) if images is not None else files[0].parent if files else Path()
        self._lines = ShardedLines(files, lambda file: file.name.split(".")[0])

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> LinePair:  # type: ignore[override]
        """Return a pair.

        Raises:
            FormatError: If its line is malformed.
        """
        shard, line = self._lines.locate(index)
        return parse_pair(shard[line], shard.where(line))

    def name(self, index: int) -> str:
        """Return ``file/row``, unique and stable."""
        return self._lines.name(index)

    def image_path(self, pair: LinePair) -> Path:
        """Return where a picture lies.

        Raises:
            FormatError: If the path leads out of the picture folder.
        """
        return path_inside(self.images, pair.image, "a pair")


def parse_pair(line: bytes | str, where: str) -> LinePair:
    """Return the pair of one line.

    Raises:
        FormatError: If it is neither JSON nor a Python literal, or a key is absent or of another type.
    """
    record = as_object(_parse(line, where), where)
    image = field(record, "image", str, where)
    caption = field(record, "caption", (str, list), where)
    captions = (caption,) if isinstance(caption, str) else text_list(caption, f'{where}: "caption"')
    if not captions:
        raise FormatError(f'{where}: "caption" is an empty list; expected at least one text.')
    metadata = {key: value for key, value in record.items() if key not in ("image", "caption")}
    return LinePair(image, captions, metadata)


def _parse(line: bytes | str, where: str) -> object:
    try:
        return parse_json(line, where)
    except FormatError as error:
        text = line.decode("utf-8", "replace") if isinstance(line, bytes) else line
        if not text.lstrip().startswith("{'") or "not UTF-8" in str(error):
            raise
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise FormatError(f"{where} is neither JSON nor a Python literal ({error}); rewrite or remove it.") from None


def write_pair_lines(path: str | Path, pairs: Iterable[LinePair]) -> int:
    """Write pairs as JSON lines and return how many; a single caption becomes a plain text."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        dump_json({**p.metadata, "image": p.image, "caption": p.captions[0] if len(p.captions) == 1 else p.captions})
        for p in pairs
    ]
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    return len(lines)
