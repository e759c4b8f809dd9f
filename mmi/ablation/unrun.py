"""What stands in place of tables and plots where no cell has finished: what to run, on what, how long, and what for."""

from __future__ import annotations

from collections.abc import Mapping

from mmi.ablation.column_words import heading
from mmi.ablation.measured import Measured
from mmi_eval.report.numbers import count

NOTHING_YET = "No cell has finished yet, so there are no numbers. What it would take, and what it would tell:"


def what_to_run(measured: Measured) -> Mapping[str, str]:
    """Return names and values in words, in reading order; a value under ``command`` is to be typed."""
    experiment = measured.experiment
    facts = {
        "command": f"mmi ablate {experiment.name} --scale {experiment.scale}",
        "hardware": experiment.recipe.hardware,
        "about how long": _how_long(measured),
        "rows": "; ".join(row.label for row in experiment.rows),
        "columns": ", ".join(heading(column) for column in experiment.columns),
        "claims it would judge": "; ".join(dict.fromkeys(claim.text for claim in experiment.claims)),
        "not measured at this scale": ", ".join(experiment.missing_columns),
    }
    return {name: text for name, text in facts.items() if text}


def _how_long(measured: Measured) -> str:
    """Return the time of all planned cells by those of the recipe that have finished for other tables, or a limit."""
    experiment, cells = measured.experiment, count(measured.n_planned, "cell")
    limit, seconds = experiment.recipe.stop_after_minutes, measured.cell_seconds
    if seconds is not None:
        each, whole = f"{seconds / 60:.0f} minutes", _hours(measured.n_planned * seconds)
        return f"{cells} of {each} each, about {whole} one after the other, as other cells of the recipe took"
    if limit is not None:
        return f"{cells} of at most {limit:g} minutes each, after which the recipe stops one; none has finished yet"
    return f"{cells}; mmi ablate {experiment.name} --scale {experiment.scale} --plan tells what is known"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{seconds / 60:.0f} minutes"
