"""The paper's tables as typed values, read from ``paper_tables.yaml`` (arXiv 2401.10208, version 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml

from mmi_eval.formats.errors import FormatError, as_object, optional_field
from mmi_eval.formats.errors import field as required

Kind = Literal["results", "ablation"]


@dataclass(frozen=True)
class PaperMetric:
    """A column of the paper.

    Args:
        id: Such as ``coco_cider``.
        dataset: As the paper names it.
        metric: Name and unit.
        higher_is_better: Direction.
        split: What the paper scored, in words.
    """

    id: str
    dataset: str
    metric: str
    higher_is_better: bool
    split: str


@dataclass(frozen=True)
class PaperRow:
    """A row of a table of the paper.

    Args:
        name: Of the model, or the factors of an ablation in words.
        values: By column; ``None`` is a dash in the paper, or a cell in ``lost``.
        factors: What an ablation switched, by name.
        facts: What else the table says of the model: ``llm``, ``in_house_data`` and what was trained on.
        section: Part of the table it stands in.
        note: What to know when reading it.
        remarks: Cells that are no plain fact, by column: ``suspect`` or ``approximate``.
        lost: Columns whose cell the source text does not hold.
        realigned: Whether the text of the paper lost cells, and the others were put in their columns by reasoning.
        is_target: Whether it is the paper's own model, which ours are set against.
        is_default: Whether it is the default of an ablation.
    """

    name: str
    values: Mapping[str, float | None]
    factors: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    section: str = ""
    note: str = ""
    remarks: Mapping[str, str] = field(default_factory=dict)
    lost: frozenset[str] = frozenset()
    realigned: bool = False
    is_target: bool = False
    is_default: bool = False


@dataclass(frozen=True)
class PaperTable:
    """A table of scores.

    Args:
        id: Such as ``5a``.
        title: What it shows.
        kind: Scores of models, or of switched factors.
        columns: Ids of its metrics.
        rows: In the paper's order.
    """

    id: str
    title: str
    kind: Kind
    columns: Sequence[str]
    rows: Sequence[PaperRow]

    @property
    def targets(self) -> list[PaperRow]:
        """The rows that ours are set against."""
        return [row for row in self.rows if row.is_target]

    def decimals(self, column: str) -> int:
        """Return with how many decimals the paper prints a column."""
        values = [row.values.get(column) for row in self.rows]
        return max((len(f"{v}".partition(".")[2]) for v in values if isinstance(v, float)), default=1)


@dataclass(frozen=True)
class Paper:
    """Everything the paper prints in tables.

    Args:
        title: Of the paper.
        version: Whose numbers these are.
        metrics: Columns by id.
        tables: Tables of scores, by id.
        hyperparameters: Tables 11 to 15, by name.
        benchmarks: Table 16: data set, what it is about, split, metric.
        prompts: Table 17: wording by stage and use.
        targets: Every number to reach, as the file lists them.
    """

    title: str
    version: str
    metrics: Mapping[str, PaperMetric]
    tables: Mapping[str, PaperTable]
    hyperparameters: Mapping[str, Mapping[str, Any]]
    benchmarks: Sequence[Sequence[str | None]]
    prompts: Mapping[str, Mapping[str, str]]
    targets: Sequence[Mapping[str, Any]]


def read_paper(path: Path | None = None) -> Paper:
    """Read the tables.

    Args:
        path: A file of the same layout; ``None`` is the one that comes with the package.

    Raises:
        FileNotFoundError: If it is not there.
        FormatError: If it is no such file, or a row has a cell that is no column of its table.
    """
    source = path or files("mmi_eval.report") / "paper_tables.yaml"
    where = str(path or "paper_tables.yaml")
    try:
        tree = as_object(yaml.safe_load(source.read_text(encoding="utf-8")), where)
    except yaml.YAMLError as error:
        raise FormatError(f"{where} is no YAML ({' '.join(str(error).split())}); restore it.") from None
    metrics = {name: _metric(name, row, where) for name, row in required(tree, "metrics", dict, where).items()}
    tables = [_table(row, number, metrics, where) for number, row in enumerate(required(tree, "tables", list, where))]
    about = required(tree, "paper", dict, where)
    return Paper(
        title=required(about, "title", str, f"{where}, paper"),
        version=required(about, "version", str, f"{where}, paper"),
        metrics=metrics,
        tables={table.id: table for table in tables},
        hyperparameters=required(tree, "hyperparameters", dict, where),
        benchmarks=required(tree, "benchmarks_table16", list, where),
        prompts=required(tree, "prompts_table17", dict, where),
        targets=required(tree, "reproduction_targets", list, where),
    )


def _metric(name: str, value: object, where: str) -> PaperMetric:
    where = f"{where}, metrics, {name}"
    row = as_object(value, where)
    dataset, metric, split = (required(row, key, str, where) for key in ("dataset", "metric", "paper_split"))
    return PaperMetric(name, dataset, metric, required(row, "higher_is_better", bool, where), split)


def _table(value: object, number: int, metrics: Mapping[str, PaperMetric], where: str) -> PaperTable:
    row = as_object(value, f"{where}, table {number}")
    table_id = required(row, "id", str, f"{where}, table {number}")
    where = f"{where}, table {table_id}"
    columns = required(row, "columns", list, where)
    if unknown := [column for column in columns if column not in metrics]:
        raise FormatError(f"{where}: column {unknown[0]} is no metric of the file; add it to metrics.")
    kind = required(row, "kind", str, where)
    if kind not in ("results", "ablation"):
        raise FormatError(f"{where}: kind is {kind!r}; expected results or ablation.")
    rows = [_row(r, columns, f"{where}, row {i}") for i, r in enumerate(required(row, "rows", list, where))]
    return PaperTable(table_id, required(row, "title", str, where), kind, columns, rows)


def _row(value: object, columns: Sequence[str], where: str) -> PaperRow:
    row = as_object(value, where)
    values = required(row, "values", dict, where)
    if set(values) != set(columns):
        odd = sorted(set(values) ^ set(columns))
        raise FormatError(f"{where}: cells and columns of the table differ in {', '.join(odd)}; name each column once.")
    factors = optional_field(row, "factors", dict, where) or {}
    return PaperRow(
        name=optional_field(row, "model", str, where) or factors_in_words(factors),
        values=values,
        factors=factors,
        facts={key: row[key] for key in _FACTS if key in row},
        section=optional_field(row, "section", str, where) or "",
        note=optional_field(row, "note", str, where) or "",
        remarks=optional_field(row, "cell_notes", dict, where) or {},
        lost=frozenset(optional_field(row, "not_in_extracted_text", list, where) or ()),
        realigned="printed_sequence" in row,
        is_target=bool(row.get("is_target")),
        is_default=bool(row.get("is_default")),
    )


_FACTS = ("llm", "in_house_data", "train_images_seen", "train_annotations_seen")


def factors_in_words(factors: Mapping[str, Any]) -> str:
    """Return the factors of an ablation as the name of a row.

    Example:
        >>> factors_in_words({"num_tokens": 32, "mmfs": False})
        'num tokens 32, mmfs no'
    """
    words = {True: "yes", False: "no"}
    shown = {name: words[v] if isinstance(v, bool) else v for name, v in factors.items()}
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in shown.items())
