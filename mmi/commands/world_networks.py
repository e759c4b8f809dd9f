"""Networks that ``mmi data microworld`` teaches beside the world: an encoder to start from, and judges of pictures.

Both are taught on scenes that occur nowhere in the world, and left alone where the same ones are there already.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmi.commands.arguments import CommandLine
from mmi.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from mmi.config import VisionTrunkConfig
    from mmi_eval.judges import Judges

HELD_OUT_SHARE = 0.1
"""Of the judges' pictures."""


def add_encoder_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--encoder`` and what belongs to it."""
    group = parser.add_argument_group("encoder")
    add = group.add_argument
    add("--encoder", nargs="?", const="", metavar="DIR", help="also teach a vision encoder (OUT/encoder)")
    add("--encoder-pictures", type=int, default=12000, metavar="N", help="pictures it is taught on (12000)")
    add("--encoder-steps", type=int, default=1500, metavar="N", help="optimizer steps (1500)")


def add_judge_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--judges`` and what belongs to it."""
    group = parser.add_argument_group("judges")
    add = group.add_argument
    add("--judges", nargs="?", const="", metavar="DIR", help="also teach judges of drawn pictures (OUT/judges)")
    add("--judge-pictures", type=int, default=12000, metavar="N", help="pictures they are taught on (12000)")
    add(
        "--judge-steps",
        type=int,
        default=1000,
        metavar="N",
        help="optimizer steps of the attribute judge (1000); the matcher takes 0.4 and the segmenter 1.5 times as many",
    )


def check_network_options(line: CommandLine) -> VisionTrunkConfig | None:
    """Refuse what cannot be taught before the world is drawn.

    Returns:
        The encoder's numbers, ``None`` if none is asked for.

    Raises:
        UsageError: On numbers that are too small, or an encoder for pictures of a size the world's are not reduced to.
    """
    from mmi.commands.settings import network_settings, settings_from_command_line

    options = line.options
    for name, least in (("encoder_pictures", 20), ("encoder_steps", 1), ("judge_pictures", 20), ("judge_steps", 10)):
        if getattr(options, name) < least:
            option = name.replace("_", "-")
            raise UsageError(f"--{option} is {getattr(options, name)}; expected at least {least}.")
    if options.encoder is None:
        return None
    options.config = options.config or ["model/micro.yaml"]
    config = network_settings(settings_from_command_line(line))[0].vision.trunk
    if options.image_size % config.image_size:
        sizes = f"the encoder is for {config.image_size} px but the world's pictures have {options.image_size}"
        raise UsageError(
            f"{sizes}; set model.network.vision.trunk.image_size to that or to an even part of it, such as half."
        )
    return config


def make_encoder(options: argparse.Namespace, config: VisionTrunkConfig) -> None:
    """Teach an encoder and write it, unless it is there already.

    Raises:
        UsageError: If the folder holds another encoder.
    """
    from mmi.data.microworld import PRESETS
    from mmi.data.microworld.labels import pretraining_captions, pretraining_pictures
    from mmi.training.vision_pretraining import pretrain_trunk

    out = Path(options.encoder or Path(options.out) / "encoder")
    n, steps, seed = options.encoder_pictures, options.encoder_steps, options.seed
    shape = ("image_size", "patch_size", "d_model", "n_layers", "n_heads", "d_mlp", "activation")
    numbers = {name: getattr(config, name) for name in shape}
    notes = _notes(options) | {"trunk": numbers, "vocab_size": options.vocab_size}
    if _is_there(out / "pretraining.json", notes | {"n_pictures": n, "steps": steps, "seed": seed}, options.overwrite):
        print(f"found, unchanged: encoder in {out}")
        return
    print(f"teaching an encoder: {n} pictures, {steps} steps; about a minute with the defaults", flush=True)
    recipe = PRESETS[options.preset]
    grid = config.image_size // config.patch_size
    pictures, labels = pretraining_pictures(n, seed, options.image_size, grid, recipe)
    ids = _caption_ids(pretraining_captions(n, seed, recipe), Path(options.out) / "tokenizer")
    pictures = _as_seen(pictures, config.image_size)
    pretrain_trunk(config, pictures, labels, out, steps=steps, seed=seed, captions=ids, notes=notes)
    print(f"wrote encoder in {out}")


