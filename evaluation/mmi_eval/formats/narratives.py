"""Localized Narratives: pictures described aloud, at length, while the mouse points.

``coco_val_captions.jsonl``: a line ``{image_id, caption}`` for each narrative. ``coco_val_localized_narratives.jsonl``
adds ``dataset_id``, ``annotator_id``, ``timed_caption[]`` of ``utterance``, ``start_time``, ``end_time``; ``traces``,
strokes of points ``x``, ``y``, ``t``; and ``voice_recording`` (https://google.github.io/localized-narratives, "File
formats"). ``x`` and ``y`` are shares of width and height (a little outside [0, 1] at times), times are seconds. Ids of
COCO pictures are numbers written as text, and a picture may have several narratives.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import FormatError, as_object, dump_json, field, optional_field, parse_json
from .shards import PathsLike, ShardedLines, shard_files, write_lines

SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zip")


@dataclass(frozen=True)
class TimedUtterance:
    """A few words and when they are said, in seconds."""

    utterance: str
    start_time: float
    end_time: float


@dataclass(frozen=True)
class TracePoint:
    """Where the mouse is at a time, ``(x, y)`` in shares of width and height."""

    x: float
    y: float
    t: float


@dataclass(frozen=True)
class Narrative:
    """What somebody said about a picture; all but picture and text is ``None`` in the files of captions.

    Args:
        image_id: Id in its data set; for COCO the number, often as text.
        caption: The transcript.
        dataset_id: ``mscoco_val2017`` and the like.
        annotator_id: Who.
        timed_caption: The transcript in pieces.
        traces: Strokes of the mouse.
        voice_recording: Path of the sound.
    """

    image_id: int | str
    caption: str
    dataset_id: str | None = None
    annotator_id: int | None = None
    timed_caption: tuple[TimedUtterance, ...] | None = None
    traces: tuple[tuple[TracePoint, ...], ...] | None = None
    voice_recording: str | None = None

    def coco_name(self, ending: str = ".jpg") -> str:
        """Return the name of a COCO 2017 picture.

        Raises:
            FormatError: If the id is no number.

        Example:
            >>> Narrative("137576", "In this image ...").coco_name()
            '000000137576.jpg'
        """
        text = str(self.image_id)
        if not (text.isascii() and text.isdigit()):
            raise FormatError(f'a narrative has the image_id "{text}"; expected a COCO number. Use a COCO file.')
        return f"{int(text):012d}{ending}"


class Narratives(Sequence[Narrative]):
    """Narratives of one or more files, each read and checked when asked for.

    Args:
        paths: File, folder of files, name with ``{00000..00003}`` or ``*``, or a list of these.

    Raises:
        FileNotFoundError: If there is no file.
        FormatError: If a file cannot be unpacked.
    """

    def __init__(self, paths: PathsLike) -> None:
        self._lines = ShardedLines(shard_files(paths, SUFFIXES), lambda file: file.name.split(".jsonl")[0])

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> Narrative:  # type: ignore[override]
        """Return a narrative.

        Raises:
            FormatError: If its line is malformed.
        """
        shard, line = self._lines.locate(index)
        return parse_narrative(shard[line], shard.where(line))

    def name(self, index: int) -> str:
        """Return ``file/row``, unique and stable."""
        return self._lines.name(index)


def parse_narrative(line: bytes | str, where: str) -> Narrative:
    """Return the narrative of one line.

    Raises:
        FormatError: If a key is absent or of another type, or a time ends before it starts.
    """
    row = as_object(parse_json(line, where), where)
    timed = optional_field(row, "timed_caption", list, where)
    traces = optional_field(row, "traces", list, where)
    return Narrative(
        field(row, "image_id", (int, str), where),
        field(row, "caption", str, where),
        optional_field(row, "dataset_id", str, where),
        optional_field(row, "annotator_id", int, where),
        None if timed is None else tuple(_utterance(v, f"{where}, timed_caption {i}") for i, v in enumerate(timed)),
        None if traces is None else tuple(_stroke(value, f"{where}, traces {i}") for i, value in enumerate(traces)),
        optional_field(row, "voice_recording", str, where),
    )


def _utterance(value: object, where: str) -> TimedUtterance:
    row = as_object(value, where)
    start, end = _number(row, "start_time", where), _number(row, "end_time", where)
    if end < start:
        raise FormatError(f"{where} ends at {end} s before it starts at {start} s; correct or remove the record.")
    return TimedUtterance(field(row, "utterance", str, where), start, end)


def _stroke(value: object, where: str) -> tuple[TracePoint, ...]:
    if not isinstance(value, list):
        raise FormatError(f"{where} is {value!r:.40}; expected a list of points.")
    rows = [as_object(point, f"{where}, point {i}") for i, point in enumerate(value)]
    return tuple(TracePoint(*(_number(row, key, where) for key in ("x", "y", "t"))) for row in rows)


def _number(row: Mapping[str, Any], key: str, where: str) -> float:
    return float(field(row, key, (int, float), where))


def write_narratives(path: str | Path, narratives: Iterable[Narrative]) -> int:
    """Write a file and return its number of narratives; what is ``None`` is left out.

    Args:
        path: ``NAME.jsonl``, ``NAME.jsonl.gz`` or ``NAME.jsonl.zip``.
        narratives: In file order.
    """
    return write_lines(path, (dump_json(_record(narrative)) for narrative in narratives))


def _record(narrative: Narrative) -> dict[str, object]:
    row: dict[str, object] = {"image_id": narrative.image_id, "caption": narrative.caption}
    for key in ("dataset_id", "annotator_id", "voice_recording"):
        if (value := getattr(narrative, key)) is not None:
            row[key] = value
    if narrative.timed_caption is not None:
        row["timed_caption"] = [
            {"utterance": u.utterance, "start_time": u.start_time, "end_time": u.end_time}
            for u in narrative.timed_caption
        ]
    if narrative.traces is not None:
        row["traces"] = [[{"x": p.x, "y": p.y, "t": p.t} for p in stroke] for stroke in narrative.traces]
    return row
