"""``mmi assets``: weights and jars from outside: what there is, what is here, whether it is right, and fetching it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict

from mmi.commands.arguments import Arguments, run_one_of
from mmi.commands.bars import byte_bar
from mmi.config.assets import Asset, find_asset, read_assets
from mmi.errors import DONE, FAILED, UsageError

_HELP = """\
usage: mmi assets COMMAND [options]        mmi assets COMMAND --help explains one command

  list        every file from outside: purpose, licence, size, homes, whether it is here
              mmi assets list
  verify      compare what is here with the manifest and with what was fetched
              mmi assets verify stable-diffusion-2-1-base
  download    fetch assets by name; resumes where it was stopped
              mmi assets download clip-vit-l-14 open-llama-3b-v2

A config names an asset as asset:NAME. They lie in $MMI_ASSETS (default: ~/.cache/mmi/assets), a folder each; a folder
or link that you put there counts too."""
_LIST = "Print every file from outside that mmi can use: purpose, licence, size, homes, and whether it is here."
_VERIFY = """\
Check assets on this machine: files that are needed, numbers in their config files, SHA-256 against the manifest where
their publisher states one and against what was noted when they were fetched. Exit code 1 if one is wrong, or if one
that was named is absent."""
_DOWNLOAD = """\
Fetch assets into $MMI_ASSETS (default: ~/.cache/mmi/assets) from the first of their homes that has them. What is there
stays, a stopped download goes on. You are bound by their licences."""


def run(command: str, argv: Sequence[str]) -> int:
    """Dispatch to ``list``, ``verify`` or ``download``."""
    commands: dict[str, Callable[[Sequence[str]], int]] = {"list": show, "verify": verify, "download": download}
    return run_one_of(command, argv, commands, _HELP)


def show(argv: Sequence[str]) -> int:
    """Print the manifest."""
    parser = Arguments("assets list", _LIST, "mmi assets list\nmmi assets list --json")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.read(argv).options
    assets = list(read_assets().values())
    if options.json:
        print(json.dumps([{**asdict(a), "folder": str(a.folder), "here": not a.missing()} for a in assets], indent=1))
        return DONE
    for asset in assets:
        print(_entry(asset))
    here = sum(not asset.missing() for asset in assets)
    print(f"{here} of {len(assets)} are here.")
    return DONE


def verify(argv: Sequence[str]) -> int:
    """Check the assets named, or all that are here."""
    parser = Arguments("assets verify", _VERIFY, "mmi assets verify\nmmi assets verify clip-vit-l-14 --fast")
    parser.add_argument("names", nargs="*", metavar="NAME", help="assets to check (all that are here)")
    parser.add_argument("--fast", action="store_true", help="names and numbers only, no hashes of large files")
    options = parser.read(argv).options

    from mmi.checkpoints.assets import verify_asset

    chosen = [find_asset(name) for name in options.names] or list(read_assets().values())
    found = {asset.name: verify_asset(asset, hashes=not options.fast) for asset in chosen}
    shown = {name: state for name, state in found.items() if options.names or state.state != "absent"}
    for name, state in shown.items():
        against = {"hash": "the manifest's hash", "record": "what was fetched", "config": "its numbers"}
        reasons = "; ".join(state.problems) or ", ".join(against[c] for c in state.checked) or "its files are there"
        print(f"{'WRONG' if state.state == 'wrong' else state.state:<7} {name}: {reasons}")
    if not shown:
        print("none is here; mmi assets list names them, mmi assets download fetches them.")
    wrong = [n for n, state in shown.items() if state.state != "whole"]
    return FAILED if wrong else DONE


def download(argv: Sequence[str]) -> int:
    """Fetch the assets named."""
    parser = Arguments(
        "assets download",
        _DOWNLOAD,
        "mmi assets download clip-vit-l-14\nmmi assets download minisd --from hf:me/minisd",
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="assets to fetch")
    parser.add_argument(
        "--from", dest="home", metavar="HOME", help="another home: hf:OWNER/NAME[@REVISION], https://..."
    )
    options = parser.read(argv).options
    if options.home and len(options.names) > 1:
        raise UsageError(f"--from is the home of one asset, but {len(options.names)} are named; give them one by one.")

    from mmi.checkpoints.assets import download_asset

    for asset in [find_asset(name) for name in options.names]:
        print(f"{asset.name}: {_size(asset)}, licence: {asset.licence}", file=sys.stderr)
        with byte_bar(asset.name) as progress:
            folder = download_asset(asset, home=options.home, progress=progress)
        print(f"{asset.name} is in {folder}")
    return DONE


def _entry(asset: Asset) -> str:
    missing = asset.missing()
    state = "here" if not missing else "absent" if len(missing) == len(asset.needs) else "incomplete"
    lines = [
        f"{asset.name} ({_size(asset)}, {state})",
        f"    {asset.purpose}",
        f"    licence: {asset.licence}",
        f"    homes: {', '.join(asset.homes)}",
    ]
    if asset.note:
        lines.append(f"    note: {asset.note}")
    if not missing:
        lines.append(f"    in {asset.folder}")
    return "\n".join(lines)


def _size(asset: Asset) -> str:
    if asset.size_gb is None:
        return "size not stated"
    return f"{asset.size_gb:g} GB" if asset.size_gb >= 0.1 else f"{1000 * asset.size_gb:g} MB"
