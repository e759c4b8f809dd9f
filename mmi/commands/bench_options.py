"""``mmi bench options``: how much faster a hundred answers are scored behind a prompt that is read once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mmi.commands.arguments import Arguments, CommandLine
from mmi.errors import DONE, UsageError

if TYPE_CHECKING:
    from mmi.commands.option_timing import Timing
    from mmi.inference import Generator

DEFAULT_CONFIG = "model/micro.yaml"
_DESCRIPTION = f"""\
Score the hundred options of visual dialogs in three ways, in turns in one process: behind a shared prefix, as mmi
evaluate does it; with one full pass for each option; and officially, with the picture encoded and the dialog read again
for every four options. Dialogs and pictures are drawn. Without --run the network of --config (default:
{DEFAULT_CONFIG}) has random weights and every word is a token. Times are CPU seconds over all threads, or GPU time."""
_EXAMPLE = """\
mmi bench options
mmi bench options --questions 10 --threads 2 --json
mmi bench options --run runs/demo"""


def bench_options(argv: Sequence[str]) -> int:
    """Measure and print a table."""
    parser = Arguments("bench options", _DESCRIPTION, _EXAMPLE, takes_configs=True)
    add = parser.add_argument
    add("--run", metavar="DIR", help="take network and tokenizer of a run folder")
    add("--checkpoint", metavar="NAME", help="with --run: best, last, step-N or a folder; default: best, else last")
    add("--questions", type=int, default=5, metavar="N", help="questions with a hundred options each (5)")
    add("--threads", type=int, default=1, metavar="N", help="threads of torch on a CPU (1)")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="where to measure (cpu)")
    add("--json", action="store_true", help="print JSON")
    line = parser.read(argv)
    options = line.options
    for name in ("questions", "threads"):
        if getattr(options, name) < 1:
            raise UsageError(f"--{name} is {getattr(options, name)}; expected at least 1.")
    if options.run and (options.config or line.overrides):
        raise UsageError("--run has its own config; leave out --config and settings, or --run.")
    if options.checkpoint and not options.run:
        raise UsageError("--checkpoint belongs to a run folder; add --run DIR.")

    from mmi.commands.option_timing import drawn_questions, time_ways

    generator = _generator(line)
    timings = time_ways(generator, drawn_questions(options.questions))
    if options.json:
        print(json.dumps(_record(timings, line), indent=1))
    else:
        print(_table(timings, options.questions))
    return DONE


def _generator(line: CommandLine) -> Generator:
    import torch

    from mmi.commands.generate import choose_device
    from mmi.inference import Generator

    options = line.options
    torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    if options.run:
        from mmi.checkpoints.run_folder import BEST_OR_LAST

        return Generator.load(options.run, options.checkpoint or BEST_OR_LAST, device=device)
    from mmi.commands.option_timing import word_tokenizer
    from mmi.commands.settings import network_settings
    from mmi.compose import compose
    from mmi.models.build import build_network

    config, compat = network_settings(compose(options.config or [DEFAULT_CONFIG], line.overrides))
    torch.manual_seed(0)
    network = build_network(config, compat, load_weights=False)
    return Generator(network.to(device), word_tokenizer(config.language))


def _record(timings: Sequence[Timing], line: CommandLine) -> dict[str, Any]:
    import torch

    from mmfs.benchmark.machine import describe_machine

    return {
        "schema_version": 1,
        "machine": describe_machine(torch.device(line.options.device)),
        "threads": line.options.threads,
        "questions": line.options.questions,
        "ways": [asdict(timing) for timing in timings],
    }


def _table(timings: Sequence[Timing], n_questions: int) -> str:
    lines = [f"{'100 options':<20} {'ms a question':>14} {'times faster':>13} {'same ranks':>12} {'difference':>11}"]
    for timing in timings:
        mean = 1e3 * sum(timing.seconds) / n_questions
        same = f"{timing.same_ranks} of {n_questions}"
        lines.append(
            f"{timing.way:<20} {mean:>14,.1f} {timing.ratio:>13.1f} {same:>12} {timing.largest_difference:>11.1e}"
        )
    return "\n".join([*lines, "Faster than one full pass each; largest difference of a log-probability from it."])
