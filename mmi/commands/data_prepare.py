"""``mmi data prepare``: a raw release to verified shards, after its data card has been shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmi.commands.arguments import Arguments
from mmi.commands.bars import item_bar
from mmi.errors import DONE, UsageError
from mmi_eval.report.numbers import count

if TYPE_CHECKING:
    from mmi.data.preparing.cards import DataCard
    from mmi.data.preparing.jobs import ShardWork

_OPTIONS_OF_RECIPES = {
    "pairs": ("short_side", "captions", "opt_out", "download"),
    "mmc4": ("short_side", "loose_images"),
    "conversations": (),
    "files": (),
}
"""Options that not every recipe has a use for."""
_DESCRIPTION = """\
Turn a raw release into shards that training reads, every picture decoded once. First its data card is shown: licence,
size, people in it, known problems, where it can be had, what the paper used; (unverified) marks what was written down
from memory.

What is done depends on the card. Pairs: a folder of pictures with NAME.txt or NAME.json beside each, a table of files
or addresses with captions, or tars, become checked tars; every line of NAME.txt is a caption, and each caption becomes
a pair. MMC4: .jsonl or .jsonl.zip and a folder of pictures become
checked shards. Conversations (LLaVA): the JSON file is checked against its pictures. Other releases are read as they
are: their files are found and hashed.

A stopped run goes on: the same command again keeps every shard whose hash is right. What is left out is named in
DIR/skipped.jsonl. Nothing is fetched unless the input is a table of addresses and --download says so; then https only,
one connection to a host at a time, publishers that opt out (X-Robots-Tag) are left out."""
_EXAMPLE = """\
mmi data prepare --list
mmi data prepare mmc4 --from raw/mmc4 --images raw/mmc4/images --out data/mmc4 --workers 8
mmi data prepare own --from photos --out data/photos
mmi data prepare objects365 --from raw/objects365 --captions objects365.jsonl --out data/objects365
mmi data prepare cc12m --from cc12m.tsv --out data/cc12m --download --short-side 512 --dry-run"""


def prepare_data(argv: Sequence[str]) -> int:
    """Show the card and write the shards."""
    parser = Arguments("data prepare", _DESCRIPTION, _EXAMPLE)
    add = parser.add_argument
    add("name", nargs="?", metavar="NAME", help="data card; --list names them, own is for your own pictures")
    add("--list", action="store_true", help="print every data card and end; with --json as JSON")
    add("--json", action="store_true", help="print JSON")
    add("--from", dest="source", metavar="PATH", help="folder, table, tar or JSON file of the raw release")
    add("--images", metavar="DIR", help="folder of the pictures, where they do not lie beside it")
    add("--out", metavar="DIR", help="where to write; an empty or new folder, or that of the run to go on with")
    add("--shard-size", type=int, default=10_000, metavar="N", help="records for one shard (10000)")
    add("--short-side", type=int, metavar="PX", help="shrink larger pictures to this shorter side (keep the bytes)")
    add("--loose-images", action="store_true", help="MMC4: pictures as files of one folder instead of tars")
    add("--captions", metavar="FILE", help="captions of mmi data caption instead of those of the release")
    add(
        "--opt-out",
        action="append",
        default=[],
        metavar="FILE",
        help="pairs: addresses, ids, domains to leave out",
    )
    add("--workers", type=int, default=1, metavar="N", help="processes (1)")
    add("--dry-run", action="store_true", help="say what would be done, write and fetch nothing")
    add("--download", action="store_true", help="fetch pictures whose records hold addresses")
    add("--timeout", type=float, default=20.0, metavar="S", help="seconds that a picture may take (20)")
    add("--max-mb", type=float, default=20.0, metavar="MB", help="largest picture that is fetched (20)")
    options = parser.read(argv).options
    from mmi.data.preparing.cards import find_card, read_cards

    if options.list:
        cards = read_cards()
        told = [card.told() for card in cards.values()]
        print(json.dumps([asdict(card) for card in cards.values()], indent=1) if options.json else "\n".join(told))
        return DONE
    if options.name is None:
        raise UsageError("no data set named; give its card's NAME, or see mmi data prepare --list.")
    card = find_card(options.name)
    if not options.json:
        print(card.told())
    for option, value in (("--from", options.source), ("--out", options.out)):
        if value is None:
            raise UsageError(f"{option} is missing; give the raw release with --from and a new folder with --out.")
    for option, value, least in (("--workers", options.workers, 1), ("--shard-size", options.shard_size, 1)):
        if value < least:
            raise UsageError(f"{option} is {value}; expected at least {least}.")
    for option in ("short_side", "captions", "opt_out", "download", "loose_images"):
        if getattr(options, option) and option not in _OPTIONS_OF_RECIPES[card.recipe]:
            raise UsageError(
                f"--{option.replace('_', '-')} is for {_recipes_with(option)}; {card.name} has the recipe "
                f"{card.recipe}, which has no use for it: leave it out."
            )
    return _prepare(card, options)


def _recipes_with(option: str) -> str:
    return " and ".join(recipe for recipe, options in _OPTIONS_OF_RECIPES.items() if option in options)


def _prepare(card: DataCard, options: Any) -> int:
    from mmi.data.preparing.jobs import is_whole, prepare, read_record

    work = _work(card, options)
    out = Path(options.out)
    names = work.names()
    if options.dry_run:
        records = [read_record(out, name) for name in names]
        there = sum(record is not None and is_whole(work.folder(out), record) for record in records)
        told = {"card": card.name, "recipe": card.recipe, "shards": len(names), "finished": there, "out": str(out)}
        if options.json:
            print(json.dumps(told, indent=1))
        else:
            shards = count(len(names), "shard")
            print(f"dry run: {shards} by recipe {card.recipe} into {out}, {there} finished; nothing written")
        return DONE
    with item_bar(f"preparing {card.name}") as progress:
        found = prepare(work, out, name=card.name, workers=options.workers, progress=progress)
    if options.json:
        print(json.dumps({**asdict(found), "out": str(found.out), "card": card.name}, indent=1))
        return DONE
    kept = f" ({found.kept} finished by an earlier run, hashes compared)" if found.kept else ""
    if card.recipe == "files":
        print(f"{count(found.shards, 'file')} found and hashed{kept}: {out}")
    else:
        held = f"{count(found.records, 'record')} and {count(found.images, 'picture')}"
        print(f"{held} in {count(found.shards, 'shard')}{kept}: {out}")
    for reason, n in sorted(found.left_out.items(), key=lambda pair: -pair[1]):
        print(f"  left out: {n:,} x {reason}")
    if found.left_out:
        print(f"  every case by name: {out / 'skipped.jsonl'}")
    print(_next_step(card, out, source=options.source))
    return DONE


def _work(card: DataCard, options: Any) -> ShardWork:
    """Return what the card's recipe does with the input."""
    source = str(Path(options.source).expanduser())
    if "://" in options.source:
        raise UsageError(
            f"--from is the address {options.source}; fetch the release yourself under its licence (homes above), or "
            "give a table of addresses of single pictures."
        )
    if not Path(source).exists():
        raise FileNotFoundError(2, "No such file or directory", source)
    if card.recipe == "mmc4":
        from mmi.data.preparing.stories import StoryWork

        beside = Path(source) if Path(source).is_dir() else Path(source).parent
        images = options.images or str(beside / "images")
        return StoryWork(source, images, options.short_side, packed=not options.loose_images)
    if card.recipe == "conversations":
        from mmi.data.preparing.conversations import ConversationWork

        return ConversationWork(source, options.images or str(Path(source).parent / "images"), options.shard_size)
    if card.recipe == "files":
        from mmi.data.preparing.releases import ReleaseWork

        return ReleaseWork(source, card)
    if options.download and card.never_fetch:
        raise UsageError(f"--download is refused for {card.name}: {card.never_fetch}.")
    return _pair_work(source, options)


