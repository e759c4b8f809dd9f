"""A run folder that was never trained: drawn numbers, real evaluations of a model that is right two times out of three.

Texts hold markup and worse, as captions from the web do, so every page made of it also shows that nothing gets through.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml
from PIL import Image

from mmi.checkpoints.storage import write_checkpoint
from mmi_eval.formats.coco_captions import CaptionedImage, write_coco_captions
from mmi_eval.formats.errors import write_json
from mmi_eval.formats.refcoco import Expression, Reference, ReferenceImage, write_refcoco
from mmi_eval.formats.vqa import VQAAnnotation, VQAAnswer, VQAItem, write_vqa
from mmi_eval.metrics.intervals import Score
from mmi_eval.predictions import Prediction
from mmi_eval.results import Checkpoint, Condition, Evaluation, Plan, plain
from mmi_eval.runner import Runner
from mmi_eval.sample import fingerprint
from mmi_eval.tasks.coco_caption import COCOCaption
from mmi_eval.tasks.micro_drawing import MicroDrawing
from mmi_eval.tasks.micro_image_loss import MicroImageLoss
from mmi_eval.tasks.refcoco import RefCOCO
from mmi_eval.tasks.vqav2 import VQAv2

EVIL = '<script>alert("x")</script><img src=http://evil.example/a.png onerror=alert(1)> & \x00\u202e'
COLOURS = ("red", "blue", "green", "pink")
N = 24


class TwoThirdsRight:
    """Answer from the truth two times out of three, from nothing where the picture is grey."""

    def __init__(self, truth: dict[str, str]) -> None:
        self.truth = truth

    def generate_text(self, prompts: Sequence[Sequence[object]], decoding: object) -> list[str]:
        return [self._answer(prompt) for prompt in prompts]

    def generate_image(self, prompts: object, drawing: object, seeds: Sequence[int]) -> list[Image.Image]:
        return [Image.new("RGB", (16, 16), (seed % 256, 60, 90)) for seed in seeds]

    def score_continuations(self, prompt: object, continuations: Sequence[str]) -> list[float]:
        return [-float(len(text)) for text in continuations]

    def image_losses(
        self, prompts: Sequence[Sequence[object]], images: Sequence[Image.Image], seeds: object
    ) -> list[float]:
        own = [str(prompt[-1]) == self.truth[_key(image)] for prompt, image in zip(prompts, images, strict=True)]
        return [0.1 if right else 0.3 for right in own]

    def _answer(self, prompt: Sequence[object]) -> str:
        picture = next(piece for piece in prompt if isinstance(piece, Image.Image))
        number = picture.getpixel((0, 0))[0]
        return EVIL if number >= 128 or number % 3 == 0 else self.truth[_key(picture)]


def _key(picture: Image.Image) -> str:
    return str(picture.getpixel((0, 0))[0])


def make_run(folder: Path) -> Path:
    """Write a data set and a run with evaluations of it below ``folder``; return the run folder."""
    data, run = folder / "data", folder / "runs" / "made"
    _data(data)
    _training(run)
    checkpoint = Checkpoint("last", 40, "0" * 64)
    truths = {
        "vqav2": {str(i): COLOURS[i % 4] for i in range(N)},
        "coco_caption": {str(i): f"a {COLOURS[i % 4]} thing number {i} here" for i in range(N)},
        "refcoco": dict.fromkeys(map(str, range(N)), "(000,000)(500,500)"),
        "micro_image_loss": {str(i): f"a {COLOURS[i % 4]} thing number {i} here" for i in range(N)},
    }
    for task in _tasks(data):
        model = TwoThirdsRight(truths[task.name])
        runner = Runner(run, None)
        runner.evaluate(task, model, checkpoint, Condition(weights="untrained"))
        runner.evaluate(task, model, checkpoint, Condition())
        if task.name == "vqav2":
            for condition in (Condition("blank"), Condition("swapped"), Condition(mmfs=False)):
                runner.evaluate(task, model, checkpoint, condition)
            Runner(run, limit=4).evaluate(task, model, checkpoint, Condition())
    _drawing(run, data, checkpoint)
    return run


def _tasks(data: Path) -> list[VQAv2 | COCOCaption | RefCOCO | MicroImageLoss]:
    captions, images = data / "captions.json", data / "images"
    return [
        VQAv2(data / "questions.json", data / "annotations.json", images, tags=data / "tags.jsonl", split="val"),
        COCOCaption(captions, images, tokens="java-free", split="val"),
        RefCOCO(data / "refs(unc).p", data / "instances.json", images, train_split="val"),
        MicroImageLoss(captions, images, n=8, n_draws=1),
    ]


def _data(data: Path) -> None:
    (data / "images").mkdir(parents=True)
    items, captions, references, lines = [], [], [], {"tags": [], "scenes": []}
    for i in range(N):
        Image.new("RGB", (16, 16), (i, 90, 40)).save(data / "images" / f"{i}.png")
        colour = COLOURS[i % 4]
        answers = tuple(VQAAnswer(colour, "yes", k + 1) for k in range(10))
        kind = "colour" if i % 2 else "number"
        items.append(VQAItem(i, i, f"what colour {EVIL}?", VQAAnnotation(kind, "other", colour, answers), f"{i}.png"))
        texts = (f"a {colour} thing number {i} here", f"the {colour} thing {EVIL}")
        captions.append(CaptionedImage(i, f"{i}.png", texts, (16, 16)))
        lines["tags"].append({"id": i, "tags": [kind, "small print" if i % 3 else "earlier 1"]})
        lines["scenes"].append({"image": f"{i}.png", "place": "lake", "things": []})
        image = ReferenceImage(i, f"{i}.png", (16, 16))
        words = f"the {colour} one {EVIL}"
        expression = Expression(i, words, words, tuple(words.split()))
        references.append(Reference(i, i, "val", 1, (0.0, 0.0, 8.0, 8.0), image, (expression,)))
    write_vqa(data / "questions.json", data / "annotations.json", items)
    write_coco_captions(data / "captions.json", captions)
    write_refcoco(data, references, "unc")
    for name, rows in lines.items():
        (data / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _training(run: Path) -> None:
    run.mkdir(parents=True)
    config = {"schema_version": 1, "seed_everything": 7, "data": {"train": {"stories": {}}}, "run": {"name": "made"}}
    (run / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    session = {"command": ["mmi", "fit", "--config", "a b.yaml"], "devices": ["cpu"], "code": {"commit": "abc"}}
    (run / "environment.json").write_text(json.dumps({"schema_version": 1, "sessions": [session]}), encoding="utf-8")
    rows = [
        "step,train/loss_text,train/loss_image,val/loss_text,val/loss_text/stories,gate/language_model.layers.0.mmfs"
    ]
    rows += [f"{step},{8 / step},{0.4 - step / 200},{6 / step if step % 10 == 0 else ''},,0.1" for step in range(1, 41)]
    (run / "metrics.csv").write_text("\n".join([*rows, "41,nan,,,,"]) + "\n", encoding="utf-8")
    skip = {"source": "stories", "document_id": "a", "reason": "unreadable picture", "count": 2}
    (run / "skipped.jsonl").write_text(json.dumps(skip) + "\n{cut", encoding="utf-8")
    for step in (20, 40):
        panel = run / "samples" / f"step-{step}"
        panel.mkdir(parents=True)
        Image.new("RGB", (300, 200), "white").save(panel / "panel.png")
        sample = {"prompt": [EVIL, "<image>"], "target": ["t"], "answer": ["<image>"]}
        (panel / "answers.json").write_text(json.dumps({"samples": [sample]}), encoding="utf-8")
    tensors = {
        "language_model.layers.2.mmfs.gate": torch.tensor([-0.5]),
        "language_model.layers.0.mmfs.gate": torch.tensor([0.1]),
        "image_decoder.unet.mmfs.0.conv.weight": torch.full((2, 2, 1, 1), 0.5),
        "vision.weight": torch.zeros(3, 5),
    }
    write_checkpoint(run / "checkpoints" / "last", tensors, {}, 40)


def _drawing(run: Path, data: Path, checkpoint: Checkpoint) -> None:
    """Write an evaluation of drawn pictures as its task would, without the networks that judge them."""
    task = MicroDrawing(data / "captions.json", data / "images", data / "scenes.jsonl", data / "judges", n=6)
    samples = task.samples()
    plan = Plan(task.name, task.version, plain(task), Condition(), checkpoint, None, fingerprint(samples))
    evaluation = Evaluation(run / "evaluations" / task.name / plan.hash)
    (evaluation.folder / "images").mkdir(parents=True)
    write_json(evaluation.folder / "evaluation.json", plan.record())
    lines = []
    for sample in samples[:-1]:
        Image.new("RGB", (16, 16), "red").save(evaluation.folder / "images" / f"{sample.id}.png")
        lines.append(Prediction(task.name, task.version, sample.id, f"images/{sample.id}.png", 0.1))
    lines.append(Prediction(task.name, task.version, samples[-1].id, "../../../../secret.png", 0.1))
    evaluation.predictions.append(lines)
    share = Score(0.9, 0.8, 1.0, 6).record()
    evaluation.write_score(
        {
            "headline": "background",
            "protocol": "micro-judges",
            "split": "val",
            "values": {"background": share, "colour at place": share, "micro-fid": Score(12.5, 10.0, 15.0, 6).record()},
            "units": {"background": "percent", "colour at place": "percent", "micro-fid": "raw"},
            "lower_is_better": ["micro-fid"],
            "comparisons": {"colour at place - shuffled captions": Score(0.5, 0.4, 0.6, 6).record()},
            "baselines": {"real_pictures": {"values": {"background": share}}},
            "notes": {"held-out accuracy of the judges": {"colour": 0.987}},
            "counts": {"n_samples": 6, "n_errors": 1},
        }
    )
