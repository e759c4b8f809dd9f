"""What the next picture of a story must show, and how far a picture shows it: pure functions on scene graphs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from mmi_eval.sample import Picture

from .interleaved_questions import PLACES_OF_CELLS
from .interleaved_stories import Episode

if TYPE_CHECKING:
    from mmi_eval.judges import Judges, PictureContent

NAMED, ANYWHERE, GONE, KEPT = "named thing", "named thing, anywhere", "thing gone", "persistence"
BACKGROUND, EMPTY = "background", "empty cells"
ATTRIBUTES = ("shape", "colour", "texture", "size", "print")
_CELLS = tuple(PLACES_OF_CELLS)
_WORD = re.compile(r"\w+")
_GREY = (128, 128, 128)

Expected = Mapping[str, Any]
"""Plain types: ``place``; ``named``, ``gone`` and ``kept`` things with ``cell``, ``shape``, ``colour``, ``texture``,
``size`` and ``print``; of kept ones the attributes that are ``unsaid``; ``empty`` cells."""


def expected_of(episode: Episode) -> dict[str, Any]:
    """Say what the picture after an episode must show.

    ``named`` are things of the picture that its sentence speaks of by name, by colour and shape, or as "they".
    ``gone`` are things that the story's picture before shows and this one no more. ``kept`` are things that an earlier
    picture of the story shows with the same look; what the sentence says of them does not count as remembered.
    """
    text, scene = episode.next.text, episode.next.scene
    things = [_plain(thing) for thing in scene["things"]]
    named = [thing for thing in things if _is_named(thing, text)]
    before = [_plain(thing) for thing in episode.own[-1].scene["things"]]
    seen = [_look(_plain(thing)) for frame in episode.own for thing in frame.scene["things"]]
    kept = [{**thing, "unsaid": _unsaid(thing, text)} for thing in things if _look(thing) in seen]
    return {
        "place": scene["place"],
        "named": named,
        "gone": [thing for thing in before if _look(thing) not in [_look(other) for other in things]],
        "kept": kept,
        "empty": [cell for cell in range(len(_CELLS)) if cell not in [thing["cell"] for thing in things]],
    }


def frame_scores(expected: Expected, seen: PictureContent | None) -> dict[str, float]:
    """Compare a picture with what it must show.

    Args:
        expected: Of ``expected_of``.
        seen: What a judge sees in it; ``None`` for a picture that could not be had, which has nothing right.

    Returns:
        By name, numbers from 0 to 1; a property that the picture cannot be asked for is absent.
        ``named thing``: share of the named things whose shape and colour are where they should be, and ``anywhere`` in
        the picture. ``thing gone``: share of the things that went and are seen nowhere. ``persistence``: share of the
        unsaid attributes of kept things that are seen in their cell, and the same by ``attribute/``.
    """
    shown = {} if seen is None else {thing.cell: thing for thing in seen.things}
    looks = {(thing.shape, thing.colour) for thing in shown.values()}
    found: dict[str, list[bool]] = {}
    for thing in expected["named"]:
        there, look = shown.get(thing["cell"]), (thing["shape"], thing["colour"])
        found.setdefault(NAMED, []).append(there is not None and (there.shape, there.colour) == look)
        found.setdefault(ANYWHERE, []).append(look in looks)
    for thing in expected["gone"]:
        is_gone = seen is not None and (thing["shape"], thing["colour"]) not in looks
        found.setdefault(GONE, []).append(is_gone)
    for thing in expected["kept"]:
        there = shown.get(thing["cell"])
        for kind in thing["unsaid"]:
            right = there is not None and getattr(there, kind) == thing[kind]
            found.setdefault(KEPT, []).append(right)
            found.setdefault(f"attribute/{kind}", []).append(right)
    found[BACKGROUND] = [seen is not None and seen.background == expected["place"]]
    found[EMPTY] = [seen is not None and cell not in shown for cell in expected["empty"]]
    return {name: float(np.mean(hits)) for name, hits in found.items() if hits}


def contents(judges: Judges, pictures: Sequence[Picture | None]) -> list[PictureContent | None]:
    """Say what a judge sees in each picture; another size is made its own, as a person would see it."""
    if not pictures:
        return []
    attributes = judges.attributes(pictures_as_seen(judges, pictures))
    return [None if picture is None else attributes.content(i) for i, picture in enumerate(pictures)]


def pictures_as_seen(judges: Judges, pictures: Sequence[Picture | None]) -> np.ndarray:
    """Return uint8[N, 3, S, S], pictures at the size of the judges; grey for no picture."""
    side = judges.classes.image_size
    return np.stack([_pixels(picture, side) for picture in pictures])


def _pixels(picture: Picture | None, side: int) -> np.ndarray:
    """Return uint8[3, side, side]; grey for no picture."""
    image = Image.new("RGB", (side, side), _GREY) if picture is None else picture.open()
    if image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(image, np.uint8).transpose(2, 0, 1)


def _plain(thing: Mapping[str, Any]) -> dict[str, Any]:
    printed = thing.get("print")
    return {
        "name": thing.get("name") or "",
        "cell": _CELLS.index(thing["cell"]),
        "shape": thing["shape"],
        "colour": thing["colour"],
        "texture": thing.get("texture", "plain"),
        "size": thing["size"],
        "print": printed["text"] if printed else "",
    }


def _look(thing: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(thing[kind] for kind in ATTRIBUTES)


def _is_named(thing: Mapping[str, Any], text: str) -> bool:
    words = set(_WORD.findall(text))
    if thing["name"]:
        return thing["name"] in words or bool({"they", "They"} & words)
    return _phrase(thing) in text


def _phrase(thing: Mapping[str, Any]) -> str:
    return f"{thing['colour']} {thing['shape']}"


def _unsaid(thing: Mapping[str, Any], text: str) -> list[str]:
    said = ("shape", "colour") if _phrase(thing) in text else ()
    return [kind for kind in ATTRIBUTES if kind not in said and (kind != "print" or thing["print"])]
