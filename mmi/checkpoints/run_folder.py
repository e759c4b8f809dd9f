"""The folder of one training run: what is in it, starting and continuing it, and getting its network back."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from mmi.checkpoints.storage import (
    AVERAGE,
    MODEL,
    CheckpointError,
    check_tensors,
    locate,
    read_average,
    read_json,
    read_manifest,
    read_tensors,
    verify_checkpoint,
    write_json,
    write_text,
)
from mmi.config import CompatConfig, ConfigError, NetworkConfig, WeightsDtype
from mmi.config_tree import from_tree, nearest
from mmi.tokens import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from mmi.models.mm_interleaved import MMInterleaved

SCHEMA_VERSION = 1
BEST_OR_LAST = "best-or-last"
Weights = Literal["trained", "ema"]
"""Weights as they were after a step, or their running averages."""
_STEP = re.compile(r"step-(\d+)")


class LoadedRun(NamedTuple):
    """A trained network and what belongs to it.

    Args:
        network: In evaluation mode, on the CPU.
        tokenizer: The one it was trained with; None where a checkpoint was converted without one.
        config: The whole configuration of the run as plain types.
    """

    network: MMInterleaved
    tokenizer: Tokenizer | None
    config: dict[str, Any]

    def require_tokenizer(self) -> Tokenizer:
        """Return the tokenizer.

        Raises:
            ConfigError: If the run holds none.
        """
        if self.tokenizer is None:
            raise ConfigError("the run holds no tokenizer; copy the language model's files to its folder tokenizer.")
        return self.tokenizer


@dataclass(frozen=True)
class RunFolder:
    """The places in a run folder (INTERFACES, "Run folder"); nothing is read or written by building one."""

    path: Path

    @property
    def config_file(self) -> Path:
        """The merged and resolved configuration; alone it rebuilds the network."""
        return self.path / "config.yaml"

    @property
    def environment_file(self) -> Path:
        """Versions, device, code state and command of each session."""
        return self.path / "environment.json"

    @property
    def metrics_file(self) -> Path:
        """One row per logged step."""
        return self.path / "metrics.csv"

    @property
    def tracking_file(self) -> Path:
        """The run's id in experiment trackers, the same across resumes."""
        return self.path / "tracking.json"

    @property
    def skipped_file(self) -> Path:
        """Every record not used, with the reason."""
        return self.path / "skipped.jsonl"

    @property
    def incidents_file(self) -> Path:
        """Steps that were skipped, and leaps of the loss, with the documents they were made of."""
        return self.path / "incidents.jsonl"

    @property
    def stalled_file(self) -> Path:
        """Stacks of all threads each time that training waited long for data."""
        return self.path / "stalled.log"

    @property
    def checkpoints(self) -> Path:
        """``last``, ``best`` and ``step-N``."""
        return self.path / "checkpoints"

    @property
    def tokenizer(self) -> Path:
        """A copy of the tokenizer's files."""
        return self.path / "tokenizer"

    @property
    def samples(self) -> Path:
        """What the fixed prompt panel gave through training."""
        return self.path / "samples"

    @property
    def training_scores(self) -> Path:
        """Scores of benchmarks that were asked while training, a file for each step."""
        return self.path / "evaluations" / "training"

    def start(self, config: Mapping[str, Any], tokenizer: Tokenizer | None = None, *, resume: bool = False) -> None:
        """Create the folder, or continue in it, and save the configuration and the tokenizer.

        A folder without a checkpoint holds nothing to lose and is used again.

        Args:
            config: The merged configuration as plain types.
            tokenizer: Copied into the folder.
            resume: The run goes on from one of the folder's checkpoints.

        Raises:
            ConfigError: If a fresh run would mix with the checkpoints of an earlier one.
        """
        steps = [_step_or_nothing(folder) for folder in self._found().values()]
        if steps and not resume:
            raise ConfigError(
                f"{self.path} already holds checkpoints up to step {max(steps)}; add --ckpt_path last to go on from "
                "there, or give the run another run.name."
            )
        if not resume:
            for file in (
                self.metrics_file,
                self.tracking_file,
                self.skipped_file,
                self.incidents_file,
                self.stalled_file,
                self.environment_file,
            ):
                file.unlink(missing_ok=True)
            shutil.rmtree(self.samples, ignore_errors=True)
            shutil.rmtree(self.training_scores, ignore_errors=True)
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        write_config(self.config_file, config)
        if tokenizer is not None:
            tokenizer.save(self.tokenizer)

    @property
    def has_checkpoints(self) -> bool:
        """Whether there is anything to go on from, intact or not."""
        return bool(self._found()) or (self.checkpoints / "last").is_dir()

    def find_checkpoint(self, which: str = BEST_OR_LAST) -> Path:
        """Return the folder of a checkpoint.

        Args:
            which: ``last``, ``best``, ``step-N``, the path of a checkpoint, or ``best-or-last`` for the first there is
                of ``best``, ``last`` and the highest ``step-N``.

        Raises:
            CheckpointError: If there is none; the sentence names the nearest one.
        """
        found = self._found()
        newest = next(reversed([name for name in found if step_of(name) >= 0]), "")
        for name in ("best", "last", newest) if which == BEST_OR_LAST else (which,):
            if name in found:
                return found[name]
        if (Path(which) / "manifest.json").is_file():
            return Path(which)
        if not found:
            raise CheckpointError(f"{self.path} holds no checkpoint; train one with mmi fit, or check the path.")
        near = nearest(which, found)
        hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(found)}."
        raise CheckpointError(f"{self.path} has no checkpoint {which}; {hint}")

    def find_intact(self, which: str) -> tuple[Path, list[str]]:
        """Return a checkpoint whose files are all as they were written.

        In place of a ``last`` that is damaged or gone the one saved before it is taken; one asked for by any other name
        is what was meant, or nothing.

        Args:
            which: See ``find_checkpoint``.

        Returns:
            Its folder, and one sentence for each damaged checkpoint passed over.

        Raises:
            CheckpointError: If there is none, or the one asked for is damaged and nothing can stand for it.
        """
        found = self._found()
        remarks: list[str] = []
        if which == "last" and "last" not in found and found:
            last = self.checkpoints / "last"
            remarks.append(
                f"the checkpoint {last} is damaged: manifest.json is missing."
                if last.is_dir()
                else f"there is no checkpoint {last}."
            )
            wanted = []
        else:
            wanted = [self.find_checkpoint(which)]
        if which == "last":
            others = [place for place in found.values() if place not in wanted]
            wanted += sorted(others, key=_step_or_nothing, reverse=True)
        for place in wanted:
            try:
                verify_checkpoint(place)
            except CheckpointError as error:
                remarks.append(str(error))
            else:
                return place, remarks
        raise CheckpointError(remarks[0])

    def read_config(self) -> dict[str, Any]:
        """Return the saved configuration as plain types, without its ``schema_version``.

        Raises:
            ConfigError: If the folder is none of a run, or was written by a newer version.
        """
        return read_config(self.config_file)

    def _found(self) -> dict[str, Path]:
        """Return the complete checkpoints by name: steps in order, then ``best`` and ``last``."""
        names = {path.name.removesuffix(".old") for path in self.checkpoints.glob("*") if path.is_dir()}
        steps = sorted((n for n in names if _STEP.fullmatch(n)), key=step_of)
        places = {
            name: locate(self.checkpoints / name) for name in [*steps, *(n for n in ("best", "last") if n in names)]
        }
        return {name: place for name, place in places.items() if place is not None}


