"""Conversations in the LLaVA layout and their pictures to a checked copy: rows as they were, pictures decoded once.

Pictures are linked, not copied, where the file system can; a row whose pictures are missing or broken is left out.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mmi.config import ConfigError
from mmi.data.document import ImageItem
from mmi.data.images import ImageError, open_rgb
from mmi.data.preparing.jobs import LeftOut, ShardRecord, finished_file, sha256_of, write_synced
from mmi.data.skips import BROKEN, NO_FILE, UNREADABLE
from mmi_eval.formats.errors import FormatError, dump_json, load_json, path_inside
from mmi_eval.formats.llava import IMAGE_MARK, Conversation, read_conversations

RESULT = "conversations.json"


@dataclass(frozen=True)
class ConversationWork:
    """Check so many conversations at a time.

    Args:
        file: The JSON file.
        images: Folder the pictures' names start from.
        shard_size: Conversations that are checked, and noted as done, together.
    """

    file: str
    images: str
    shard_size: int = 10_000

    def __post_init__(self) -> None:
        if self.shard_size < 1:
            raise ConfigError(f"the shard size is {self.shard_size}; expected at least 1.")
        if not Path(self.images).is_dir():
            raise FileNotFoundError(f"{self.images} is no folder; give the folder of the pictures with --images.")
        if not Path(self.file).is_file():
            raise FileNotFoundError(f"{self.file} is no file; expected conversations in the LLaVA layout.")

    def __getstate__(self) -> dict[str, Any]:
        # Rows can be many; another process reads the file itself.
        return {name: getattr(self, name) for name in ("file", "images", "shard_size")}

    @cached_property
    def _rows(self) -> list[Any]:
        return list(load_json(self.file, "a LLaVA conversation file"))

    @cached_property
    def _conversations(self) -> list[Conversation]:
        return read_conversations(self.file)

    def identity(self) -> dict[str, Any]:
        """Return file and settings."""
        return {
            "recipe": "conversations",
            "file": sha256_of(Path(self.file)),
            "records": len(self._conversations),
            "shard_size": self.shard_size,
        }

    def names(self) -> Sequence[str]:
        """Return ``00000``, ``00001``, ..."""
        return [f"{i:05d}" for i in range(-(-len(self._conversations) // self.shard_size))]

    def folder(self, out: Path) -> Path:
        """Return ``out``."""
        return out

    def write(self, number: int, out: Path) -> ShardRecord:
        """Write ``parts/NAME.json`` and link its pictures."""
        name = self.names()[number]
        first = number * self.shard_size
        left_out: list[LeftOut] = []
        kept: list[Any] = []
        pictures: dict[str, str] = {}
        for index in range(first, min(first + self.shard_size, len(self._conversations))):
            record = self._conversations[index]
            fault = self._fault(record, pictures, out)
            if fault is None:
                kept.append(self._rows[index])
            else:
                left_out.append(LeftOut(f"{index}/{record.id}", *fault))
        part = f"parts/{name}.json"
        write_synced(out / part, dump_json(kept).encode() + b"\n")
        files = {part: sha256_of(out / part), **{f"images/{image}": digest for image, digest in pictures.items()}}
        return ShardRecord(name, files, len(kept), len(pictures), tuple(left_out))

    def finish(self, out: Path) -> None:
        """Join the parts to one file, which is what configs name."""
        rows = [row for name in self.names() for row in load_json(out / "parts" / f"{name}.json", "checked rows")]
        write_synced(out / RESULT, dump_json(rows).encode() + b"\n")

    def _fault(self, record: Conversation, pictures: dict[str, str], out: Path) -> tuple[str, str] | None:
        if record.n_marks != len(record.images):
            return "marks and pictures differ", f"{record.n_marks} {IMAGE_MARK} marks, {len(record.images)} pictures"
        if not any(turn.speaker == "gpt" and turn.text.strip() for turn in record.turns):
            return "nothing is answered", "no turn from gpt with text"
        for image in record.images:
            if image in pictures:
                continue
            try:
                path = path_inside(self.images, image, "a conversation")
                target = path_inside(out / "images", image, "a conversation")
                open_rgb(ImageItem(lambda path=path: path.open("rb"), image))
            except FormatError as error:
                return BROKEN, str(error)
            except ImageError as error:
                return (NO_FILE if not path.is_file() else UNREADABLE), str(error)
            _link(path, target)
            pictures[image] = sha256_of(target)
        return None


def _link(path: Path, target: Path) -> None:
    """Give a file a second name; copy it where another disk or system allows none."""
    if target.is_file() and os.path.samefile(path, target):
        return
    with finished_file(target) as draft:
        draft.unlink(missing_ok=True)
        try:
            os.link(path, draft)
        except OSError:
            shutil.copyfile(path, draft)
