"""What an inspection over many samples found, as JSON, as Markdown and as a page that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmi_eval.formats.errors import write_json
from mmi_eval.report.grid import Part
from mmi_eval.report.grid_page import part_section, tables_page
from mmi_eval.report.grid_text import markdown_page
from mmi_eval.report.markup import NOTHING, Markup, element
from mmi_eval.report.page import Section, write_page

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Asked:
    """What was asked of whom, to stand on every result.

    Args:
        run: The run folder, as it was named.
        checkpoint: Name, step and hash, plain types.
        task: Label of the task.
        version: Of the task.
        n_samples: Samples asked.
        limited: Whether a limit left samples out.
        fingerprint: Hash of everything asked.
    """

    run: str
    checkpoint: Mapping[str, Any]
    task: str
    version: int
    n_samples: int
    limited: bool
    fingerprint: str

    def record(self) -> dict[str, Any]:
        """Return plain types."""
        return {
            "run": self.run,
            "checkpoint": dict(self.checkpoint),
            "task": self.task,
            "task_version": self.version,
            "n_samples": self.n_samples,
            "limited": self.limited,
            "fingerprint": self.fingerprint,
        }

    @property
    def sentence(self) -> str:
        """The same in words."""
        step = self.checkpoint.get("step")
        of = f"checkpoint {self.checkpoint.get('name')}, step {step}"
        limited = " LIMITED: a part of the samples only." if self.limited else ""
        return f"{self.run}, {of}; task {self.task}, {self.n_samples:,} samples.{limited}"


@dataclass(frozen=True)
class Findings:
    """Results in the order in which they are read.

    Args:
        title: Heading of page and text.
        asked: What was asked of whom.
        lead: What the numbers are, one paragraph each.
        parts: Tables under headings.
        values: The same numbers and more, plain types, for ``NAME.json``.
        plots: Charts by the anchor of the part that they stand in.
        gallery: Sections that only a page can show, after the tables.
    """

    title: str
    asked: Asked
    lead: Sequence[str]
    parts: Sequence[Part]
    values: Mapping[str, Any]
    plots: Mapping[str, Markup] = field(default_factory=dict)
    gallery: Sequence[Section] = ()


def write_findings(folder: Path, name: str, findings: Findings, written_by: str) -> list[Path]:
    """Write ``NAME.json``, ``NAME.md`` and ``NAME.html``.

    Args:
        folder: Made where it is missing.
        name: Of the files.
        findings: What they say.
        written_by: Program and version.

    Returns:
        The three files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{ending}" for ending in ("json", "md", "html")]
    record = {"schema_version": SCHEMA_VERSION, **findings.asked.record(), **findings.values}
    write_json(paths[0], record, indent=1)
    paths[1].write_text(as_markdown(findings), encoding="utf-8")
    write_page(paths[2], as_page(findings, written_by))
    return paths


def as_markdown(findings: Findings) -> str:
    """Return the tables as a Markdown document."""
    return markdown_page(findings.title, [Part("asked", "What this is", (), _lead(findings)), *findings.parts])


def as_page(findings: Findings, written_by: str) -> str:
    """Return tables, charts and gallery as HTML."""
    sections = [part_section(part, findings.plots.get(part.anchor, NOTHING)) for part in findings.parts]
    lead = [element("p", {"class": "lead"} if n == 0 else {}, text) for n, text in enumerate(_lead(findings))]
    return tables_page(findings.title, lead, [*sections, *findings.gallery], written_by)


def _lead(findings: Findings) -> list[str]:
    return [*findings.lead, findings.asked.sentence]
