"""Programs over the scene graph, as GQA writes them: a question is answered by running its program.

``select`` takes the things of a name (a shape, a character, or ``shape`` for all), ``filter`` keeps those of an
attribute, ``relate`` goes to those on one side, ``query``, ``verify``, ``choose``, ``same`` and ``exist`` answer. A
number in brackets says which thing is meant (``-`` for none) and is not used to answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from mmi_eval.formats.gqa import GQAOperation

from .scene import Scene, Thing

ATTRIBUTES: dict[str, Callable[[Thing], str | None]] = {
    "colour": lambda thing: thing.colour,
    "shape": lambda thing: thing.shape,
    "size": lambda thing: thing.size,
    "texture": lambda thing: thing.texture,
    "number": lambda thing: None if thing.digit is None else str(thing.digit),
    "word": lambda thing: thing.word,
}
"""What can be asked of a thing."""

RELATIONS: dict[str, Callable[[Thing, Thing], bool]] = {
    "to the left of": lambda a, b: a.cell % 3 < b.cell % 3,
    "to the right of": lambda a, b: a.cell % 3 > b.cell % 3,
    "above": lambda a, b: a.cell // 3 < b.cell // 3,
    "below": lambda a, b: a.cell // 3 > b.cell // 3,
}
"""Whether the first thing lies on that side of the second."""

OPPOSITE = {
    "to the left of": "to the right of",
    "to the right of": "to the left of",
    "above": "below",
    "below": "above",
}

_Value = str | tuple[Thing, ...]


def run(program: Sequence[GQAOperation], scene: Scene) -> str:
    """Return the answer of a program.

    Raises:
        ValueError: If a step is unknown, or asks about one thing where there are none or several.
    """
    values: list[_Value] = []
    for step in program:
        values.append(_step(step, [values[i] for i in step.dependencies], scene))
    if not values or not isinstance(values[-1], str):
        raise ValueError(f"the program {program_text(program)} does not end with an answer.")
    return values[-1]


def program_text(program: Sequence[GQAOperation]) -> str:
    """Return the program in one line, as in the official files.

    Example:
        >>> program_text([GQAOperation("select", "heart (0)"), GQAOperation("query colour", "", (0,))])
        'select: heart (0)->query colour:  [0]'
    """
    return "->".join(
        f"{step.operation}: {step.argument}" + (f" {list(step.dependencies)}" if step.dependencies else "")
        for step in program
    )


def _step(step: GQAOperation, inputs: list[_Value], scene: Scene) -> _Value:
    verb, _, attribute = step.operation.partition(" ")
    argument = re.sub(r" \([\d,-]+\)$", "", step.argument)
    if verb == "select":
        return scene.things if argument == "shape" else tuple(t for t in scene.things if argument in (t.name, t.shape))
    if verb == "filter":
        return tuple(t for t in _things(inputs[0]) if ATTRIBUTES[attribute](t) == argument)
    if verb == "relate":
        name, relation, _ = argument.split(",")
        other = _one(inputs[0], step)
        beside = tuple(t for t in scene.things if t is not other and RELATIONS[relation](t, other))
        return beside if name == "shape" else tuple(t for t in beside if name in (t.name, t.shape))
    if verb == "query":
        return scene.place if attribute == "place" else ATTRIBUTES[attribute](_one(inputs[0], step)) or ""
    if verb == "exist":
        return _yes(bool(_things(inputs[0])))
    if verb in ("and", "or"):
        return _yes((all if verb == "and" else any)(value == "yes" for value in inputs))
    return _compared(step, verb, attribute, argument, inputs)


def _compared(step: GQAOperation, verb: str, attribute: str, argument: str, inputs: list[_Value]) -> str:
    one = _one(inputs[0], step)
    if verb == "verify" and attribute == "rel":
        return _yes(RELATIONS[argument](one, _one(inputs[1], step)))
    if verb == "verify":
        return _yes(ATTRIBUTES[attribute](one) == argument)
    if verb == "choose" and attribute == "rel":
        other = _one(inputs[1], step)
        return (
            next(r for r in argument.split("|") if RELATIONS[r](one, other)).removeprefix("to the ").partition(" ")[0]
        )
    if verb == "choose":
        return next(value for value in argument.split("|") if value == ATTRIBUTES[attribute](one))
    if verb == "same":
        return _yes(ATTRIBUTES[attribute](one) == ATTRIBUTES[attribute](_one(inputs[1], step)))
    raise ValueError(f'unknown operation "{step.operation}".')


def _things(value: _Value) -> tuple[Thing, ...]:
    assert not isinstance(value, str), "a step on things follows an answer"
    return value


def _one(value: _Value, step: GQAOperation) -> Thing:
    things = _things(value)
    if len(things) != 1:
        raise ValueError(f'"{step.operation}: {step.argument}" needs one thing but gets {len(things)}.')
    return things[0]


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"
