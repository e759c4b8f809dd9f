"""Questions about one of several pictures, whose answer would be another one for the latest picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PLACES_OF_CELLS = {
    "top left": "at the top left",
    "top": "at the top",
    "top right": "at the top right",
    "left": "on the left",
    "middle": "in the middle",
    "right": "on the right",
    "bottom left": "at the bottom left",
    "bottom": "at the bottom",
    "bottom right": "at the bottom right",
}
"""How the micro-world says where a cell is; the cells in their order."""
_NUMBERS = ("Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")
_ASKED = {
    "place": "what place {was} {it}?",
    "colour": "what colour {was} the shape {where}?",
    "shape": "what shape {was} {where}?",
    "name": "who {was} {where}?",
    "number": "what number {was} on the shape {where}?",
    "word": "what word {was} on the shape {where}?",
}


@dataclass(frozen=True)
class PictureQuestion:
    """A question and its answer.

    Args:
        text: The question.
        answer: What is true of the picture it is about.
        kind: What is asked for.
        steps_back: Which picture it is about: 0 the latest, 1 the one before.
        latest: What would be true of the latest picture, empty for nothing.
        others: Other answers that are true of other pictures.
        is_alone: Whether the answer is true of no other picture.
    """

    text: str
    answer: str
    kind: str
    steps_back: int
    latest: str
    others: tuple[str, ...]
    is_alone: bool


def ask_about(scenes: Sequence[Mapping[str, Any]], pick: int) -> PictureQuestion | None:
    """Ask about a picture before the latest, or about the only one.

    Questions that other pictures answer differently come first, and of these the ones whose answer is true of no other
    picture; then kinds of questions are equally likely.

    Args:
        scenes: Scene graphs in order.
        pick: A large number that picks the question.

    Returns:
        ``None`` where every question has the answer of the latest picture.
    """
    steps = range(1, len(scenes)) if len(scenes) > 1 else (0,)
    asked = [question for back in steps for question in _questions(scenes, back)]
    best = max(((bool(q.others), q.is_alone) for q in asked), default=None)
    kinds: dict[str, list[PictureQuestion]] = {}
    for question in asked:
        if (bool(question.others), question.is_alone) == best:
            kinds.setdefault(question.kind, []).append(question)
    if not kinds:
        return None
    candidates = list(kinds.values())[pick % len(kinds)]
    return candidates[pick // len(kinds) % len(candidates)]


def _questions(scenes: Sequence[Mapping[str, Any]], back: int) -> Iterator[PictureQuestion]:
    about = len(scenes) - 1 - back
    cells = [thing["cell"] for thing in scenes[about]["things"]]
    for kind, cell in [("place", ""), *((kind, cell) for cell in cells for kind in _ASKED if kind != "place")]:
        answers = [_answer(scene, kind, cell) for scene in scenes]
        answer, latest = answers[about], answers[-1]
        if answer and (back == 0 or answer != latest):
            others = tuple(other for other in dict.fromkeys(answers) if other and other != answer)
            alone = answers.count(answer) == 1
            yield PictureQuestion(_worded(kind, cell, back), answer, kind, back, latest, others, alone)


def _answer(scene: Mapping[str, Any], kind: str, cell: str) -> str:
    """Return what is true of a scene, empty where it has no answer."""
    if kind == "place":
        return scene["place"]
    thing = next((thing for thing in scene["things"] if thing["cell"] == cell), None)
    if thing is None:
        return ""
    if kind in ("number", "word"):
        text = (thing.get("print") or {}).get("text", "")
        return text if text.isdigit() == (kind == "number") else ""
    return thing.get(kind) or ""


def _worded(kind: str, cell: str, back: int) -> str:
    now = {"was": "is", "it": "this", "where": PLACES_OF_CELLS.get(cell, "")}
    text = _ASKED[kind].format(**now if back == 0 else now | {"was": "was", "it": "it"})
    if back == 0:
        return text[0].upper() + text[1:]
    return f"{'In the picture' if back == 1 else f'{_NUMBERS[back - 2]} pictures'} before, {text}"
