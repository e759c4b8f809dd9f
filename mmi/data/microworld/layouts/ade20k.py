"""Pictures with a label for every pixel and a caption in the layout of ADE20K: places, and shapes on them."""

from __future__ import annotations

from collections.abc import Mapping

from mmi.data.microworld.draw import LAYOUT_CLASSES, draw, layout_map
from mmi.data.microworld.language import captions
from mmi.data.microworld.vocabulary import PLACES
from mmi_eval.formats.ade20k import (
    CLASS_FILE,
    CaptionedScene,
    SceneClass,
    write_classes,
    write_labels,
    write_scene_captions,
)

from .five_frames import fewer
from .part import WorldPart

PHASES: Mapping[str, str] = {"train": "training", "val": "validation", "test": "testing"}


def write(part: WorldPart) -> dict[str, int]:
    """Write pictures, labels and captions of a phase, the class list, and tags by picture."""
    root, phase = part.folder / "ade20k", PHASES[part.split]
    (root / "images" / phase).mkdir(parents=True, exist_ok=True)
    scenes: list[CaptionedScene] = []
    for i in part.items(fewer(part.size)):
        scene, image_id = part.scene("ade20k", i), f"ADE_{part.split}_{i + 1:08d}"
        # The official system adds the full stop.
        scenes.append(CaptionedScene(image_id, captions(scene, part.dice("ade20k", i), 1)[0].removesuffix(".")))
        part.save("ade20k", [f"{phase}/{image_id}.png"], [scene])
        write_labels(scenes[-1].labels_path(root, phase), layout_map(draw(scene, part.image_size)))
        part.note_tags("ade20k", {image_id: ("layout", f"things {len(scene.things)}")})
    # Places are stuff, shapes are things; 0 is unlabelled.
    names = LAYOUT_CLASSES[1:]
    write_classes(
        root / CLASS_FILE,
        [SceneClass(label, name, stuff=label <= len(PLACES)) for label, name in enumerate(names, start=1)],
    )
    return {"ade20k": write_scene_captions(root / f"{phase}.json", scenes)}
