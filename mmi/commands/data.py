"""``mmi data``: make the micro-world, and look at what the network is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mmi.commands.arguments import Arguments
from mmi.commands.stats import stats
from mmi.commands.world_networks import (
    add_encoder_options,
    add_judge_options,
    check_network_options,
    make_encoder,
    make_judges,
)
from mmi.config_tree import did_you_mean
from mmi.errors import DONE, UsageError

_HELP = """\
usage: mmi data COMMAND [options]        mmi data COMMAND --help explains one command

  microworld  draw scenes with captions, questions and stories; teach an encoder and judges on it
              mmi data microworld --out data/microworld --size 1500
  preview     show what a batch of a config holds: rows, pictures, what is learned
              mmi data preview --config configs/demo.yaml --out preview.png
  stats       count what a world holds: families, question types, tags; a page with sample pictures
              mmi data stats data/microworld"""
_WORLD = """\
Draw a small world in the layouts of the official data sets: stories (MMC4), pairs (tars), captions (COCO), questions
(VQA v2) and others, and a tokenizer. The same arguments give the same bytes; a world that is there is left alone.

On scenes that occur nowhere else, --encoder also teaches a small CLIP, which configs load and freeze like any other
(its numbers are model.network.vision.trunk of --config, default model/micro.yaml), and --judges the networks that
judge drawn pictures in scores named micro-*."""
_WORLD_EXAMPLE = """\
mmi data microworld --out data/microworld
mmi data microworld --out data/lab --preset lab --workers 8
mmi data microworld --out data/microworld --encoder --judges --config configs/demo.yaml"""
_PREVIEW = """\
Read the first batch of a config as training would and show it: each document with its pictures, the text that is
learned, and how full the rows are."""
_PREVIEW_EXAMPLE = "mmi data preview --config configs/demo.yaml --out preview.png"


def run(command: str, argv: Sequence[str]) -> int:
    """Dispatch to ``microworld``, ``preview`` or ``stats``."""
    commands: dict[str, Callable[[Sequence[str]], int]] = {
        "microworld": make_microworld,
        "preview": preview,
        "stats": stats,
    }
    if not argv or argv[0] in ("-h", "--help"):
        print(_HELP)
        return DONE
    if argv[0] not in commands:
        raise UsageError(f'unknown command "{command} {argv[0]}"; {did_you_mean(argv[0], commands, "commands")}')
    return commands[argv[0]](argv[1:])


def make_microworld(argv: Sequence[str]) -> int:
    """Write the world, and the networks asked for."""
    parser = Arguments("data microworld", _WORLD, _WORLD_EXAMPLE, takes_configs=True)
    add = parser.add_argument
    add("--out", required=True, metavar="DIR", help="where to write")
    presets = "tiny: easy to learn (default); crowded: much in each small picture; lab: rich, for a GPU"
    add("--preset", default="tiny", help=presets)
    add(
        "--size",
        type=int,
        metavar="N",
        help="stories, pairs, pictures and so on, each (tiny: 1500, crowded: 6000, lab: 100000)",
    )
    add("--seed", type=int, default=0, help="another seed draws another world (0)")
    add("--image-size", type=int, metavar="PX", help="a multiple of 16 (32; lab: 64, the least it takes)")
    add("--vocab-size", type=int, default=512, metavar="N", help="entries of the tokenizer (512)")
    add("--workers", type=int, default=1, metavar="N", help="processes that write; the bytes stay the same (1)")
    add("--overwrite", action="store_true", help="replace another world, with the networks in its folder")
    add_encoder_options(parser)
    add_judge_options(parser)
    line = parser.read(argv)
    options = line.options
    from mmi.data.microworld import PRESETS, write_world

    if options.preset not in PRESETS:
        raise UsageError(f'unknown preset "{options.preset}"; {did_you_mean(options.preset, PRESETS, "presets")}')
    preset = PRESETS[options.preset]
    options.size = preset.size if options.size is None else options.size
    options.image_size = preset.image_size if options.image_size is None else options.image_size
    encoder_config = check_network_options(line)
    with _bar("drawing the world") as progress:
        summary = write_world(
            options.out,
            size=options.size,
            seed=options.seed,
            image_size=options.image_size,
            vocab_size=options.vocab_size,
            preset=options.preset,
            workers=options.workers,
            progress=progress,
            overwrite=options.overwrite,
        )
    print(f"{summary}\nlook at {summary.folder / 'contact_sheet.png'}")
    if encoder_config is not None:
        make_encoder(options, encoder_config)
    if options.judges is not None:
        make_judges(options)
    return DONE


def preview(argv: Sequence[str]) -> int:
    """Print and draw the first batch of a config."""
    parser = Arguments("data preview", _PREVIEW, _PREVIEW_EXAMPLE, takes_configs=True)
    parser.add_argument("--out", metavar="FILE", help="also draw it as a picture")
    parser.add_argument("--documents", type=int, default=8, metavar="N", help="most documents shown (8)")
    line = parser.read(argv)
    from mmi.commands.settings import check_settings, settings_from_command_line, wrong_input

    settings = check_settings(settings_from_command_line(line), "fit")
    from mmi.commands.preview import describe_batch, draw_batch
    from mmi.data.datamodule import InterleavedDataModule

    with wrong_input():
        data = InterleavedDataModule(**settings.data)
        data.check_network(settings.network)
        data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    print(describe_batch(batch, data.tokenizer, line.options.documents))
    print(data.skips.summary())
    if line.options.out:
        out = Path(line.options.out)
        out.parent.mkdir(parents=True, exist_ok=True)
        draw_batch(batch, data.tokenizer, line.options.documents).save(out)
        print(f"look at {out}")
    return DONE


@contextmanager
def _bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on stderr while the block runs."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False) as bars:
        task = bars.add_task(title, total=None, visible=False)

        def tell(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total, visible=True)

        yield tell
