"""``mmi data check``: broken records, unreadable pictures, duplicates, counts, overlap with evaluation sets."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmi.commands.arguments import Arguments, CommandLine
from mmi.commands.bars import item_bar
from mmi.errors import DONE, FAILED, UsageError
from mmi_eval.report.numbers import count

if TYPE_CHECKING:
    from mmi.data.checking.records import SourceFindings
    from mmi.data.sources import SourceConfig

_DESCRIPTION = """\
Read every record of a data set once, with the rules that leave records out switched off, and decode every picture.
Tells: records that break the layout; pictures that are missing or cannot be read; documents and pictures that occur
more than once (same bytes) or look alike; with --against, pictures that are or resemble one of an evaluation set (of a
config also: pictures of data.train that are in data.val); with --card and --split, whether the number of records is
the published one.

Two pictures look alike if two 64-bit hashes (pHash of the low frequencies, dHash of the brightness steps) each differ
in at most --threshold bits. That finds scaled and compressed copies; mirrored or strongly cut ones are not found.

Exit code 1 if a record or picture is broken, a picture is in an evaluation set, or the number of records is not the
published one; duplicates are told and are no failure."""
_EXAMPLE = """\
mmi data check data/mmc4
mmi data check data/own/captions.jsonl --images data/own --workers 8
mmi data check --config configs/demo.yaml --against data/coco/val2014 --out check.json
mmi data check data/coco/annotations/captions_val2014.json --card coco --split "val2014 pictures\""""
_SCHEMA_VERSION = 1
_SHOWN = 3


def check(argv: Sequence[str]) -> int:
    """Check a folder, a file, or the sources of a config."""
    parser = Arguments("data check", _DESCRIPTION, _EXAMPLE, takes_configs=True)
    add = parser.add_argument
    add("place", nargs="?", metavar="DIR", help="folder or file; a folder of nothing but pictures is checked too")
    add("--images", metavar="DIR", help="folder of the pictures, where they do not lie beside DIR")
    add("--against", action="append", default=[], metavar="DIR", help="pictures of an evaluation set; may be repeated")
    add("--threshold", type=int, default=6, metavar="BITS", help="most differing bits of pictures that look alike (6)")
    add("--card", metavar="NAME", help="data card whose published counts are compared")
    add("--split", metavar="SPLIT", help="which of the card's counts")
    add("--records-only", action="store_true", help="decode no pictures: no unreadable ones, duplicates or overlap")
    add("--workers", type=int, default=1, metavar="N", help="processes (1)")
    add("--out", metavar="FILE", help="write every finding to this JSON file")
    add("--json", action="store_true", help="print the findings as JSON")
    line = parser.read(argv)
    options = line.options
    for option, value, least, most in (
        ("--workers", options.workers, 1, None),
        ("--threshold", options.threshold, 0, 16),
    ):
        if value < least or (most is not None and value > most):
            span = f"{least} to {most}" if most is not None else f"at least {least}"
            raise UsageError(f"{option} is {value}; expected {span}.")
    if options.against and options.records_only:
        raise UsageError("--against compares pictures, but --records-only decodes none; leave one of the two out.")
    expected = _expected(options)
    sources = _sources(line)
    report = _read(sources, options)
    if expected is not None:
        _compare_counts(report, expected)
    report["failed"] = _is_wrong(report)
    if options.out:
        from mmi_eval.formats.errors import write_json

        write_json(options.out, report, indent=1)
    if options.json:
        print(json.dumps(report, indent=1, ensure_ascii=False))
    else:
        _print(report, options.threshold, options.out)
    return FAILED if report["failed"] else DONE


def _expected(options: Any) -> tuple[str, int] | None:
    """Return what is compared with: the name of a split and its published number."""
    if options.card is None:
        if options.split is not None:
            raise UsageError("--split names a count of a data card; say which with --card.")
        return None
    from mmi.data.preparing.cards import find_card

    card = find_card(options.card)
    if options.split not in card.counts:
        known = ", ".join(f'"{name}"' for name in card.counts) or "none"
        told = "missing" if options.split is None else options.split
        raise UsageError(f"--split is {told}; the card {card.name} has counts of: {known}.")
    mark = ", unverified" if "counts" in card.unverified else ""
    return f"{card.name}, {options.split}{mark}", card.counts[options.split]


def _sources(line: CommandLine) -> dict[str, SourceConfig]:
    """Return the sources of the config, or those found in the place; empty for a folder of pictures."""
    if (line.options.place is None) == (not line.options.config):
        raise UsageError("give either a folder or file to check, or --config FILE.")
    if line.options.place is not None:
        from mmi.data.checking.layouts import guess_sources

        if line.overrides:
            raise UsageError(f"--{line.overrides[0].key} sets something of a config, but no --config is given.")
        return guess_sources(line.options.place, line.options.images)
    from mmi.commands.settings import check_settings, settings_from_command_line

    data = check_settings(settings_from_command_line(line), "validate").data
    found = {f"train/{name}": config for name, config in data["train"].items()}
    found |= {f"val/{name}": config for name, config in data["val"].items()}
    if not found:
        raise UsageError("the config names no source under data.train or data.val.")
    return found


