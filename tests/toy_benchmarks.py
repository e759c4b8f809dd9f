"""A data set of a dozen drawn pictures in the layouts of all tasks, and models that know all or nothing about it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmi_eval.formats.boxes import corners, format_box
from mmi_eval.formats.coco_captions import CaptionedImage, write_coco_captions
from mmi_eval.formats.llava import Conversation, Turn, write_conversations
from mmi_eval.formats.mmc4 import MMC4Document, MMC4Image, write_mmc4
from mmi_eval.formats.refcoco import Expression, Reference, ReferenceImage, write_refcoco
from mmi_eval.formats.vqa import VQAAnnotation, VQAAnswer, VQAItem, write_vqa
from mmi_eval.judges import JudgeClasses, PictureAttributes
from mmi_eval.results import Checkpoint
from mmi_eval.sample import Sample
from mmi_eval.tasks.coco_caption import COCOCaption
from mmi_eval.tasks.micro_drawing import MicroDrawing
from mmi_eval.tasks.micro_image_loss import MicroImageLoss
from mmi_eval.tasks.micro_quiz import MicroQuiz
from mmi_eval.tasks.refcoco import RefCOCO
from mmi_eval.tasks.vqav2 import VQAv2

CELLS = ("top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right")
PLACES = {"snow": (240, 240, 240), "cave": (60, 60, 60), "lake": (140, 180, 210)}
COLOURS = {"red": (214, 24, 36), "green": (20, 146, 48), "blue": (28, 74, 214), "yellow": (252, 218, 20)}
N, SIDE, CELL = 12, 32, 10
CHECKPOINT = Checkpoint("last", 7, "0" * 64)


def look(i: int) -> tuple[str, str, int]:
    """Place, colour and cell of picture ``i``; two blue things to every other colour."""
    colour = ("blue", "red", "blue", "green", "blue", "yellow")[i % 6]
    return list(PLACES)[i % 3], colour, (5 * i) % 9


def box(i: int) -> tuple[int, int, int, int]:
    cell = look(i)[2]
    return 1 + CELL * (cell % 3), 1 + CELL * (cell // 3), CELL, CELL


def drawn(i: int) -> Image.Image:
    place, colour, _ = look(i)
    pixels = np.full((SIDE, SIDE, 3), PLACES[place], np.uint8)
    left, top, width, height = box(i)
    pixels[top : top + height, left : left + width] = COLOURS[colour]
    return Image.fromarray(pixels)


def write_benchmarks(folder: Path) -> Path:
    """Write pictures and the files of every task."""
    (folder / "images").mkdir(parents=True)
    for i in range(N):
        drawn(i).save(folder / "images" / f"{i}.png")
    write_coco_captions(
        folder / "captions.json", [CaptionedImage(i, f"{i}.png", captions(i), (SIDE, SIDE)) for i in range(N)]
    )
    items = [item for i in range(N) for item in questions(i)]
    write_vqa(folder / "questions.json", folder / "annotations.json", items)
    lines(folder / "tags.jsonl", [{"id": item.question_id, "tags": [tag(item)]} for item in items])
    references = [
        Reference(i, i, split, 1, box(i), ReferenceImage(i, f"{i}.png", (SIDE, SIDE)), (expression(i),))
        for i in range(N)
        for split in ("train" if i == N - 1 else "val",)
    ]
    write_refcoco(folder, references, "unc")
    lines(folder / "scenes.jsonl", [{"image": f"{i}.png", **scene(i)} for i in range(N)])
    write_conversations(folder / "conversations.json", [conversation(i) for i in range(N - 1)])
    kinds = [["colour", "by look"], ["colour", "earlier 1"]]
    quiz_tags = [{"id": f"c{i}/{k + 1}", "tags": kinds[k]} for i in range(N - 1) for k in range(2)]
    lines(folder / "quiz_tags.jsonl", quiz_tags)
    write_mmc4(folder / "stories.jsonl", [story(i) for i in range(N - 1)])
    return folder


def captions(i: int) -> tuple[str, ...]:
    place, colour, cell = look(i)
    where = CELLS[cell]
    return (
        f"a {colour} thing at the {where}, in the {place}",
        f"in the {place} there is a {colour} thing at the {where}",
        f"one {colour} thing at the {where} of the {place}",
    )


def questions(i: int) -> list[VQAItem]:
    place, colour, cell = look(i)
    asked = (("what colour is the thing?", colour, "colour"), (f"what is at the {CELLS[cell]}?", place, "place"))
    found = []
    for number, (question, answer, kind) in enumerate(asked):
        answers = tuple(VQAAnswer("grey" if k > 8 else answer, "yes", k) for k in range(1, 11))
        annotation = VQAAnnotation(kind, "other", answer, answers)
        found.append(VQAItem(10 * i + number, i, question, annotation, f"{i}.png"))
    return found


def tag(item: VQAItem) -> str:
    return "even" if int(item.image_id) % 2 == 0 else "odd"


def expression(i: int) -> Expression:
    words = f"the {look(i)[1]} thing"
    return Expression(100 + i, words, words, tuple(words.split()))


def scene(i: int) -> dict[str, Any]:
    place, colour, cell = look(i)
    thing = {"cell": CELLS[cell], "colour": colour, "shape": "square", "size": "large", "texture": "plain"}
    return {"place": place, "things": [thing | {"print": None, "name": None}]}


def conversation(i: int) -> Conversation:
    turns = (
        Turn("human", "<image>\nwhere is it?"),
        Turn("gpt", format_box(corners(box(i)), (SIDE, SIDE))),
        Turn("human", "<image>\nwhat colour is it?"),
        Turn("gpt", look(i + 1)[1]),
        Turn("human", "what colour was it before?"),
        Turn("gpt", look(i)[1]),
    )
    return Conversation(f"c{i}", (f"{i}.png", f"{i + 1}.png"), turns)


def story(i: int) -> MMC4Document:
    texts = (captions(i)[0], captions(i + 1)[0])
    return MMC4Document(texts, tuple(MMC4Image(f"{i + k}.png", k, 0.3) for k in range(2)))


def lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def tasks(folder: Path) -> dict[str, Any]:
    """Every task on these files."""
    images, captioned, judges = folder / "images", folder / "captions.json", folder / "judges"
    return {
        "coco_caption": COCOCaption(captioned, images, tokens="java-free", prompt="{image}"),
        "vqav2": VQAv2(folder / "questions.json", folder / "annotations.json", images, tags=folder / "tags.jsonl"),
        "refcoco": RefCOCO(folder / "refs(unc).p", folder / "instances.json", images),
        "micro_quiz": MicroQuiz(folder / "conversations.json", images, folder / "quiz_tags.jsonl"),
        "micro_drawing": MicroDrawing(captioned, images, folder / "scenes.jsonl", judges, n=9, n_real=9),
        "micro_image_loss": MicroImageLoss(captioned, images, folder / "stories.jsonl", images, n_draws=2),
    }


class ToyModel:
    """Answers by the id of the sample it recognises in a prompt; remembers whom it was asked about.

    Args:
        samples: Those it knows.
        text: What it writes to a sample.
        draw: What it draws for a sample.
        loss: Loss of a picture after the sample's own words; after other words it is 0.5 more.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        text: Callable[[Sample], str] = lambda sample: "",
        draw: Callable[[Sample], Image.Image] = lambda sample: Image.new("RGB", (SIDE, SIDE), (128, 128, 128)),
        loss: float = 0.25,
    ) -> None:
        self.by_prompt = {key(sample.opened()): sample for sample in samples}
        self.text, self.draw, self.loss = text, draw, loss
        self.asked: list[str] = []

    def recognise(self, prompt: Sequence[Any]) -> Sample:
        sample = self.by_prompt[key(prompt)]
        self.asked.append(sample.id)
        return sample

    def generate_text(self, prompts: Any, decoding: Any) -> list[str]:
        return [self.text(self.recognise(prompt)) for prompt in prompts]

    def generate_image(self, prompts: Any, drawing: Any, seeds: Any) -> list[Image.Image]:
        return [self.draw(self.recognise(prompt)) for prompt in prompts]

    def score_continuations(self, prompt: Any, continuations: Any) -> list[float]:
        return [-float(len(text)) for text in continuations]

    def image_losses(self, prompts: Any, images: Any, seeds: Any) -> list[float]:
        losses = []
        for prompt, image in zip(prompts, images, strict=True):
            own = self.by_prompt.get(key(prompt))
            right = own is not None and own.target is not None and own.target.open().tobytes() == image.tobytes()
            self.asked += [own.id] if own is not None else []
            losses.append(self.loss + (0.0 if right else 0.5))
        return losses


