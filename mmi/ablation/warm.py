"""What cells need before they begin: prepared data, and the network that all of them start from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from mmi.ablation.processes import Call, Ended, Lock, Work, mmi_words, tail
from mmi.ablation.recipe import Recipe
from mmi.ablation.records import WarmStart
from mmi.checkpoints.run_folder import RunFolder
from mmi.checkpoints.storage import MODEL, read_manifest, write_json

FOLDER = "warm_starts"
MARK = "warm-start.json"
LOG = "ablation.log"


class PreparationError(RuntimeError):
    """Say which command before the first cell failed, and how its log ends."""


def warm_start_folder(runs: Path, recipe: Recipe) -> Path:
    """Return where the warm start of a recipe is trained: recipes of the same warm start share one."""
    return runs / FOLDER / str(recipe.warm_start_hash())[:12]


def find_warm_start(runs: Path, recipe: Recipe) -> WarmStart | None:
    """Return the warm start if it is trained, from the settings that the recipe has now; ``None`` otherwise."""
    if recipe.warm_start is None:
        return None
    mark = _read_mark(warm_start_folder(runs, recipe))
    if mark.get("hash") != recipe.warm_start_hash() or not mark.get("weights_sha256"):
        return None
    return WarmStart(str(mark["hash"]), str(mark["weights_sha256"]), int(str(mark["steps"])))


def is_ready(runs: Path, recipe: Recipe) -> bool:
    """Say whether cells of a recipe can begin."""
    prepared = all(preparation.makes.exists() for preparation in recipe.prepare)
    return prepared and (recipe.warm_start is None or find_warm_start(runs, recipe) is not None)


def make_ready(runs: Path, recipe: Recipe, locks: tuple[Lock, ...], tell: Callable[[str], None]) -> Work:
    """Prepare data and train the warm start, going on where an earlier command was stopped.

    Args:
        runs: Where run folders of ablations are.
        recipe: What to make ready.
        locks: Held by the caller; the children share them.
        tell: Told what begins.

    Raises:
        PreparationError: If a command fails.
    """
    log = runs / recipe.name / "prepare.log"
    for preparation in recipe.prepare:
        if not preparation.makes.exists():
            tell(f"{recipe.name}: mmi {' '.join(preparation.command)}")
            ended = yield Call(mmi_words(preparation.command), log, locks)
            _refuse_failure(ended, "mmi " + " ".join(preparation.command), log)
            if not preparation.makes.exists():
                raise PreparationError(
                    f"mmi {' '.join(preparation.command)} did not make {preparation.makes}; correct prepare in "
                    f"{recipe.folder / 'recipe.yaml'}."
                )
    if recipe.warm_start is None or find_warm_start(runs, recipe) is not None:
        return
    folder = warm_start_folder(runs, recipe)
    own = str(recipe.warm_start_hash())
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / MARK, {"hash": own})
    tell(f"{recipe.name}: training the warm start (log: {folder / LOG})")
    words = ["fit", "--config", str(recipe.warm_start), f"--run.folder={folder.parent}", f"--run.name={folder.name}"]
    ended = yield Call(mmi_words([*words, "--ckpt_path", "auto"]), folder / LOG, locks)
    _refuse_failure(ended, "the warm start", folder / LOG)
    place = RunFolder(folder).find_checkpoint()
    manifest = read_manifest(place)
    write_json(folder / MARK, {"hash": own, "weights_sha256": manifest.files[MODEL], "steps": manifest.step})


def _read_mark(folder: Path) -> dict[str, object]:
    try:
        tree = json.loads((folder / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return tree if isinstance(tree, dict) else {}


def _refuse_failure(ended: Ended, what: str, log: Path) -> None:
    if ended.code:
        raise PreparationError(f"{what} ended with exit code {ended.code}; its log {log} ends with:\n{tail(log)}")