def _read(sources: dict[str, SourceConfig], options: Any) -> dict[str, Any]:
    from mmi.data.checking.records import check_pictures, check_source
    from mmi.data.checking.repeats import find_overlap

    evaluation = {}
    for folder in options.against:
        with item_bar(f"reading {folder}") as progress:
            evaluation[folder] = check_pictures(folder, workers=options.workers, progress=progress)
    found = []
    for name, config in sources.items():
        with item_bar(f"checking {name}") as progress:
            found.append(
                check_source(
                    name, config, workers=options.workers, pictures=not options.records_only, progress=progress
                )
            )
    if not sources:
        with item_bar(f"checking {options.place}") as progress:
            found = [check_pictures(options.place, workers=options.workers, progress=progress)]
    sets = {folder: pictures.pictures for folder, pictures in evaluation.items()}
    overlap = [
        {"source": source.name, "set": folder, **vars(hit)}
        for folder, pictures in sets.items()
        for source in found
        for hit in find_overlap(source.pictures, pictures, options.threshold)
    ]
    own = [(a, b) for a in found for b in found if a.name.startswith("train/") and b.name.startswith("val/")]
    overlap += [
        {"source": a.name, "set": f"data.{b.name.replace('/', '.')}", **vars(hit)}
        for a, b in own
        for hit in find_overlap(a.pictures, b.pictures, options.threshold)
        # Looks decide only where a user names the evaluation set: sources of one config may be alike by design.
        if hit.distance < 0
    ]
    return {
        "schema_version": _SCHEMA_VERSION,
        "threshold": options.threshold,
        "sources": [_source_report(source, options.threshold) for source in found],
        "evaluation_sets": [
            {"folder": folder, "pictures": len(f.pictures), "unreadable": len(f.faults)}
            for folder, f in evaluation.items()
        ],
        "overlap": overlap,
    }


def _source_report(found: SourceFindings, threshold: int) -> dict[str, Any]:
    from mmi.data.checking.repeats import find_repeats

    repeats = find_repeats(found, threshold)
    return {
        "name": found.name,
        "format": found.format,
        "records": found.records,
        "documents": found.documents,
        "pictures": len(found.pictures),
        "nearly_uniform_pictures": sum(mark.look is None for mark in found.pictures),
        "characters": found.characters,
        "faults": [{"id": f.id, "reason": f.reason, "detail": f.detail} for f in found.faults],
        "equal_documents": [list(group) for group in repeats.documents],
        "equal_pictures": [list(group) for group in repeats.pictures],
        "alike_pictures": [list(pair) for pair in repeats.alike],
        "extra_documents": repeats.n_extra_documents,
        "extra_pictures": repeats.n_extra_pictures,
    }


def _compare_counts(report: dict[str, Any], expected: tuple[str, int]) -> None:
    records = sum(source["records"] for source in report["sources"])
    report["published"] = {"of": expected[0], "records": expected[1], "found": records}


def _is_wrong(report: dict[str, Any]) -> bool:
    published = report.get("published")
    return bool(
        report["overlap"]
        or any(source["faults"] for source in report["sources"])
        or (published is not None and published["records"] != published["found"])
    )


def _pair(names: Sequence[object]) -> str:
    return " = ".join(map(str, names[:2]))


def _print(report: dict[str, Any], threshold: int, out: str | None) -> None:
    for source in report["sources"]:
        print(
            f"{source['name']} ({source['format']}): {count(source['records'], 'record')}, {source['documents']:,} "
            f"read, {count(source['pictures'], 'picture')}"
        )
        if source["format"] == "pictures":
            print("  note   no records of a known layout: only the pictures were checked")
        reasons = Counter(fault["reason"] for fault in source["faults"])
        for reason, n in reasons.most_common():
            print(f"  WRONG  {n:,} x {reason}")
            for fault in [f for f in source["faults"] if f["reason"] == reason][:_SHOWN]:
                print(f"         {fault['id']}{': ' + fault['detail'] if fault['detail'] else ''}")
        for key, n, one, many in (
            ("equal_documents", source["extra_documents"], "document that is", "documents that are"),
            ("equal_pictures", source["extra_pictures"], "picture whose bytes are", "pictures whose bytes are"),
        ):
            if n:
                print(f"  note   {count(n, one, many)} there before, such as {_pair(source[key][0])}")
        if alike := source["alike_pictures"]:
            pairs = count(len(alike), "pair of pictures that looks", "pairs of pictures that look")
            print(f"  note   {pairs} alike (<= {threshold} bits), such as {_pair(alike[0])}")
        if source["nearly_uniform_pictures"]:
            uniform = count(source["nearly_uniform_pictures"], "nearly uniform picture")
            print(f"  note   {uniform}, compared by bytes only")
    for hit in report["overlap"][:_SHOWN]:
        how = "same bytes" if hit["distance"] < 0 else f"{hit['distance']} bits differ"
        print(f"  WRONG  {hit['uri']} of {hit['source']}/{hit['document']} is {hit['other']} ({how})")
    sets = ", ".join(f"{s['folder']} ({count(s['pictures'], 'picture')})" for s in report["evaluation_sets"])
    if sets or report["overlap"]:
        overlap = count(len(report["overlap"]), "picture is", "pictures are")
        print(f"{overlap} in evaluation sets{': ' + sets if sets else ''}")
    published = report.get("published")
    if published:
        same = "agrees" if published["records"] == published["found"] else "DIFFERS"
        print(
            f"{count(published['found'], 'record')}; published are {published['records']:,} ({published['of']}): {same}"
        )
    if out:
        print(f"every finding: {Path(out)}")
    print("something is wrong" if report["failed"] else "nothing is wrong")
