"""Compositional questions: things are pointed at by what they look like and where they lie, answers come from programs.

Texts are marked as in ``pointers``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mmi_eval.formats.gqa import GQAOperation

from .dice import Dice
from .language import with_article
from .pointers import Pointer, joined, point, pointers
from .programs import ATTRIBUTES, OPPOSITE, RELATIONS, run
from .scene import Scene, Thing
from .vocabulary import CHARACTERS, COLOURS, NAME_BY_LOOK, PLACE_BY_NAME, PLACES, SHAPES, SIZES, TEXTURES, WORDS

_VALUES: dict[str, tuple[str, ...]] = {
    "colour": tuple(colour.name for colour in COLOURS),
    "size": SIZES,
    "texture": TEXTURES,
    "shape": SHAPES,
    "number": tuple("0123456789"),
    "word": WORDS,
}


@dataclass(frozen=True)
class Composition:
    """A question with its program.

    Args:
        question: Marked text.
        program: Steps over the scene graph.
        answer: What running the program gives.
        full_answer: A marked sentence.
        structural: ``query``, ``verify``, ``choose``, ``compare`` or ``logical``.
        semantic: ``attr``, ``obj``, ``rel`` or ``global``.
        detailed: What is asked for.
        asked: What the question itself proposes, such as the colour to verify: answers are balanced for each of them,
            so that the question alone tells nothing.
        choices: The answers it may have.
        tags: What it tests.
    """

    question: str
    program: tuple[GQAOperation, ...]
    answer: str
    full_answer: str
    structural: str
    semantic: str
    detailed: str
    asked: str
    choices: tuple[str, ...]
    tags: tuple[str, ...]

    @property
    def group(self) -> str:
        """The questions it is balanced with."""
        return f"{self.detailed}-{self.asked}" if self.asked else self.detailed


def compose(scene: Scene, n: int, dice: Dice) -> tuple[Composition, ...]:
    """Ask ``n`` questions of different kinds, and fewer where the scene has not so many.

    A colour that is asked for may be followed by a question whose answer follows from it.
    """
    asked: list[Composition] = []
    for family in dice.shuffled(tuple(_FAMILIES)):
        if len(asked) < n and (question := _FAMILIES[family](scene, dice)) is not None:
            asked.append(question)
            if question.detailed == "queryColour" and len(asked) < n and dice.chance(0.5):
                asked.append(_entailed(scene, question, dice))
    return tuple(asked)


def _made(
    scene: Scene,
    question: str,
    program: Sequence[GQAOperation],
    kinds: tuple[str, str, str],
    *,
    asked: str = "",
    choices: Sequence[str] = ("yes", "no"),
    tags: Sequence[str] = (),
) -> Composition:
    steps = tuple(program)
    all_tags = (kinds[2], *dict.fromkeys(tags))
    return Composition(question, steps, run(steps, scene), "", *kinds, asked, tuple(choices), all_tags)


def _saying(question: Composition, sentence: str) -> Composition:
    return replace(question, full_answer=f"{sentence[0].upper()}{sentence[1:]}.")


def _query(attribute: str) -> Callable[[Scene, Dice], Composition | None]:
    detailed = f"query{attribute.capitalize()}"

    def ask(scene: Scene, dice: Dice) -> Composition | None:
        having = [thing for thing in scene.things if ATTRIBUTES[attribute](thing) is not None]
        thing = dice.pick(having) if having else None
        pointer = None if thing is None else point(scene, thing, attribute, dice)
        if thing is None or pointer is None:
            return None
        program = (*pointer.steps, GQAOperation(f"query {attribute}", "", (len(pointer.steps) - 1,)))
        value = ATTRIBUTES[attribute](thing)
        tags = [pointer.tag]
        if attribute in ("number", "word"):
            tags += ["print"] if thing.print is None else ["print", f"print {thing.print.size}"]
            question, sentence = f"What {attribute} is on {pointer.words}?", f"the {attribute} on it is {value}"
        elif attribute == "shape":
            question, sentence = f"What is {pointer.words}?", f"it is {with_article(value or '')}"
        else:
            question, sentence = f"What colour is {pointer.words}?", f"{pointer.words} is {value}"
        made = _made(scene, question, program, ("query", "attr", detailed), choices=_VALUES[attribute], tags=tags)
        return _saying(made, sentence)

    return ask


def _entailed(scene: Scene, query: Composition, dice: Dice) -> Composition:
    """Ask whether the thing has its colour or another, after asking for its colour."""
    words = query.question.removeprefix("What colour is ").removesuffix("?")
    value = query.answer
    if dice.chance(0.5):
        value = dice.pick([colour for colour in _VALUES["colour"] if colour != value])
    program = (*query.program[:-1], GQAOperation("verify colour", value, query.program[-1].dependencies))
    kinds = ("verify", "attr", "verifyColour")
    made = _made(scene, f"Is {words} {value}?", program, kinds, asked=value, tags=query.tags[1:])
    return _saying(made, f"{made.answer}, {words} is {query.answer}")


def _verify(scene: Scene, dice: Dice) -> Composition | None:
    attribute = dice.pick(("colour", "size", "texture"))
    found = _nobody(scene, attribute, dice)
    if found is None:
        return None
    pointer, value, others = found
    asked = value if dice.chance(0.5) else dice.pick(others)
    program = (*pointer.steps, GQAOperation(f"verify {attribute}", asked, (len(pointer.steps) - 1,)))
    kinds = ("verify", "attr", f"verify{attribute.capitalize()}")
    made = _made(scene, f"Is {pointer.words} {asked}?", program, kinds, asked=asked, tags=[pointer.tag])
    return _saying(made, f"{made.answer}, {pointer.words} is {value}")


def _choose(scene: Scene, dice: Dice) -> Composition | None:
    attribute = dice.pick(("colour", "size", "texture"))
    found = _nobody(scene, attribute, dice)
    if found is None:
        return None
    pointer, value, others = found
    values = dice.shuffled([value, dice.pick(others)])
    program = (*pointer.steps, GQAOperation(f"choose {attribute}", "|".join(values), (len(pointer.steps) - 1,)))
    kinds = ("choose", "attr", f"choose{attribute.capitalize()}")
    question, pair = f"Is {pointer.words} {values[0]} or {values[1]}?", sorted(values)
    made = _made(scene, question, program, kinds, asked="|".join(pair), choices=pair, tags=[pointer.tag])
    return _saying(made, f"{pointer.words} is {value}")


def _nobody(scene: Scene, attribute: str, dice: Dice) -> tuple[Pointer, str, list[str]] | None:
    """Point at a thing that is no character, and say what it has and what it might have had."""
    things = [thing for thing in scene.things if thing.name is None]
    if not things:
        return None
    # The value first, so that a rare one is asked for as often.
    value = dice.pick(sorted({ATTRIBUTES[attribute](thing) or "" for thing in things}))
    thing = dice.pick([thing for thing in things if ATTRIBUTES[attribute](thing) == value])
    pointer = point(scene, thing, attribute, dice)
    others = [v for v in _VALUES[attribute] if v != value]
    if attribute == "colour":
        others = [v for v in others if (thing.shape, v) not in NAME_BY_LOOK]
    return None if pointer is None else (pointer, value, others)


def _pair(scene: Scene, dice: Dice) -> tuple[Thing, Pointer, Thing, Pointer] | None:
    able = [(thing, ways) for thing in scene.things if (ways := pointers(scene, thing))]
    if len(able) < 2:
        return None
    (one, ways), (other, other_ways) = dice.sample(able, 2)
    return one, dice.pick(ways), other, dice.pick(other_ways)


def _verify_relation(scene: Scene, dice: Dice) -> Composition | None:
    pair = _pair(scene, dice)
    if pair is None:
        return None
    one, pointer, other, other_pointer = pair
    true = [relation for relation, holds in RELATIONS.items() if holds(one, other)]
    relation = dice.pick(true)
    relation = relation if dice.chance(0.5) else OPPOSITE[relation]
    steps, ends = joined(pointer, other_pointer)
    program = (*steps, GQAOperation("verify rel", relation, ends))
    question = f"Is {pointer.words} {relation} {other_pointer.words}?"
    made = _made(scene, question, program, ("verify", "rel", "verifyRel"), asked=relation, tags=["position"])
    holds = relation if made.answer == "yes" else OPPOSITE[relation]
    return _saying(made, f"{made.answer}, {pointer.words} is {holds} {other_pointer.words}")


def _choose_relation(scene: Scene, dice: Dice) -> Composition | None:
    pair = _pair(scene, dice)
    if pair is None:
        return None
    one, pointer, other, other_pointer = pair
    true = dice.pick([relation for relation, holds in RELATIONS.items() if holds(one, other)])
    first, second = dice.shuffled([true, OPPOSITE[true]])
    steps, ends = joined(pointer, other_pointer)
    program = (*steps, GQAOperation("choose rel", f"{first}|{second}", ends))
    sides = f"{first.removesuffix(' of')} or {second}"
    question = f"Is {pointer.words} {sides} {other_pointer.words}?"
    kinds = ("choose", "rel", "chooseRel")
    names = [side.removeprefix("to the ").removesuffix(" of") for side in sorted((first, second))]
    made = _made(scene, question, program, kinds, asked="|".join(names), choices=names, tags=["position"])
    return _saying(made, f"{pointer.words} is {true} {other_pointer.words}")


def _compare(scene: Scene, dice: Dice) -> Composition | None:
    attribute = dice.pick(("colour", "size", "texture"))
    pair = _pair(scene, dice)
    if pair is None or pair[0].name is not None or pair[2].name is not None:
        return None
    _, pointer, _, other = pair
    if any(step.operation == f"filter {attribute}" for step in (*pointer.steps, *other.steps)):
        return None
    steps, ends = joined(pointer, other)
    program = (*steps, GQAOperation(f"same {attribute}", "", ends))
    both = f"{pointer.words} and {other.words}"
    kinds = ("compare", "attr", f"same{attribute.capitalize()}")
    made = _made(scene, f"Do {both} have the same {attribute}?", program, kinds)
    same = "the same" if made.answer == "yes" else "not the same"
    return _saying(made, f"{made.answer}, {both} have {same} {attribute}")


def _look_for(
    scene: Scene, present: bool, dice: Dice, *, near: bool = True
) -> tuple[str, tuple[GQAOperation, ...]] | None:
    """Return marked words for something that is there, or not, and the steps that look for it.

    Characters have a look of their own, so that looks are asked of the others and characters by name; ``None`` where
    they are all there and one that is not is wanted.

    Args:
        scene: Where to look.
        present: Whether it is there.
        dice: Source of choices.
        near: Whether what is not there shares colour or shape with something that is.
    """
    nobodies = [thing for thing in scene.things if thing.name is None]
    if not nobodies or (len(nobodies) < len(scene.things) and dice.chance(0.3)):
        here = [thing.name for thing in scene.things if thing.name is not None]
        names = here if present else [who.name for who in CHARACTERS if who.name not in here]
        if not names:
            return None
        name = dice.pick(names)
        number = next((str(i) for i, thing in enumerate(scene.things) if thing.name == name), "-")
        return f"{name}#{number}" if present else name, (GQAOperation("select", f"{name} ({number})"),)
    thing = dice.pick(nobodies)
    colour, shape = thing.colour, thing.shape
    if not present:
        looks = [(other.colour, other.shape) for other in scene.things]
        pairs = [(c, s) for c in _VALUES["colour"] for s in SHAPES if not near or c == colour or s == shape]
        colour, shape = dice.pick([pair for pair in pairs if pair not in looks and pair[::-1] not in NAME_BY_LOOK])
    number = str(scene.things.index(thing)) if present else "-"
    words = with_article(f"{colour} {shape}")
    steps = (GQAOperation("select", f"{shape} ({number})"), GQAOperation("filter colour", colour, (0,)))
    return f"{words}#{number}" if present else words, steps


def _exist(scene: Scene, dice: Dice) -> Composition | None:
    found = _look_for(scene, dice.chance(0.5), dice)
    if found is None:
        return None
    words, steps = found
    program = (*steps, GQAOperation("exist", "?", (len(steps) - 1,)))
    named = len(steps) == 1
    question = f"Is {'' if named else 'there '}{words} in the picture?"
    made = _made(scene, question, program, ("verify", "obj", "existName" if named else "exist"))
    return _saying(made, f"{made.answer}, {words} is {'' if made.answer == 'yes' else 'not '}in the picture")


def _logical(scene: Scene, dice: Dice) -> Composition | None:
    word = dice.pick(("and", "or"))
    mixed = dice.chance(0.5)  # one of them is there: yes to "or", no to "and"
    present = dice.shuffled([True, False]) if mixed else [word == "and"] * 2
    first, second = (_look_for(scene, there, dice, near=False) for there in present)
    if first is None or second is None or first == second:
        return None
    (one, steps), (other, more) = first, second
    looking = [Pointer("", (*s, GQAOperation("exist", "?", (len(s) - 1,))), "") for s in (steps, more)]
    both_steps, ends = joined(*looking)
    program = (*both_steps, GQAOperation(word, "", ends))
    verb, both = "are" if word == "and" else "is", f"{one} {word} {other}"
    question = f"{verb.title()} {both} in the picture?"
    made = _made(scene, question, program, ("logical", "obj", f"exist{word.title()}"))
    refused = f"{one} and {other} are not both" if word == "and" else f"neither {one} nor {other} is"
    return _saying(
        made, f"yes, {both} {verb} in the picture" if made.answer == "yes" else f"no, {refused} in the picture"
    )


def _place(scene: Scene, dice: Dice) -> Composition | None:
    program = (GQAOperation("select", "scene (-)"), GQAOperation("query place", "", (0,)))
    places = [place.name for place in PLACES]
    kinds = ("query", "global", "queryPlace")
    made = _made(scene, "What place is this?", program, kinds, choices=places, tags=["place"])
    return _saying(made, f"it is {PLACE_BY_NAME[scene.place].phrase}")


_FAMILIES: dict[str, Callable[[Scene, Dice], Composition | None]] = {
    "colour": _query("colour"),
    "shape": _query("shape"),
    "number": _query("number"),
    "word": _query("word"),
    "place": _place,
    "verify": _verify,
    "choose": _choose,
    "verify relation": _verify_relation,
    "choose relation": _choose_relation,
    "compare": _compare,
    "exist": _exist,
    "logical": _logical,
}