def _pair_work(source: str, options: Any) -> ShardWork:
    from mmi.data.preparing.download import Fetcher
    from mmi.data.preparing.pair_inputs import open_pairs
    from mmi.data.preparing.pairs import PairWork, count_addresses

    pairs = open_pairs(source, options.images)
    if len(pairs) == 0:
        raise UsageError(f"{source} holds no records; check the path.")
    addresses = count_addresses(pairs) or (count_addresses(pairs, len(pairs)) if options.download else 0)
    if options.download and not addresses:
        raise UsageError(
            f"--download fetches pictures whose records hold addresses, but those of {source} are files; leave it out."
        )
    if addresses and not (options.download or options.dry_run):
        raise UsageError(
            f"{source} holds addresses ({addresses:,} of the first {count(min(1000, len(pairs)), 'record')}); add "
            "--download to fetch their pictures (one by one, https only), or give a folder of pictures that are here."
        )
    fetcher = Fetcher(options.timeout, int(options.max_mb * 1e6)) if options.download else None
    return PairWork(pairs, options.shard_size, options.short_side, fetcher, options.captions, tuple(options.opt_out))


def _next_step(card: DataCard, out: Path, *, source: str) -> str:
    """Say how a config names what was written."""
    entries = {
        "pairs": f"{{format: pair_tars, path: {out}}}",
        "mmc4": f"{{format: mmc4, path: {out}/shards, images: {out}/images}}",
        "conversations": f"{{format: conversations, path: {out}/conversations.json, images: {out}/images}}",
    }
    if card.recipe not in entries:
        return f"the release stays in {source}; {out}/prepared.json holds its hashes"
    name = card.name.replace("-", "_")
    return f"train on it: --data.train.{name}='{entries[card.recipe]}'\ncheck it: mmi data check {out}"
