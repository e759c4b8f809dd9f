"""Quizzes as conversations in the LLaVA layout: pictures, each with the questions that are asked when it is the latest.

Besides the questions of ``questions.py`` some ask for the box of a thing, as LLaVA's mixture does with RefCOCO.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mmi.data.microworld.dice import Dice
from mmi.data.microworld.draw import draw
from mmi.data.microworld.layouts.expressions import by_place_or_look
from mmi.data.microworld.layouts.part import WorldPart
from mmi.data.microworld.questions import Question, Quiz, draw_quiz
from mmi.data.microworld.scene import Scene
from mmi_eval.formats.llava import IMAGE_MARK, Conversation, Turn, write_conversations

GROUNDING = "Provide the bounding box coordinate of the region this sentence describes: {expression}"
"""How a box is asked for (SPEC 3.6)."""

_BOX_SHARE = 0.4
"""Of the pictures; an answer of four numbers takes the room of three questions."""


def quiz(part: WorldPart, i: int) -> Quiz:
    """Return quiz ``i``."""
    return draw_quiz(part.dice("quiz", i), part.split, part.recipe)


def write(part: WorldPart) -> dict[str, int]:
    """Write ``conversations/<split>.json``, its pictures, and tags by conversation and question (``"12/0"``)."""
    n_questions = 0

    def conversations() -> Iterator[Conversation]:
        nonlocal n_questions
        for i in part.items():
            drawn, dice = quiz(part, i), part.dice("conversation", i)
            names = [f"{part.split}-{i:06d}-{k}.png" for k in range(len(drawn.scenes))]
            part.save("conversations", names, drawn.scenes)
            name, turns, tags = f"{part.split}-{i}", [], {}
            for scene, asked in zip(drawn.scenes, drawn.questions, strict=True):
                boxes = [_box(scene, dice, part.image_size)] if dice.chance(_BOX_SHARE) else []
                questions = dice.shuffled([*asked, *boxes])
                for number, question in enumerate(questions):
                    tags[f"{name}/{len(tags)}"] = question.tags
                    mark = "" if number else f"{IMAGE_MARK}\n"
                    turns += [Turn("human", mark + question.text), Turn("gpt", question.answer)]
            part.note_tags("conversations", tags)
            n_questions += len(tags)
            yield Conversation(name, tuple(names), tuple(turns))

    count = write_conversations(part.folder / "conversations" / f"{part.split}.json", conversations())
    return {"conversations": count, "conversation_questions": n_questions}


def _box(scene: Scene, dice: Dice, image_size: int) -> Question:
    """Ask for the box of a thing."""
    number = dice.below(len(scene.things))
    referral = by_place_or_look(scene, scene.things[number], dice, 1)[0]
    left, top, width, height = draw(scene, image_size).thing_box(number)
    corners = np.array([left, top, left + width, top + height])
    x1, y1, x2, y2 = (int(value / image_size * 999) for value in corners)
    answer = f"({x1:03d},{y1:03d})({x2:03d},{y2:03d})"
    return Question(GROUNDING.format(expression=referral.text), answer, "box", ("box", *referral.tags))
