"""The options of ``mmi generate``, and the settings they mean."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mmi.commands.arguments import Arguments
from mmi.errors import UsageError

if TYPE_CHECKING:
    from mmi.models.generation import GenerationSettings

_DESCRIPTION = """\
Continue an interleaved document with the model of a run folder. --text and --image are read in the order they are
written. Text appears as it is made; OUT gets every picture as PNG, transcript.html (opens anywhere) and
transcript.json (everything needed to repeat it).

Each PNG says that it is AI-generated, with which model, seed, steps, guidance and sampler, and holds a hash of the
prompt (--embed-prompt: the prompt). --from-image X.png draws it again, exactly."""
_EXAMPLE = """\
mmi generate --run runs/demo --text "Mo was in the park." --new-images 2
mmi generate --run runs/demo --image a.png --text "Then" --image b.png --text "What is next?" --new-images 0
mmi generate --run runs/demo --document prompt.json --seed 3 --steps 20 --guidance 2 --out out/story
mmi generate --run runs/demo --from-image out/story/image-1.png --document prompt.json"""
_DECODING = {
    "greedy": {"n_beams": 1, "do_sample": False},
    "sample": {"n_beams": 1, "do_sample": True},
    "beam": {"n_beams": 5, "do_sample": False},
}
# What a picture's own record decides.
_DECIDED = (
    "new_images",
    "max_new_tokens",
    "decoding",
    "temperature",
    "top_p",
    "seed",
    "steps",
    "guidance",
    "sampler",
    "spacing",
    "weights",
    "weights_dtype",
)


def read_options(command: str, argv: list[str]) -> argparse.Namespace:
    """Read a command line and refuse options that exclude each other.

    Raises:
        UsageError: If it is wrong.
    """
    options = _parser(command).read(argv).options
    if options.from_image is not None:
        given = [name for name in _DECIDED if getattr(options, name) is not None] + ["low_memory"] * options.low_memory
        if given:
            option = given[0].replace("_", "-")
            raise UsageError(f"--from-image draws a picture as it was drawn; leave out --{option}.")
    elif not options.items and not options.document:
        raise UsageError("the prompt is empty; add --text TEXT, --image FILE or --document FILE.")
    if options.new_images is not None and options.new_images < 0:
        raise UsageError(f"--new-images is {options.new_images}; expected 0 or more.")
    return options


def _parser(command: str) -> Arguments:
    parser = Arguments(command, _DESCRIPTION, _EXAMPLE)
    add = parser.add_argument
    add("--run", required=True, metavar="DIR", help="run folder written by mmi fit")
    add("--checkpoint", metavar="NAME", help="best, last, step-N or a folder; default: best if there is one, else last")
    add("--weights", choices=("trained", "ema"), help="as trained (default), or running averages")
    add("--out", metavar="DIR", help="where to write; default: the next free RUN/generations/N")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (auto)")
    add(
        "--weights-dtype",
        choices=("float32", "bfloat16", "nf4"),
        help="hold the language model's weights in this form, which saves memory; default: as in training",
    )
    add("--low-memory", action="store_true", help="draw in smaller parts: slower, the same but for seams of large ones")
    add("--embed-prompt", action="store_true", help="write the whole prompt into each PNG, not only its hash")
    prompt = parser.add_argument_group("prompt, in reading order")
    prompt.add_argument("--text", "--prompt", dest="items", action=_InOrder, metavar="TEXT", help="a stretch of text")
    prompt.add_argument("--image", dest="items", action=_InOrder, metavar="FILE", help="a picture")
    prompt.add_argument(
        "--document",
        metavar="FILE",
        help='JSON list of {"text": ...} and {"image": FILE}, read first; or the official list of samples',
    )
    prompt.add_argument("--from-image", metavar="PNG", help="draw this picture again; it says how, and maybe from what")
    how = parser.add_argument_group("generation; what is not given is run.generation of the run's config").add_argument
    how("--new-images", type=int, metavar="N", help="draw exactly N pictures, going on with text between them")
    how("--max-new-tokens", type=int, metavar="N", help="most tokens of each text")
    how("--decoding", choices=tuple(_DECODING), help="how text is chosen")
    how("--temperature", type=float, metavar="T", help="what logits are divided by when text is sampled")
    how("--top-p", type=float, metavar="P", help="sample from the likeliest tokens with this probability")
    how("--seed", type=int, help="picture k is drawn with seed + k")
    how("--steps", type=int, metavar="N", help="sampling steps of a picture")
    how("--guidance", type=float, metavar="S", help="guidance scale; 1 is none")
    how("--sampler", choices=("ddpm", "ddim", "dpm++"), help="dpm++ is DPM-Solver++, good with few steps")
    how("--spacing", choices=("leading", "trailing"), help="where sampling steps lie")
    return parser


class _InOrder(argparse.Action):
    """Collect ``--text`` and ``--image`` in one list, as they are written."""

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        kind = "image" if option_string == "--image" else "text"
        setattr(namespace, self.dest, [*(getattr(namespace, self.dest) or []), (kind, values)])


def settings_of(options: argparse.Namespace, chosen: GenerationSettings) -> GenerationSettings:
    """Return the run's own settings with what the command line says on top."""
    text: dict[str, Any] = dict(_DECODING.get(options.decoding or "", {}))
    text |= _given(options, {"max_new_tokens": "max_new_tokens", "temperature": "temperature", "top_p": "top_p"})
    if "max_new_tokens" in text:
        text["min_new_tokens"] = min(chosen.text.min_new_tokens, text["max_new_tokens"])
    names = {"steps": "n_steps", "guidance": "guidance_scale", "sampler": "sampler", "spacing": "spacing"}
    whole: dict[str, Any] = _given(options, {"seed": "seed"})
    if options.new_images is not None:
        whole |= {"min_images": options.new_images, "max_images": options.new_images}
    image = replace(chosen.image, **_given(options, names))
    return replace(chosen, text=replace(chosen.text, **text), image=image, **whole)


def _given(options: argparse.Namespace, names: dict[str, str]) -> dict[str, Any]:
    found = {ours: getattr(options, theirs) for theirs, ours in names.items()}
    return {name: value for name, value in found.items() if value is not None}


def choose_device(name: str) -> str:
    """Return the device that ``--device`` means.

    Raises:
        UsageError: If it is unknown or not there.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device {name} is unknown; expected auto, cpu, cuda, cuda:N or mps.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"--device {name}: no CUDA device is available; see mmi doctor.")
    return name
