"""Questions about print in the TextVQA 0.5.1 layout: an object with ``data[]``, answers beside their question.

Top: ``dataset_name``, ``dataset_type`` (split), ``dataset_version``, ``data``. Row: ``question_id``, ``question``,
``question_tokens``, ``image_id`` (the picture's file name without its ending), ``image_classes``, ``image_width``,
``image_height``, ``flickr_original_url``, ``flickr_300k_url``, ``set_name`` and, outside the test split, ``answers``:
ten texts. See https://textvqa.org/dataset/. Copies in the VQA layout are read by ``vqa``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .errors import FormatError, as_object, field, load_json, optional_field, text_list, write_json
from .vqa import VQAAnnotation, VQAAnswer, VQAItem


@dataclass(frozen=True)
class TextVQAItem:
    """A question about the print in a picture.

    Args:
        question_id: Unique in its file.
        image_id: File name of the picture without its ending.
        question: The text, lower case in the official files.
        answers: Ten; none in the test split.
        image_classes: What an image tagger said of the picture.
        size: (height, width) of the picture, ``None`` where the file does not say.
        set_name: ``train``, ``val`` or ``test``; ``None`` where the file does not say.
        url: Where the picture came from.
        small_url: A smaller copy of it.
    """

    question_id: int
    image_id: str
    question: str
    answers: tuple[str, ...] = ()
    image_classes: tuple[str, ...] = ()
    size: tuple[int, int] | None = None
    set_name: str | None = None
    url: str | None = None
    small_url: str | None = None

    def as_vqa(self, ending: str = "jpg") -> VQAItem:
        """Return the question as a VQA record whose picture is ``image_id.ending``.

        The most common answer is the first of the most frequent ones; nobody's confidence is known.
        """
        annotation = None
        if self.answers:
            common = Counter(self.answers).most_common(1)[0][0]
            answers = tuple(VQAAnswer(answer, None, i) for i, answer in enumerate(self.answers, start=1))
            annotation = VQAAnnotation(None, None, common, answers)
        return VQAItem(self.question_id, self.image_id, self.question, annotation, f"{self.image_id}.{ending}")


def read_textvqa(path: str | Path) -> list[TextVQAItem]:
    """Read questions in file order.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If it is malformed or a question id repeats.
    """
    content = as_object(load_json(path, "a TextVQA file"), str(path))
    items: dict[int, TextVQAItem] = {}
    for number, value in enumerate(field(content, "data", list, str(path))):
        where = f'{path}, "data" {number}'
        row = as_object(value, where)
        question_id = field(row, "question_id", int, where)
        if question_id in items:
            raise FormatError(f"{where}: question_id {question_id} is there twice; remove one of them.")
        height, width = (optional_field(row, key, int, where) for key in ("image_height", "image_width"))
        items[question_id] = TextVQAItem(
            question_id,
            field(row, "image_id", str, where),
            field(row, "question", str, where),
            text_list(row.get("answers") or [], f"{where}, answers"),
            text_list(row.get("image_classes") or [], f"{where}, image_classes"),
            None if height is None or width is None else (height, width),
            optional_field(row, "set_name", str, where),
            optional_field(row, "flickr_original_url", str, where),
            optional_field(row, "flickr_300k_url", str, where),
        )
    return list(items.values())


def write_textvqa(path: str | Path, items: Iterable[TextVQAItem], split: str, *, version: str = "0.5.1") -> int:
    """Write questions in the given order and return how many."""
    rows = [_record(item) for item in items]
    header = {"dataset_name": "textvqa", "dataset_type": split, "dataset_version": version}
    write_json(path, header | {"data": rows})
    return len(rows)


def _record(item: TextVQAItem) -> dict[str, object]:
    row: dict[str, object] = {
        "question_id": item.question_id,
        "image_id": item.image_id,
        "question": item.question,
        "question_tokens": re.findall(r"[\w']+", item.question.lower()),
        "image_classes": list(item.image_classes),
    }
    if item.answers:
        row["answers"] = list(item.answers)
    if item.size is not None:
        row |= {"image_height": item.size[0], "image_width": item.size[1]}
    for key, value in (
        ("set_name", item.set_name),
        ("flickr_original_url", item.url),
        ("flickr_300k_url", item.small_url),
    ):
        if value is not None:
            row[key] = value
    return row
