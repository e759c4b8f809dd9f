"""The ``mmi`` command: finds the command asked for, runs it, and turns errors into one sentence.

Nothing heavy is imported before the command is known, so ``mmi --help`` answers at once. ``main`` takes an argument
list and returns the exit code, so that tests and other programs can call it.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass

from mmi.config_tree import did_you_mean
from mmi.errors import DONE, STOPPED, WRONG_INPUT, UsageError, explain


@dataclass(frozen=True)
class Command:
    """One command of the program: where it is listed, what it does, how it is called.

    Args:
        group: Heading in the top-level help.
        summary: A few words for the top-level help.
        example: A complete command line.
        module: Module of ``mmi.commands`` with ``run(command, argv) -> int``.
    """

    group: str
    summary: str
    example: str
    module: str


COMMANDS = {
    "fit": Command("Train", "train a model from config files", "mmi fit --config configs/demo.yaml", "fit"),
    "validate": Command(
        "Train",
        "losses of a checkpoint on the validation data",
        "mmi validate --config runs/demo/config.yaml --ckpt_path best",
        "fit",
    ),
    "test": Command(
        "Train",
        "losses of a checkpoint on the evaluation data (data.val)",
        "mmi test --config runs/demo/config.yaml --ckpt_path best",
        "fit",
    ),
    "predict": Command(
        "Train",
        "losses of every text and image, one line each",
        "mmi predict --config runs/demo/config.yaml --ckpt_path best",
        "fit",
    ),
    "generate": Command(
        "Use",
        "continue text and images with text and new images",
        'mmi generate --run runs/demo --text "A story." --new-images 2',
        "generate",
    ),
    "demo": Command("Use", "talk to a model on a web page", "mmi demo --run runs/demo", "demo"),
    "serve": Command("Use", "a model behind an HTTP interface", "mmi serve --run runs/demo", "serve"),
    "evaluate": Command(
        "Evaluate",
        "ask a model the questions of benchmarks and score the answers",
        "mmi evaluate --run runs/demo",
        "evaluate",
    ),
    "score": Command(
        "Evaluate",
        "score answers that are on disk, without a model",
        "mmi score --task vqav2 --predictions answers.json",
        "score",
    ),
    "ablate": Command(
        "Evaluate",
        "run an ablation's missing cells and write its table",
        "mmi ablate tokens",
        "ablate",
    ),
    "data": Command(
        "Data",
        "make the drawn micro-world, prepare and check data, look at it",
        "mmi data microworld --out data/microworld --size 2000",
        "data",
    ),
    "checkpoint": Command(
        "Look",
        "convert official checkpoints, export, verify, migrate",
        "mmi checkpoint verify runs/demo",
        "checkpoint",
    ),
    "report": Command(
        "Look", "a run on a page, the paper's tables, two runs compared", "mmi report runs/demo", "report"
    ),
    "inspect": Command(
        "Look",
        "where MMFS looks, its gates, what each context picture is worth",
        'mmi inspect --run runs/demo --image a.png --text "What colour is it?"',
        "inspect",
    ),
    "assets": Command(
        "Look",
        "weights and jars from outside: list, verify, download",
        "mmi assets list",
        "assets",
    ),
    "params": Command(
        "Look", "parameters of every part", "mmi params --config model/mm_interleaved_13b.yaml", "params"
    ),
    "plan": Command(
        "Look",
        "memory, operations and hours of a run",
        "mmi plan --config stages/pretrain_13b.yaml --devices 128",
        "plan",
    ),
    "bench": Command(
        "Look",
        "how fast the operator, training steps and the making of batches are here",
        "mmi bench ops --quick",
        "bench",
    ),
    "doctor": Command(
        "Look", "check this machine and a config's data", "mmi doctor --config configs/demo.yaml", "doctor"
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 wrong input, 130 stopped.

    Args:
        argv: Arguments after the program's name; ``None`` takes those of this process.
    """
    # Read when the libraries are imported: nothing about a run is told to anyone.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("DISABLE_TELEMETRY", "1")
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    name = arguments[0] if arguments and arguments[0] in COMMANDS else None
    try:
        return _dispatch(arguments)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else (DONE if stop.code is None else WRONG_INPUT)
    except KeyboardInterrupt:
        print("stopped.", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:
        # The reader of our output has gone (``mmi --help | head``): nothing is wrong, and nothing is left to say.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - the interpreter flushes it at exit
        return DONE
    except Exception as error:
        if debug:
            traceback.print_exc()
        sentence, code = explain(error)
        print(f"mmi {name}: {sentence}" if name else f"mmi: {sentence}", file=sys.stderr)
        return code


def entry_point() -> None:
    """Run the program for the console script."""
    sys.exit(main())


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(top_level_help())
        return DONE
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(f"mmi {version('mmi')}")
        return DONE
    name, rest = arguments[0], arguments[1:]
    if name.startswith("-"):
        given = next((a for a in rest if a in COMMANDS), None)
        if given is None:
            raise UsageError(f'unknown option {name}; the command comes first, as in "{COMMANDS["fit"].example}".')
        raise UsageError(
            f'the command comes first: write "mmi {given} {name} ..." instead of "mmi {name} ... {given}".'
        )
    if name not in COMMANDS:
        raise UsageError(f'unknown command "{name}"; {did_you_mean(name, COMMANDS, "commands")}')
    module = importlib.import_module(f"mmi.commands.{COMMANDS[name].module}")
    return module.run(name, rest)


def top_level_help() -> str:
    """Return the overview of all commands, grouped, each with an example."""
    lines = [
        "mmi: train, fine-tune and use models that read and write interleaved text and images.",
        "",
        "usage: mmi COMMAND [options]        mmi COMMAND --help explains one command",
    ]
    for group in dict.fromkeys(command.group for command in COMMANDS.values()):
        lines += ["", f"{group}:"]
        for name, command in COMMANDS.items():
            if command.group == group:
                lines += [f"  {name:<10} {command.summary}", f"{'':13}{command.example}"]
    lines += [
        "",
        "options:",
        "  --help     this text, or the help of a command",
        "  --version  the installed version",
        "  --debug    show the traceback of an error",
        "",
        "Everything at once, from nothing: make demo. Exit codes: 0 done, 1 failed, 2 wrong input, 130 stopped.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    entry_point()
