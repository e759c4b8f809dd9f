"""Stories: two characters meet and move through three to five pictures, each picture with its sentence.

Who is on stage, where they stand, and what was found stays as it is until a sentence changes it, so later pictures
repeat details that only earlier pictures show.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from .dice import Dice
from .language import join, look, mention, sentence, with_article
from .recipe import PRESETS, Recipe
from .scene import Scene, Split, Thing, arrange, character, draw_thing
from .vocabulary import CHARACTER_BY_NAME, CHARACTERS, PLACES, POSITIONS

_MAX_PROPS = 2


@dataclass(frozen=True)
class Frame:
    """A sentence and the scene it leads to."""

    text: str
    scene: Scene


@dataclass(frozen=True)
class Story:
    """Frames in order."""

    frames: tuple[Frame, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Characters in order of appearance."""
        things = (thing for frame in self.frames for thing in frame.scene.things)
        return tuple(dict.fromkeys(thing.name for thing in things if thing.name is not None))


@dataclass(frozen=True)
class _Stage:
    place: str
    cast: tuple[tuple[str, int], ...]
    props: tuple[Thing, ...] = ()

    @property
    def scene(self) -> Scene:
        return arrange(self.place, [character(name, cell) for name, cell in self.cast] + list(self.props))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.cast]

    def free_cell(self, dice: Dice) -> int:
        taken = {cell for _, cell in self.cast} | {thing.cell for thing in self.props}
        return dice.pick([cell for cell in range(len(POSITIONS)) if cell not in taken])


_Event = Callable[[_Stage, Dice, Recipe], "tuple[_Stage, str] | None"]


def _where(cell: int) -> str:
    return POSITIONS[cell].phrase


def _known(prop: Thing) -> str:
    """Say what was found before, without the details that only the picture of that time tells."""
    return look(prop, size=False, print=False, texture=False)


def _introduced(name: str, dice: Dice) -> str:
    who = CHARACTER_BY_NAME[name]
    return f"{name} the {who.colour} {who.shape}" if dice.chance(0.3) else name


def _move(stage: _Stage, dice: Dice, recipe: Recipe) -> tuple[_Stage, str]:
    name = dice.pick(stage.names)
    cell = stage.free_cell(dice)
    verb = dice.pick(("moves", "walks", "jumps"))
    cast = tuple((n, cell if n == name else c) for n, c in stage.cast)
    return replace(stage, cast=cast), f"{name} {verb} to the {POSITIONS[cell].name}"


def _travel(stage: _Stage, dice: Dice, recipe: Recipe) -> tuple[_Stage, str]:
    place = dice.pick([p for p in PLACES if p.name != stage.place])
    verb = dice.pick(("go", "run", "travel")) + ("" if len(stage.cast) > 1 else "s")
    verb = verb.replace("gos", "goes")
    who = "they" if len(stage.cast) > 1 and dice.chance(0.5) else join(stage.names)
    kept = [prop for prop in stage.props if dice.chance(0.5)]
    along = f" with {join([f'the {_known(prop)}' for prop in kept])}" if kept else ""
    return _Stage(place.name, stage.cast, tuple(kept)), f"{who} {verb} to the {place.name}{along}"


def _find(stage: _Stage, dice: Dice, recipe: Recipe) -> tuple[_Stage, str] | None:
    if len(stage.props) == _MAX_PROPS:
        return None
    prop = draw_thing(dice, stage.free_cell(dice), recipe)
    verb = dice.pick(("finds", "sees"))
    return replace(stage, props=(*stage.props, prop)), f"{dice.pick(stage.names)} {verb} {mention(prop)}"


def _take(stage: _Stage, dice: Dice, recipe: Recipe) -> tuple[_Stage, str] | None:
    if not stage.props:
        return None
    prop = dice.pick(stage.props)
    verb = dice.pick(("takes", "hides"))
    if sum((t.shape, t.colour) == (prop.shape, prop.colour) for t in stage.props) > 1:
        return None
    return (
        replace(stage, props=tuple(t for t in stage.props if t != prop)),
        f"{dice.pick(stage.names)} {verb} the {_known(prop)}",
    )


def _leave(stage: _Stage, dice: Dice, recipe: Recipe) -> tuple[_Stage, str] | None:
    if len(stage.cast) < 2:
        return None
    name = dice.pick(stage.names)
    words = dice.pick((f"{name} leaves", f"{name} goes home"))
    return replace(stage, cast=tuple((n, c) for n, c in stage.cast if n != name)), words


def _open(hero: str, dice: Dice, recipe: Recipe) -> tuple[_Stage, str]:
    place = dice.pick(PLACES)
    stage = _Stage(place.name, ((hero, dice.below(len(POSITIONS))),))
    where = f"{place.phrase}, {_where(stage.cast[0][1])}"
    text = f"{_introduced(hero, dice)} is {where}"
    if dice.chance(0.5):
        prop = draw_thing(dice, stage.free_cell(dice), recipe)
        stage = replace(stage, props=(prop,))
        text += f", and there is {with_article(look(prop))} {_where(prop.cell)}"
    return stage, text


def _meet(stage: _Stage, friend: str, dice: Dice) -> tuple[_Stage, str]:
    cell = stage.free_cell(dice)
    hero, who = dice.pick(stage.names), _introduced(friend, dice)
    text = dice.pick((f"{hero} meets {who} {_where(cell)}", f"{who} comes and stands {_where(cell)}"))
    return replace(stage, cast=(*stage.cast, (friend, cell))), text


_EVENTS: tuple[_Event, ...] = (_move, _move, _travel, _find, _find, _take, _leave)


def tell_story(dice: Dice, split: Split, recipe: Recipe = PRESETS["tiny"]) -> Story:
    """Tell a story whose scenes all belong to a split and differ from each other.

    Args:
        dice: Source of choices.
        split: Split of every scene.
        recipe: Shares of what is found.
    """
    story = None
    while story is None:
        story = _try_story(dice, split, recipe)
    return story


def _try_story(dice: Dice, split: Split, recipe: Recipe) -> Story | None:
    """Tell a story, or give up where no next scene of the split is found in fifty tries."""
    hero, friend = (who.name for who in dice.sample(CHARACTERS, 2))
    length = 3 + dice.below(3)
    meeting = 1 + dice.below(length - 1)
    frames: list[Frame] = []
    stage = _Stage("", ())
    tries = 0
    while len(frames) < length:
        if not frames:
            step = _open(hero, dice, recipe)
        elif len(frames) == meeting:
            step = _meet(stage, friend, dice)
        else:
            step = dice.pick(_EVENTS)(stage, dice, recipe)
        tries += 1
        if tries > 50:
            return None
        if step is None:
            continue
        scene = step[0].scene
        if scene.split == split and all(scene != frame.scene for frame in frames):
            stage, tries = step[0], 0
            frames.append(Frame(sentence(step[1]), scene))
    return Story(tuple(frames))
