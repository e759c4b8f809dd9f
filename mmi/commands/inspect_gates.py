"""``mmi inspect --gates``: how far every MMFS opened during training."""

from __future__ import annotations

import argparse
from importlib.metadata import version
from pathlib import Path

from mmi.errors import DONE, require_package


def inspect_gates(options: argparse.Namespace) -> int:
    """Read ``metrics.csv``, write ``gates.html``.

    Raises:
        ConfigError: If the folder is none of a run, or nothing about gates was logged.
        FileNotFoundError: If it has no ``metrics.csv``.
    """
    if options.wandb != "off":
        require_package("wandb", "mmi inspect --wandb")
    from mmi.checkpoints.run_folder import RunFolder
    from mmi.inspection.gates import gates_page, read_gates
    from mmi_eval.report.page import write_page

    folder = RunFolder(Path(options.run))
    config = folder.read_config()
    gates = read_gates(folder.metrics_file)
    name = str((config.get("run") or {}).get("name") or folder.path.resolve().name)
    page = (Path(options.out) if options.out else folder.path / "inspection" / "gates") / "gates.html"
    write_page(page, gates_page(gates, name, f"mmi {version('mmi')}"))
    for module, points in gates.items():
        print(
            f"{module:<34} {points[0][1]:+.3f} at step {points[0][0]:.0f}, {points[-1][1]:+.3f} at {points[-1][0]:.0f}"
        )
    if options.wandb != "off":
        from mmi.commands.inspect_tracking import log_curves

        place = log_curves(gates, f"{name} gates", project=options.wandb_project, online=options.wandb == "online")
        print(place)
    print(f"Open {page}")
    return DONE
