"""The part of a run's page about training: losses over steps, the prompt panel, how far every MMFS has opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .charts import Bar, Curve, Point, bar_chart, line_chart
from .markup import NOTHING, Markup, element, fold, fragment, missing, note, paragraph
from .numbers import short
from .page import Section
from .pictures import figure, picture_file
from .run_record import AskedScore, Branch, Panel, RunRecord
from .tables import Column, table
from .wording import interval, readable

_SHOWN_ROWS = 12
_PANEL_WIDTH = 960
_MOST_CURVES = 6


def losses_section(run: RunRecord) -> Section:
    """Return curves of the text and image losses in training and validation, and accuracy by source."""
    log = run.log
    charts = [
        _loss_chart(log, "text", "Text loss", "cross-entropy per token"),
        _loss_chart(log, "image", "Image loss", "denoising loss"),
        _by_source(log, "loss_text", "Text loss of the validation data by source", "cross-entropy per token"),
        _by_source(log, "accuracy_text", "Share of tokens predicted right in the validation data", "share of tokens"),
        _by_source(log, "loss_image", "Image loss of the validation data by noise level and context", "denoising loss"),
    ]
    body = fragment(*charts)
    if not body:
        body = missing("No step was logged: metrics.csv has no losses.", f"mmi fit --config {run.folder}/config.yaml")
    return Section("losses", "Losses", body)


def asked_section(run: RunRecord) -> Section:
    """Return curves of the benchmarks that were asked while training; nothing where none were."""
    title = "Scores through training"
    by_task: dict[str, dict[str, Sequence[AskedScore]]] = {}
    for name, scores in run.asked.items():
        task, _, score = name.partition("/")
        by_task.setdefault(task, {})[score] = scores
    if not by_task:
        return Section("asked", title, missing("No benchmark was asked while training: run.evaluate is not set."))
    return Section("asked", title, fragment(*(_asked(task, scores) for task, scores in by_task.items())))


def samples_section(run: RunRecord) -> Section:
    """Return the prompt panel of the last step, and those before it folded."""
    if not run.panels:
        way_out = "No prompt panel was drawn: run.panel_every is 0, or no step that it divides was reached."
        return Section("samples", "Samples through training", missing(way_out))
    last, earlier = run.panels[-1], run.panels[:-1]
    told = paragraph(
        "The same prompts, continued by the network as it was at each step; beside each the continuation in the data."
    )
    folded = [fold(f"Step {panel.step}", _panel(panel)) for panel in reversed(earlier)]
    body = fragment(told, element("h3", {}, f"Step {last.step}"), _panel(last), *folded)
    return Section("samples", "Samples through training", body)


def network_section(run: RunRecord) -> Section:
    """Return how far the gates of the language model and the zero convolutions of the U-Net have opened."""
    title = "How far MMFS has opened"
    network = run.network
    if network is None:
        return Section("gates", title, missing("The run has no checkpoint, so no weights to look at."))
    parts = [
        paragraph(
            "Every MMFS module starts closed: its gate, or its last convolution, is zero. "
            f"These are the weights of checkpoint {network.checkpoint} at step {network.step}."
        )
    ]
    if not network.gates and not network.convolutions:
        parts.append(missing("The network has no MMFS module: it is switched off in model.network."))
    if network.gates:
        parts.append(_bars("gates", "|tanh(gate)| of each language model layer with MMFS", network.gates))
    if network.convolutions:
        parts.append(_bars("convolutions", "Norm of the zero convolution of each U-Net module", network.convolutions))
        rows = [(b.name, short(b.opening), short(b.per_weight or 0.0)) for b in network.convolutions]
        columns = (Column("module"), Column("norm", True), Column("root mean square", True))
        parts.append(table("Zero convolutions in numbers", columns, rows))
    opened = {name.removeprefix("gate/"): points for name, points in run.log.items() if name.startswith("gate/")}
    parts.append(_opening(opened))
    return Section("gates", title, fragment(*parts))


def last_value(points: Sequence[Point] | None) -> float | None:
    """Return the value of the last step, or None where nothing was logged."""
    return points[-1][1] if points else None


def _loss_chart(log: Mapping[str, Sequence[Point]], kind: str, title: str, label: str) -> Markup:
    curves = []
    if log.get(f"train/loss_{kind}"):
        curves.append(Curve("training", log[f"train/loss_{kind}"], smooth=True))
    if log.get(f"val/loss_{kind}"):
        curves.append(Curve("validation", log[f"val/loss_{kind}"], dots=True))
    return _chart(f"loss-{kind}", title, label, curves)


def _by_source(log: Mapping[str, Sequence[Point]], name: str, title: str, label: str) -> Markup:
    prefix = f"val/{name}/"
    curves = [Curve(key.removeprefix(prefix), log[key], dots=True) for key in log if key.startswith(prefix)]
    if not curves:
        return NOTHING
    chart = _chart(f"val-{name.replace('_', '-')}", title, label, curves)
    return fold(title, chart)


def _chart(anchor: str, title: str, label: str, curves: Sequence[Curve]) -> Markup:
    curves = [curve for curve in curves if curve.points]
    if not curves:
        return NOTHING
    smooth = "; the bold line is the mean around each step" if any(curve.smooth for curve in curves) else ""
    chart = figure(line_chart(anchor, title, label, curves), f"{title}{smooth}.")
    return fragment(chart, fold(f"{title} in numbers", _numbers(title, curves)))


def _numbers(title: str, curves: Sequence[Curve]) -> Markup:
    """Return a dozen rows of the values a chart shows."""
    values = [dict(curve.points) for curve in curves]
    steps = sorted({step for column in values for step in column})
    stride = max(1, -(-len(steps) // _SHOWN_ROWS))
    kept = steps[::-1][::stride][::-1]
    rows = [[f"{s:g}", *(short(column[s]) if s in column else "" for column in values)] for s in kept]
    return table(title, [Column("step"), *(Column(curve.name, True) for curve in curves)], rows)


def _asked(task: str, scores: Mapping[str, Sequence[AskedScore]]) -> Markup:
    """Return the scores of one task: those with the headline's unit in a chart, all in a table."""
    headline = next((name for name, found in scores.items() if found[-1].headline), next(iter(scores)))
    last = scores[headline][-1]
    drawn = {name: found for name, found in scores.items() if found[-1].percent == last.percent}
    scale = 100.0 if last.percent else 1.0
    curves = [
        Curve(readable(name), [(s.step, scale * s.score.value) for s in drawn[name]], dots=True)
        for name in (headline, *(name for name in drawn if name != headline))
    ][:_MOST_CURVES]
    limited = element("span", {"class": "limited"}, "LIMITED") if last.limit is not None else NOTHING
    of = f"of the first {last.limit} samples" if last.limit is not None else "of all samples"
    chart = line_chart(f"asked-{task}", f"{readable(task)} through training", "score", curves)
    rows = [
        (str(s.step), readable(name), interval(s.score, s.percent), str(s.score.n))
        for name, found in scores.items()
        for s in found
    ]
    columns = (Column("step"), Column("score"), Column("with 95 % interval", True), Column("n", True))
    said = f"{readable(task)}, n = {last.score.n}, {of}; the network as it was at each step."
    heading = element("h3", {}, readable(task), " ", limited)
    return fragment(heading, figure(chart, said), fold(f"{readable(task)} in numbers", table(said, columns, rows)))


