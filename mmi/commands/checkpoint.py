"""``mmi checkpoint``: official checkpoints in and out, folders to pass on, checks, older versions."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmi.commands.arguments import Arguments, CommandLine, run_one_of
from mmi.commands.bars import byte_bar
from mmi.errors import DONE

_HELP = """\
usage: mmi checkpoint COMMAND [options]        mmi checkpoint COMMAND --help explains one command

  convert  make a run folder from a checkpoint of the official implementation
           mmi checkpoint convert --from official --checkpoint pytorch_model.bin --llm vicuna --clip clip
           --diffusion sd21 --out runs/official
  export   write a run's checkpoint in the official layout, or as a folder to pass on
           mmi checkpoint export --run runs/demo --to safetensors --out out/demo
  verify   hashes, names and shapes, finite numbers
           mmi checkpoint verify runs/demo
  migrate  bring a run folder of an older version up to date
           mmi checkpoint migrate runs/old"""
_CONVERT = """\
Read an official checkpoint (.bin or .safetensors, one file or a folder of shards, with or without an index) and write
a run folder that mmi generate, evaluate and export take. Every official tensor is used once or set aside with its
reason (conversion.json, official_extras.safetensors); one that is missing, unexpected or of another shape stops with a
table. Files are read as data: nothing in them is run.

The folders of the base models give numbers (config.json) and the tokenizer; their weights are not read. What no folder
says is read off the checkpoint's shapes; settings below model.network in --config or on the command line win."""
_CONVERT_EXAMPLE = """\
mmi checkpoint convert --from official --checkpoint pytorch_model.bin --llm vicuna-13b-v1.3 \\
    --clip clip-vit-large-patch14 --diffusion stable-diffusion-2-1-base --out runs/official
mmi checkpoint convert --from official --checkpoint shards --llm llm --clip clip --diffusion sd --out runs/two \\
    --model.network.language.mmfs.levels=[1,2] --model.compat=official"""
_EXPORT = """\
--to official writes pytorch_model.bin (shards, if large) with the official names: bit by bit what was converted where
nothing was trained, in the tensor's own type where rounding would change a trained one.
--to safetensors writes a folder that MMInterleaved.from_pretrained and mmi.inference.Generator.from_pretrained read:
config.yaml, model.safetensors, tokenizer, hashes, and a model card with base weights, licences, data, deviations and
the scores in the run folder. Read the card before you publish it.
Both merge LoRA into the weights beside it and write weights held in 4 bits as plain numbers."""
_EXPORT_EXAMPLE = """\
mmi checkpoint export --run runs/official --to official --out out/official
mmi checkpoint export --run runs/demo --checkpoint best --to safetensors --out out/demo"""
_VERIFY = """\
Compare every file with its hash, every tensor with the configuration beside it, and look for numbers that are not
finite. Takes a run folder (all its checkpoints), one checkpoint, or a folder written by export --to safetensors."""
_MIGRATE = """\
Bring a run folder that an older version of mmi wrote up to date: its checkpoints, then config.yaml, which is kept as
config.yaml.before. A folder that is up to date is left alone."""


def run(command: str, argv: Sequence[str]) -> int:
    """Dispatch to ``convert``, ``export``, ``verify`` or ``migrate``."""
    commands: dict[str, Callable[[Sequence[str]], int]] = {
        "convert": convert,
        "export": export,
        "verify": verify_checkpoints,
        "migrate": migrate_run,
    }
    return run_one_of(command, argv, commands, _HELP)


def convert(argv: Sequence[str]) -> int:
    """Write a run folder from an official checkpoint."""
    parser = Arguments("checkpoint convert", _CONVERT, _CONVERT_EXAMPLE, takes_configs=True)
    add = parser.add_argument
    add("--from", dest="source", required=True, choices=("official",), help="whose layout the checkpoint has")
    add("--checkpoint", required=True, metavar="PATH", help="weight file, index, or folder of shards")
    add(
        "--llm",
        required=True,
        metavar="DIR",
        help="language model (folder or asset:NAME): config.json, tokenizer",
    )
    add("--clip", required=True, metavar="DIR", help="the CLIP folder: config.json")
    add("--diffusion", required=True, metavar="DIR", help="the Stable Diffusion folder: unet, vae, scheduler")
    add("--out", required=True, metavar="DIR", help="the run folder to write")
    line = parser.read(argv)
    options = line.options
    given, compat = _network_settings(line)

    from mmi.checkpoints.conversion import EXTRAS, RECORD, Backbones, convert_official
    from mmi.checkpoints.environment import record_session
    from mmi.checkpoints.layout import LayoutError
    from mmi.config import weight_place

    named = {"--llm": options.llm, "--clip": options.clip, "--diffusion": options.diffusion}
    backbones = Backbones(*(Path(weight_place(place, option)) for option, place in named.items()))
    out = Path(options.out)
    try:
        with byte_bar("writing") as progress:
            done = convert_official(Path(options.checkpoint), backbones, out, given, compat, progress)
    except LayoutError as error:
        print(error.table, file=sys.stderr)
        raise
    record_session(out / "environment.json", ["mmi", "checkpoint", "convert", *argv], None)
    print(f"{done.n_official} official tensors, 0 unmatched, to {done.n_parameters} in {out / 'checkpoints' / 'last'}.")
    print(f"{len(done.set_aside)} that the model does not need, or parts of them: {EXTRAS}, reasons in {RECORD}.")
    for name, value in done.assumed.items():
        print(f"assumed: model.network.{name} = {value}.")
    if not done.has_tokenizer:
        print(f"note: {options.llm} has no tokenizer, so neither has the run; copy one to {out / 'tokenizer'}.")
    if compat == "corrected":
        print("note: defects of the released code are corrected; for its own numbers add --model.compat=official.")
    print(f'next: mmi generate --run {out} --text "..."')
    return DONE


