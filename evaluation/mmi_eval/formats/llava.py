"""Conversations about pictures in the LLaVA layout: JSON list or lines of ``id``, ``image``, ``conversations``.

``image`` is a file name, a list of them where a conversation shows several pictures (LLaVA-NeXT-Interleave), or absent
in a conversation of text alone. ``conversations`` are turns ``{"from": "human" | "gpt", "value": text}``; each
``<image>`` in a text stands for the next picture. Ids repeat: the official mixtures give all conversations about a
picture the same one. See https://github.com/haotian-liu/LLaVA (Finetune_Custom_Data.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .errors import FormatError, as_object, dump_json, field, load_json, parse_json, text_list, write_json
from .random_access import IndexedLines
from .shards import write_lines

IMAGE_MARK = "<image>"
LINE_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zip")
Speaker = Literal["human", "gpt"]
_SPEAKERS: dict[str, Speaker] = {"human": "human", "gpt": "gpt"}


@dataclass(frozen=True)
class Turn:
    """What one side says."""

    speaker: Speaker
    text: str


@dataclass(frozen=True)
class Conversation:
    """Turns and the pictures they show.

    Args:
        id: Not unique: often that of the picture.
        images: File names in the order of the ``<image>`` marks.
        turns: In order; in the official sets a person begins and the two take turns.
    """

    id: str
    images: tuple[str, ...]
    turns: tuple[Turn, ...]

    @property
    def n_marks(self) -> int:
        """Number of ``<image>`` marks; in an intact record that is the number of pictures."""
        return sum(turn.text.count(IMAGE_MARK) for turn in self.turns)


def read_conversations(path: str | Path) -> list[Conversation]:
    """Read conversations in file order.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If the file or a record is malformed.
    """
    conversations: list[Conversation] = []
    for value, where in _rows(path):
        row = as_object(value, where)
        name = str(field(row, "id", (str, int), where))
        turns = tuple(
            _read_turn(turn, f'{where} ("{name}"), turn {i}')
            for i, turn in enumerate(field(row, "conversations", list, where))
        )
        conversations.append(Conversation(name, _images(row.get("image"), where), turns))
    return conversations


def _rows(path: str | Path) -> Iterable[tuple[object, str]]:
    """Yield each entry and where it stands."""
    if str(path).endswith(LINE_SUFFIXES):
        lines = IndexedLines(path)
        for number in range(len(lines)):
            yield parse_json(lines[number], lines.where(number)), lines.where(number)
        return
    content = load_json(path, "a LLaVA conversation file")
    if not isinstance(content, list):
        raise FormatError(f"{path} is not a list of conversations; expected the LLaVA layout.")
    for number, value in enumerate(content):
        yield value, f"{path}, entry {number}"


def _images(value: object, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else text_list(value, f'{where}: "image"')


def _read_turn(value: object, where: str) -> Turn:
    row = as_object(value, where)
    name = field(row, "from", str, where)
    if name not in _SPEAKERS:
        raise FormatError(f'{where} is from "{name}"; expected {" or ".join(_SPEAKERS)}.')
    return Turn(_SPEAKERS[name], field(row, "value", str, where))


def write_conversations(path: str | Path, conversations: Iterable[Conversation]) -> int:
    """Write conversations and return how many; one picture is written as a name, several as a list."""
    rows = [_row(conversation) for conversation in conversations]
    if str(path).endswith(LINE_SUFFIXES):
        return write_lines(path, map(dump_json, rows))
    write_json(path, rows)
    return len(rows)


def _row(conversation: Conversation) -> dict[str, object]:
    turns = [{"from": turn.speaker, "value": turn.text} for turn in conversation.turns]
    row: dict[str, object] = {"id": conversation.id, "conversations": turns}
    return row | _image_key(conversation.images)


def _image_key(images: Sequence[str]) -> dict[str, object]:
    if not images:
        return {}
    return {"image": images[0] if len(images) == 1 else list(images)}
