"""What cells took, as tables and plots name it: one name, unit and number format for each kind of cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmi.ablation.cost import Cost
from mmi.ablation.records import CellRecord
from mmi_eval.report.numbers import short


@dataclass(frozen=True)
class CostColumn:
    """A kind of cost.

    Args:
        field: Of ``cost.Cost``.
        label: In words, with its unit.
        times: What the field is multiplied with to be in that unit.
    """

    field: str
    label: str
    times: float = 1.0

    def of(self, cost: Cost) -> float | None:
        """Return the cost in its unit; ``None`` where it was not measured."""
        value = getattr(cost, self.field)
        return None if value is None else float(value) * self.times

    def mean(self, records: Sequence[CellRecord]) -> float | None:
        """Return the mean over the cells that measured it; ``None`` where none did."""
        values = [value for record in records if (value := self.of(record.cost)) is not None]
        return sum(values) / len(values) if values else None

    def printed(self, value: float | None) -> str:
        """Return a mean as a table holds it."""
        if value is None:
            return "-"
        return f"{value:,.0f}" if self.field == "steps" else short(value)


COST_COLUMNS: tuple[CostColumn, ...] = (
    CostColumn("steps", "optimizer steps"),
    CostColumn("train_seconds", "training (minutes)", 1 / 60),
    CostColumn("evaluate_seconds", "evaluation (minutes)", 1 / 60),
    CostColumn("step_seconds", "seconds per step (median)"),
    CostColumn("peak_memory_bytes", "peak memory (GiB)", 1 / 2**30),
    CostColumn("parameters", "parameters (M)", 1e-6),
    CostColumn("trained_parameters", "trained (M)", 1e-6),
    CostColumn("flops_per_step", "GFLOP per step", 1e-9),
    CostColumn("first_token_seconds", "first token (ms)", 1e3),
    CostColumn("image_seconds", "seconds per picture"),
)
BY_FIELD: Mapping[str, CostColumn] = {column.field: column for column in COST_COLUMNS}


def measured_costs(records: Sequence[CellRecord]) -> list[CostColumn]:
    """Return the kinds of cost that at least one cell measured."""
    return [column for column in COST_COLUMNS if column.mean(records) is not None]
