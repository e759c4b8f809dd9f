"""LightningCLI with our run folder around it: settings in, model, data and trainer out."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentError
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.utilities import rank_zero_only
from transformers.utils import logging as transformers_logging

from mmi.checkpoints.environment import record_end, record_session
from mmi.checkpoints.run_folder import RunFolder
from mmi.checkpoints.storage import CheckpointError
from mmi.commands.fingerprints import fingerprint_sources
from mmi.commands.predictions import PredictionFile
from mmi.commands.progress import RunProgress
from mmi.commands.settings import Settings
from mmi.config import ConfigError
from mmi.data.datamodule import InterleavedDataModule
from mmi.data.document import Document
from mmi.data.row_streams import open_for_reading
from mmi.data.skips import SkipError
from mmi.data.sources import SourceConfig
from mmi.inference import Generator
from mmi.models.mm_interleaved import MMInterleaved
from mmi.tokens import Tokenizer
from mmi.training.agreement import leaves, refuse_disagreement
from mmi.training.contact_sheet import Part
from mmi.training.disk import checkpoint_bytes, refuse_unfit_disk
from mmi.training.interrupt import TrainingInterrupted
from mmi.training.module import MMInterleavedModule
from mmi.training.run import make_callbacks, make_loggers, make_panel, make_plugins
from mmi.training.strategies import make_strategy

if TYPE_CHECKING:
    from mmi.commands.training_evaluation import TrainingEvaluation

__all__ = ["Session", "TrainerCLI", "TrainingInterrupted", "calm_libraries"]


@dataclass(frozen=True)
class Session:
    """What surrounds one call of the trainer.

    Args:
        command: ``fit``, ``validate``, ``test`` or ``predict``.
        folder: The run folder.
        resume: Whether training goes on from a checkpoint of this folder.
        command_line: What was typed, for the record.
        checkpoint: Where to go on from, its files compared with their hashes.
    """

    command: str
    folder: RunFolder
    resume: bool
    command_line: tuple[str, ...]
    checkpoint: Path | None = None

    def refuse_used_folder(self, settings: Settings) -> None:
        """Refuse to mix a fresh run with the checkpoints of an earlier one, before anything is built.

        Raises:
            ConfigError: If the folder holds checkpoints.
        """
        if self.command != "fit" or self.resume:
            return
        try:
            self.folder.find_checkpoint()
        except CheckpointError:
            return
        self.folder.start(settings.tree())


class TrainerCLI(LightningCLI):
    """Build module, data and trainer from checked settings (no subclass mode, nothing is run).

    Args:
        settings: Checked; every key is known.
        session: Where this happens and why.

    Raises:
        ConfigError: If the parser refuses a value or data and network do not fit together.
    """

    def __init__(self, settings: Settings, session: Session) -> None:
        self.settings, self.session = settings, session
        tree = settings.tree()
        try:
            super().__init__(
                MMInterleavedModule,
                InterleavedDataModule,
                save_config_callback=None,
                args={key: tree[key] for key in ("seed_everything", "trainer", "model", "data")},
                run=False,
                parser_kwargs={"exit_on_error": False},
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,
            )
        except ArgumentError as error:
            raise ConfigError(" ".join(str(error).split())) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer with the run's loggers, callbacks and checkpoint format."""
        settings, folder = self.settings, self.session.folder
        strategy = settings.trainer.get("strategy", "auto")
        if isinstance(strategy, str):
            kwargs["strategy"] = make_strategy(strategy)
        self.datamodule.check_network(settings.network)
        is_fit = self.session.command == "fit"
        plugins = make_plugins(self.session.checkpoint)
        self.datamodule.setup("fit" if is_fit else "validate")
        callbacks: list[Callback] = [RunProgress()] if settings.trainer.get("enable_progress_bar", True) else []
        if not is_fit:
            self.datamodule.skips.write_to(folder.skipped_file)
            self.predictions = PredictionFile(folder.path / "predictions.jsonl")
            callbacks += [self.predictions] if self.session.command == "predict" else []
            self.trainer_defaults = {"callbacks": callbacks}
            return super().instantiate_trainer(logger=False, plugins=plugins, **kwargs)
        evaluate = _evaluation(settings, self.datamodule.tokenizer)
        run, network = settings.run, self.model.network
        if rank_zero_only.rank == 0:
            size = checkpoint_bytes(network, trained_only=run.trainable_only, averaged=run.ema is not None)
            refuse_unfit_disk(folder.path, size, resume=self.session.resume)
        if not self.session.resume and rank_zero_only.rank == 0:
            folder.start(settings.tree(), self.datamodule.tokenizer)
        writer = _PanelWriter(settings, self.datamodule.tokenizer)
        panel = make_panel(settings.run, folder, _panel_documents(settings), writer)
        callbacks += [_OpenFolder(settings, self.session), *make_callbacks(run, folder, panel, evaluate, network)]
        self.trainer_defaults = {"callbacks": callbacks}
        return super().instantiate_trainer(
            logger=make_loggers(settings.run, folder), plugins=plugins, default_root_dir=folder.path, **kwargs
        )


