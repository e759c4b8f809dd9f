"""OBELICS: web pages that tell a story or show pictures of one place or of one person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmi.data.microworld.dice import Dice
from mmi.data.microworld.language import captions, join, sentence
from mmi.data.microworld.prose import paragraph
from mmi.data.microworld.scene import Scene, draw_scene
from mmi.data.microworld.story import tell_story
from mmi.data.microworld.vocabulary import CHARACTERS, PLACES
from mmi_eval.formats.obelics import ObelicsDocument, WebImage, write_obelics

from .five_frames import fewer
from .part import WorldPart

STORY_SHARE = 0.5
ALT_TEXT_SHARE = 0.6
CAPTION_SHARE = 0.8
ADDRESS = "https://microworld.example"


@dataclass(frozen=True)
class Page:
    """What a page shows, in reading order.

    Args:
        title: Its first text.
        items: Texts, and scenes to be drawn.
        ending: Its last text, or nothing.
    """

    title: str
    items: tuple[str | Scene, ...]
    ending: str

    @property
    def scenes(self) -> list[Scene]:
        """What is drawn, in order."""
        return [item for item in self.items if isinstance(item, Scene)]


def write(part: WorldPart) -> dict[str, int]:
    """Write ``obelics/<split>.jsonl.zip`` and its pictures."""
    documents: list[ObelicsDocument] = []
    for i in part.items(fewer(part.size)):
        page = page_of(part, i)
        names = [f"{part.split}-{i:06d}-{k}.png" for k in range(len(page.scenes))]
        part.save("obelics", names, page.scenes)
        documents.append(_document(part, i, page, names))
    return {"obelics": write_obelics(part.folder / "obelics" / f"{part.split}.jsonl.zip", documents)}


def page_of(part: WorldPart, i: int) -> Page:
    """Return page ``i``."""
    dice = part.dice("obelics", i)
    return _story_page(part, dice) if dice.chance(STORY_SHARE) else _gallery(part, dice)


def _story_page(part: WorldPart, dice: Dice) -> Page:
    story = tell_story(dice, part.split, part.recipe)
    picture_first = dice.chance(0.5)
    items: list[str | Scene] = []
    for frame in story.frames:
        items += [frame.scene, frame.text] if picture_first else [frame.text, frame.scene]
    title = dice.pick(("a story of {}", "the day of {}", "{} in pictures")).format(join(story.names))
    return Page(sentence(title), tuple(items), dice.pick(("", "The end.", "Come back tomorrow for more.")))


def _gallery(part: WorldPart, dice: Dice) -> Page:
    place, person = dice.pick(PLACES), dice.pick(CHARACTERS)
    of_place = dice.chance(0.5)
    items: list[str | Scene] = []
    seen: set[Scene] = set()
    for _ in range(2 + dice.below(4)):
        scene = _shows(part, dice, seen, place.name if of_place else None, person.name)
        seen.add(scene)
        items.append(scene)
        if dice.chance(CAPTION_SHARE):
            items.append(paragraph(scene, dice) if dice.chance(0.2) else captions(scene, dice, 1)[0])
    title = f"pictures from the {place.name}" if of_place else f"all pictures of {person.name}"
    return Page(sentence(title), tuple(items), dice.pick(("", "More pictures will follow.")))


def _shows(part: WorldPart, dice: Dice, seen: set[Scene], place: str | None, person: str) -> Scene:
    """Draw a scene of the place or, where there is none, with the person, that the page does not have yet."""
    while True:
        scene = draw_scene(dice, part.split, recipe=part.recipe)
        fits = scene.place == place if place else person in [thing.name for thing in scene.things]
        if fits and scene not in seen:
            return scene


def _document(part: WorldPart, i: int, page: Page, names: Sequence[str]) -> ObelicsDocument:
    url = f"{ADDRESS}/{part.split}/{i}"
    dice = part.dice("obelics alt texts", i)
    left = list(names)
    items: list[str | WebImage] = []
    for item in (page.title, *page.items, page.ending):
        if isinstance(item, Scene):
            items.append(_image(part, item, left.pop(0), url, dice))
        elif item and items and isinstance(items[-1], str):
            items[-1] = f"{items[-1]}\n\n{item}"  # texts that follow each other are one, as in the original
        elif item:
            items.append(item)
    return ObelicsDocument(tuple(items), {"url": url})


def _image(part: WorldPart, scene: Scene, name: str, url: str, dice: Dice) -> WebImage:
    about = {
        "document_url": url,
        "formatted_filename": name.partition(".")[0].replace("-", " "),
        "rendered_height": part.image_size,
        "rendered_width": part.image_size,
        "src": f"{ADDRESS}/images/{name}",
        "unformatted_src": f"/images/{name}",
    }
    if dice.chance(ALT_TEXT_SHARE):
        about["alt_text"] = join([thing.name or f"{thing.colour} {thing.shape}" for thing in scene.things])
    return WebImage(name, about)
