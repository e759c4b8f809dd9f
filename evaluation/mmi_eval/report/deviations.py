"""Where this project, the released code and the paper differ, and which scores that moves: ``deviations.yaml``.

``docs/deviations.md`` is written from it: ``python -m mmi_eval.report.deviations docs/deviations.md``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import yaml

from mmi_eval.formats.errors import FormatError, as_object, optional_field, text_list
from mmi_eval.formats.errors import field as required

from .paper_rows import PAPER_ROWS

ALL = "all"


@dataclass(frozen=True)
class Deviation:
    """One difference.

    Args:
        id: Such as ``D3``.
        what: In a few words.
        paper: What the paper says; empty where it says nothing.
        official: What the released code does.
        ours: What this project does.
        metrics: Ids of the columns it moves or could move; all of them where it is about the network or its training.
        direction: Which way the official number is off, where that is known.
        switch: How to get the official behaviour; empty where there is no way, or nothing to switch.
        sources: Where it is described.
    """

    id: str
    what: str
    paper: str
    official: str
    ours: str
    metrics: tuple[str, ...]
    direction: str
    switch: str
    sources: tuple[str, ...]

    @property
    def is_general(self) -> bool:
        """Whether it is about every score."""
        return set(self.metrics) == set(PAPER_ROWS)


@dataclass(frozen=True)
class Ledger:
    """All differences.

    Args:
        chapters: Headings with what stands below each.
    """

    chapters: Mapping[str, Sequence[Deviation]]

    @property
    def entries(self) -> list[Deviation]:
        """Every difference, in order."""
        return [entry for chapter in self.chapters.values() for entry in chapter]

    def reasons(self, metric: str) -> list[str]:
        """Return the ids of what touches a metric but not every other."""
        return [entry.id for entry in self.entries if metric in entry.metrics and not entry.is_general]

    @property
    def general(self) -> list[str]:
        """The ids of what touches every metric."""
        return [entry.id for entry in self.entries if entry.is_general]


def read_ledger(path: Path | None = None) -> Ledger:
    """Read the differences.

    Args:
        path: A file of the same layout; ``None`` is the one that comes with the package.

    Raises:
        FileNotFoundError: If it is not there.
        FormatError: If it is malformed, names a metric the paper does not have, or an id twice.
    """
    source = path or files("mmi_eval.report") / "deviations.yaml"
    where = str(path or "deviations.yaml")
    try:
        tree = as_object(yaml.safe_load(source.read_text(encoding="utf-8")), where)
    except yaml.YAMLError as error:
        raise FormatError(f"{where} is no YAML ({' '.join(str(error).split())}); restore it.") from None
    groups = {ALL: list(PAPER_ROWS), **required(tree, "groups", dict, where)}
    chapters = {}
    for title, rows in required(tree, "chapters", dict, where).items():
        chapters[title] = [_entry(row, groups, f"{where}, {title}, entry {n}") for n, row in enumerate(rows)]
    ids = [entry.id for chapter in chapters.values() for entry in chapter]
    if twice := sorted({name for name in ids if ids.count(name) > 1}):
        raise FormatError(f"{where}: the id {twice[0]} is there twice; number the entries anew.")
    return Ledger(chapters)


def _entry(value: object, groups: Mapping[str, Sequence[str]], where: str) -> Deviation:
    row = as_object(value, where)
    metrics: list[str] = []
    for name in text_list(required(row, "metrics", list, where), f"{where}, metrics"):
        found = list(groups[name]) if name in groups else [name]
        if unknown := [metric for metric in found if metric not in PAPER_ROWS]:
            known = ", ".join((*groups, *PAPER_ROWS))
            raise FormatError(f'{where}: no metric or group "{unknown[0]}"; expected one of {known}.')
        metrics += found
    texts = {key: optional_field(row, key, str, where) or "" for key in ("paper", "official", "direction", "switch")}
    return Deviation(
        id=required(row, "id", str, where),
        what=required(row, "what", str, where),
        ours=required(row, "ours", str, where),
        metrics=tuple(dict.fromkeys(metrics)),
        sources=text_list(required(row, "sources", list, where), f"{where}, sources"),
        **texts,
    )


def ledger_page(ledger: Ledger) -> str:
    """Return ``docs/deviations.md``."""
    lines = [
        "# Where paper, released code and this project differ",
        "",
        "Written from `evaluation/mmi_eval/report/deviations.yaml` by "
        "`python -m mmi_eval.report.deviations docs/deviations.md`; change that file, not this one.",
        "",
        "*official* is what the released MM-Interleaved code does, *standard* what the authors of a benchmark score.",
        "Reports name these entries beside every gap to the paper (`mmi report --tables`). Whether the released code",
        "is the code that made the published numbers is not known; where it matters, direction says so.",
    ]
    for title, entries in ledger.chapters.items():
        lines += ["", f"## {title}"]
        for entry in entries:
            lines += ["", f"### {entry.id}: {entry.what}", "", *_facts(entry)]
    return "\n".join(lines) + "\n"


def _facts(entry: Deviation) -> list[str]:
    touched = "every score" if entry.is_general else ", ".join(f"`{name}`" for name in entry.metrics) or "no score"
    named = {
        "paper": entry.paper,
        "official": entry.official,
        "ours": entry.ours,
        "touches": touched,
        "direction": entry.direction,
        "switch": entry.switch,
        "source": ", ".join(entry.sources),
    }
    return [f"- {name}: {text}" for name, text in named.items() if text]


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(ledger_page(read_ledger()), encoding="utf-8")
