"""Bring run folders of older schema versions up to date, one version after the other.

Version 1 is the first, so there is no step yet. A new version comes with a step here and with a small run folder of the
version before in ``tests/checkpoints/artefacts``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from mmi.checkpoints.run_folder import RunFolder, write_config
from mmi.checkpoints.storage import (
    MANIFEST,
    SCHEMA_VERSION,
    CheckpointError,
    Manifest,
    read_manifest,
    read_state,
    read_tensors,
    write_checkpoint,
    write_manifest,
    write_text,
)

BACKUP = "config.yaml.before"


@dataclass(frozen=True)
class Upgrade:
    """The step from one schema version to the next.

    Args:
        version: The version it starts from.
        config: Old configuration, without its version, to new.
        tensors: Old tensors of the network by name to new.
    """

    version: int
    config: Callable[[dict[str, Any]], dict[str, Any]]
    tensors: Callable[[dict[str, Tensor]], dict[str, Tensor]]


UPGRADES: tuple[Upgrade, ...] = ()
"""Every step there is."""


def migrate(run: Path, upgrades: Sequence[Upgrade] = UPGRADES) -> list[str]:
    """Upgrade the checkpoints of a run folder, then its configuration, which is kept as ``config.yaml.before``.

    Stopped on the way, it goes on where it was: what is up to date is left alone.

    Args:
        run: The run folder.
        upgrades: The steps, in any order.

    Returns:
        What was upgraded; empty if everything was up to date.

    Raises:
        CheckpointError: If a part is of a newer version, or a step is missing.
        ConfigError: If the folder is none of a run.
    """
    folder = RunFolder(run)
    version = _config_version(folder)
    steps = {upgrade.version: upgrade for upgrade in upgrades}
    done = []
    for place in sorted(p.parent for p in folder.checkpoints.glob(f"*/{MANIFEST}")):
        manifest = read_manifest(place)  # refuses newer ones
        chain = _chain(steps, _manifest_version(place), str(place))
        if chain:
            tensors = read_tensors(place)
            for upgrade in chain:
                tensors = upgrade.tensors(tensors)
            write_checkpoint(place, tensors, read_state(place), manifest.step)
            written = read_manifest(place)
            write_manifest(place, Manifest(written.step, written.files, written.tied, manifest.metrics))
            done.append(place.name)
    chain = _chain(steps, version, str(folder.config_file))
    if chain:
        config = folder.read_config()
        write_text(run / BACKUP, folder.config_file.read_text(encoding="utf-8"))
        for upgrade in chain:
            config = upgrade.config(config)
        write_config(folder.config_file, config)
        done.append(folder.config_file.name)
    return done


def _chain(steps: Mapping[int, Upgrade], version: int, where: str) -> list[Upgrade]:
    """Return the steps from a version to the newest."""
    needed = range(version, SCHEMA_VERSION)
    missing = [number for number in needed if number not in steps]
    if missing:
        raise CheckpointError(
            f"{where} has schema_version {version}, and there is no step from {missing[0]} to {missing[0] + 1}; "
            "versions begin with 1."
        )
    return [steps[number] for number in needed]


def _config_version(folder: RunFolder) -> int:
    import yaml

    folder.read_config()  # refuses what is no configuration, and newer ones
    tree = yaml.safe_load(folder.config_file.read_text(encoding="utf-8"))
    return int(tree.get("schema_version", SCHEMA_VERSION))


def _manifest_version(place: Path) -> int:
    return int(json.loads((place / MANIFEST).read_text(encoding="utf-8"))["schema_version"])
