"""The part of a run's page with single answers: questions beside truth, drawn pictures beside real ones."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from mmi_eval.formats.errors import FormatError, path_inside
from mmi_eval.metrics.grounding import parse_box, scale_box
from mmi_eval.predictions import Prediction
from mmi_eval.sample import Picture, Sample

from .evaluated import Result, by_task, standing
from .markup import Content, Markup, element, fragment, missing, note
from .page import Section
from .pictures import gallery, picture, row
from .run_record import RunRecord
from .wording import limited_label, number, readable

_N_TEXTS, _N_DRAWN = 6, 16
_LONGEST = 400
_TRUTH, _EDGE, _ANSWER = (255, 255, 255), (0, 0, 0), (255, 0, 190)


def answers_section(run: RunRecord) -> Section:
    """Return some answers of each text task: right and wrong ones, chosen by a fixed rule."""
    title = "Answers beside the truth"
    rule = note(
        f"Chosen by a fixed rule, not by hand: ordered by the SHA-256 of their ids, the first {_N_TEXTS} that score at "
        f"least half and the first {_N_TEXTS} that score less."
    )
    parts = [_task(result) for result in _standing_of_kind(run, "text")]
    body = fragment(rule, *parts) if parts else missing("No task with text answers was evaluated.", _command(run))
    return Section("answers", title, body)


def drawn_section(run: RunRecord) -> Section:
    """Return drawn pictures beside the real ones that belong there."""
    parts = [_drawn(result) for result in _standing_of_kind(run, "image")]
    body = fragment(*parts) if parts else missing("No task with drawn pictures was evaluated.", _command(run))
    return Section("drawn", "Drawn pictures beside real ones", body)


def in_fixed_order(samples: Sequence[Sample]) -> list[Sample]:
    """Order samples by a hash of their ids: the same for every run, and mixed over kinds of questions."""
    return sorted(samples, key=lambda sample: hashlib.sha256(sample.id.encode()).digest())


def _standing_of_kind(run: RunRecord, request: str) -> list[Result]:
    found = [result for results in by_task(run.evaluations).values() if (result := standing(results)) is not None]
    return [result for result in found if _request(result) == request]


def _request(result: Result) -> str:
    """Return what the task asks for; told by its samples, or by its answers where the data are gone."""
    if result.samples:
        return result.samples[0].request
    return "image" if (result.evaluation.folder / "images").is_dir() else "text"


def _task(result: Result) -> Markup:
    heading = element("h3", {}, readable(result.task), limited_label(result))
    if not result.samples:
        return fragment(heading, missing("The data of this task are not where the evaluation read them."))
    scores = result.evaluation.outcomes()[0].get(result.headline, {})
    predictions = result.evaluation.predictions.read()
    ordered = [sample for sample in in_fixed_order(result.samples) if sample.id in predictions]
    right = [s for s in ordered if scores.get(s.id, 0.0) >= 0.5][:_N_TEXTS]
    wrong = [s for s in ordered if s.id in scores and scores[s.id] < 0.5][:_N_TEXTS]
    named = ("Right", "Wrong") if max(scores.values(), default=1.0) <= 1.0 else ("Score 50 or more", "Score below 50")
    groups = [(named[0], right), (named[1], wrong)] if scores else [("Some answers", ordered[: 2 * _N_TEXTS])]
    parts = []
    for name, chosen in groups:
        cards = [_card(result, s, predictions[s.id], scores.get(s.id)) for s in chosen]
        parts += [element("h4", {}, name), gallery(cards) if cards else missing("There are none.")]
    return fragment(heading, *parts)


def _card(result: Result, sample: Sample, prediction: Prediction, score: float | None) -> Markup:
    said = f"failed: {prediction.error}" if prediction.error is not None else _output(prediction)
    boxed = _boxes(sample, prediction)
    shown = boxed if boxed is not None else row(*(_open(p, "Picture of the question") for p in sample.pictures))
    lines = [("asked", _asked(sample)), ("answer", said), ("truth", _truth(sample))]
    if score is not None:
        lines.append((readable(result.headline), number(score, result.is_percent(result.headline))))
    texts = [element("p", {}, element("b", {}, f"{name}: "), _cut(text)) for name, text in lines if text]
    return fragment(shown, *texts)


def _drawn(result: Result) -> Markup:
    heading = element("h3", {}, readable(result.task), limited_label(result))
    if not result.samples:
        return fragment(heading, missing("The data of this task are not where the evaluation read them."))
    predictions = result.evaluation.predictions.read()
    ordered = [sample for sample in in_fixed_order(result.samples) if sample.id in predictions][:_N_DRAWN]
    rule = note(f"The first {len(ordered)} by the SHA-256 of their ids: left drawn, right the real picture.")
    return fragment(heading, rule, gallery([_pair(result, s, predictions[s.id]) for s in ordered], pairs=True))


def _pair(result: Result, sample: Sample, prediction: Prediction) -> Markup:
    asked = _asked(sample)
    if prediction.error is not None or not isinstance(prediction.output, str):
        ours = missing(f"Not drawn: {prediction.error or 'no picture in the answer'}.")
    else:
        try:
            path = path_inside(result.evaluation.folder, prediction.output, f"the prediction of {sample.id}")
            ours = _open(Picture(path), f"Drawn for: {_cut(asked)}")
        except FormatError:
            ours = missing("The answer names a file outside the folder of the evaluation.")
    real = fragment() if sample.target is None else _open(sample.target, "The real picture")
    before = [_open(p, "An earlier picture of the prompt", 64) for p in sample.pictures]
    context = row(*before) if before else fragment()
    return fragment(row(ours, real), context, element("p", {}, _cut(asked)))


def _asked(sample: Sample) -> str:
    for key in ("question", "expression", "caption"):
        if isinstance(sample.meta.get(key), str):
            return sample.meta[key]
    return " ".join(piece.strip() if isinstance(piece, str) else "[picture]" for piece in sample.prompt)


def _truth(sample: Sample) -> str:
    """Return the references, the most frequent first, with how many people gave each."""
    counted = Counter(sample.references).most_common(4)
    if len(sample.references) > len(counted) and counted[0][1] > 1:
        return ", ".join(f"{text} ({n} of {len(sample.references)})" for text, n in counted)
    return " / ".join(text for text, _ in counted)


def _output(prediction: Prediction) -> str:
    if isinstance(prediction.output, dict):
        best = max(prediction.output, key=lambda name: prediction.output[name], default="")
        return f"highest score: {best}"
    return str(prediction.output) if prediction.output is not None else ""


def _boxes(sample: Sample, prediction: Prediction) -> Markup | None:
    """Draw the true box in white and the answered one in pink, where the sample is about a box."""
    box, size = sample.meta.get("box"), sample.meta.get("size")
    if not (isinstance(box, list) and isinstance(size, list) and sample.pictures):
        return None
    try:
        image = sample.pictures[0].open()
    except (OSError, FormatError) as error:
        return missing(str(error))
    scale = max(1, round(256 / max(image.size)))
    image = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(image)
    pen.rectangle([scale * v for v in box], outline=_EDGE, width=6)
    pen.rectangle([scale * v for v in box], outline=_TRUTH, width=4)
    parsed = parse_box(prediction.output) if isinstance(prediction.output, str) else None
    if parsed is not None:
        x1, y1, x2, y2 = (scale * v for v in scale_box(parsed, (int(size[0]), int(size[1]))))
        pen.rectangle([min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)], outline=_ANSWER, width=2)
    return row(picture(image, "White: the box that is meant. Pink: the box answered, if one could be read.", 160))


def _open(shown: Picture, alt: str, width: int = 128) -> Content:
    try:
        return picture(shown.open(), alt, width)
    except (OSError, FormatError):
        return missing(f"The picture {Path(shown.path).name} cannot be read.")


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}\u2026"


def _command(run: RunRecord) -> str:
    return f"mmi evaluate --run {run.folder}"
