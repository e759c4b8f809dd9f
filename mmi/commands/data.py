"""``mmi data``: make the micro-world, and look at what the network is given."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mmi.commands.arguments import Arguments
from mmi.config_tree import did_you_mean
from mmi.errors import DONE, UsageError

if TYPE_CHECKING:
    from mmi.config import VisionTrunkConfig

_HELP = """\
usage: mmi data COMMAND [options]        mmi data COMMAND --help explains one command

  microworld  draw scenes with captions, questions and stories; train a small vision trunk on them
              mmi data microworld --out data/microworld --size 1500
  preview     show what a batch of a config holds: rows, pictures, what is learned
              mmi data preview --config configs/demo.yaml --out preview.png"""
_WORLD = """\
Draw a small world in the layouts of the official data sets: stories and quizzes (MMC4), pairs (tars), captions (COCO),
questions (VQA v2) and a tokenizer. The same arguments give the same bytes; a world that is there is left alone.

With --vision-trunk also teach a CLIP-shaped trunk to say what each patch shows, on scenes that occur nowhere else. Its
numbers are model.network.vision.trunk of --config (default: model/micro.yaml)."""
_WORLD_EXAMPLE = """\
mmi data microworld --out data/microworld
mmi data microworld --out data/microworld --size 1500 --vision-trunk data/microworld-trunk --config configs/demo.yaml"""
_PREVIEW = """\
Read the first batch of a config as training would and show it: each document with its pictures, the text that is
learned, and how full the rows are."""
_PREVIEW_EXAMPLE = "mmi data preview --config configs/demo.yaml --out preview.png"


def run(command: str, argv: Sequence[str]) -> int:
    """Dispatch to ``microworld`` or ``preview``."""
    commands: dict[str, Callable[[Sequence[str]], int]] = {"microworld": make_microworld, "preview": preview}
    if not argv or argv[0] in ("-h", "--help"):
        print(_HELP)
        return DONE
    if argv[0] not in commands:
        raise UsageError(f'unknown command "{command} {argv[0]}"; {did_you_mean(argv[0], commands, "commands")}')
    return commands[argv[0]](argv[1:])


def make_microworld(argv: Sequence[str]) -> int:
    """Write the world, and the trunk if asked for."""
    parser = Arguments("data microworld", _WORLD, _WORLD_EXAMPLE, takes_configs=True)
    add = parser.add_argument
    add("--out", required=True, metavar="DIR", help="where to write")
    add("--size", type=int, default=1500, metavar="N", help="stories, pairs, captions and quizzes, each (1500)")
    add("--seed", type=int, default=0, help="another seed draws another world (0)")
    add("--image-size", type=int, default=32, metavar="PX", help="a multiple of 16 (32)")
    add("--vocab-size", type=int, default=512, metavar="N", help="entries of the tokenizer (512)")
    add("--overwrite", action="store_true", help="replace another world or trunk in the same place")
    trunk = parser.add_argument_group("vision trunk")
    trunk.add_argument("--vision-trunk", metavar="DIR", help="also train a trunk and write it here")
    trunk.add_argument("--trunk-pictures", type=int, default=6000, metavar="N", help="pictures it is taught on (6000)")
    trunk.add_argument("--trunk-steps", type=int, default=1500, metavar="N", help="optimizer steps (1500)")
    line = parser.read(argv)
    options = line.options
    from mmi.commands.settings import network_settings, settings_from_command_line
    from mmi.data.microworld import write_world

    trunk_config = None
    if options.vision_trunk:
        line.options.config = options.config or ["model/micro.yaml"]
        trunk_config = network_settings(settings_from_command_line(line))[0].vision.trunk
        if trunk_config.image_size != options.image_size:
            sizes = f"the trunk is for {trunk_config.image_size} px but --image-size is {options.image_size}"
            raise UsageError(f"{sizes}; set both to one value.")
    with _bar("drawing the world") as progress:
        summary = write_world(
            options.out,
            size=options.size,
            seed=options.seed,
            image_size=options.image_size,
            vocab_size=options.vocab_size,
            progress=progress,
            overwrite=options.overwrite,
        )
    print(f"{summary}\nlook at {summary.folder / 'contact_sheet.png'}")
    if trunk_config is not None:
        out = Path(options.vision_trunk)
        _make_trunk(trunk_config, out, options.trunk_pictures, options.trunk_steps, options.seed, options.overwrite)
    return DONE


def _make_trunk(config: VisionTrunkConfig, out: Path, n_pictures: int, steps: int, seed: int, overwrite: bool) -> None:
    record = out / "pretraining.json"
    if record.is_file() and not overwrite:
        made = json.loads(record.read_text(encoding="utf-8"))["settings"]
        wanted = {"steps": steps, "seed": seed, "n_pictures": n_pictures}
        if all(made.get(key) == value for key, value in wanted.items()):
            print(f"found, unchanged: vision trunk in {out}")
            return
        raise UsageError(f"{out} holds another trunk; choose another folder or add --overwrite.")
    from mmi.data.microworld import pretraining_pictures
    from mmi.training.vision_pretraining import pretrain_trunk

    print(
        f"teaching a vision trunk what patches show: {n_pictures} pictures, {steps} steps, about a minute", flush=True
    )
    grid = config.image_size // config.patch_size
    pictures, labels = pretraining_pictures(n_pictures, seed, config.image_size, grid)
    pretrain_trunk(config, pictures, labels, out, steps=steps, seed=seed)
    print(f"wrote vision trunk in {out}")


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
