"""``mmi report --card`` and ``--verify``: the card of a verified run, and a repeated run against it."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmi.config import ConfigError
from mmi.config_tree import did_you_mean
from mmi.errors import DONE, FAILED, UsageError

if TYPE_CHECKING:
    from mmi_eval.report.charts import Point
    from mmi_eval.report.evaluated import Result
    from mmi_eval.report.run_card import Card, CardScore
    from mmi_eval.report.run_card_check import Check


def write_run_card(options: argparse.Namespace) -> list[Path]:
    """Write the card of a run as JSON, and beside it the same for people.

    Args:
        options: Of ``mmi report``.

    Returns:
        The files, the page for people first.

    Raises:
        ConfigError: If a folder is none of a run, or has no logged loss.
        FormatError: If an evaluation is damaged.
    """
    from mmi_eval.report.run_card import write_card
    from mmi_eval.report.run_card_page import write_card_page

    out = Path(options.card)
    if out.suffix != ".json" or out.is_dir():
        raise UsageError(f"--card is {out}; expected a file such as card.json.")
    card, _ = _card_of(options.run_folder, options.tasks, options.before)
    if options.here:
        from mmi.checkpoints.hardware import describe_hardware

        known = {key: value for key, value in card.hardware.items() if value}
        card = replace(card, hardware={**describe_hardware(), **known})
    write_card(out, card)
    if not card.after:
        print(f"note: the card has no score; run mmi evaluate --run {options.run_folder} first to have some.")
    return [*write_card_page(out, card), out]


def verify_run(options: argparse.Namespace) -> int:
    """Compare a run with a card and print a table.

    Returns:
        The exit code: 0 inside, 1 outside.

    Raises:
        ConfigError: If the folder is none of a run, or has no logged loss.
        FormatError: If the card or an evaluation is damaged.
    """
    from mmi_eval.report.run_card import read_card
    from mmi_eval.report.run_card_check import check_run, closing_sentence

    card = read_card(options.verify)
    run = options.run_folder or card.run
    here, log = _card_of(run, None, None)
    checks = check_run(card, here, log)
    _print_checks(checks, f"{card.name}: the run {run} against the card {options.verify}")
    print(closing_sentence(checks, str(run), str(options.verify)))
    return DONE if all(check.inside is not False for check in checks) else FAILED


def _card_of(run: str, tasks: str | None, before: str | None) -> tuple[Card, dict[str, list[Point]]]:
    """Make the card of a run; also return what it logged."""
    from mmi.checkpoints.environment import without_home
    from mmi.checkpoints.run_folder import RunFolder
    from mmi.commands.run_reading import read_log
    from mmi_eval.report.run_card import CURVE, Card, banded, counted_settings, final_bands

    folder = RunFolder(Path(run))
    config = folder.read_config()
    remarks: list[str] = []
    log = read_log(folder.metrics_file, remarks)
    for remark in remarks:
        print(f"note: {remark}")
    if not log.get(CURVE):
        raise ConfigError(f"{folder.metrics_file} has no {CURVE}; give the folder of a run that was trained.")
    session, ended = _sessions(folder)
    results = _results(folder.path, tasks)
    earlier = _earlier(_run_folder(before), folder.path, results) if before else {}
    code = {**(session.get("code") or {}), "packages": session.get("packages") or {}}
    hardware = {**(session.get("hardware") or {}), "devices": session.get("devices") or []}
    card = Card(
        name=str((config.get("run") or {}).get("name") or folder.path.resolve().name),
        run=without_home(Path(run).as_posix()),
        command=shlex.join(map(str, session.get("command") or ())),
        config=counted_settings(config),
        data=session.get("data") or {},
        code=code,
        hardware=hardware,
        date=str(session.get("started", "not recorded")),
        seconds={"training": ended.pop("seconds"), "evaluation": _evaluation_seconds(results)},
        peak_memory=ended,
        curve=banded(log[CURVE]),
        final=final_bands(log),
        before=_scores(earlier),
        after=_scores(results),
    )
    return card, log


def _run_folder(path: str) -> Path:
    if not Path(path, "config.yaml").is_file():
        raise UsageError(f"--before {path} is no run folder: it has no config.yaml; give the folder mmi fit wrote.")
    return Path(path)


def _sessions(folder: Any) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """Return the first session of a run, and the time and peak memory of all; ``None`` where one was not recorded."""
    from mmi.commands.run_reading import read_sessions

    sessions = read_sessions(folder.environment_file, [])
    ended = [session.get("ended") for session in sessions]
    known = [end for end in ended if isinstance(end, dict)]
    seconds = sum(end["seconds"] for end in known) if known and len(known) == len(ended) else None
    peaks = {}
    for place in ("process", "device"):
        sizes = [size for end in known if (size := (end.get("peak_memory_bytes") or {}).get(place)) is not None]
        peaks[place] = max(sizes, default=None)
    return (sessions[0] if sessions else {}), {"seconds": seconds, **peaks}


def _results(run: Path, tasks: str | None) -> dict[str, Result]:
    """Return what stands for each task of a run: as trained, all samples where there is that, the latest weights."""
    from mmi_eval.report.evaluated import standing

    found = {label: result for label, results in _by_task(run).items() if (result := standing(results)) is not None}
    if tasks is None:
        return found
    wanted = [label.strip() for label in tasks.split(",") if label.strip()]
    for label in wanted:
        if label not in found:
            raise UsageError(
                f'--tasks: {run} has no score of "{label}" as trained; {did_you_mean(label, found, "scored tasks")}'
            )
    return {label: found[label] for label in wanted}


def _earlier(start: Path, run: Path, results: Mapping[str, Result]) -> dict[str, Result]:
    """Return what the weights a run started from were asked in the same way: by task, the latest weights.

    Args:
        start: The run it started from; where it is the run itself, its untrained weights are meant.
        run: The run.
        results: Its own, by task.
    """
    from mmi_eval.results import Condition

    condition = Condition(weights="untrained") if start.resolve() == run.resolve() else Condition()
    scored, found = _by_task(start), {}
    for label, result in results.items():
        there = [other for other in scored.get(label, ()) if other.condition == condition]
        # A gain between two prompts, or two sets of samples, would be none of training.
        same = [other for other in there if other.evaluation.plan.asked == result.evaluation.plan.asked]
        if same:
            found[label] = max(same, key=lambda other: other.evaluation.plan.checkpoint.step)
        else:
            why = "was asked other samples, or with another prompt or decoding" if there else "was not evaluated"
            print(f"note: no score of {label} before: {start}, {condition.label}, {why}.")
    return found


def _by_task(run: Path) -> dict[str, list[Result]]:
    """Return every scored evaluation of a run."""
    from mmi_eval.report.evaluated import by_task, read_result
    from mmi_eval.results import find_evaluations

    damaged: list[str] = []
    read = [read_result(evaluation) for evaluation in find_evaluations(run, damaged) if evaluation.is_scored]
    for sentence in damaged:
        print(f"note: left out: {sentence}")
    return by_task(read)


def _scores(results: Mapping[str, Result]) -> dict[str, CardScore]:
    from mmi_eval.report.run_card import CardScore

    return {
        f"{label}/{name}": CardScore(
            result.values[name],
            result.is_percent(name),
            result.lower_is_better(name),
            result.evaluation.plan.limit,
            result.evaluation.plan.asked,
        )
        for label, result in results.items()
        for name in result.main_values()
    }


def _evaluation_seconds(results: Mapping[str, Result]) -> float | None:
    seconds = [result.record.get("seconds") for result in results.values()]
    known = [float(value) for value in seconds if isinstance(value, int | float)]
    return round(sum(known), 1) if known else None


def _print_checks(checks: Sequence[Check], title: str) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left")
    for name, right in (("", False), ("card", True), ("here", True), ("", False), ("remark", False)):
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for check in checks:
        verdict = "" if check.inside is None else "ok" if check.inside else "OUTSIDE"
        table.add_row(check.what, check.card, check.here, verdict, check.remark)
    console = Console() if Console().is_terminal else Console(width=160)
    console.print(table)
