"""Questions about print in pictures of their own, in the TextVQA 0.5.1 layout and as VQA files."""

from __future__ import annotations

from dataclasses import replace

from mmi.data.microworld.questions import Question, ask_print
from mmi.data.microworld.scene import Scene, draw_scene
from mmi.data.microworld.vocabulary import PRINT_SIZES
from mmi_eval.formats.textvqa import TextVQAItem, write_textvqa
from mmi_eval.formats.vqa import VQAItem, write_vqa

from .part import WorldPart
from .vqa import answered

QUESTIONS_PER_PICTURE = 2


def write(part: WorldPart) -> dict[str, int]:
    """Write ``textvqa/TextVQA_0.5.1_<split>.json`` and its pictures.

    The same questions stand in ``questions_<split>.json`` and ``annotations_<split>.json``, with types and confidences.
    """
    items: list[VQAItem] = []
    official: list[TextVQAItem] = []
    sides = part.image_size, part.image_size
    for i in part.items():
        scene, image_id = _scene(part, i), f"{part.image_id(i):016x}"
        part.save("textvqa", [f"{image_id}.png"], [scene])
        dice = part.dice("textvqa answers", i)
        classes = tuple(dict.fromkeys(thing.shape.title() for thing in scene.things))
        for number, question in enumerate(questions_of(part, i)):
            question_id, text = part.image_id(i) * 10 + number, question.text.lower()
            annotation = answered(question.type, question.answer, dice, question.tags)
            items.append(VQAItem(question_id, image_id, text, annotation, f"{image_id}.png"))
            answers = tuple(answer.answer for answer in annotation.answers)
            official.append(TextVQAItem(question_id, image_id, text, answers, classes, sides, part.split))
            part.note_tags("textvqa", {question_id: question.tags})
    folder = part.folder / "textvqa"
    write_textvqa(folder / f"TextVQA_0.5.1_{part.split}.json", official, part.split)
    write_vqa(
        folder / f"questions_{part.split}.json",
        folder / f"annotations_{part.split}.json",
        items,
        description="Questions about print in the micro-world.",
        data_type="microworld",
        data_subtype=part.split,
    )
    return {"textvqa": len(items)}


def questions_of(part: WorldPart, i: int) -> tuple[Question, ...]:
    """Return the questions about picture ``i``, each about another print."""
    dice = part.dice("textvqa", i)
    asked: dict[str, Question] = {}
    for _ in range(3 * QUESTIONS_PER_PICTURE):
        question = ask_print(_scene(part, i), dice, PRINT_SIZES)
        if question is not None and len(asked) < QUESTIONS_PER_PICTURE:
            asked.setdefault(question.text, question)
    return tuple(asked.values())


def _scene(part: WorldPart, i: int) -> Scene:
    recipe = replace(part.recipe, name_share=0.1, print_share=0.95)
    things = max(2, recipe.n_things[0]), max(3, recipe.n_things[1])
    return draw_scene(part.dice("textvqa scene", i), part.split, recipe=recipe, n_things=things)
