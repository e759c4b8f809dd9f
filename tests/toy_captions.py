"""Four pictures in the files of the caption benchmarks, worded so that scores can be worked out by hand.

No two pictures share a word and each caption has four, so that a right caption gets CIDEr 10 and another's gets 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from mmi_eval.formats.coco_captions import CaptionedImage, write_coco_captions
from mmi_eval.formats.flickr30k import write_flickr30k
from mmi_eval.formats.nocaps import Domain, NocapsImage, write_nocaps
from mmi_eval.formats.paragraphs import Paragraph, write_paragraph_split, write_paragraphs
from mmi_eval.tasks.captioning import Captioning
from mmi_eval.tasks.coco_caption import COCOCaption
from mmi_eval.tasks.flickr30k import Flickr30k
from mmi_eval.tasks.image2paragraph import Image2Paragraph
from mmi_eval.tasks.nocaps import NoCaps

TEXTS = ("red dogs chase balls", "two grey cats sleep", "boats cross wide lakes", "old towers watch fields")
DOMAINS: tuple[Domain, ...] = ("in-domain", "in-domain", "near-domain", "out-domain")
TRAIN = {900 + i: text for i, text in enumerate(("horses graze", "trains wait", "horses graze"))}
ADDRESS = "https://example.org/pictures/VG"


def write_caption_benchmarks(folder: Path) -> Path:
    """Write pictures and the files of all four."""
    for i in (*range(4), *TRAIN):
        (folder / "VG").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (i % 256, 0, 60)).save(folder / "VG" / f"{i}.png")
    split = [CaptionedImage(i, f"VG/{i}.png", (text, f"{text}.")) for i, text in enumerate(TEXTS)]
    write_coco_captions(folder / "coco.json", split)
    write_flickr30k(folder / "test1k.token.coco_format", split)
    train = [CaptionedImage(i, f"VG/{i}.png", (text,)) for i, text in TRAIN.items()]
    write_coco_captions(folder / "train.json", train)
    pictures = [NocapsImage(i, f"VG/{i}.png", f"{i:016x}", DOMAINS[i], (t, f"{t}.")) for i, t in enumerate(TEXTS)]
    write_nocaps(folder / "nocaps_val.json", pictures)
    write_nocaps(folder / "nocaps_test.json", [replace(p, domain=None, captions=None) for p in pictures])
    rows = [Paragraph(i, text, f"{ADDRESS}/{i}.png") for i, text in (*enumerate(TEXTS), *TRAIN.items())]
    earlier = Paragraph(1, "an earlier paragraph of it", f"{ADDRESS}/1.png")
    write_paragraphs(folder / "paragraphs_v1.json", [rows[0], earlier, *rows[1:]])
    write_paragraph_split(folder / "test_split.json", range(4))
    write_paragraph_split(folder / "train_split.json", TRAIN)
    return folder


def caption_tasks(folder: Path) -> dict[str, Captioning]:
    """Every caption benchmark on these files, with its own prompt, without Java."""
    common: dict[str, Any] = {"tokens": "java-free"}
    trained: dict[str, Any] = {**common, "train_captions": folder / "train.json"}
    return {
        "coco_caption": COCOCaption(folder / "coco.json", folder, **trained),
        "flickr30k": Flickr30k(folder / "test1k.token.coco_format", folder, **trained),
        "nocaps": NoCaps(folder / "nocaps_val.json", folder, **trained),
        "image2paragraph": Image2Paragraph(
            folder / "paragraphs_v1.json",
            folder,
            ids=folder / "test_split.json",
            train_ids=folder / "train_split.json",
            **common,
        ),
    }


class Speaker:
    """A model that says one of the given texts to each prompt in turn, and remembers what it was asked."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = list(texts)
        self.prompts: list[Any] = []
        self.decodings: list[Any] = []

    def generate_text(self, prompts: Any, decoding: Any) -> list[str]:
        said = self.texts[len(self.prompts) : len(self.prompts) + len(prompts)]
        self.prompts += prompts
        self.decodings.append(decoding)
        return said