def make_judges(options: argparse.Namespace) -> None:
    """Teach the judges and write them, unless they are there already.

    Raises:
        UsageError: If the folder holds other judges.
    """
    from mmi.data.microworld import PRESETS
    from mmi.data.microworld.judging import CELL_CLASSES, MAP_CLASSES, PLACE_CLASSES, judged_pictures
    from mmi_eval.judges import JudgeClasses, JudgeSettings, LabelledPictures, teach_judges

    out = Path(options.judges or Path(options.out) / "judges")
    n, steps = options.judge_pictures, options.judge_steps
    n_held_out = max(1, round(HELD_OUT_SHARE * n))
    settings = JudgeSettings(options.seed, steps, matcher_steps=steps * 2 // 5, segmenter_steps=steps * 3 // 2)
    wanted = asdict(settings) | _notes(options) | {"n_pictures": n, "n_held_out": n_held_out}
    if _is_there(out / "judges.json", wanted, options.overwrite):
        print(f"found, unchanged: judges in {out}")
        return
    print(f"teaching judges: {n} pictures, {steps} steps; about a minute with the defaults", flush=True)
    drawn, layout = judged_pictures(n + n_held_out, options.seed, options.image_size, PRESETS[options.preset])
    known = LabelledPictures(drawn.pictures, drawn.background, drawn.cells, drawn.layout, drawn.captions, drawn.foils)
    classes = JudgeClasses(
        background=PLACE_CLASSES,
        **CELL_CLASSES,
        layout=MAP_CLASSES,
        image_size=options.image_size,
        cell=layout.cell,
        offset=layout.offset,
    )
    with _steps_bar() as progress:
        part, held_out = known.part(0, n), known.part(n, n + n_held_out)
        judges = teach_judges(classes, part, held_out, settings, notes=_notes(options), progress=progress)
    judges.save(out)
    _print_accuracy(judges, n_held_out)
    print(f"wrote judges in {out}")


def _notes(options: argparse.Namespace) -> dict[str, Any]:
    """Return what decides how pictures look."""
    from mmi.data.microworld import VERSION

    return {"world_version": VERSION, "preset": options.preset, "image_size": options.image_size}


def _is_there(record: Path, wanted: Mapping[str, Any], overwrite: bool) -> bool:
    if overwrite or not record.is_file():
        return False
    try:
        made = json.loads(record.read_bytes())["settings"]
        differing = [key for key, value in wanted.items() if made.get(key) != value]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(f"{record} is no record of ours; choose another folder or add --overwrite.") from None
    if differing:
        key = differing[0]
        other = f"{record.parent} holds networks made with {key} {made.get(key)!r}, not {wanted[key]!r}"
        raise UsageError(f"{other}; choose another folder or add --overwrite.")
    return True


def _as_seen(pictures: np.ndarray, size: int) -> np.ndarray:
    """Reduce uint8[N, 3, S, S] to the size an encoder sees, as the data path does."""
    import numpy as np
    from PIL import Image

    from mmi.data.images import to_pixels, to_square

    if pictures.shape[-1] == size:
        return pictures
    rows = (to_square(Image.fromarray(np.ascontiguousarray(p.transpose(1, 2, 0))), size, "center") for p in pictures)
    return np.stack([to_pixels(row).numpy() for row in rows])


def _caption_ids(captions: list[str], tokenizer: Path) -> np.ndarray:
    """Return int64[N, T] token ids, ended by zeros."""
    import numpy as np

    from mmi.tokens import Tokenizer

    encode = Tokenizer.load(tokenizer).encode
    rows = [encode(caption) for caption in captions]
    ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
    for row, found in zip(ids, rows, strict=True):
        row[: len(found)] = found
    return ids


def _print_accuracy(judges: Judges, n_held_out: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"judged right, {n_held_out} held-out pictures")
    table.add_column("what")
    table.add_column("as drawn", justify="right")
    table.add_column("disturbed", justify="right")
    for name, value in judges.accuracy.items():
        if not name.startswith("disturbed/"):
            table.add_row(name, f"{value:.3f}", f"{judges.accuracy[f'disturbed/{name}']:.3f}")
    Console().print(table)


@contextmanager
def _steps_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Show on stderr which network is taught and how far it is."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False) as bars:
        tasks = {}

        def tell(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done)

        yield tell
