"""What ``mmi inspect`` shows, in Weights & Biases: looks as images, gates as curves, each a run of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmi.inspection import Looks

JOB = "inspection"


def log_looks(looks: Looks, name: str, *, project: str, online: bool) -> str:
    """Log a picture of every layer and the table of weights.

    Args:
        looks: Where a token or pixel looked.
        name: Of the run.
        project: Name of the project.
        online: Send them now; otherwise they stay on disk for ``wandb sync``.

    Returns:
        Where they are, in one sentence.
    """
    import wandb

    from mmi.inspection.looks import mass

    columns: list[str | int] = ["layer", "step", "picture", *(f"level {n}" for n in looks.records[0].layer.levels)]
    rows: list[Any] = []
    for record in looks.records:
        where = [record.layer.title, record.call + 1 if looks.steps else None]
        rows += [[*where, f"picture {n + 1}", *of_one] for n, of_one in enumerate(mass(record).tolist())]
        nothing = [None] * (len(record.layer.levels) - 1)
        rows.append([*where, "null slot", float(record.null[0].mean()), *nothing])
    with _run(name, project, online, dict(looks.facts) | {"moment": looks.moment}) as (run, places):
        pictures = {f"looks/layer-{n}": wandb.Image(looks.picture(n), caption=looks.moment) for n in looks.layers}
        run.log({**pictures, "looks/weights": wandb.Table(columns=columns, data=rows)})
    return places[0]


def log_curves(gates: Mapping[str, Sequence[tuple[float, float]]], name: str, *, project: str, online: bool) -> str:
    """Log gates by step, as ``log_looks`` logs pictures.

    Args:
        gates: Step and value in order, by module.
        name: Of the run.
        project: Name of the project.
        online: Send them now.
    """
    by_step: dict[int, dict[str, float]] = {}
    for module, points in gates.items():
        for step, value in points:
            by_step.setdefault(int(step), {})[f"gate/{module}"] = value
    with _run(name, project, online, {}) as (run, places):
        for step in sorted(by_step):
            run.log(by_step[step], step=step)
    return places[0]


@contextmanager
def _run(name: str, project: str, online: bool, config: Mapping[str, str]) -> Iterator[tuple[Any, list[str]]]:
    """Open a run; the list gets the sentence that says where it is."""
    import wandb

    mode = "online" if online else "offline"
    settings = wandb.Settings(silent=True, console="off")
    places: list[str] = []
    with wandb.init(project=project, job_type=JOB, name=name, mode=mode, settings=settings, config=dict(config)) as run:
        yield run, places
        place = run.url if online else run.settings.sync_dir
        places.append(f"logged to {place}" if online else f"logged to {place}; send it with: wandb sync {place}")
    # Its process would go on, with this mode for whoever logs next.
    wandb.teardown()
