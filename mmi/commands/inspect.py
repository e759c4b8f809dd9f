"""``mmi inspect``: see what MMFS does: where it looks, how open its gates are, what each context picture is worth."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from mmi.commands.arguments import Arguments, CommandLine
from mmi.commands.inspect_options import add_sample_options
from mmi.errors import UsageError

_DESCRIPTION = """\
Show where MMFS looks. For one token, or one pixel of a drawn picture, every layer's sampling points lie on every
context picture, sized by their weight and coloured by the level of the pyramid; OUT gets PNG pictures and index.html,
which opens anywhere. A token of the prompt is shown as it is read, a token of the answer as it is chosen.

The prompt is given by --text and --image in reading order, or by a sample of a benchmark: --task with --sample or
--tag. Instead of one prompt: --gates (how far each layer opened during training), --mass (what all samples of a task
look at) and --counterfactual (how answers change when one context picture does)."""
_EXAMPLE = """\
mmi inspect --run runs/demo --image a.png --image b.png --text "What colour was it before?"
mmi inspect --run runs/demo --task micro_quiz --tag "print small" --out out/print
mmi inspect --run runs/demo --task micro_quiz --sample test-38/8 --token colour
mmi inspect --run runs/demo --image a.png --text "The same at night." --pixel 10,12
mmi inspect --run runs/demo --gates
mmi inspect --run runs/demo --task micro_quiz --mass
mmi inspect --run runs/demo --task micro_quiz --counterfactual"""
_VIEWS = ("gates", "mass", "counterfactual")


def run(command: str, argv: Sequence[str]) -> int:
    """Write the pages that were asked for."""
    line = _parser(command).read(argv)
    options = line.options
    chosen = [view for view in _VIEWS if getattr(options, view)]
    if len(chosen) > 1:
        raise UsageError(f"--{chosen[0]} and --{chosen[1]} are both given; ask for one of them.")
    return _dispatch(chosen[0] if chosen else "looks", line)


def _dispatch(view: str, line: CommandLine) -> int:
    if view == "gates":
        from mmi.commands.inspect_gates import inspect_gates

        return inspect_gates(line.options)
    if view == "mass":
        from mmi.commands.inspect_mass import inspect_mass

        return inspect_mass(line)
    if view == "counterfactual":
        from mmi.commands.inspect_counterfactual import inspect_counterfactual

        return inspect_counterfactual(line)
    from mmi.commands.inspect_looks import inspect_looks

    return inspect_looks(line)


def _parser(command: str) -> Arguments:
    parser = Arguments(command, _DESCRIPTION, _EXAMPLE, takes_configs=True)
    add = parser.add_argument
    add("--run", required=True, metavar="DIR", help="run folder written by mmi fit")
    add("--checkpoint", metavar="NAME", help="best, last, step-N or a folder; default: best if there is one, else last")
    add("--weights", choices=("trained", "ema"), default="trained", help="as trained (default), or running averages")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (auto)")
    add("--out", metavar="DIR", help="where to write; default: a folder of RUN/inspection named after what is shown")
    add("--wandb", choices=("off", "offline", "online"), default="off", help="also log to Weights & Biases (off)")
    add("--wandb-project", default="mmi", metavar="NAME", help="its project (mmi)")
    _prompt_options(parser)
    _look_options(parser)
    _view_options(parser)
    add_sample_options(parser)
    return parser


def _prompt_options(parser: Arguments) -> None:
    add = parser.add_argument_group("prompt, in reading order").add_argument
    add("--text", "--prompt", dest="items", action=InOrder, metavar="TEXT", help="a stretch of text")
    add("--image", dest="items", action=InOrder, metavar="FILE", help="a picture")
    add("--document", metavar="FILE", help='JSON list of {"text": ...} and {"image": FILE}, read first')
    add = parser.add_argument_group("or a benchmark of --config (eval/microworld.yaml)").add_argument
    add("--task", metavar="LABEL", help="task of the config, such as micro_quiz")
    add("--sample", metavar="ID", help="its sample of this id")
    add("--tag", metavar="TAG", help='its first sample with this tag, such as "print small"')


def _look_options(parser: Arguments) -> None:
    add = parser.add_argument_group("what to show of it").add_argument
    add("--token", metavar="WORD|N", help="a word of the prompt or answer, or a position; default: the answer's first")
    add("--pixel", metavar="X,Y", help="instead: draw the picture that follows, and show where this pixel looks")
    add("--step", type=int, metavar="N", help="diffusion step of --pixel, counted from 1; default: several of them")
    add("--seed", type=int, default=0, help="seed of the drawn picture (0)")
    add("--layer", type=int, metavar="N", help="only this layer, numbered as in the checkpoint")
    add("--head", type=int, metavar="N", help="only this head; default: all together, and each on the page")
    add("--level", type=int, metavar="N", help="only this level of the pyramid, 0 is the finest")


def _view_options(parser: Arguments) -> None:
    add = parser.add_argument_group("instead of one prompt").add_argument
    add("--gates", action="store_true", help="how far every layer opened during training, from metrics.csv")
    add("--mass", action="store_true", help="attention mass by picture, level and tag over the samples of --task")
    add("--counterfactual", action="store_true", help="swap, blur or drop one context picture of each sample of --task")


class InOrder(argparse.Action):
    """Collect ``--text`` and ``--image`` in one list, as they are written."""

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        """Add one piece."""
        kind = "image" if option_string == "--image" else "text"
        setattr(namespace, self.dest, [*(getattr(namespace, self.dest) or []), (kind, values)])
