"""The ``run`` part of a configuration: where a run is kept and what watches over it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Literal

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from mmi.checkpoints.run_folder import RunFolder, read_tracking, write_tracking
from mmi.config import ConfigError
from mmi.data.document import Document
from mmi.data.skips import counted
from mmi.errors import require_package
from mmi.models.generation import GenerationSettings
from mmi.models.mm_interleaved import MMInterleaved
from mmi.training.checkpoint_io import FolderCheckpointIO, LeftOut
from mmi.training.checkpointing import RunCheckpoint
from mmi.training.csv_log import CsvLog
from mmi.training.ema import EmaConfig, WeightAverage
from mmi.training.evaluating import Evaluate, EvaluateConfig, EvaluateWhileTraining
from mmi.training.guard import OnNonFinite, StepGuard
from mmi.training.interrupt import GracefulInterrupt
from mmi.training.panel import Generate, PromptPanel, panel_from_documents, panel_from_prompts
from mmi.training.watchdog import StallWatch

LoggerName = Literal["csv", "tensorboard", "wandb"]


@dataclass(frozen=True)
class WandbConfig:
    """Weights & Biases; offline unless asked otherwise, so nothing leaves the machine unasked.

    Args:
        project: Project of the run.
        entity: Account or team; None is the default of the installation.
        offline: Keep everything on disk, to be sent later with ``wandb sync``.
        group: Runs that belong together there.
        job_type: Kind of run within the group.
        tags: Words to find the run by.
    """

    project: str = "mmi"
    entity: str | None = None
    offline: bool = True
    group: str | None = None
    job_type: str | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunConfig:
    """Name, checkpoints, loggers and prompt panel of a run.

    Args:
        name: The run folder is ``<folder>/<name>``; repeating a command finds it again.
        folder: Where run folders are.
        start_from: Weights to start from, of another run or stage: a run folder, a checkpoint folder, or an exported
            folder. Only weights are taken; a run that goes on from a checkpoint of its own does not look at it.
        start_fresh: Patterns of tensors' names that ``start_from`` leaves as they were built, such as
            ``visual_tokenizer.resampler.*``; they may be missing there or have other shapes.
        save_every: Optimizer steps between two checkpoints.
        keep: How many ``step-N`` checkpoints stay beside ``last`` and ``best``.
        on_non_finite: What a gradient that is not finite does: ``skip`` leaves the step out and counts it, up to ten
            running; ``stop`` ends the run. Either way ``incidents.jsonl`` names the documents.
        trainable_only: Leave frozen backbones out of checkpoints; they are rebuilt from the weights that
            ``model.network`` names and proved to be the same by a hash in the manifest.
        ema: Running averages of trained weights, saved beside them; ``null`` keeps none.
        stalled_after: Seconds without a batch after which it is told what data the run waits for; ``null`` is never.
        evaluate: Benchmarks asked while training; ``null`` asks none.
        panel_every: Optimizer steps between two drawings of the prompt panel; 0 draws none.
        panel_documents: How many documents of the data are in the panel, each cut before its last picture.
        panel_prompts: Prompts of your own, each a list of texts and of pictures written ``{image: FILE}``.
        loggers: Where metrics go; ``csv`` is ``metrics.csv`` in the run folder.
        wandb: Settings of the ``wandb`` logger.
        generation: How the panel is continued, and what ``mmi generate`` starts from.
    """

    name: str = "run"
    folder: str = "runs"
    start_from: str | None = None
    start_fresh: tuple[str, ...] = ()
    save_every: int = 1000
    keep: int = 5
    on_non_finite: OnNonFinite = "skip"
    trainable_only: bool = False
    ema: EmaConfig | None = None
    stalled_after: float | None = 600.0
    evaluate: EvaluateConfig | None = None
    panel_every: int = 0
    panel_documents: int = 4
    panel_prompts: tuple[tuple[str | dict[str, str], ...], ...] = ()
    loggers: tuple[LoggerName, ...] = ("csv",)
    wandb: WandbConfig = WandbConfig()
    generation: GenerationSettings = field(default_factory=GenerationSettings)

    def __post_init__(self) -> None:
        parts = PurePath(self.name).parts
        if not parts or ".." in parts or PurePath(self.name).is_absolute():
            raise ConfigError(f"run.name is {self.name!r}; expected a name such as demo, without .. in it.")
        for name, least in (("save_every", 1), ("keep", 0), ("panel_every", 0), ("panel_documents", 0)):
            value = getattr(self, name)
            if value < least:
                raise ConfigError(f"run.{name} is {value}; expected at least {least}.")
        if self.start_fresh and self.start_from is None:
            raise ConfigError("run.start_fresh is set but run.start_from is not; name the weights to start from.")
        if self.stalled_after is not None and self.stalled_after <= 0:
            raise ConfigError(f"run.stalled_after is {self.stalled_after}; expected seconds above 0, or null.")
        if self.panel_every and not (self.panel_documents or self.panel_prompts):
            raise ConfigError(
                "run.panel_every asks for a panel of no prompts; set run.panel_documents or panel_prompts."
            )
        for name in ("tensorboard", "wandb"):
            if name in self.loggers:
                require_package(name, f"run.loggers: {name}")

    @property
    def path(self) -> Path:
        """The run folder."""
        return Path(self.folder) / self.name


def make_loggers(config: RunConfig, folder: RunFolder) -> list[Logger]:
    """Build the loggers; trackers get the id the run had in its earlier sessions.

    Raises:
        ConfigError: If a logger's package is not installed; the sentence names the extra.
    """
    loggers: list[Logger] = []
    for name in dict.fromkeys(config.loggers):
        if name == "csv":
            loggers.append(CsvLog(folder.metrics_file))
            continue
        require_package(name, f"run.loggers: {name}")
        if name == "tensorboard":
            from lightning.pytorch.loggers import TensorBoardLogger

            loggers.append(TensorBoardLogger(folder.path, name="", version="tensorboard"))
        else:
            loggers.append(_wandb(config, folder))
    return loggers


def _wandb(config: RunConfig, folder: RunFolder) -> Logger:
    from lightning.pytorch.loggers import WandbLogger

    settings = config.wandb
    return WandbLogger(
        name=config.name,
        id=_wandb_id(folder),
        save_dir=folder.path,
        project=settings.project,
        entity=settings.entity,
        offline=settings.offline,
        group=settings.group,
        job_type=settings.job_type,
        tags=list(settings.tags) or None,
        resume="allow",
    )


def _wandb_id(folder: RunFolder) -> str | None:
    """Return the id of the run, made in its first session; None on ranks other than 0, which send nothing."""
    if rank_zero_only.rank != 0:
        return None
    ids = read_tracking(folder)
    if "wandb" not in ids:
        folder.path.mkdir(parents=True, exist_ok=True)
        # An agent of a sweep has given the run its id already.
        ids["wandb"] = os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)
        write_tracking(folder, ids)
    return ids["wandb"]


def make_panel(
    config: RunConfig, folder: RunFolder, documents: Iterable[Document], generate: Generate
) -> PromptPanel | None:
    """Build the prompt panel, or None where none is asked for.

    Args:
        config: Settings of the run.
        folder: Where it is written.
        documents: Data the network is not trained on, read only as far as needed.
        generate: Continues a prompt with the network in training.

    Raises:
        ConfigError: If a picture of a prompt cannot be read, or none of the documents can be used.
    """
    if not config.panel_every:
        return None
    looked_at: list[str] = []
    items = panel_from_prompts(config.panel_prompts)
    items += panel_from_documents(_noted(documents, looked_at), config.panel_documents)
    if not items:
        raise ConfigError(_no_panel(looked_at))
    return PromptPanel(items, config.panel_every, folder.samples, generate)


def _noted(documents: Iterable[Document], looked_at: list[str]) -> Iterator[Document]:
    for document in documents:
        looked_at.append(f"{document.id} of source {document.source}")
        yield document


def _no_panel(looked_at: Sequence[str]) -> str:
    """Say why there is no prompt for the panel: what is wrong is the data, not ``run.panel_every``."""
    if looked_at:
        return (
            f"no picture of the data could be read in {counted(len(looked_at), 'document')}, from {looked_at[0]} to "
            f"{looked_at[-1]}; mmi data check --config FILE names each, so mend them or choose other data."
        )
    return (
        "none of the documents under data.val (of data.train, where there is no data.val) can be used; mmi data stats "
        "--config FILE says which rules leave them out and mmi data check --config FILE what is broken: mend the data, "
        "loosen the rules, or set data.val to other data."
    )


def make_callbacks(
    config: RunConfig,
    folder: RunFolder,
    panel: PromptPanel | None = None,
    evaluate: Evaluate | None = None,
    network: MMInterleaved | None = None,
) -> list[Callback]:
    """Build what watches over a run: the prompt panel, benchmarks, gradients, averages, checkpoints, Ctrl-C.

    Args:
        config: Settings of the run.
        folder: Where everything is written.
        panel: What ``make_panel`` returned.
        evaluate: Asks the benchmarks of ``config.evaluate``.
        network: As it was built, needed where ``config.trainable_only``.

    Raises:
        ConfigError: If frozen weights that checkpoints should do without were drawn at random.
    """
    monitored = config.evaluate is not None and config.evaluate.monitor is not None
    left_out = None
    if config.trainable_only:
        assert network is not None, "only a network can say what is frozen"
        left_out = LeftOut.of(network)
    checkpoints = RunCheckpoint(
        folder.checkpoints,
        config.save_every,
        config.keep,
        None if monitored else "val/loss",
        incidents=folder.incidents_file,
        left_out=left_out,
    )
    guard = StepGuard(folder.incidents_file, config.on_non_finite)
    callbacks: list[Callback] = [guard, checkpoints, GracefulInterrupt(checkpoints)]
    if config.stalled_after is not None:
        callbacks.insert(0, StallWatch(config.stalled_after, folder.stalled_file, folder.incidents_file))
    if config.ema is not None:
        callbacks.insert(0, WeightAverage(config.ema))
    if evaluate is not None and config.evaluate is not None:
        callbacks.insert(0, EvaluateWhileTraining(evaluate, config.evaluate, folder.training_scores, checkpoints))
    return callbacks if panel is None else [panel, *callbacks]


def make_plugins(verified: Path | None = None) -> list[FolderCheckpointIO]:
    """Build the plugins a trainer needs to write our checkpoint folders.

    Args:
        verified: A checkpoint that ``RunFolder.find_intact`` returned, so that it is not hashed once more.
    """
    return [FolderCheckpointIO(verified)]
