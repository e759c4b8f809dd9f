"""From experiments to cells: what has to be trained, once, whichever table asks for it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmi.ablation.design import Experiment, Row
from mmi.ablation.hashing import canonical_hash, without_places
from mmi.ablation.recipe import Recipe, evaluation_tree
from mmi.compose import CONFIG_ROOTS, Override, gather, settle
from mmi.config import ConfigError, LossConfig, NetworkConfig
from mmi.config_tree import did_you_mean, from_tree, to_tree, unknown_key
from mmi.data.sources.config import SourceConfig

WARM_START = "the warm start"
"""What stands for the folder of the warm start in hashed settings, so that it may lie anywhere."""


@dataclass(frozen=True)
class Cell:
    """One training run and its evaluation.

    Args:
        id: Readable settings, seed and eight digits of the hash: ``n_tokens-4_mmfs-off_seed-0-1a2b3c4d``; a file name.
        recipe: How it is trained.
        settings: Settings of ``mmi fit`` by dotted name that differ from the recipe's config.
        seed: ``seed_everything``.
        config_hash: sha256 (hexadecimal) of everything that decides its scores.
    """

    id: str
    recipe: Recipe = field(hash=False)
    settings: Mapping[str, Any] = field(hash=False)
    seed: int
    config_hash: str


@dataclass(frozen=True)
class PlannedCell:
    """A cell and who asks for it.

    Args:
        cell: What is trained.
        experiments: Names of the experiments whose tables show it, in the order they were given.
    """

    cell: Cell
    experiments: tuple[str, ...]


def cells_of(experiment: Experiment, seeds: int | None = None) -> list[tuple[Row, tuple[Cell, ...]]]:
    """Return each row of an experiment with its cells, one for each seed in order.

    A setting that says what the recipe's config (or, under ``model.network`` and ``model.loss``, the default) says
    already is dropped, so that the default cell is one cell whichever table asks for it.

    Args:
        experiment: At one scale.
        seeds: How many; ``None`` takes the experiment's.

    Raises:
        ConfigError: If a config of the recipe is malformed or a setting cannot be merged into it.
    """
    return _cells_of(experiment, seeds, _Surroundings(experiment.recipe))


def plan(experiments: Sequence[Experiment], seeds: int | None = None) -> list[PlannedCell]:
    """Return every cell once: all of seed 0 first, so that each table is complete early, then seed 1, ...

    Args:
        experiments: At one scale each, any recipes.
        seeds: How many; ``None`` takes each experiment's own.

    Raises:
        ConfigError: As ``cells_of``.
    """
    cells: dict[tuple[str, str], Cell] = {}
    asked: dict[tuple[str, str], list[str]] = {}
    shared: dict[Path, _Surroundings] = {}
    for experiment in experiments:
        recipe = experiment.recipe
        if recipe.folder not in shared:
            shared[recipe.folder] = _Surroundings(recipe)
        for _, of_row in _cells_of(experiment, seeds, shared[recipe.folder]):
            for cell in of_row:
                key = (cell.recipe.name, cell.config_hash)
                cells.setdefault(key, cell)
                names = asked.setdefault(key, [])
                if experiment.name not in names:
                    names.append(experiment.name)
    planned = [PlannedCell(cell, tuple(asked[key])) for key, cell in cells.items()]
    return sorted(planned, key=lambda one: one.cell.seed)


def fit_overrides(recipe: Recipe, settings: Mapping[str, Any], seed: int, warm_start: str | None) -> list[Override]:
    """Return what ``mmi fit --config <recipe.config>`` is given for a cell, in order; later ones win.

    The folder of the warm start comes first, so that a setting ``run.start_from: null`` can leave it out. The run's
    name and folder and its loggers are the caller's and do not change the hash.

    Args:
        recipe: How it is trained.
        settings: Of the cell.
        seed: ``seed_everything``.
        warm_start: Run folder of the warm start; ignored where the recipe has none.
    """
    start = [] if recipe.warm_start is None else [Override("run.start_from", warm_start)]
    return [*start, Override("seed_everything", seed), *(Override(name, value) for name, value in settings.items())]


def as_arguments(overrides: Sequence[Override]) -> list[str]:
    """Return overrides as command-line arguments whose values are read back the same.

    Example:
        >>> as_arguments([Override("run.start_from", None), Override("model.loss.image_weight", 1.0)])
        ['--run.start_from=null', '--model.loss.image_weight=1.0']
    """
    return [f"--{override.key}={_as_yaml(override.value)}" for override in overrides]


def merged_config(recipe: Recipe, overrides: Sequence[Override] = ()) -> dict[str, Any]:
    """Return the merged and resolved tree of the recipe's cell config with overrides, without class defaults.

    Raises:
        ConfigError: If a file is missing or malformed, or a setting cannot be merged.
    """
    return settle(gather([recipe.config]), overrides)


def _cells_of(
    experiment: Experiment, seeds: int | None, surroundings: _Surroundings
) -> list[tuple[Row, tuple[Cell, ...]]]:
    numbers = range(experiment.seeds if seeds is None else seeds)
    found = []
    for row in experiment.rows:
        try:
            settings = surroundings.differing(row.settings)
            found.append((row, tuple(surroundings.cell(settings, seed) for seed in numbers)))
        except ConfigError as error:
            where = f"{experiment.folder.name}, row {row.label}, on {experiment.recipe.config}"
            raise ConfigError(f"{where}: {error}") from error
    return found


class _Surroundings:
    """What all cells of a recipe have in common, read once."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.merged = gather([recipe.config])
        self.warm_start = recipe.warm_start_hash()
        spec = recipe.evaluation
        self.evaluation = None if spec is None else evaluation_tree(spec)
        self._trees: dict[str, dict[str, Any]] = {}

    def differing(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings without which the configuration would be another one, by name."""
        for name in settings:
            if name == "seed_everything" or name in _PLACES:
                raise ConfigError(f"{name} is set by mmi ablate itself; take it out of set.")
        kept = {name: settings[name] for name in sorted(settings)}
        whole = self._complete(kept)
        # One after the other, each against all that is left: with interpolations two settings may need each other.
        for name in list(kept):
            fewer = {other: value for other, value in kept.items() if other != name}
            if self._is_same(fewer, whole):
                kept = fewer
        return kept

    def _is_same(self, settings: Mapping[str, Any], whole: Mapping[str, Any]) -> bool:
        try:
            return self._complete(settings) == whole
        except ConfigError:  # a setting that another one cannot do without
            return False

    def cell(self, settings: Mapping[str, Any], seed: int) -> Cell:
        content = {
            "fit": without_places(self._tree(settings, seed)),
            "seed": seed,
            "warm_start": self.warm_start,
            "prepare": self.recipe.prepared,
            "evaluation": self.evaluation,
        }
        found = canonical_hash(content)
        return Cell(f"{_readable(settings)}_seed-{seed}-{found[:8]}", self.recipe, settings, seed, found)

    def _tree(self, settings: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """Return the merged tree of a cell; kept, as merging takes longer than everything else."""
        key = json.dumps([settings, seed])
        if key not in self._trees:
            self._trees[key] = self._merged(settings, seed)
        return self._trees[key]

    def _merged(self, settings: Mapping[str, Any], seed: int) -> dict[str, Any]:
        tree = settle(self.merged, fit_overrides(self.recipe, settings, seed, WARM_START))
        for root in tree:
            if root not in CONFIG_ROOTS:
                raise ConfigError(unknown_key(root, CONFIG_ROOTS))
        return tree

    def _complete(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the merged tree with the defaults of the network and the losses, to compare and to check names.

        Hashes are of what is written, so that a new field with its default changes none. Sources of data are checked
        and stay as they are written.
        """
        tree = self._tree(settings, 0)
        model = dict(tree.get("model") or {})
        model["network"] = to_tree(from_tree(NetworkConfig, model.get("network") or {}, "model.network"))
        model["loss"] = to_tree(from_tree(LossConfig, model.get("loss") or {}, "model.loss"))
        for part in ("train", "val"):
            _check_sources((tree.get("data") or {}).get(part), f"data.{part}")
        return {**tree, "model": model}


def _check_sources(sources: Any, where: str) -> None:
    """Refuse sources that training would refuse, hours later; whether their files are there is not asked.

    Raises:
        ConfigError: If one has an unknown format or setting, or lacks what it needs.
    """
    if sources is None:
        return
    if not isinstance(sources, Mapping):
        raise ConfigError(f"{where} is {sources!r}; expected sources by name.")
    for name, source in sources.items():
        if source is None:  # left out
            continue
        if isinstance(source, Mapping) and not {"format", "path"} & source.keys():
            others = [str(other) for other, there in sources.items() if other != name and there is not None]
            raise ConfigError(
                f"{where}.{name} has neither format nor path, so no config knows that source; "
                f"{did_you_mean(str(name), others, 'sources')}"
            )
        try:
            from_tree(SourceConfig, source, f"{where}.{name}")
        except ConfigError as error:
            said = str(error)
            raise ConfigError(said if said.startswith(where) else f"{where}.{name}: {said}") from error


_PLACES = ("run.name", "run.folder", "run.loggers", "run.wandb")
_SAY_LITTLE = ("enabled", "attention", "kind", "weights", "path")
"""Last parts of names that mean nothing without the part before."""
_LONGEST = 80


def _readable(settings: Mapping[str, Any]) -> str:
    """Return settings in a few words that may stand in a file name.

    Example:
        >>> _readable({"model.network.vision.resampler.n_tokens": 4, "model.network.language.mmfs.enabled": False})
        'n_tokens-4_mmfs-off'
        >>> _readable({})
        'default'
    """
    # A mapping is too long to be read; the hash tells two of them apart.
    words = dict.fromkeys(
        _short_name(name) if isinstance(value, Mapping) else f"{_short_name(name)}-{_short_value(value)}"
        for name, value in settings.items()
    )
    return "_".join(words)[:_LONGEST].rstrip("_-+.") or "default"


def _short_name(name: str) -> str:
    *before, last = name.split(".")
    return before[-1] if before and last in _SAY_LITTLE else last


def _short_value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "on", False: "off"}[value]
    if isinstance(value, list | tuple):
        return "+".join(map(_short_value, value)) or "empty"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"[^A-Za-z0-9.+]+", "-", text).strip("-.") or "empty"


def _as_yaml(value: Any) -> str:
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), sort_keys=False, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
