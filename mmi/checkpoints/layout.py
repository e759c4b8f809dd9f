"""What a checkpoint holds against what it should hold, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mmi.checkpoints.storage import CheckpointError

_SHOWN = 40


@dataclass(frozen=True)
class Mismatch:
    """One tensor that is missing, unexpected or misshapen; a shape that is not there is None."""

    name: str
    found: tuple[int, ...] | None
    expected: tuple[int, ...] | None

    @property
    def problem(self) -> str:
        """One word for the table."""
        if self.found is None:
            return "missing"
        return "unexpected" if self.expected is None else "misshapen"


class LayoutError(CheckpointError):
    """Say that a checkpoint does not hold the tensors it should; ``table`` lists them.

    Args:
        where: What to call the checkpoint.
        mismatches: At least one.
    """

    def __init__(self, where: str, mismatches: list[Mismatch]) -> None:
        self.mismatches = mismatches
        parts = []
        for problem in ("missing", "unexpected", "misshapen"):
            of_kind = [m for m in mismatches if m.problem == problem]
            if of_kind:
                first = of_kind[0]
                shapes = f" ({_shape(first.found)} there, {_shape(first.expected)} needed)" if first.found else ""
                shapes = shapes if first.expected else ""
                more = f" and {len(of_kind) - 1} more" if len(of_kind) > 1 else ""
                parts.append(f"{problem}: {first.name}{shapes}{more}")
        super().__init__(
            f"{where} does not hold the tensors of this network ({'; '.join(parts)}); use the folders it was trained "
            "from, or give its numbers with --config."
        )

    @property
    def table(self) -> str:
        """The mismatches, one line each; a long list is cut."""
        rows = [(m.problem, m.name, _shape(m.found), _shape(m.expected)) for m in self.mismatches]
        shown = [("problem", "tensor", "found", "needed"), *rows[:_SHOWN]]
        widths = [max(len(row[i]) for row in shown) for i in range(4)]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in shown]
        if len(rows) > _SHOWN:
            lines.append(f"... and {len(rows) - _SHOWN} more")
        return "\n".join(lines)


def compare_layout(where: str, found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a checkpoint whose names or shapes are not those expected.

    Args:
        where: What to call the checkpoint.
        found: Shapes by name.
        expected: Shapes by name.

    Raises:
        LayoutError: With every tensor that is missing, unexpected or misshapen.
    """
    names = [*expected, *(name for name in found if name not in expected)]
    wrong = [
        Mismatch(name, _plain(found.get(name)), _plain(expected.get(name)))
        for name in names
        if _plain(found.get(name)) != _plain(expected.get(name))
    ]
    if wrong:
        raise LayoutError(where, wrong)


def _plain(shape: tuple[int, ...] | None) -> tuple[int, ...] | None:
    return None if shape is None else tuple(shape)


def _shape(shape: tuple[int, ...] | None) -> str:
    return "-" if shape is None else str(list(shape))
