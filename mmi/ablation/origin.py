"""Where a table comes from and how far it is: command, warm start, hardware, versions, time, cells that are missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmi.ablation.measured import Measured
from mmi.ablation.records import CellRecord
from mmi_eval.report.numbers import count


def origin(measured: Measured) -> Mapping[str, str]:
    """Return names and values in words, in reading order; the same records give the same words."""
    experiment, records = measured.experiment, measured.records
    recipe = experiment.recipe
    facts = {
        "command": f"mmi ablate {experiment.name} --scale {experiment.scale}",
        "recipe": f"{recipe.name}: {recipe.title}",
        "meant for": recipe.hardware,
    }
    if records:
        facts |= {
            "run on": _several([_place(record.environment) for record in records]),
            "versions": _several([_versions(record.environment) for record in records]),
            "commit": _several([_commit(record.environment) for record in records]),
            "warm start": _several([_warm_start(record) for record in records]),
            "time": _time(records),
            "finished": _days(records),
        }
    return {name: text for name, text in facts.items() if text}


def state(measured: Measured) -> str:
    """Return in one or two sentences what may be relied on.

    A table that rests on one seed says so before anything else.
    """
    done = f"{measured.n_finished} of {measured.n_planned} cells have finished"
    failed = f", {measured.n_failed} failed" if measured.n_failed else ""
    one_seed = [row for row in measured.rows if len(row.finished) == 1]
    preliminary = "Preliminary: " + (
        "every row has one seed. "
        if len(one_seed) == len(measured.rows)
        else f"{count(len(one_seed), 'row has', 'rows have')} one seed. "
    )
    return (preliminary if one_seed else "") + f"{done}{failed}."


def mark(measured: Measured) -> str:
    """Return what stands in the titles of tables of which a row rests on one seed; empty for others."""
    return ", preliminary" if any(len(row.finished) == 1 for row in measured.rows) else ""


def _place(environment: Mapping[str, Any]) -> str:
    threads = environment.get("threads")
    said = [str(environment[name]) for name in ("processor", "device") if environment.get(name)]
    return ", ".join([*dict.fromkeys(said), *([f"{threads} thread{'s' if threads != 1 else ''}"] if threads else [])])


def _versions(environment: Mapping[str, Any]) -> str:
    versions = environment.get("versions") or {}
    return ", ".join(f"{name} {version}" for name, version in versions.items() if version)


def _commit(environment: Mapping[str, Any]) -> str:
    commit = str(environment.get("commit") or "")
    return commit[:10] + (" with uncommitted changes" if commit and environment.get("dirty") else "")


def _warm_start(record: CellRecord) -> str:
    start = record.warm_start
    if start is None:
        return ""
    return f"{start.hash[:12]}, weights {start.weights_sha256[:12]}, {start.steps:,} steps"


def _time(records: Sequence[CellRecord]) -> str:
    costs = [record.cost for record in records]
    train, evaluate = (
        sum(value or 0.0 for value in seconds) / 60
        for seconds in ((c.train_seconds for c in costs), (c.evaluate_seconds for c in costs))
    )
    return f"{train:.0f} minutes of training and {evaluate:.0f} of evaluation, {len(records)} cells in all"


def _days(records: Sequence[CellRecord]) -> str:
    days = sorted(record.finished_at[:10] for record in records if record.finished_at)
    return "" if not days else days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"


def _several(values: Sequence[str]) -> str:
    """Return the values that differ, with how many cells each has where there is more than one."""
    counted = {value: values.count(value) for value in sorted(set(values)) if value}
    if len(counted) < 2 and "" not in values:
        return next(iter(counted), "")
    return "; ".join(f"{value} ({n} of {len(values)} cells)" for value, n in counted.items())
