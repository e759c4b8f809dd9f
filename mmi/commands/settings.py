"""From the merged tree of a command line to checked settings, the cheap checks first.

Keys and types of ``model``, ``data`` and ``run`` are checked against the constructors that take them, ``trainer``
against Lightning's Trainer, so that a mistake is one sentence before anything is built.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

from mmi.commands.arguments import CommandLine
from mmi.compose import CONFIG_ROOTS, Override, compose
from mmi.config import CompatConfig, ConfigError, LossConfig, NetworkConfig, Preset, SavingsConfig
from mmi.config_tree import arguments_from_tree, from_tree, parameters, to_tree, unknown_key
from mmi.errors import UsageError

if TYPE_CHECKING:
    from mmi.training.optimizer import OptimizerConfig
    from mmi.training.run import RunConfig

MODEL_KEYS = ("network", "loss", "optimizer", "compat", "savings")
TRAINER_DEFAULTS = {
    "accelerator": "auto",
    "devices": "auto",
    "gradient_clip_val": 1.0,
    "log_every_n_steps": 10,
    "num_sanity_val_steps": 1,
    # Training data never ends: one epoch, counted in steps.
    "max_epochs": 1,
    "check_val_every_n_epoch": None,
    # Rows are dealt to ranks when they are planned.
    "use_distributed_sampler": False,
    # `mmi params` has the better table.
    "enable_model_summary": False,
}
TRAINER_ELSEWHERE = {
    "logger": "run.loggers",
    "enable_checkpointing": "run.save_every",
    "default_root_dir": "run.folder",
    "plugins": "trainer.precision or trainer.strategy",
}
CLASS_PATHS = (
    "mmi.",
    "mmfs.",
    "mmi_eval.",
    "lightning.pytorch.callbacks.",
    "lightning.pytorch.strategies.",
    "lightning.pytorch.profilers.",
    "lightning.pytorch.plugins.",
)
"""Where classes named in YAML may come from: a config of a stranger must not run code of its choice."""
PROFILERS = ("simple", "advanced", "pytorch", "xla")
_IMPORTABLE = re.compile(r"[^\W\d][\w-]*(\.[\w-]+)+|.*\.(ya?ml|json)")
"""Text that the parser of the trainer could import, such as ``os.system``, or read as one more config."""


@dataclass(frozen=True)
class Settings:
    """Everything a run is made from, checked.

    Args:
        seed: Value of ``seed_everything``.
        trainer: Keywords of the Trainer as plain types, ours filled in where the user said nothing.
        network: Architecture.
        loss: Weights of the two losses.
        optimizer: Rates and schedule.
        compat: Defects followed or corrected.
        data: Keywords of the data module, typed, every default filled in.
        run: Name, checkpoints, loggers, panel.
        savings: Work that a training step leaves out.
    """

    seed: int
    trainer: dict[str, Any]
    network: NetworkConfig
    loss: LossConfig
    optimizer: OptimizerConfig
    compat: Preset | CompatConfig
    data: dict[str, Any]
    run: RunConfig
    savings: SavingsConfig

    def tree(self) -> dict[str, Any]:
        """Return the whole configuration as plain types; alone it repeats the run."""
        model = {"network": self.network, "loss": self.loss, "optimizer": self.optimizer, "compat": self.compat}
        model["savings"] = self.savings
        parts = {"seed_everything": self.seed, "trainer": self.trainer, "model": model, "data": self.data}
        return to_tree({**parts, "run": self.run})


def settings_from_command_line(line: CommandLine, *, run: str | None = None) -> dict[str, Any]:
    """Merge ``--config`` files (or a run folder's config) with the overrides; check what is cheap to check.

    Args:
        line: Options and overrides.
        run: A run folder whose ``config.yaml`` comes first, wherever the folder lies now.

    Returns:
        The merged and resolved tree.

    Raises:
        ConfigError: On a missing or malformed file, an unknown root, or a wrong key or type under ``model``.
    """
    configs, overrides = list(line.options.config), list(line.overrides)
    if run:
        place = Path(run).resolve()
        # Kept as written where that names the folder; `.`, `..` and links do not.
        parent = Path(run).parent if Path(run).name == place.name else place.parent
        if not (place / "config.yaml").is_file():
            raise UsageError(f"{run} is no run folder: it has no config.yaml; give the folder that mmi fit wrote.")
        configs.insert(0, str(place / "config.yaml"))
        overrides = [Override("run.folder", str(parent)), Override("run.name", place.name), *overrides]
    if not configs:
        raise UsageError("no config given; add --config FILE, such as --config configs/demo.yaml.")
    tree = compose(configs, overrides)
    tree.pop("schema_version", None)
    for root in tree:
        if root not in CONFIG_ROOTS:
            raise ConfigError(unknown_key(root, CONFIG_ROOTS))
    refuse_foreign_classes(tree)
    refuse_foreign_names(tree.get("trainer"), "trainer")
    model = section(tree, "model")
    for key in model:
        if key not in MODEL_KEYS:
            raise ConfigError(unknown_key(f"model.{key}", MODEL_KEYS))
    network_settings(tree)
    from_tree(LossConfig, model.get("loss") or {}, "model.loss")
    from_tree(SavingsConfig, model.get("savings") or {}, "model.savings")
    return tree


def section(tree: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return one root of the tree, empty where it is absent.

    Raises:
        ConfigError: If it holds no mapping.
    """
    value = tree.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{name} is {value!r}; expected keys below it.")
    return value


def network_settings(tree: Mapping[str, Any]) -> tuple[NetworkConfig, Preset | CompatConfig]:
    """Return the typed architecture and the compatibility switches of a merged tree."""
    model = section(tree, "model")
    network = from_tree(NetworkConfig, model.get("network") or {}, "model.network")
    choice = model.get("compat") or "corrected"
    compat: Any = choice if isinstance(choice, str) else from_tree(CompatConfig, choice, "model.compat")
    try:
        CompatConfig.of(compat)
    except ConfigError as error:
        raise ConfigError(f"model.{error}") from error
    return network, compat


def check_settings(tree: Mapping[str, Any], command: str) -> Settings:
    """Check every root against what it is for; imports what it checks against, so it takes seconds.

    Args:
        tree: What ``settings_from_command_line`` returned.
        command: ``fit`` needs training data and a number of steps, the others do not.

    Raises:
        ConfigError: On an unknown key, a wrong type or a missing setting.
    """
    from mmi.data.datamodule import InterleavedDataModule
    from mmi.training.optimizer import OptimizerConfig
    from mmi.training.run import RunConfig
    from mmi.training.strategies import check_strategy

    model = section(tree, "model")
    network, compat = network_settings(tree)
    optimizer = from_tree(OptimizerConfig, model.get("optimizer") or {}, "model.optimizer")
    run = from_tree(RunConfig, section(tree, "run"), "run")
    data = _data_settings(section(tree, "data"), network, InterleavedDataModule, needs_training=command == "fit")
    ends = data["stop"] != "never"
    trainer = _trainer_settings(section(tree, "trainer"), run, has_validation=bool(data["val"]), data_ends=ends)
    check_strategy(
        trainer.get("strategy", "auto"),
        trainer.get("precision"),
        optimizer.matrices,
        network.language.weights_dtype,
        trainer.get("accumulate_grad_batches", 1),
    )
    if command == "fit" and trainer.get("max_steps", -1) < 0 and trainer.get("max_time") is None:
        raise ConfigError("trainer.max_steps is not set; training data never ends, so say where a run does.")
    seed = tree.get("seed_everything")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise ConfigError(f"seed_everything is {seed!r}; expected a whole number.")
    loss = from_tree(LossConfig, model.get("loss") or {}, "model.loss")
    savings = from_tree(SavingsConfig, model.get("savings") or {}, "model.savings")
    return Settings(seed or 0, trainer, network, loss, optimizer, compat, data, run, savings)


def _data_settings(
    given: dict[str, Any], network: NetworkConfig, constructor: type, *, needs_training: bool
) -> dict[str, Any]:
    if not needs_training:
        given = {"train": {}, **given}
    typed = arguments_from_tree(constructor, fill_in_from_network(given, network), "data")
    defaults = {name: default for name, (_, default) in parameters(constructor).items()}
    complete = defaults | typed
    complete["val"] = complete["val"] or {}
    if needs_training and not complete["train"]:
        raise ConfigError("data.train names no source; add one, such as --data.train.mine='{format: ..., path: ...}'.")
    return complete


def fill_in_from_network(data: dict[str, Any], network: NetworkConfig) -> dict[str, Any]:
    """Return the data settings with picture sizes and placeholder count taken from the network where they are unset.

    Example:
        >>> fill_in_from_network({"batch_size": 2}, NetworkConfig())["tokens_per_image"]
        64
    """
    decoder = network.image_decoder
    derived = {
        "image_size": network.vision.image_size,
        "target_size": decoder.image_size if decoder.enabled else None,
        "tokens_per_image": network.tokens_per_image,
    }
    return derived | data


def _trainer_settings(
    given: dict[str, Any], run: RunConfig, *, has_validation: bool, data_ends: bool = False
) -> dict[str, Any]:
    from lightning.pytorch import Trainer

    for key, instead in TRAINER_ELSEWHERE.items():
        if key in given:
            raise ConfigError(f"trainer.{key} is not used; set {instead} instead.")
    profiler = given.get("profiler")
    if isinstance(profiler, str) and profiler not in PROFILERS:
        raise ConfigError(f'trainer.profiler is the text "{profiler}"; expected one of {", ".join(PROFILERS)}.')
    built = {key for key, value in given.items() if _names_classes(value)}
    typed = arguments_from_tree(Trainer, {k: v for k, v in given.items() if k not in built}, "trainer")
    for key in built - set(parameters(Trainer)):
        raise ConfigError(unknown_key(f"trainer.{key}", parameters(Trainer)))
    trainer = TRAINER_DEFAULTS | {key: given[key] for key in built} | typed
    if "val_check_interval" not in trainer:
        trainer["val_check_interval"] = run.save_every * trainer.get("accumulate_grad_batches", 1)
    if not has_validation:
        trainer["limit_val_batches"] = 0
    _refuse_cut_steps(trainer, data_ends)
    return trainer


def _refuse_cut_steps(trainer: Mapping[str, Any], data_ends: bool) -> None:
    """Refuse to validate, and perhaps save, or to end an epoch or the run between the batches of one step."""
    size = trainer.get("accumulate_grad_batches", 1)
    if size == 1:
        return
    if trainer.get("max_time") is not None:
        raise ConfigError(
            f"trainer.max_time can end a run inside an optimizer step of trainer.accumulate_grad_batches {size}; set "
            "trainer.max_steps instead."
        )
    if not isinstance(trainer.get("val_check_interval"), (int, float, NoneType)):
        raise ConfigError(
            "trainer.val_check_interval is a time, which can cut an optimizer step of trainer.accumulate_grad_batches "
            f"{size} in two; give a number of batches that is a multiple of {size}."
        )
    if data_ends and trainer.get("max_epochs") not in (0, 1):
        # The last step of an epoch may be short, and batches are counted through all epochs.
        raise ConfigError(
            f"trainer.max_epochs is {trainer.get('max_epochs')} and data.stop ends each epoch, so validations can cut "
            f"an optimizer step of trainer.accumulate_grad_batches {size} in two; set trainer.max_epochs to 1, or "
            "data.stop to never and trainer.max_steps."
        )
    for name in ("val_check_interval", "limit_train_batches", "overfit_batches"):
        value = trainer.get(name)
        if isinstance(value, int) and value % size:
            raise ConfigError(
                f"trainer.{name} is {value} batches, which cuts an optimizer step of trainer.accumulate_grad_batches "
                f"{size} in two; make it a multiple of {size}."
            )


def _names_classes(value: object) -> bool:
    if isinstance(value, Mapping):
        return "class_path" in value
    return isinstance(value, list) and any(_names_classes(item) for item in value)


def refuse_foreign_classes(tree: object, where: str = "") -> None:
    """Refuse classes named in YAML that are neither ours nor on the short list of Lightning's.

    Raises:
        ConfigError: Naming the class and its place.
    """
    if isinstance(tree, Mapping):
        name = tree.get("class_path")
        if isinstance(name, str) and not name.startswith(CLASS_PATHS):
            known = ", ".join(prefix.rstrip(".") for prefix in CLASS_PATHS)
            raise ConfigError(f"{where}.class_path is {name}; a config may name only classes of {known}.")
        for key, value in tree.items():
            refuse_foreign_classes(value, f"{where}.{key}" if where else str(key))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            refuse_foreign_classes(value, f"{where}[{index}]")


def refuse_foreign_names(tree: object, where: str) -> None:
    """Refuse text in the ``trainer`` part that its parser could import; only ``class_path`` names what is imported.

    Raises:
        ConfigError: Naming the text and its place.
    """
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            if key != "class_path":
                refuse_foreign_names(value, f"{where}.{key}")
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            refuse_foreign_names(value, f"{where}[{index}]")
    elif isinstance(tree, str):
        if _IMPORTABLE.fullmatch(tree.strip()):
            raise ConfigError(f'{where} is the text "{tree}", which could name code to import; such text is refused.')
        inner = _as_yaml(tree)
        if inner != tree:  # the parser reads text as YAML once more
            refuse_foreign_classes(inner, where)
            refuse_foreign_names(inner, where)


def _as_yaml(text: str) -> object:
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return text


@contextmanager
def wrong_input() -> Iterator[None]:
    """Count a value that is refused while everything is built as wrong input, not as a failed run."""
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    try:
        yield
    except ConfigError:
        raise
    except (ValueError, MisconfigurationException) as error:
        raise ConfigError(str(error)) from error
