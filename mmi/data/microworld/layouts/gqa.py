"""Compositional questions about pictures of their own, in the GQA layout: all of them, and the balanced ones."""

from __future__ import annotations

from collections import Counter, defaultdict

from mmi.data.microworld.compositions import Composition, compose
from mmi.data.microworld.pointers import plain
from mmi.data.microworld.programs import program_text
from mmi.data.microworld.scene import Scene, draw_scene
from mmi_eval.formats.gqa import GQAGroups, GQAItem, GQAPointers, GQATypes, write_gqa

from .part import WorldPart

QUESTIONS_PER_PICTURE = 5
_SLACK = 2


def write(part: WorldPart) -> dict[str, int]:
    """Write ``gqa/<split>_all_questions.json``, ``gqa/<split>_balanced_questions.json`` and the pictures.

    A question is in the balanced set if its answer is, so far, among the rarer ones of its group.
    """
    items: list[GQAItem] = []
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for i in part.items():
        scene = scene_of(part, i)
        name = f"n{part.image_id(i)}"
        part.save("gqa", [f"{name}.png"], [scene])
        asked = questions_of(part, i)
        ids = [f"{part.image_id(i) * 10 + number:09d}" for number in range(len(asked))]
        for question_id, question in zip(ids, asked, strict=True):
            seen = counts[question.group]
            balanced = seen[question.answer] < min(seen[choice] for choice in question.choices) + _SLACK
            seen[question.answer] += balanced
            entailed = tuple(i for i, other in zip(ids, asked, strict=True) if _entails(question, other))
            items.append(_item(question_id, name, question, balanced, entailed))
            if balanced:
                part.note_tags("gqa", {question_id: question.tags})
    balanced_items = [item for item in items if item.is_balanced]
    write_gqa(part.folder / "gqa" / f"{part.split}_all_questions.json", items)
    write_gqa(part.folder / "gqa" / f"{part.split}_balanced_questions.json", balanced_items)
    return {"gqa": len(balanced_items), "gqa_all": len(items)}


def questions_of(part: WorldPart, i: int) -> tuple[Composition, ...]:
    """Return the questions about picture ``i``, the balanced and the others."""
    return compose(scene_of(part, i), QUESTIONS_PER_PICTURE, part.dice("gqa", i))


def scene_of(part: WorldPart, i: int) -> Scene:
    """Return the scene of picture ``i``: at least two things, as questions compare them."""
    fewest, most = part.recipe.n_things
    things = max(2, fewest), max(4, most)
    return draw_scene(part.dice("gqa scene", i), part.split, recipe=part.recipe, n_things=things)


def _entails(question: Composition, other: Composition) -> bool:
    """Say whether one question asks for what the other only verifies."""
    (*steps, asks), (*others, verifies) = question.program, other.program
    attribute = asks.operation.removeprefix("query ")
    return steps == others and asks.operation != attribute and verifies.operation == f"verify {attribute}"


def _item(question_id: str, image: str, question: Composition, balanced: bool, entailed: tuple[str, ...]) -> GQAItem:
    text, in_question = plain(question.question)
    full_answer, in_full_answer = plain(question.full_answer)
    is_open = question.structural == "query"
    return GQAItem(
        question_id,
        image,
        text,
        question.answer,
        full_answer,
        balanced,
        GQATypes(question.structural, question.semantic, question.detailed),
        GQAGroups(question.detailed.removeprefix("query").lower() if is_open else None, question.group),
        question.program,
        program_text(question.program),
        GQAPointers(in_question, {}, in_full_answer),
        entailed,
        (question_id,),
    )
