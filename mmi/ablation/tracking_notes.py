"""What the tracker is told of a finished cell: how it differs from its recipe, its scores, its cost, its gates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmi.ablation.cell_commands import RunOptions, cell_folder
from mmi.ablation.matrix import Cell, PlannedCell, merged_config
from mmi.ablation.records import CellRecord
from mmi.ablation.tracking import Note
from mmi.checkpoints.run_folder import RunFolder


def tracking_note(planned: PlannedCell, options: RunOptions, record: CellRecord) -> Note:
    """Return what the tracker is told of a finished cell besides its training metrics."""
    cell, folder = planned.cell, cell_folder(options.runs, planned.cell)
    costs = {f"cost/{name}": value for name, value in vars(record.cost).items() if value is not None}
    gates = {f"gate/{name}": value for name, value in record.gates.items()}
    return Note(
        str(folder),
        cell.id,
        cell.recipe.name,
        options.scale,
        (*planned.experiments, f"seed {cell.seed}"),
        {
            "cell": cell.id,
            "seed": cell.seed,
            "scale": options.scale,
            "recipe": cell.recipe.name,
            "config_hash": cell.config_hash,
            "differs": _differences(cell),
            "full": RunFolder(folder).read_config(),
        },
        _flat_scores(record) | costs | gates,
        online=options.tracking == "online",
    )


def _differences(cell: Cell) -> dict[str, Any]:
    """Return what a cell sets otherwise than its recipe: ``{name: {"recipe": ..., "cell": ...}}``."""
    default = merged_config(cell.recipe)

    def of_recipe(name: str) -> Any:
        node: Any = default
        for part in name.split("."):
            node = node.get(part) if isinstance(node, Mapping) else None
        return node

    return {name: {"recipe": of_recipe(name), "cell": value} for name, value in cell.settings.items()}


def _flat_scores(record: CellRecord) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for task, conditions in record.scores.items():
        for condition, scores in conditions.items():
            prefix = f"score/{task}" if condition == "trained" else f"score/{task}, {condition}"
            found |= {f"{prefix}/{name}": score.value for name, score in scores.items() if score.value is not None}
    return found