def export(argv: Sequence[str]) -> int:
    """Write a checkpoint in another layout."""
    parser = Arguments("checkpoint export", _EXPORT, _EXPORT_EXAMPLE)
    add = parser.add_argument
    add("--run", required=True, metavar="DIR", help="the run folder")
    add("--checkpoint", metavar="NAME", help="best, last, step-N or a folder; default: best if there is one, else last")
    add("--to", required=True, choices=("official", "safetensors"), help="which layout to write")
    add("--out", required=True, metavar="DIR", help="a new folder")
    add("--weights", choices=("trained", "ema"), default="trained", help="as trained (default), or running averages")
    options = parser.read(argv).options

    from mmi.checkpoints.conversion import export_official
    from mmi.checkpoints.hub import export_hub_folder
    from mmi.checkpoints.run_folder import BEST_OR_LAST, RunFolder

    run_folder, out, which = RunFolder(Path(options.run)), Path(options.out), options.checkpoint or BEST_OR_LAST
    with byte_bar("writing") as progress:
        if options.to == "official":
            files = export_official(run_folder, which, out, progress, weights=options.weights)
            message = f"wrote {', '.join(file.name for file in files)} to {out}."
        else:
            card = export_hub_folder(run_folder, which, out, progress, options.weights)
            message = f"wrote {out}; read {card} before you publish it."
    print(message)
    return DONE


def verify_checkpoints(argv: Sequence[str]) -> int:
    """Check checkpoints and print one line for each."""
    parser = Arguments("checkpoint verify", _VERIFY, "mmi checkpoint verify runs/demo")
    parser.add_argument("path", metavar="DIR", help="run folder, checkpoint, or exported folder")
    options = parser.read(argv).options

    from mmi.checkpoints.layout import LayoutError
    from mmi.checkpoints.verification import verify

    try:
        found = verify(Path(options.path))
    except LayoutError as error:
        print(error.table, file=sys.stderr)
        raise
    for one in found:
        print(
            f"{one.folder}: in order (step {one.step}, {one.n_files} files, {one.n_tensors} tensors, "
            f"{one.n_numbers:,} finite numbers)."
        )
    return DONE


def migrate_run(argv: Sequence[str]) -> int:
    """Upgrade a run folder and say what was done."""
    parser = Arguments("checkpoint migrate", _MIGRATE, "mmi checkpoint migrate runs/old")
    parser.add_argument("path", metavar="RUN", help="the run folder")
    options = parser.read(argv).options

    from mmi.checkpoints.migration import migrate
    from mmi.checkpoints.storage import SCHEMA_VERSION

    done = migrate(Path(options.path))
    state = f"upgraded {', '.join(done)}" if done else "nothing to do"
    print(f"{options.path}: {state}; schema_version {SCHEMA_VERSION} is the newest.")
    return DONE


def _network_settings(line: CommandLine) -> tuple[dict[str, Any], Any]:
    """Return what the user says below ``model.network``, and the compatibility switches."""
    from mmi.commands.settings import CONFIG_ROOTS, MODEL_KEYS, network_settings, section
    from mmi.compose import compose
    from mmi.config import ConfigError
    from mmi.config_tree import unknown_key

    tree = compose(line.options.config, line.overrides)
    tree.pop("schema_version", None)
    for root in tree:
        if root not in CONFIG_ROOTS:
            raise ConfigError(unknown_key(root, CONFIG_ROOTS))
    model = section(tree, "model")
    for key in model:
        if key not in MODEL_KEYS:
            raise ConfigError(unknown_key(f"model.{key}", MODEL_KEYS))
    # Sizes may disagree until folders and shapes have been read, so here only the switches are checked.
    _, compat = network_settings({"model": {"compat": model.get("compat", "corrected")}})
    return section(model, "network"), compat