class _OpenFolder(Callback):
    """Write down what a session runs with, once its checkpoint has proved to fit."""

    def __init__(self, settings: Settings, session: Session) -> None:
        self.settings, self.session = settings, session
        self._began: float | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the configuration of a resumed run and record versions, devices and the command.

        Raises:
            ConfigError: If ranks run with different settings, data or versions.
        """
        folder, data = self.session.folder, getattr(trainer, "datamodule", None)
        assert isinstance(data, InterleavedDataModule)
        prints: dict[str, str] = {}
        if trainer.is_global_zero or trainer.world_size > 1:
            prints = fingerprint_sources({table: self.settings.data[table] for table in ("train", "val")})
            versions = {name: version(name) for name in ("mmi", "torch", "lightning")}
            refuse_disagreement({**dict(leaves(self.settings.tree())), **prints, **versions}, trainer.world_size)
        if trainer.is_global_zero and self.session.resume:
            folder.start(self.settings.tree(), data.tokenizer, resume=True)
        # On every rank: each decodes its own pictures.
        data.skips.write_to(folder.skipped_file)
        if trainer.is_global_zero:
            record_session(folder.environment_file, self.session.command_line, self.settings.seed, prints)
            self._began = time.perf_counter()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record how long the session took, and the most memory it held."""
        began, self._began = self._began, None
        if began is None:
            return
        with suppress(OSError):  # a full disk has been told of by whoever had more to write
            record_end(self.session.folder.environment_file, time.perf_counter() - began)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Record the same of a session that was stopped."""
        self.on_fit_end(trainer, pl_module)


class _PanelWriter:
    """Continue a prompt of the panel with the network in training."""

    def __init__(self, settings: Settings, tokenizer: Tokenizer) -> None:
        chosen = settings.run.generation
        self.settings = replace(chosen, max_images=max(1, chosen.min_images), min_images=max(1, chosen.min_images))
        if not settings.network.image_decoder.enabled:
            self.settings = replace(chosen, max_images=0, min_images=0)
        self.tokenizer = tokenizer
        self.crop = settings.data["crop"]

    def __call__(self, network: MMInterleaved, prompt: Sequence[Part]) -> Sequence[Part]:
        """Return texts and pictures that follow the prompt."""
        return Generator(network, self.tokenizer, self.crop).generate(prompt, self.settings)


def _evaluation(settings: Settings, tokenizer: Tokenizer) -> TrainingEvaluation | None:
    """Return what asks the benchmarks of ``run.evaluate``, after looking for all it needs."""
    chosen = settings.run.evaluate
    if chosen is None:
        return None
    from mmi.commands.training_evaluation import TrainingEvaluation

    evaluation = TrainingEvaluation(chosen, tokenizer, settings.data["crop"])
    if rank_zero_only.rank == 0:
        evaluation.check(draws=settings.network.image_decoder.enabled)
    return evaluation


def _panel_documents(settings: Settings) -> Iterator[Document]:
    """Yield documents for the panel, one source after the other in turn: validation data where there is any."""
    table = "val" if settings.data["val"] else "train"
    configs: dict[str, SourceConfig] = settings.data[table]
    seed = settings.data["seed"]
    # Of a streamed source the first shard is enough.
    sources = [
        open_for_reading(name, config, seed, where=f"data.{table}.{name}").sample for name, config in configs.items()
    ]
    for index in range(max(map(len, sources), default=0)):
        for source in sources:
            if index < len(source):
                try:
                    yield source.document(index, 0)
                except SkipError:
                    continue


_NOISE = (
    "LOCAL_RANK",
    "GPU available",
    "TPU available",
    "HPU available",
    "litlogger",
    "litmodels",
    "Seed set to",
    "Tip:",
    "Restoring states",
    "Loaded model weights",
    "`Trainer.",
    "Detected KeyboardInterrupt",
    "Loading `train_dataloader`",
)


def calm_libraries() -> None:
    """Silence messages of libraries that are about their own matters, not about the user's run."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed"):
        logging.getLogger(name).addFilter(_is_for_users)
    for pattern in (
        r".*LightningCLI's args parameter is intended.*",
        r".*does not have many workers.*",
        r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",
        r".*Checkpoint directory .* exists and is not empty.*",
        r".*The number of training batches .* is smaller than the logging interval.*",
        r".*Trying to infer the `batch_size` from an ambiguous collection.*",
        r".*sync_dist=True.*",
        r".*all_gather is deprecated.*",
        r".*module\(s\) in eval mode at the start of training.*",
        r".*lr_scheduler.step\(\).*optimizer.step\(\).*",
    ):
        warnings.filterwarnings("ignore", message=pattern)
    transformers_logging.disable_progress_bar()


def _is_for_users(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    return not any(word in text for word in _NOISE)
