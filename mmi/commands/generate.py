"""``mmi generate``: continue text and pictures with text and new pictures, and write down what came out."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmi.commands.arguments import Arguments
from mmi.config_tree import from_tree
from mmi.errors import DONE, UsageError

if TYPE_CHECKING:
    from PIL import Image

    from mmi.models.generation import GenerationSettings

_DESCRIPTION = """\
Continue an interleaved document with the model of a run folder. --text and --image are read in the order they are
written. Text appears as it is made; OUT gets every picture as PNG, transcript.html (opens anywhere) and
transcript.json (everything needed to repeat it)."""
_EXAMPLE = """\
mmi generate --run runs/demo --text "Mo was in the park." --new-images 2
mmi generate --run runs/demo --image a.png --text "Then" --image b.png --text "What is next?" --new-images 0
mmi generate --run runs/demo --document prompt.json --seed 3 --steps 20 --guidance 2 --out out/story"""


def run(command: str, argv: Sequence[str]) -> int:
    """Generate, print and save."""
    options = _parser(command).read(argv).options
    prompt = [*(read_document(Path(options.document)) if options.document else []), *_read_items(options.items)]
    if not prompt:
        raise UsageError("the prompt is empty; add --text TEXT, --image FILE or --document FILE.")

    from mmi.checkpoints.run_folder import BEST_OR_LAST, RunFolder
    from mmi.commands.transcript import Transcript
    from mmi.inference import Generator
    from mmi.models.generation import GenerationSettings

    folder = RunFolder(Path(options.run))
    checkpoint = folder.find_checkpoint(options.checkpoint or BEST_OR_LAST)
    chosen = (folder.read_config().get("run") or {}).get("generation") or {}
    settings = _settings(options, from_tree(GenerationSettings, chosen, "run.generation"))
    generator = Generator.load(
        options.run,
        str(checkpoint),
        device=choose_device(options.device),
        weights_dtype=options.weights_dtype,
        weights=options.weights,
    )
    if generator.network.image_decoder is None and options.new_images:
        raise UsageError(f"the model of {options.run} has no image decoder; use --new-images 0.")
    out = Path(options.out) if options.out else _next_folder(Path(options.run) / "generations")
    transcript = Transcript(out, run=str(options.run), checkpoint=checkpoint.name, settings=asdict(settings))
    for piece in prompt:
        transcript.add_prompt(piece)
    bar = _DrawingBar()
    try:
        for piece in generator.stream(prompt, settings, bar):
            print(transcript.add_output(piece), flush=True)
    finally:
        bar.close()
    transcript.save()
    print(f"\n{transcript.summary()} Open {transcript.page}")
    return DONE


def _parser(command: str) -> Arguments:
    parser = Arguments(command, _DESCRIPTION, _EXAMPLE)
    add = parser.add_argument
    add("--run", required=True, metavar="DIR", help="run folder written by mmi fit")
    add("--checkpoint", metavar="NAME", help="best, last, step-N or a folder; default: best if there is one, else last")
    add("--weights", choices=("trained", "ema"), default="trained", help="as trained (default), or running averages")
    add("--out", metavar="DIR", help="where to write; default: the next free RUN/generations/N")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (auto)")
    add(
        "--weights-dtype",
        choices=("float32", "bfloat16", "nf4"),
        help="hold the language model's weights in this form, which saves memory; default: as in training",
    )
    prompt = parser.add_argument_group("prompt, in reading order")
    prompt.add_argument("--text", "--prompt", dest="items", action=_InOrder, metavar="TEXT", help="a stretch of text")
    prompt.add_argument("--image", dest="items", action=_InOrder, metavar="FILE", help="a picture")
    prompt.add_argument("--document", metavar="FILE", help='JSON list of {"text": ...} and {"image": FILE}, read first')
    how = parser.add_argument_group("generation; what is not given is run.generation of the run's config").add_argument
    how("--new-images", type=int, metavar="N", help="draw exactly N pictures, going on with text between them")
    how("--max-new-tokens", type=int, metavar="N", help="most tokens of each text")
    how("--decoding", choices=("greedy", "sample", "beam"), help="how text is chosen")
    how("--temperature", type=float, metavar="T", help="what logits are divided by when text is sampled")
    how("--top-p", type=float, metavar="P", help="sample from the likeliest tokens with this probability")
    how("--seed", type=int, help="picture k is drawn with seed + k")
    how("--steps", type=int, metavar="N", help="sampling steps of a picture")
    how("--guidance", type=float, metavar="S", help="guidance scale; 1 is none")
    how("--sampler", choices=("ddpm", "ddim", "dpm++"))
    how("--spacing", choices=("leading", "trailing"), help="where sampling steps lie")
    return parser


class _InOrder(argparse.Action):
    """Collect ``--text`` and ``--image`` in one list, as they are written."""

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        kind = "image" if option_string == "--image" else "text"
        setattr(namespace, self.dest, [*(getattr(namespace, self.dest) or []), (kind, values)])


def read_document(path: Path) -> list[str | Image.Image]:
    """Read a prompt file: a JSON list of ``{"text": ...}`` and ``{"image": FILE}``; plain strings are text.

    Raises:
        UsageError: If it is no such list, or a picture cannot be read.
        FileNotFoundError: If the file does not exist.
    """
    try:
        items = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no JSON ({error}); expected a list of texts and images.") from error
    expected = 'expected a list such as [{"text": "A story."}, {"image": "a.png"}]'
    if not isinstance(items, list):
        raise UsageError(f"{path} holds a {type(items).__name__}; {expected}.")
    prompt: list[tuple[str, str]] = []
    for number, item in enumerate(items):
        entry = {"text": item} if isinstance(item, str) else item
        if not isinstance(entry, dict) or len(entry) != 1 or not {"text", "image"} & set(entry):
            raise UsageError(f"{path}: entry {number} is {json.dumps(item)[:80]}; {expected}.")
        ((kind, value),) = entry.items()
        prompt.append((kind, str(path.parent / value) if kind == "image" else str(value)))
    return _read_items(prompt)


def _read_items(items: Sequence[tuple[str, str]] | None) -> list[str | Image.Image]:
    return [open_picture(Path(value)) if kind == "image" else value for kind, value in items or ()]


def open_picture(path: Path) -> Image.Image:
    """Read a picture file upright, as RGB.

    Raises:
        FileNotFoundError: If it does not exist.
        UsageError: If it cannot be read or is too large.
    """
    from mmi.data.document import ImageItem
    from mmi.data.images import ImageError, open_rgb

    path.stat()
    try:
        return open_rgb(ImageItem(partial(open, path, "rb"), str(path)))
    except ImageError as error:
        reason = str(error).rstrip(".")
        raise UsageError(f"{path} is no picture that can be used; expected PNG, JPEG or the like: {reason}.") from error


_DECODING = {
    "greedy": {"n_beams": 1, "do_sample": False},
    "sample": {"n_beams": 1, "do_sample": True},
    "beam": {"n_beams": 5, "do_sample": False},
}


def _settings(options: argparse.Namespace, chosen: GenerationSettings) -> GenerationSettings:
    """Return the run's own settings with what the command line says on top."""
    text: dict[str, Any] = dict(_DECODING.get(options.decoding or "", {}))
    text |= _given(options, {"max_new_tokens": "max_new_tokens", "temperature": "temperature", "top_p": "top_p"})
    if "max_new_tokens" in text:
        text["min_new_tokens"] = min(chosen.text.min_new_tokens, text["max_new_tokens"])
    names = {"steps": "n_steps", "guidance": "guidance_scale", "sampler": "sampler", "spacing": "spacing"}
    whole: dict[str, Any] = _given(options, {"seed": "seed"})
    if options.new_images is not None:
        if options.new_images < 0:
            raise UsageError(f"--new-images is {options.new_images}; expected 0 or more.")
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


def _next_folder(parent: Path) -> Path:
    number = 1
    while (parent / str(number)).exists():
        number += 1
    return parent / str(number)


class _DrawingBar:
    """Show a bar on a terminal while a picture is drawn, and nothing between pictures."""

    def __init__(self) -> None:
        self._bars: Any = None
        self._task: Any = None

    def __call__(self, image: int, done: int, total: int) -> None:
        """Take in that ``done`` of ``total`` sampling steps of a picture are done."""
        from rich.console import Console
        from rich.progress import Progress

        if self._bars is None:
            self._bars = Progress(console=Console(stderr=True), transient=True, redirect_stdout=False)
            self._task = self._bars.add_task(f"drawing picture {image + 1}", total=total)
            self._bars.start()
        self._bars.update(self._task, completed=done)
        if done >= total:
            self.close()

    def close(self) -> None:
        """Take the bar away."""
        if self._bars is not None:
            self._bars.stop()
        self._bars = None
