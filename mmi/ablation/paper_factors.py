"""Which row of the paper's table has the factors that a row of an experiment names."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from mmi.config import ConfigError
from mmi.config_tree import did_you_mean
from mmi_eval.report.paper import Paper, PaperRow, PaperTable, factors_in_words, read_paper


@lru_cache(maxsize=1)
def the_paper() -> Paper:
    """Return the paper's tables, read once."""
    return read_paper()


def find_table(table_id: str) -> PaperTable:
    """Return a table of the paper.

    Raises:
        ConfigError: If it has no such table of ablations.
    """
    known = {name: table for name, table in the_paper().tables.items() if table.kind == "ablation"}
    if table_id not in known:
        raise ConfigError(
            f'paper_table is "{table_id}", which is no ablation of the paper; expected one of {", ".join(known)}.'
        )
    return known[table_id]


def find_row(table_id: str, factors: Mapping[str, Any]) -> PaperRow:
    """Return the one row of a table that has all these factors; it may have more.

    Raises:
        ConfigError: If a factor is misspelt, or no row or several have them.

    Example:
        >>> find_row("5a", {"num_tokens": 32, "mmfs": False}).values["coco_karpathy_cider"]
        107.0
    """
    table = find_table(table_id)
    known = list(dict.fromkeys(name for row in table.rows for name in row.factors))
    for name in factors:
        if name not in known:
            raise ConfigError(f"no factor {name} in table {table_id} of the paper; {did_you_mean(name, known)}")
    rows = [row for row in table.rows if all(_same(row.factors.get(name), v) for name, v in factors.items())]
    if len(rows) != 1:
        how_many = f"{len(rows)} rows" if rows else "no row"
        has = "; ".join(factors_in_words(row.factors) for row in rows or table.rows)
        raise ConfigError(
            f"the factors {factors_in_words(factors) or '{}'} fit {how_many} of table {table_id} of the paper; "
            f"expected those of one of: {has}."
        )
    return rows[0]


def _same(one: object, other: object) -> bool:
    # True equals 1 in Python, a tick is no number in the paper.
    return isinstance(one, bool) == isinstance(other, bool) and one == other
