"""Conversations in the LLaVA layout: pictures and questions are given, answers are learned (paper Table 12, SPEC 3.6).

Every answer ends in ``</s>``, learned with it, as the official fine-tuning sets end theirs: a model that is asked one
question stops behind its answer. A question's pictures stand where their marks are; those at its start stand before its
wording.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from mmi.data.document import Document, ImageItem, TextItem
from mmi.data.pack import RowCut
from mmi.data.skips import NO_FILE, SkipError
from mmi.data.sources.coco_captions import PictureFolders
from mmi.data.sources.config import SourceConfig
from mmi_eval.formats.llava import IMAGE_MARK, Conversation, Turn, read_conversations


class ConversationSource:
    """One document per conversation.

    Args:
        name: Name in the mixture.
        config: Paths and rules; each path is one conversation file, ``turn_template`` words a question and its answer.
        seed: Unused: a conversation is the same in every epoch.
    """

    row_cut: RowCut = "sample"
    pairs = False

    def __init__(self, name: str, config: SourceConfig, seed: int) -> None:
        self.name = name
        self._config = config
        self._asked, _, self._after_answer = config.turn_template.partition("{answer}")
        self._records: list[tuple[str, PictureFolders, Conversation]] = []
        seen: Counter[str] = Counter()
        for path in config.paths:
            folders = PictureFolders(Path(path), config.image_folder, Path(path).stem)
            for record in read_conversations(path):
                document = record.id if len(config.paths) == 1 else f"{folders.name}/{record.id}"
                seen[document] += 1
                # The official mixtures repeat ids.
                document += f"#{seen[document]}" if seen[document] > 1 else ""
                self._records.append((document, folders, record))

    def __len__(self) -> int:
        return min(len(self._records), self._config.limit or len(self._records))

    def __getitem__(self, index: int) -> Document:
        return self.document(index, epoch=0)

    def document(self, index: int, epoch: int) -> Document:
        """Return a conversation.

        Raises:
            SkipError: If a picture has no file, marks and pictures differ in number, an answer shows a picture, or
                nothing is answered.
        """
        name, folders, record = self._records[index]
        if record.n_marks != len(record.images):
            detail = f"{record.n_marks} {IMAGE_MARK} marks but {len(record.images)} pictures"
            raise SkipError(name, "marks and pictures differ", detail)
        if any(turn.speaker == "gpt" and IMAGE_MARK in turn.text for turn in record.turns):
            raise SkipError(name, "picture in an answer", f"a turn from gpt holds {IMAGE_MARK}")
        images = self._images(name, folders, record)
        items = [item for turn in record.turns for item in self._turn(turn, images)]
        if not any(isinstance(item, TextItem) and item.loss for item in items):
            raise SkipError(name, "nothing is answered", "no turn from gpt with text")
        return Document(name, self.name, tuple(items))

    def _images(self, name: str, folders: PictureFolders, record: Conversation) -> Iterator[ImageItem]:
        items = []
        for image in record.images:
            path = folders.find(image)
            if path is None:
                raise SkipError(name, NO_FILE, f"{image} is not in {folders.told}")
            items.append(ImageItem(partial(open, path, "rb"), str(path), loss=self._config.images_learned))
        return iter(items)

    def _turn(self, turn: Turn, images: Iterator[ImageItem]) -> Iterator[ImageItem | TextItem]:
        text = turn.text.strip()
        if turn.speaker == "gpt":
            if text:
                yield TextItem(text + self._after_answer, closes=True)
            return
        while text.startswith(IMAGE_MARK):
            yield next(images)
            text = text.removeprefix(IMAGE_MARK).strip()
        if not text:
            return
        for number, part in enumerate(self._asked.replace("{question}", text).split(IMAGE_MARK)):
            if number:
                yield next(images)
            if part.strip():
                yield TextItem(part.strip(), loss=False)
