"""Questions about the pool's pictures in the VQA v2 layout, ten answers each."""

from __future__ import annotations

from collections.abc import Sequence

from mmi.data.microworld.annotators import answer_type, opinions
from mmi.data.microworld.dice import Dice
from mmi.data.microworld.questions import Question, ask_several
from mmi_eval.formats.vqa import VQAAnnotation, VQAAnswer, VQAItem, write_vqa

from .part import WorldPart

QUESTIONS_PER_PICTURE = 3


def write(part: WorldPart) -> dict[str, int]:
    """Write ``vqa/questions_<split>.json`` and ``vqa/annotations_<split>.json``; the pictures are the pool's."""
    items = [item for i in part.items() for item in _items(part, i)]
    write_vqa(
        part.folder / "vqa" / f"questions_{part.split}.json",
        part.folder / "vqa" / f"annotations_{part.split}.json",
        items,
        description="Questions about the micro-world.",
        data_type="microworld",
        data_subtype=part.split,
    )
    return {"vqa": len(items)}


def questions_of(part: WorldPart, i: int) -> tuple[Question, ...]:
    """Return the questions about picture ``i`` of the pool."""
    return ask_several(part.scene("coco", i), QUESTIONS_PER_PICTURE, part.dice("vqa", i), part.recipe)


def _items(part: WorldPart, i: int) -> list[VQAItem]:
    dice = part.dice("vqa answers", i)
    items, tags = [], {}
    for number, question in enumerate(questions_of(part, i)):
        question_id = part.image_id(i) * 1000 + number
        annotation = answered(question.type, question.answer, dice, question.tags)
        items.append(VQAItem(question_id, part.image_id(i), question.text, annotation, part.image_name(i)))
        tags[question_id] = question.tags
    part.note_tags("vqa", tags)
    return items


def answered(question_type: str, truth: str, dice: Dice, tags: Sequence[str]) -> VQAAnnotation:
    """Return ten people's answers to a question.

    Args:
        question_type: What is asked for.
        truth: The right answer; the most common one.
        dice: Source of choices.
        tags: What the question tests.
    """
    answers = tuple(
        VQAAnswer(opinion.answer, opinion.confidence, number)
        for number, opinion in enumerate(opinions(truth, dice, tags=tags), start=1)
    )
    return VQAAnnotation(question_type, answer_type(truth, tags), truth.lower(), answers)
