"""Conversations in the LLaVA layout: pictures and questions are given, answers are learned (paper Table 12, SPEC 3.6).

Every answer ends in ``</s>``, learned with it, as the official fine-tuning sets end theirs: a model that is asked one
question stops behind its answer. A question's pictures stand where their marks are; those at its start stand before its
wording.
"""

from __future__ import annotations

from collections.abc import Iterator

from mmi.data.document import Document, ImageItem, TextItem
from mmi.data.skips import SkipError, SkipRecord
from mmi.data.sources.config import SourceConfig
from mmi.data.sources.format_rules import CONVERSATION_TEMPLATE
from mmi.data.sources.pictures import PictureStore, found, picture_stores
from mmi.data.sources.records import DocumentNames, RecordSource, as_paths
from mmi.data.sources.wording import Wording
from mmi_eval.formats.llava import IMAGE_MARK, Conversation, Turn, read_conversations


class ConversationSource(RecordSource[tuple[PictureStore, Conversation]]):
    """One document per conversation.

    Args:
        name: Name in the mixture.
        config: Paths and rules; each path is one conversation file, ``turn_template`` words a question and its answer.
        seed: Unused: a conversation is the same in every epoch.
    """

    def __init__(self, name: str, config: SourceConfig, seed: int) -> None:
        names, stores = DocumentNames(config.paths), picture_stores(config.images, as_paths(config.paths))
        # The official mixtures repeat ids.
        records = [
            (names.name(file, record.id), (store, record))
            for file, (path, store) in enumerate(zip(config.paths, stores, strict=True))
            for record in read_conversations(path)
        ]
        super().__init__(name, config, seed, records)
        wording = config.wording or Wording(CONVERSATION_TEMPLATE)
        self._asked, self._after_answer = wording.asked, wording.after_answer

        # They are used as they are and told of once; the official loader drops them silently.
        alone = sum(not record.images for _, (_, record) in records)
        told = SkipRecord(name, "all", "conversation without a picture, used as text", whole=False, count=alone)
        self.problems = [told] if alone else []

    def _document(self, document_id: str, record: tuple[PictureStore, Conversation], epoch: int) -> Document:
        """Return a conversation.

        Raises:
            SkipError: If a picture has no file, marks and pictures differ in number, an answer shows a picture, or
                nothing is answered.
        """
        store, said = record
        if said.n_marks != len(said.images):
            detail = f"{said.n_marks} {IMAGE_MARK} marks but {len(said.images)} pictures"
            raise SkipError(document_id, "marks and pictures differ", detail)
        if any(turn.speaker == "gpt" and IMAGE_MARK in turn.text for turn in said.turns):
            raise SkipError(document_id, "picture in an answer", f"a turn from gpt holds {IMAGE_MARK}")
        self._refuse_opted_out(document_id, said.id, *said.images)
        learned = self._config.images_learned
        images = iter([found(store, document_id, image).item(loss=learned) for image in said.images])
        items = [item for turn in said.turns for item in self._turn(turn, images)]
        if not any(isinstance(item, TextItem) and item.loss for item in items):
            raise SkipError(document_id, "nothing is answered", "no turn from gpt with text")
        return Document(document_id, self.name, tuple(items))

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
