"""Judges of drawn pictures: small networks taught on the world whose pictures they judge.

CLIP, Inception and segmentation weights cannot be assumed offline. ``teach_judges`` makes three networks,
``load_judges`` reads them back; ``Judges`` says what a picture shows in each cell, compares pictures with texts,
segments, and gives features for ``micro-fid``. Pictures and labels are handed in, so this package knows no particular
world.
"""

from .attributes import Agreement, CellContent, PictureAttributes, PictureContent
from .judge import Judges, load_judges
from .pictures import CELL_KINDS, JudgeClasses, LabelledPictures
from .teach import JudgeSettings, teach_judges

__all__ = [
    "CELL_KINDS",
    "Agreement",
    "CellContent",
    "JudgeClasses",
    "JudgeSettings",
    "Judges",
    "LabelledPictures",
    "PictureAttributes",
    "PictureContent",
    "load_judges",
    "teach_judges",
]