def step_of(name: str) -> int:
    """Return ``N`` of ``step-N``, or -1 for another name."""
    match = _STEP.fullmatch(name)
    return int(match.group(1)) if match else -1


def _step_or_nothing(place: Path) -> int:
    try:
        return read_manifest(place).step
    except CheckpointError:
        return -1


def write_config(path: Path, config: Mapping[str, Any]) -> None:
    """Save a configuration as YAML with its schema version in front."""
    import yaml

    tree = {"schema_version": SCHEMA_VERSION, **config}
    write_text(path, yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))


def read_config(path: Path) -> dict[str, Any]:
    """Read what ``write_config`` wrote.

    Raises:
        ConfigError: If the file is absent, no mapping, or of a newer schema.
    """
    import yaml

    if not path.is_file():
        raise ConfigError(f"{path.parent} is no run folder: it has no {path.name}; give the folder that mmi fit wrote.")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be read as YAML; restore it from the command that started the run."
        ) from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} holds no settings; restore it from the command that started the run.")
    version = tree.pop("schema_version", SCHEMA_VERSION)
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise ConfigError(f"{path} has schema_version {version}; this version of mmi reads up to {SCHEMA_VERSION}.")
    if not isinstance(tree.get("model") or {}, dict):
        raise ConfigError(f"{path} has no settings below model; restore it from the command that started the run.")
    return tree


