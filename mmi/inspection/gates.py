"""How far every MMFS opened during training, from the ``gate/`` columns of ``metrics.csv``."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmi.config import ConfigError
from mmi_eval.report.charts import Curve, Point, line_chart
from mmi_eval.report.markup import Markup, fragment, note, paragraph
from mmi_eval.report.numbers import short
from mmi_eval.report.page import Section, render_page
from mmi_eval.report.pictures import figure
from mmi_eval.report.tables import Column, table

Gates = Mapping[str, Sequence[Point]]
_PREFIX = "gate/"
_CURVES = 6
"""As many as a chart tells apart."""
_PARTS = {
    "language_model": (
        "Language model",
        "tanh(gate)",
        "What a layer reads is multiplied by tanh(gate) and added to the hidden states. The gate starts at 0, where "
        "nothing is added; its sign says nothing, since the layer's last projection can turn it around.",
    ),
    "image_decoder": (
        "U-Net",
        "RMS of the weights",
        "A module of the U-Net has no gate: its last convolution starts at 0, and the root mean square of its weights "
        "says how far it opened.",
    ),
}


def read_gates(metrics: str | Path) -> dict[str, list[Point]]:
    """Read how far every module was open, by the module's name in checkpoints.

    Args:
        metrics: ``metrics.csv`` of a run folder.

    Returns:
        Step and value in order; ``tanh(g)`` for a gate of the language model, the root mean square of the last
        convolution for a module of the U-Net.

    Raises:
        FileNotFoundError: If there is no such file.
        ConfigError: If it holds no ``gate/`` column: nothing was logged, or the network has no MMFS.
    """
    found: dict[str, list[Point]] = {}
    with open(metrics, newline="", encoding="utf-8", errors="replace") as file:
        for row in csv.DictReader(file):
            step = _number(row.get("step"))
            for name, text in row.items():
                if name is None or not name.startswith(_PREFIX):
                    continue
                value = _number(text)
                if step is not None and value is not None:
                    found.setdefault(name.removeprefix(_PREFIX), []).append((step, value))
    if not found:
        raise ConfigError(f"{metrics} holds no gate/ column: nothing was logged yet, or the network has no MMFS.")
    return found


def gate_charts(gates: Gates) -> list[tuple[str, Markup]]:
    """Draw gates through training as SVG, six modules to a chart, each with its title."""
    charts = []
    for part, (title, label, _) in _PARTS.items():
        curves = [Curve(_short_name(name), points) for name, points in gates.items() if name.startswith(part)]
        for first in range(0, len(curves), _CURVES):
            shown = curves[first : first + _CURVES]
            more = f", {shown[0].name} to {shown[-1].name}" if len(curves) > _CURVES else ""
            anchor = f"gates-{part.replace('_', '-')}-{first}"
            charts.append((f"{title}: {label}{more}", line_chart(anchor, f"{title}{more}", label, shown)))
    return charts


def gates_page(gates: Gates, run: str, written_by: str) -> str:
    """Return a self-contained HTML page.

    Args:
        gates: What ``read_gates`` found.
        run: Name of the run, for the heading.
        written_by: Program and version.
    """
    charts = gate_charts(gates)
    sections = []
    for part, (title, _, words) in _PARTS.items():
        own = [figure(chart, caption + ".") for caption, chart in charts if caption.startswith(title)]
        if own:
            sections.append(Section(part.replace("_", "-"), title, fragment(paragraph(words), *own)))
    caution = note("An open gate lets something in; whether it matters, --mass and --counterfactual measure.")
    sections.append(Section("values", "In numbers", fragment(_table(gates), caution)))
    lead = [
        "Every MMFS module starts closed and learns how much of what it reads to let in. The curves show how far each "
        "one was open at each step that was logged.",
    ]
    return render_page(f"Gates of {run} through training", lead, sections, f"Written by {written_by}.")


def _table(gates: Gates) -> Markup:
    columns = [Column("module"), Column("first", True), Column("largest", True), Column("last", True)]
    rows = []
    for name, points in gates.items():
        values = [value for _, value in points]
        rows.append([name, short(values[0]), short(max(values, key=abs)), short(values[-1])])
    return table("Opening of every module", columns, rows)


def _short_name(name: str) -> str:
    """Return the name of a module on a chart.

    Example:
        >>> _short_name("language_model.layers.2.mmfs"), _short_name("image_decoder.unet.mmfs.1")
        ('layer 2', 'module 1')
    """
    number = next((word for word in reversed(name.split(".")) if word.isdigit()), "?")
    return f"{'layer' if name.startswith('language') else 'module'} {number}"


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
