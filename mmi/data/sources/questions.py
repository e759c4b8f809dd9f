"""Questions about pictures: the picture and the question are given, the answer is learned (paper, Appendix B.2).

VQA v2 and OK-VQA (``vqa``: ``path`` is the questions file, ``annotations`` the answers), TextVQA, VizWiz, GQA, ChartQA,
DocVQA, InfographicVQA, EST-VQA, ST-VQA, OCR-VQA and DVQA, each in the layout it is released in. The answer is the most
common one, the first of several.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mmi.config import ConfigError
from mmi.data.document import Document
from mmi.data.skips import SkipError
from mmi.data.sources.config import SourceConfig
from mmi.data.sources.format_rules import QUESTION_TEMPLATE, Format
from mmi.data.sources.pictures import PictureStore, found, picture_stores
from mmi.data.sources.records import DocumentNames, RecordSource, as_paths
from mmi.data.sources.wording import Wording
from mmi_eval.formats.chartqa import read_chartqa
from mmi_eval.formats.docvqa import read_docvqa, read_infovqa
from mmi_eval.formats.dvqa import read_dvqa
from mmi_eval.formats.estvqa import read_estvqa
from mmi_eval.formats.gqa import read_gqa
from mmi_eval.formats.ocrvqa import read_ocrvqa
from mmi_eval.formats.picture_questions import PictureQuestion, most_common
from mmi_eval.formats.stvqa import read_stvqa
from mmi_eval.formats.textvqa import read_textvqa
from mmi_eval.formats.vizwiz import read_vizwiz
from mmi_eval.formats.vqa import VQAItem, read_vqa

_COCO_SPLIT = re.compile(r"(train|val|test)\d{4}")


@dataclass(frozen=True)
class Asked:
    """A question that may be used.

    Args:
        question_id: Unique in its file.
        images: Names the picture may have; the first is what the layout says.
        question: The text.
        answer: What is learned; ``None`` where the file has none.
    """

    question_id: str
    images: tuple[str, ...]
    question: str
    answer: str | None


class QuestionSource(RecordSource[tuple[PictureStore, Asked]]):
    """One document per question.

    Args:
        name: Name in the mixture.
        config: Paths and rules; each path is one file.
        seed: Unused: a question is the same in every epoch.
    """

    def __init__(self, name: str, config: SourceConfig, seed: int) -> None:
        if config.annotations is not None and len(config.paths) > 1:
            raise ConfigError(
                f"source {name} has {len(config.paths)} question files for one annotations file; give each pair of "
                "files a source of its own."
            )
        names, stores = DocumentNames(config.paths), picture_stores(config.images, as_paths(config.paths))
        records = [
            (names.name(file, asked.question_id), (store, asked))
            for file, (path, store) in enumerate(zip(config.paths, stores, strict=True))
            for asked in READERS[config.format](path, config)
        ]
        super().__init__(name, config, seed, records)
        self._wording = config.wording or Wording(QUESTION_TEMPLATE)

    def _document(self, document_id: str, record: tuple[PictureStore, Asked], epoch: int) -> Document:
        """Return a question with its picture and answer.

        Raises:
            SkipError: If the picture has no file, or the question or the answer is empty.
        """
        store, asked = record
        self._refuse_opted_out(document_id, *asked.images)
        question, answer = asked.question.strip(), (asked.answer or "").strip()
        if not question or not answer:
            raise SkipError(document_id, f"empty {'answer' if question else 'question'}", asked.images[0])
        image = found(store, document_id, *asked.images).item(loss=self._config.images_learned)
        return Document(document_id, self.name, tuple(self._wording.items(image, question, answer)))


def _plain(read: Callable[[str], list[PictureQuestion]]) -> Callable[[str, SourceConfig], list[Asked]]:
    return lambda path, config: [_asked(question) for question in read(path)]


def _asked(question: PictureQuestion) -> Asked:
    return Asked(question.question_id, (question.image,), question.question, question.answer)


def _vqa(path: str, config: SourceConfig) -> list[Asked]:
    if config.annotations is None:
        raise ConfigError(f"source {path} has no annotations; set it to the file of their answers.")
    found_split = _COCO_SPLIT.search(config.split or Path(path).name)
    items = read_vqa(path, config.annotations)
    return [_vqa_item(item, found_split[0] if found_split else None, path) for item in items]


def _vqa_item(item: VQAItem, split: str | None, path: str) -> Asked:
    """Return a question; a COCO picture is named after its number as in COCO 2014, or else as in COCO 2017."""
    annotation = item.annotation
    answer = None
    if annotation is not None:
        answer = annotation.multiple_choice_answer or most_common(a.answer for a in annotation.answers)
    if item.image is not None:
        images: tuple[str, ...] = (item.image,)
    elif isinstance(item.image_id, str):
        images = (f"{item.image_id}.jpg", f"{item.image_id}.png")
    elif split is None:
        raise ConfigError(
            f"source {path} names COCO pictures by number, and neither its name nor split tells the split; set split, "
            "such as train2014."
        )
    else:
        images = (f"{split}/COCO_{split}_{item.image_id:012d}.jpg", f"{split}/{item.image_id:012d}.jpg")
    return Asked(str(item.question_id), images, item.question, answer)


def _textvqa(path: str, config: SourceConfig) -> list[Asked]:
    return [
        Asked(str(i.question_id), (f"{i.image_id}.jpg", f"{i.image_id}.png"), i.question, most_common(i.answers))
        for i in read_textvqa(path)
    ]


def _vizwiz(path: str, config: SourceConfig) -> list[Asked]:
    return [Asked(i.image, (i.image,), i.question, most_common(a.answer for a in i.answers)) for i in read_vizwiz(path)]


def _gqa(path: str, config: SourceConfig) -> list[Asked]:
    return [
        Asked(i.question_id, (f"{i.image_id}.jpg", f"{i.image_id}.png"), i.question, i.answer) for i in read_gqa(path)
    ]


def _ocrvqa(path: str, config: SourceConfig) -> list[Asked]:
    return [_asked(question) for question in read_ocrvqa(path, config.split or "train")]


READERS: Mapping[Format, Callable[[str, SourceConfig], list[Asked]]] = {
    "vqa": _vqa,
    "textvqa": _textvqa,
    "vizwiz": _vizwiz,
    "gqa": _gqa,
    "chartqa": _plain(read_chartqa),
    "docvqa": _plain(read_docvqa),
    "infovqa": _plain(read_infovqa),
    "estvqa": _plain(read_estvqa),
    "stvqa": _plain(read_stvqa),
    "ocrvqa": _ocrvqa,
    "dvqa": _plain(read_dvqa),
}