def key(prompt: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(piece if isinstance(piece, str) else piece.tobytes() for piece in prompt)


def oracle(task: Any) -> ToyModel:
    """A model that gives the best answer to each sample of a task."""

    def text(sample: Sample) -> str:
        if "box" in sample.meta:
            x1, y1, x2, y2 = sample.meta["box"]
            return f"<box>{format_box((x1, y1, x2, y2), (SIDE, SIDE))}</box>"
        return sample.meta.get("answer") or sample.references[0]

    def draw(sample: Sample) -> Image.Image:
        assert sample.target is not None
        return sample.target.open()

    return ToyModel(task.samples(), text, draw)


class ToyJudges:
    """Judges by looking up colours; stands in for trained networks."""

    classes = JudgeClasses(
        tuple(PLACES), ("", "square"), ("", *COLOURS), ("", "plain"), ("", "large"), ("", "0"), ("", "x"), SIDE, CELL, 1
    )
    digest = "toy"

    def __init__(self) -> None:
        self.accuracy = {"colour": 1.0}

    def attributes(self, images: np.ndarray) -> PictureAttributes:
        background = np.array([nearest(image[:, 0, 0], PLACES) for image in images])
        cells = np.zeros((len(images), 9, 5), np.int64)
        for row, image in enumerate(images):
            for cell in range(9):
                pixel = image[:, 6 + CELL * (cell // 3), 6 + CELL * (cell % 3)]
                if min(distance(pixel, rgb) for rgb in COLOURS.values()) == 0:
                    cells[row, cell] = (1, 1 + nearest(pixel, COLOURS), 1, 1, 0)
        return PictureAttributes(self.classes, background, cells)

    def features(self, images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), 3, -1).mean(-1)


def nearest(pixel: np.ndarray, table: dict[str, tuple[int, int, int]]) -> int:
    return int(np.argmin([distance(pixel, rgb) for rgb in table.values()]))


def distance(pixel: np.ndarray, rgb: tuple[int, int, int]) -> int:
    return int(np.abs(pixel.astype(int) - rgb).sum())
