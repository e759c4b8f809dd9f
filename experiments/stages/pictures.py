"""Draw what the small stages answer before and after, beside the truth: python pictures.py RUNS_FOLDER.

Writes <stage>/samples.png for each stage that was evaluated before and after.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from collect import PRETRAINING, SHOWN, evaluations_of
from PIL import Image, ImageDraw

from mmi.commands.evaluation_tasks import read_evaluation_config
from mmi.training.contact_sheet import Part, contact_sheet
from mmi_eval.outputs import opened_answer
from mmi_eval.results import Evaluation
from mmi_eval.sample import Picture, Sample, spread
from mmi_eval.tasks import Task
from mmi_eval.tasks.story_frames import real_frames

HERE = Path(__file__).parent
N_ROWS, COLOURS = 3, 256
DRAWN_TASKS = {"pretrain": ("micro_drawing",)}
"""Tasks that are shown, where those are not all of the stage."""
_BOX = re.compile(r"\((\d{3}),(\d{3})\)\((\d{3}),(\d{3})\)")


def sheet(stage: str, runs: Path) -> Image.Image | None:
    """Return a few samples of a stage as a table; None where it was not evaluated before and after."""
    tasks = read_evaluation_config(["eval/stages.yaml"]).tasks
    untrained = stage == PRETRAINING
    after = evaluations_of(runs / f"stage-{stage}", untrained=False)
    before = evaluations_of(runs / f"stage-{stage if untrained else PRETRAINING}", untrained=untrained)
    labels = [label for label in DRAWN_TASKS.get(stage, tuple(SHOWN[stage])) if label in after and label in before]
    if not labels:
        return None
    rows = []
    for label in labels:
        each = max(1, N_ROWS // len(labels))
        rows += _rows(tasks[label], before[label], after[label], each)
    return contact_sheet(rows, ("given", "truth", "before", "after"))


def _rows(task: Task, before: Evaluation, after: Evaluation, n: int) -> Iterator[list[list[Part]]]:
    samples = list(task.samples())
    stories = {str(sample.meta["story"]): sample for sample in samples if sample.meta.get("story")}
    chosen = spread(list(stories.values()) or samples, n + 1)[:n]
    answers = [(evaluation, evaluation.predictions.read_all()) for evaluation in (before, after)]
    for sample in chosen:
        parts = [sample]
        if stories:
            parts = [other for other in samples if other.meta.get("story") == sample.meta["story"]]
        given: list[Part] = [piece if isinstance(piece, str) else piece.open() for piece in sample.prompt]
        columns = [given, _truth(sample)]
        for evaluation, lines in answers:
            shown: list[Part] = []
            for part in parts:
                shown += _answer(part, opened_answer(lines[part.id], part, evaluation.folder))
            columns.append(shown)
        yield columns


def _truth(sample: Sample) -> list[Part]:
    if "box" in sample.meta:
        x1, y1, x2, y2 = sample.meta["box"]
        return [_boxed(sample, (x1, y1, x2, y2))]
    if "targets" in sample.meta:
        frames: list[Part] = [frame.open() for frame in real_frames(sample)]
        return [*sample.meta["captions"][1:], *frames] if "story" in sample.meta else frames
    return [sample.target.open()] if sample.target is not None else [sample.references[0]] if sample.references else []


def _answer(sample: Sample, answer: object) -> list[Part]:
    """Return an answer to look at: a box in its picture, pictures, or text."""
    if isinstance(answer, Picture):
        return [answer.open()]
    if isinstance(answer, tuple):
        return [picture.open() for picture in answer]
    text = answer if isinstance(answer, str) else "-"
    if "box" in sample.meta and (found := _BOX.search(text)):
        width, height = sample.pictures[0].size()
        x1, y1, x2, y2 = (int(number) / 999 for number in found.groups())
        return [_boxed(sample, (x1 * width, y1 * height, x2 * width, y2 * height))]
    return [re.sub(r"<\w+( \w+)?>", "", line).strip() or "-" for line in text.split("\n")] or ["-"]


def _boxed(sample: Sample, box: Sequence[float]) -> Image.Image:
    """Return the picture of a sample, three times as large, with a box around a part of it."""
    picture = sample.pictures[0].open()
    picture = picture.resize((picture.width * 3, picture.height * 3), Image.Resampling.NEAREST)
    ImageDraw.Draw(picture).rectangle([3 * side for side in box], outline=(255, 0, 255), width=2)
    return picture


def main(runs: Path) -> None:
    """Write all pictures."""
    for stage in SHOWN:
        made = sheet(stage, runs)
        if made is not None:
            (HERE / stage).mkdir(exist_ok=True)
            file = HERE / stage / "samples.png"
            made.quantize(COLOURS).save(file, optimize=True)
            print(f"{file}: {made.width}x{made.height}, {file.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