def _panel(panel: Panel) -> Markup:
    alt = f"Prompts, targets and answers at step {panel.step}, side by side; their texts are in the table that follows."
    columns = (Column("prompt"), Column("continuation in the data"), Column("continuation by the network"))
    texts = fold(f"Texts of step {panel.step}", table(f"Panel at step {panel.step}", columns, panel.rows))
    return fragment(picture_file(panel.file, alt, _PANEL_WIDTH, enlarge=False), texts)


def _bars(anchor: str, title: str, branches: Sequence[Branch]) -> Markup:
    return figure(bar_chart(anchor, title, [Bar(b.name, b.opening) for b in branches]), title + ".")


def _opening(opened: Mapping[str, Sequence[Point]]) -> Markup:
    curves = [Curve(name.replace(".mmfs", ""), points) for name, points in opened.items()]
    if not any(curve.points for curve in curves):
        return NOTHING
    charts = []
    for anchor, title, kind in (
        ("opening-gates", "tanh(gate) through training", "language_model"),
        ("opening-convolutions", "Root mean square of the zero convolutions through training", "image_decoder"),
    ):
        chosen = [Curve(c.name.rpartition(f"{kind}.")[2], c.points) for c in curves if c.name.startswith(kind)]
        charts.append(_many_curves(anchor, title, chosen))
    return fragment(*charts)


def _many_curves(anchor: str, title: str, curves: Sequence[Curve]) -> Markup:
    """Draw up to six curves; of more, six spread over the depth of the network, and say so."""
    if not curves:
        return NOTHING
    stride = max(1, -(-len(curves) // 6))
    shown = curves[::stride]
    said = note(f"{len(shown)} of {len(curves)} modules are drawn.") if stride > 1 else NOTHING
    return fragment(figure(line_chart(anchor, title, "opening", shown), title + "."), said)
