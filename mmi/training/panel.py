"""A fixed panel of prompts, continued every so many steps, so that progress can be seen."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_warn
from PIL import Image

from mmi.config import ConfigError
from mmi.data.document import Document, ImageItem
from mmi.data.images import ImageError, open_rgb
from mmi.models.mm_interleaved import MMInterleaved
from mmi.training.checkpointing import at_step_end
from mmi.training.contact_sheet import Part, contact_sheet
from mmi.training.randomness import undisturbed
from mmi.training.sharding import gathered

Generate = Callable[[MMInterleaved, Sequence[Part]], Sequence[Part]]
"""Continues a prompt of texts and pictures with the network given."""


@dataclass(frozen=True)
class PanelItem:
    """A prompt, and what followed it in the data where that is known."""

    prompt: tuple[Part, ...]
    target: tuple[Part, ...] = ()


def panel_from_documents(documents: Iterable[Document], n: int) -> list[PanelItem]:
    """Make prompts of the first ``n`` documents whose pictures can be read, cutting each before its last picture.

    A document that opens with its only picture is cut behind it; one without pictures is cut in half.
    """
    items: list[PanelItem] = []
    for document in documents:
        if len(items) == n:
            break
        try:
            parts = [open_rgb(item) if isinstance(item, ImageItem) else item.text for item in document.items]
        except ImageError:
            continue  # The data pipeline reports it.
        pictures = [i for i, part in enumerate(parts) if isinstance(part, Image.Image)]
        cut = max(pictures[-1] if pictures else len(parts) // 2, 1)
        items.append(PanelItem(tuple(parts[:cut]), tuple(parts[cut:])))
    return items


def panel_from_prompts(prompts: Sequence[Sequence[str | Mapping[str, str]]]) -> list[PanelItem]:
    """Make prompts of lists of texts and of pictures written ``{image: FILE}``.

    Raises:
        ConfigError: If an entry is neither or a picture cannot be read.
    """
    return [PanelItem(tuple(_read(entry) for entry in prompt)) for prompt in prompts]


def _read(entry: str | Mapping[str, str]) -> Part:
    if isinstance(entry, str):
        return entry
    if set(entry) == {"text"}:
        return entry["text"]
    if set(entry) != {"image"}:
        raise ConfigError(
            f"run.panel_prompts holds {dict(entry)}; expected a text or a picture such as {{image: a.png}}."
        )
    file = entry["image"]
    try:
        return open_rgb(ImageItem(open=lambda: open(file, "rb"), uri=file))
    except (ImageError, OSError) as error:
        raise ConfigError(f"run.panel_prompts: {file} cannot be read as a picture; check the path.") from error


class PromptPanel(Callback):
    """Continue every prompt of a panel every ``every`` steps, without disturbing training.

    Writes ``step-N/panel.png`` (prompt, target, answer) and ``step-N/answers.json``, and shows the picture in
    TensorBoard and Weights & Biases where they are on.

    Args:
        items: The panel.
        every: Optimizer steps between two drawings.
        folder: The run's ``samples``.
        generate: Continues a prompt.
    """

    def __init__(self, items: Sequence[PanelItem], every: int, folder: str | Path, generate: Generate) -> None:
        self.items, self.every, self.folder, self.generate = tuple(items), every, Path(folder), generate

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Draw the panel if this step is due."""
        step = trainer.global_step
        if step == 0 or step % self.every or not at_step_end(trainer, batch_idx):
            return
        network = pl_module.network
        assert isinstance(network, MMInterleaved)
        with gathered(network):
            if trainer.is_global_zero:
                with undisturbed(network), trainer.precision_plugin.forward_context():
                    answers = [tuple(self.generate(network, item.prompt)) for item in self.items]
                try:
                    self._show(trainer, self._save(answers, step), step)
                except OSError as error:
                    rank_zero_warn(f"the panel of step {step} cannot be written ({error}); training goes on.")
        trainer.strategy.barrier("PromptPanel")

    def _save(self, answers: Sequence[Sequence[Part]], step: int) -> Image.Image:
        folder = self.folder / f"step-{step}"
        folder.mkdir(parents=True, exist_ok=True)
        rows = [(item.prompt, item.target, answer) for item, answer in zip(self.items, answers, strict=True)]
        sheet = contact_sheet(rows, ("prompt", "target", "answer"))
        sheet.save(folder / "panel.png")
        records = [
            {"prompt": _texts(prompt), "target": _texts(target), "answer": _texts(answer)}
            for prompt, target, answer in rows
        ]
        text = json.dumps({"schema_version": 1, "step": step, "samples": records}, indent=1, ensure_ascii=False)
        (folder / "answers.json").write_text(text + "\n", encoding="utf-8")
        return sheet

    def _show(self, trainer: Trainer, sheet: Image.Image, step: int) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("samples", np.asarray(sheet), step, dataformats="HWC")
            elif isinstance(logger, WandbLogger):
                logger.log_image("samples", [sheet], step=step)


def _texts(parts: Sequence[Part]) -> list[str]:
    return [part if isinstance(part, str) else "<image>" for part in parts]