def load_network(
    run: str | Path,
    checkpoint: str = BEST_OR_LAST,
    *,
    weights_dtype: WeightsDtype | None = None,
    weights: Weights = "trained",
) -> LoadedRun:
    """Rebuild a trained network from its run folder alone.

    Args:
        run: The run folder.
        checkpoint: See ``RunFolder.find_checkpoint``.
        weights_dtype: Hold the language model's weights in this form, whatever the run says; no copy of them in another
            form is made beside the file. None is as in training.
        weights: ``ema`` takes the running averages of trained weights.

    Returns:
        The network in evaluation mode, its tokenizer and its configuration.

    Raises:
        ConfigError: If the folder is none of a run, or its checkpoint is damaged or of another architecture.
    """
    from mmi.checkpoints.frozen import rebuilt
    from mmi.models.build import build_network
    from mmi.models.quantised import stored_layout

    folder = RunFolder(Path(run))
    config = folder.read_config()
    place = folder.find_checkpoint(checkpoint)
    numbers = network_config(config)
    if weights_dtype is not None:
        numbers = replace(numbers, language=replace(numbers.language, frozen=True, weights_dtype=weights_dtype))
    left_out = read_manifest(place).frozen
    network = build_network(numbers, compat_config(config), load_weights=bool(left_out))
    tensors = read_chosen(place, weights)
    frozen = rebuilt(tensors, left_out, network.state_dict(), str(place), prove=numbers == network_config(config))
    layout = stored_layout(network, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    expected = {name: tensor for name, tensor in layout.items() if name not in frozen}
    check_tensors(expected, tensors, str(place))
    network.load_state_dict({**frozen, **tensors}, assign=False)
    tokenizer = Tokenizer.load(folder.tokenizer) if folder.tokenizer.is_dir() else None
    return LoadedRun(network.eval(), tokenizer, config)


def read_chosen(place: Path, weights: Weights = "trained") -> dict[str, Tensor]:
    """Read what a checkpoint holds of the network, with running averages in place of trained tensors where asked for.

    Raises:
        CheckpointError: If it is damaged, or has no averages.
    """
    tensors = read_tensors(place)
    if weights == "trained":
        return tensors
    average_hash(place)
    average = read_average(place) or {}
    return tensors | {name: tensor.to(tensors[name].dtype) for name, tensor in average.items()}


def weights_hash(place: Path, weights: Weights = "trained") -> str:
    """Return the SHA-256 of the file of a checkpoint's weights, as its manifest has it.

    Raises:
        CheckpointError: If the manifest is damaged, or there are no averages where they are asked for.
    """
    return average_hash(place) if weights == "ema" else read_manifest(place).files[MODEL]


def average_hash(place: Path) -> str:
    """Return the SHA-256 of a checkpoint's running averages.

    Raises:
        CheckpointError: If it has none.
    """
    found = read_manifest(place).files.get(AVERAGE)
    if found is None:
        raise CheckpointError(
            f"{place} has no running averages of its weights; leave out --weights ema, or train with run.ema.decay set."
        )
    return found


def network_config(config: Mapping[str, Any]) -> NetworkConfig:
    """Return the architecture that a run's configuration describes."""
    return from_tree(NetworkConfig, (config.get("model") or {}).get("network") or {}, "model.network")


def compat_config(config: Mapping[str, Any]) -> CompatConfig:
    """Return the compatibility switches of a run's configuration."""
    compat = (config.get("model") or {}).get("compat", "corrected")
    return from_tree(CompatConfig, {"preset": compat} if isinstance(compat, str) else compat, "model.compat")


def read_tracking(folder: RunFolder) -> dict[str, str]:
    """Return the run's ids in experiment trackers, by tracker; empty before the first session."""
    return {key: str(value) for key, value in read_json(folder.tracking_file).items() if key != "schema_version"}


def write_tracking(folder: RunFolder, ids: Mapping[str, str]) -> None:
    """Save the run's ids in experiment trackers."""
    write_json(folder.tracking_file, {"schema_version": SCHEMA_VERSION, **ids})
