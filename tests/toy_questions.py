"""A dozen drawn pictures with questions in the layouts of the benchmarks of short answers, and training questions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from toy_benchmarks import drawn, look

from mmi_eval.formats.gqa import GQAItem, GQATypes, write_gqa
from mmi_eval.formats.textvqa import TextVQAItem, write_textvqa
from mmi_eval.formats.vizwiz import VizWizAnswer, VizWizItem, vizwiz_name, write_vizwiz
from mmi_eval.formats.vqa import VQAAnnotation, VQAAnswer, VQAItem, write_vqa
from mmi_eval.tasks.gqa import GQA
from mmi_eval.tasks.okvqa import OKVQA
from mmi_eval.tasks.textvqa import TextVQA
from mmi_eval.tasks.vizwiz import VizWiz
from mmi_eval.tasks.vqav2 import VQAv2

N = 12
TRAINING = range(100, 100 + N)


def write_questions(folder: Path) -> Path:
    """Write test pictures 0 to 11, training pictures 100 to 111 and the questions of every benchmark."""
    for name in ("images", "train"):
        (folder / name).mkdir(parents=True)
    for i in range(N):
        for name in (f"{i}.png", vizwiz_name("val", i, "png")):
            marked(i, 4 * i).save(folder / "images" / name)
        # Training picture 100 is test picture 0 under another name; of the others 100 + i is the nearest to i.
        marked(i, 4 * i + (i > 0)).save(folder / "train" / f"{100 + i}.png")
    for split, ids in (("test", range(N)), ("train", TRAINING)):
        for name, kind in (("vqa", "colour"), ("okvqa", "ten"), ("textvqa", None)):
            items = [question(i, kind) for i in ids]
            write_vqa(folder / f"{name}_{split}_q.json", folder / f"{name}_{split}_a.json", items)
        official = [TextVQAItem(i, f"{i}", "what colour?", people(colour(i))) for i in ids]
        write_textvqa(folder / f"TextVQA_{split}.json", official, "val")
    write_vizwiz(folder / "vizwiz.json", [photograph(i) for i in range(N)])
    write_gqa(folder / "gqa.json", [composition(i) for i in range(N)])
    return folder


def marked(i: int, mark: int) -> Image.Image:
    """A drawn picture with a number in its first pixel, so that no two are equal."""
    pixels = np.asarray(drawn(i)).copy()
    pixels[0, 0] = (mark, 7, 7)
    return Image.fromarray(pixels)


def colour(i: int) -> str:
    return look(i % 100)[1]


def people(answer: str) -> tuple[str, ...]:
    """Eight who agree and two who say grey."""
    return (*[answer] * 8, "grey", "grey")


def question(i: int, kind: str | None) -> VQAItem:
    answers = tuple(VQAAnswer(text, "yes", k) for k, text in enumerate(people(colour(i)), start=1))
    annotation = VQAAnnotation(kind, None if kind is None else "other", colour(i), answers)
    return VQAItem(i, f"{i}" if kind is None else i, "What colour?", annotation, f"{i}.png")


def photograph(i: int) -> VizWizItem:
    """Every third picture shows no answer."""
    shown = i % 3 != 0
    answers = people(colour(i) if shown else "unanswerable")
    kind = "other" if shown else "unanswerable"
    return VizWizItem(
        vizwiz_name("val", i, "png"), "What colour?", tuple(VizWizAnswer(text, "yes") for text in answers), kind, shown
    )


def composition(i: int) -> GQAItem:
    is_open = i % 2 == 0
    types = GQATypes("query", "attr", "colourQuery") if is_open else GQATypes("verify", "obj", "existVerify")
    return GQAItem(f"{i:03d}", f"{i}", "What colour?", colour(i) if is_open else "yes", types=types, is_balanced=True)


def tasks(folder: Path) -> dict[str, Any]:
    """Every benchmark on these files; prompts say what stands where."""
    images, prompt = folder / "images", "{image}{question}"

    def files(name: str) -> dict[str, Any]:
        return {
            "questions": folder / f"{name}_test_q.json",
            "annotations": folder / f"{name}_test_a.json",
            "images": images,
            "train_questions": folder / f"{name}_train_q.json",
            "train_annotations": folder / f"{name}_train_a.json",
            "train_images": folder / "train",
            "prompt": prompt,
        }

    return {
        "vqav2": VQAv2(**files("vqa")),
        "okvqa": OKVQA(**files("okvqa")),
        "textvqa": TextVQA(**files("textvqa")),
        "vizwiz": VizWiz(folder / "vizwiz.json", images, prompt=prompt),
        "gqa": GQA(folder / "gqa.json", images, image_name="{image_id}.png", prompt=prompt),
    }


def right(samples: Sequence[Any]) -> list[str]:
    """The best answers."""
    return [sample.references[0] for sample in samples]
