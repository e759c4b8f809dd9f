"""Photographs that went wrong, or not, and what their makers ask about them, in the VizWiz layout.

A question can be answered or not whatever is wrong with the picture: some dark, blurred or cropped pictures still show
what is asked for, so that neither the question nor the kind of mishap tells.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mmi.data.microworld.annotators import answer_type, opinions
from mmi.data.microworld.dice import Dice
from mmi.data.microworld.draw import PALETTE, draw
from mmi.data.microworld.mishaps import blurred, cropped, darkened
from mmi.data.microworld.png import encode_png
from mmi.data.microworld.scene import Scene, Thing, draw_scene
from mmi.data.microworld.vocabulary import COLOURS, NAME_BY_LOOK, PLACES, ROOMY_SHAPES, WORDS
from mmi_eval.formats.vizwiz import VizWizAnswer, VizWizItem, vizwiz_name, write_vizwiz

from .part import WorldPart

UNANSWERABLE = "unanswerable"
_UNANSWERABLE_SHARE = 0.3
_GREETINGS = ("", "", "", "Hi, ", "Please, ", "Can you tell me, ")
_ABSTENTIONS = (UNANSWERABLE, "unsuitable")
_GUESSES = {
    "colour": tuple(colour.name for colour in COLOURS),
    "number": tuple("0123456789"),
    "word": WORDS,
    "place": tuple(place.name for place in PLACES),
    "yes/no": ("yes", "no"),
}


@dataclass(frozen=True)
class Photograph:
    """A picture and what is asked about it.

    Args:
        scene: What was in front of the camera.
        indices: uint8[H, W], what the picture shows as rows of the palette.
        palette: uint8[K, 3].
        question: The text.
        type: What is asked for.
        answer: ``unanswerable`` where the picture does not show it.
        mishap: ``dark``, ``blurred`` or ``cropped``, ``None`` where nothing went wrong.
    """

    scene: Scene
    indices: np.ndarray
    palette: np.ndarray
    question: str
    type: str
    answer: str
    mishap: str | None

    @property
    def tags(self) -> tuple[str, ...]:
        """What it tests."""
        wrong = () if self.mishap is None else (self.mishap,)
        printed = ("print",) if self.type in ("number", "word") else ()
        return (self.type, *printed, *wrong, *((UNANSWERABLE,) if self.answer == UNANSWERABLE else ()))


def write(part: WorldPart) -> dict[str, int]:
    """Write ``vizwiz/<split>.json`` and its pictures."""
    items: list[VizWizItem] = []
    folder = part.folder / "vizwiz" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    for i in part.items():
        photograph, name = photograph_of(part, i), vizwiz_name(part.split, i, "png")
        (folder / name).write_bytes(encode_png(photograph.indices, photograph.palette))
        part.note_scenes("vizwiz", [name], [photograph.scene])
        part.note_tags("vizwiz", {name: photograph.tags})
        items.append(_item(name, photograph, part.dice("vizwiz answers", i)))
    return {"vizwiz": write_vizwiz(part.folder / "vizwiz" / f"{part.split}.json", items)}


def photograph_of(part: WorldPart, i: int) -> Photograph:
    """Return picture ``i`` with its question."""
    dice = part.dice("vizwiz", i)
    kind = dice.pick(tuple(_GUESSES))
    thing = None
    while thing is None:
        scene = draw_scene(dice, part.split, recipe=part.recipe, n_things=(1, 2))
        thing = _asked_about(scene, kind, dice)
    question, answer = _question(kind, scene, thing, dice)
    shown = not dice.chance(_UNANSWERABLE_SHARE)
    mishap = dice.pick(_mishaps(kind, scene, thing, shown))
    indices, palette = draw(scene, part.image_size).indices, PALETTE
    if mishap == "dark":
        palette = darkened(palette, fully=not shown)
    elif mishap == "blurred":
        # Without print: means of a few pixels of ink could still tell one digit from another.
        blank = Scene(scene.place, tuple(replace(other, print=None) for other in scene.things))
        indices, palette = blurred(draw(blank, part.image_size).indices, palette)
    elif mishap == "cropped":
        # Cells of a corner: the thing is in the frame if its row and column are kept.
        corners = [(down, right) for down in (False, True) for right in (False, True)]
        corner = dice.pick([c for c in corners if _in_frame(thing, *c) == shown])
        indices = cropped(indices, down=corner[0], right=corner[1])
    return Photograph(scene, indices, palette, question, kind, answer if shown else UNANSWERABLE, mishap)


def _asked_about(scene: Scene, kind: str, dice: Dice) -> Thing | None:
    """Return a thing that has what is asked for and is the only one of its shape, or ``None``."""
    having = {"number": lambda t: t.digit is not None, "word": lambda t: t.word is not None}
    fits = having.get(kind, lambda t: t.name is None)
    things = [t for t in scene.things if fits(t) and sum(o.shape == t.shape for o in scene.things) == 1]
    return dice.pick(things) if things else None


def _question(kind: str, scene: Scene, thing: Thing, dice: Dice) -> tuple[str, str]:
    greeting = dice.pick(_GREETINGS)
    asked, answer = {
        "colour": (f"what colour is this {thing.shape}?", thing.colour),
        "number": (f"what number is on this {thing.shape}?", str(thing.digit)),
        "word": (f"what does it say on this {thing.shape}?", str(thing.word)),
        "place": ("where was this picture taken?", scene.place),
        "yes/no": ("", ""),
    }[kind]
    if kind == "yes/no":
        others = [c.name for c in COLOURS if c.name != thing.colour and (thing.shape, c.name) not in NAME_BY_LOOK]
        answer = dice.pick(("yes", "no"))
        asked = f"is this {thing.shape} {thing.colour if answer == 'yes' else dice.pick(others)}?"
    text = greeting + asked
    return text[0].upper() + text[1:], answer


def _mishaps(kind: str, scene: Scene, thing: Thing, shown: bool) -> list[str | None]:
    """Return what may have happened, so that the picture shows what is asked for, or does not."""
    if not shown:
        if kind == "place":
            return ["dark"]
        # The middle is in every frame.
        missed: list[str | None] = ["dark"] if thing.cell == 4 else ["dark", "cropped"]
        return [*missed, "blurred"] if kind in ("number", "word") else missed
    harmless: list[str | None] = [None, None, None, "dark", "cropped"]
    alone = len(scene.things) == 1 and _is_broad(thing)
    return [*harmless, "blurred"] if kind == "place" or (kind in ("colour", "yes/no") and alone) else harmless


def _is_broad(thing: Thing) -> bool:
    return thing.size == "large" and thing.shape in ROOMY_SHAPES and thing.texture == "plain"


def _in_frame(thing: Thing, down: bool, right: bool) -> bool:
    row, column = divmod(thing.cell, 3)
    return row in (down, down + 1) and column in (right, right + 1)


def _item(name: str, photograph: Photograph, dice: Dice) -> VizWizItem:
    truth, tags = photograph.answer, photograph.tags
    shown = truth != UNANSWERABLE
    guesses = () if shown else _GUESSES[photograph.type]
    said = opinions(truth, dice, tags=tags, guesses=guesses, abstentions=_ABSTENTIONS)
    answers = tuple(VizWizAnswer(opinion.answer, opinion.confidence) for opinion in said)
    kind = answer_type(truth, tags) if shown else UNANSWERABLE
    return VizWizItem(name, photograph.question, answers, kind, shown)
