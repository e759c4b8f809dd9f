"""``mmi data``: make the micro-world, prepare and check what others made, look at what the network is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mmi.commands.arguments import Arguments, run_one_of
from mmi.commands.bars import item_bar
from mmi.commands.data_caption import caption
from mmi.commands.data_check import check
from mmi.commands.data_prepare import prepare_data
from mmi.commands.preview import preview
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
  prepare     a raw release to verified shards, after its data card; goes on where it was stopped
              mmi data prepare mmc4 --from raw/mmc4 --images raw/images --out data/mmc4 --workers 8
  check       records, pictures, duplicates, overlap with evaluation sets; exit code 1 if something is wrong
              mmi data check data/mmc4 --against data/coco/val2014
  stats       lengths, pictures, fill, drops and shares of a config; families and tags of a micro-world; a page
              mmi data stats --config configs/demo.yaml --out stats.html
  preview     a page of packed rows: tokens, borders, pictures, labels, what each token may see
              mmi data preview --config configs/demo.yaml --out preview.html
  caption     caption pictures with BLIP or BLIP-2, kept by picture and model
              mmi data caption --images photos --model blip-folder --out photos/captions.jsonl"""
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


def run(command: str, argv: Sequence[str]) -> int:
    """Dispatch to the command named."""
    commands: dict[str, Callable[[Sequence[str]], int]] = {
        "microworld": make_microworld,
        "prepare": prepare_data,
        "check": check,
        "stats": stats,
        "preview": preview,
        "caption": caption,
    }
    return run_one_of(command, argv, commands, _HELP)


def make_microworld(argv: Sequence[str]) -> int:
    """Write the world, and the networks asked for."""
    parser = Arguments("data microworld", _WORLD, _WORLD_EXAMPLE, takes_configs=True)
    add = parser.add_argument
    add("--out", required=True, metavar="DIR", help="where to write")
    presets = (
        "tiny: easy to learn (default); crowded: much in each small picture; detailed: small print over several "
        "pictures, for ablations; recalled: the same, half of it asked a picture later; lab: rich, for a GPU"
    )
    add("--preset", default="tiny", help=presets)
    add(
        "--size",
        type=int,
        metavar="N",
        help="stories, pairs, pictures and so on, each (tiny: 1500, crowded: 6000, detailed and recalled: 4000, "
        "lab: 100000)",
    )
    add("--seed", type=int, default=0, help="another seed draws another world (0)")
    sides = "a multiple of 16 (32; detailed, recalled and lab: 64, the least they take)"
    add("--image-size", type=int, metavar="PX", help=sides)
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
    with item_bar("drawing the world") as progress:
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
