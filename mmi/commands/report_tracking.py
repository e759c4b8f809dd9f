"""The paper's tables in Weights & Biases: each as a table, the written files as one artifact."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmi_eval.report.grid import Part, plain_text
from mmi_eval.report.tables import Column


def log_tables(parts: Sequence[Part], files: Sequence[Path], *, project: str, online: bool) -> str:
    """Log tables and files as a run of their own.

    Args:
        parts: What was written.
        files: Where it was written.
        project: Name of the project.
        online: Send them now; otherwise they stay on disk for ``wandb sync``.

    Returns:
        Where they are, in one sentence.
    """
    import wandb

    mode = "online" if online else "offline"
    settings = wandb.Settings(silent=True, console="off")
    with wandb.init(project=project, job_type="report", name="paper tables", mode=mode, settings=settings) as run:
        for part in parts:
            for grid in part.grids:
                if not grid.rows:
                    continue
                rows: list[Any] = [[plain_text(cell) for cell in row] for row in grid.rows]
                run.log({f"tables/{grid.anchor}": wandb.Table(columns=_names(grid.columns), data=rows)})
        artifact = wandb.Artifact("paper-tables", type="report")
        for file in files:
            artifact.add_file(str(file))
        run.log_artifact(artifact)
        place = run.url if online else run.settings.sync_dir
    # Its process would go on, with this mode for whoever logs next.
    wandb.teardown()
    return f"logged to {place}" if online else f"logged to {place}; send it with: wandb sync {place}"


def _names(columns: Sequence[Column]) -> list[str | int]:
    """Return the names of columns; those that are not alone get their number, or they would be one column there."""
    names = [column.name for column in columns]
    return [f"{name} ({n})" if names.count(name) > 1 else name for n, name in enumerate(names, start=1)]
