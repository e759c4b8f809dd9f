"""The world in the layouts of the official data sets, a module per family of layouts.

A family writes one split with ``write``; where one file serves all splits, it writes that file with ``write_all``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from . import (
    ade20k,
    coco,
    conversations,
    flickr30k,
    flintstones,
    gqa,
    karpathy,
    narratives,
    nocaps,
    obelics,
    okvqa,
    pairs,
    paragraphs,
    pororo,
    refcoco,
    stories,
    textvqa,
    visdial,
    vist,
    vizwiz,
    vqa,
)
from .part import WorldPart

FAMILIES: Mapping[str, Callable[[WorldPart], dict[str, int]]] = {
    "stories": stories.write,
    "obelics": obelics.write,
    "pairs": pairs.write,
    "coco": coco.write,
    "nocaps": nocaps.write,
    "narratives": narratives.write,
    "vqa": vqa.write,
    "okvqa": okvqa.write,
    "gqa": gqa.write,
    "vizwiz": vizwiz.write,
    "textvqa": textvqa.write,
    "visdial": visdial.write,
    "ade20k": ade20k.write,
    "vist": vist.write,
    "conversations": conversations.write,
}
"""What is written of each split: a function that returns how many there are of each kind."""

FAMILIES_OF_ALL_SPLITS: Mapping[str, Callable[[Sequence[WorldPart]], dict[str, int]]] = {
    "karpathy": karpathy.write_all,
    "flickr30k": flickr30k.write_all,
    "paragraphs": paragraphs.write_all,
    "refcoco": refcoco.write_all,
    "pororo": pororo.write_all,
    "flintstones": flintstones.write_all,
}
"""What is written once, with all splits in it: a function that returns how many there are of each kind."""

__all__ = ["FAMILIES", "FAMILIES_OF_ALL_SPLITS", "WorldPart"]
