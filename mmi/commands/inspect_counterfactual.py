"""``mmi inspect --counterfactual``: how answers and pictures change when one context picture does."""

from __future__ import annotations

import time
from importlib.metadata import version
from pathlib import Path

from mmi.commands.arguments import CommandLine
from mmi.commands.bars import item_bar
from mmi.commands.inspect_options import check_sample_options, chosen_changes, chosen_distances
from mmi.errors import DONE, UsageError

NAME = "counterfactual"


def inspect_counterfactual(line: CommandLine) -> int:
    """Ask all samples of a task with one picture changed at a time; write tables and a page.

    Raises:
        UsageError: If the task or a setting is not there or makes no sense.
    """
    options = line.options
    check_sample_options(options, "--counterfactual")
    kinds, distances = chosen_changes(options.changes), chosen_distances(options.distances)
    if options.blur is not None and not 0 < options.blur <= 1:
        raise UsageError(f"--blur is {options.blur:g}; expected a share of the longer side, above 0 and at most 1.")
    from mmi.commands.inspect_task import load_for, read_task
    from mmi.inspection.changes import BLUR
    from mmi.inspection.counterfactuals import Changes, ask_with_changes, askable, write_answers
    from mmi.inspection.effect_tables import findings_of
    from mmi.inspection.effects import effects_of, measure, uses_of
    from mmi.inspection.result_page import write_findings

    task, every = read_task(line)
    task.check()
    samples = askable(every)
    limited = options.limit is not None and options.limit < len(samples)
    samples = samples[: options.limit]
    blur = BLUR if options.blur is None else options.blur
    changes = Changes(kinds, distances, blur, options.seed, options.batch_size)  # pyright: ignore[reportArgumentType]
    checkpoint, model = load_for(options, samples)
    folder = Path(options.out) if options.out else Path(options.run) / "inspection" / f"{options.task}-{NAME}"
    folder.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    with item_bar(f"{options.task}, one picture changed") as tell:
        arms = ask_with_changes(task, model, samples, changes, folder, pool=every, tell=tell)
    write_answers(arms, folder / "answers.jsonl")
    measured = measure(task, arms)
    effects = [effect for one in measured for effect in effects_of(one)]
    asked = checkpoint.asked(options, task, samples, limited=limited)
    findings = findings_of(asked, changes, arms, effects, uses_of(measured))
    paths = write_findings(folder, NAME, findings, f"mmi {version('mmi')}")
    n_answers = len(samples) + sum(len(arm.samples) for arm in arms)
    print(paths[1].read_text(encoding="utf-8").partition("\n## By number")[0])
    print(f"{n_answers:,} answers in {time.perf_counter() - began:.0f} s. Open {paths[2]}")
    return DONE
