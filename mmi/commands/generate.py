"""``mmi generate``: continue text and pictures with text and new pictures, and write down what came out."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmi.commands.arguments import Arguments
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
_MOST_IMAGES = 4


def run(command: str, argv: Sequence[str]) -> int:
    """Generate, print and save."""
    options = _parser(command).read(argv).options
    prompt = [*(read_document(Path(options.document)) if options.document else []), *_read_items(options.items)]
    if not prompt:
        raise UsageError("the prompt is empty; add --text TEXT, --image FILE or --document FILE.")

    from mmi.checkpoints.run_folder import BEST_OR_LAST, RunFolder
    from mmi.commands.transcript import Transcript
    from mmi.inference import Generator

    checkpoint = RunFolder(Path(options.run)).find_checkpoint(options.checkpoint or BEST_OR_LAST)
    settings = _settings(options)
    generator = Generator.load(options.run, str(checkpoint), device=_device(options.device))
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
    prompt = parser.add_argument_group("prompt, in reading order")
    prompt.add_argument("--text", "--prompt", dest="items", action=_InOrder, metavar="TEXT", help="a stretch of text")
    prompt.add_argument("--image", dest="items", action=_InOrder, metavar="FILE", help="a picture")
    prompt.add_argument("--document", metavar="FILE", help='JSON list of {"text": ...} and {"image": FILE}, read first')
    how = parser.add_argument_group("generation")
    how.add_argument(
        "--new-images",
        type=int,
        metavar="N",
        help=f"draw exactly N pictures, going on with text between them; by default the model decides (at most "
        f"{_MOST_IMAGES})",
    )
    how.add_argument("--max-new-tokens", type=int, default=64, metavar="N", help="most tokens of each text (64)")
    how.add_argument(
        "--decoding", choices=("greedy", "sample", "beam"), default="greedy", help="how text is chosen (greedy)"
    )
    how.add_argument("--temperature", type=float, default=1.0, metavar="T", help="with --decoding sample (1.0)")
    how.add_argument("--top-p", type=float, default=0.9, metavar="P", help="with --decoding sample (0.9)")
    how.add_argument("--seed", type=int, default=0, help="picture k is drawn with seed + k (0)")
    how.add_argument("--steps", type=int, default=30, metavar="N", help="sampling steps of a picture (30)")
    how.add_argument("--guidance", type=float, default=7.5, metavar="S", help="guidance scale; 1 is none (7.5)")
    how.add_argument("--sampler", choices=("ddpm", "ddim", "dpm++"), default="ddpm", help="(ddpm)")
    how.add_argument("--spacing", choices=("leading", "trailing"), default="leading", help="of timesteps (leading)")
    how.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (auto)")
    add("--out", metavar="DIR", help="where to write; default: the next free RUN/generations/N")
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
        UsageError: If Pillow cannot read it.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except UnidentifiedImageError as error:
        raise UsageError(f"{path} is no picture that can be read; expected PNG, JPEG, WebP or the like.") from error


def _settings(options: argparse.Namespace) -> GenerationSettings:
    from mmi.models.generation import GenerationSettings
    from mmi.models.image_sampling import ImageSampling
    from mmi.models.text_decoding import TextDecoding

    n_images = options.new_images
    if n_images is not None and n_images < 0:
        raise UsageError(f"--new-images is {n_images}; expected 0 or more.")
    text = TextDecoding(
        max_new_tokens=options.max_new_tokens,
        min_new_tokens=0,
        n_beams=5 if options.decoding == "beam" else 1,
        do_sample=options.decoding == "sample",
        temperature=options.temperature,
        top_p=options.top_p,
    )
    image = ImageSampling(options.steps, options.guidance, options.sampler, options.spacing)
    most = _MOST_IMAGES if n_images is None else n_images
    return GenerationSettings(text, image, max_images=most, min_images=n_images or 0, seed=options.seed)


def _device(name: str) -> str:
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
