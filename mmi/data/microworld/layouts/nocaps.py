"""NoCaps: pictures of combinations that training captions hardly name, ten captions each.

A thing is *novel* if it is striped or dotted and carries a print. Both are common, but not together: the recipes put
textures on things without print (``printed_texture_share`` is 0 in ``tiny`` and 0.1 in ``lab``), so that of the things
in training pictures none is novel in ``tiny`` and about one in twenty in ``lab``. The domain counts them:
``in-domain`` none of the things is novel, ``out-domain`` all are, ``near-domain`` some are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mmi.data.microworld.dice import Dice
from mmi.data.microworld.language import captions
from mmi.data.microworld.recipe import Recipe
from mmi.data.microworld.scene import Scene, Thing, arrange, draw_scene, draw_thing
from mmi_eval.formats.nocaps import Domain, NocapsImage, write_nocaps

from .part import FIRST_IMAGE_ID, WorldPart

CAPTIONS_PER_PICTURE = 10
# Of ten pictures; in the original 1.4, 6.5 and 2.0 in val.
_SHARES: Mapping[Domain, int] = {"in-domain": 2, "near-domain": 5, "out-domain": 3}
_DOMAINS = [domain for domain, share in _SHARES.items() for _ in range(share)]


def write(part: WorldPart) -> dict[str, int]:
    """Write val with its captions, test without, as the original is published, and tags with the domain; no train."""
    if part.split not in ("val", "test"):
        return {}
    images: list[NocapsImage] = []
    for i in part.items():
        scene, open_images_id = scene_of(part, i), f"{FIRST_IMAGE_ID[part.split] + i:016x}"
        name = f"{open_images_id}.png"
        part.save("nocaps", [name], [scene])
        part.note_tags("nocaps", {i: [domain_of(scene), *(["novel"] if any(map(is_novel, scene.things)) else [])]})
        image = NocapsImage(i, name, open_images_id, size=(part.image_size, part.image_size))
        if part.split == "val":
            image = replace(image, domain=domain_of(scene), captions=captions_of(part, i))
        images.append(image)
    name = "nocaps_val_4500_captions.json" if part.split == "val" else "nocaps_test_image_info.json"
    return {"nocaps": write_nocaps(part.folder / "nocaps" / name, images)}


def captions_of(part: WorldPart, i: int) -> tuple[str, ...]:
    """Return the ten captions of picture ``i``."""
    return captions(scene_of(part, i), part.dice("nocaps captions", i), CAPTIONS_PER_PICTURE)


def is_novel(thing: Thing) -> bool:
    """Say whether a thing is striped or dotted and carries a print."""
    return thing.texture != "plain" and thing.print is not None


def domain_of(scene: Scene) -> Domain:
    """Return the domain: how many of the things are novel."""
    n_novel = sum(map(is_novel, scene.things))
    if n_novel == 0:
        return "in-domain"
    return "out-domain" if n_novel == len(scene.things) else "near-domain"


def scene_of(part: WorldPart, i: int) -> Scene:
    """Return the scene of picture ``i``."""
    dice = part.dice("nocaps", i)
    domain = dice.pick(_DOMAINS)
    fewest, most = part.recipe.n_things
    # Some of a single thing cannot be novel.
    n_things = (max(2, fewest), max(2, most)) if domain == "near-domain" else (fewest, most)
    while True:
        scene = draw_scene(dice, part.split, recipe=part.recipe, n_things=n_things)
        if domain != "in-domain":
            scene = _with_novelties(scene, dice, part.recipe, all_of_them=domain == "out-domain")
        if scene.split == part.split and domain_of(scene) == domain:
            return scene


def _with_novelties(scene: Scene, dice: Dice, recipe: Recipe, *, all_of_them: bool) -> Scene:
    novel = replace(recipe, print_share=1.0, printed_texture_share=1.0)
    count = len(scene.things)
    chosen = range(count) if all_of_them else dice.sample(range(count), 1 + dice.below(count - 1))
    things = [draw_thing(dice, t.cell, novel) if n in chosen else t for n, t in enumerate(scene.things)]
    return arrange(scene.place, things)
