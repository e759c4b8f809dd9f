"""``mmi inspect --mass``: what the MMFS layers of the language model read while a task is answered."""

from __future__ import annotations

import time
from importlib.metadata import version
from pathlib import Path

from mmi.commands.arguments import CommandLine
from mmi.commands.bars import item_bar
from mmi.commands.inspect_options import check_sample_options
from mmi.errors import DONE

NAME = "mass"


def inspect_mass(line: CommandLine) -> int:
    """Answer all samples of a task, average what is looked at, write tables and a page.

    Raises:
        UsageError: If the task or a setting is not there or makes no sense.
        ConfigError: If the network has no MMFS in its language model.
    """
    options = line.options
    check_sample_options(options, "--mass")
    from mmi.commands.inspect_task import load_for, read_task
    from mmi.inspection.mass import masses_of, preferences_of, score_column
    from mmi.inspection.mass_tables import mass_findings, short_lines
    from mmi.inspection.reading import ReadingModel, read_all, readable_samples
    from mmi.inspection.result_page import write_findings

    task, every = read_task(line)
    task.check()
    samples = readable_samples(every)
    limited = options.limit is not None and options.limit < len(samples)
    samples = samples[: options.limit]
    checkpoint, answering = load_for(options, samples)
    model = ReadingModel(answering.generator)
    folder = Path(options.out) if options.out else Path(options.run) / "inspection" / f"{options.task}-{NAME}"
    began = time.perf_counter()
    with item_bar(f"{options.task}, what is read") as tell:
        readings = read_all(task, model, samples, batch_size=options.batch_size, tell=tell)
    masses = masses_of(readings, score_column(task, readings))
    asked = checkpoint.asked(options, task, samples, limited=limited)
    findings = mass_findings(asked, masses, preferences_of(readings), model.modules, model.level_shapes)
    paths = write_findings(folder, NAME, findings, f"mmi {version('mmi')}")
    print("\n".join(["Shares of attention in percent, mean of layers, with 95 % intervals:", *short_lines(masses)]))
    print(f"{len(readings):,} answers in {time.perf_counter() - began:.0f} s. Open {paths[2]}")
    return DONE
