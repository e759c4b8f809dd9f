"""The micro-world: drawn scenes with captions, questions and stories, written in the official layouts.

``write_world`` makes the data of the demo and the tests; ``pretraining_pictures`` draws labelled pictures for a vision
network that is trained beforehand, from scenes that occur nowhere else.
"""

from .draw import LAYOUT_CLASSES, draw, layout_map
from .labels import LABEL_COUNTS, patch_labels, pretraining_pictures
from .recipe import PRESETS, Recipe
from .scene import Print, Scene, Thing, draw_scene
from .vocabulary import VERSION
from .write import WorldSummary, write_world

__all__ = [
    "LABEL_COUNTS",
    "LAYOUT_CLASSES",
    "PRESETS",
    "VERSION",
    "Print",
    "Recipe",
    "Scene",
    "Thing",
    "WorldSummary",
    "draw",
    "draw_scene",
    "layout_map",
    "patch_labels",
    "pretraining_pictures",
    "write_world",
]
