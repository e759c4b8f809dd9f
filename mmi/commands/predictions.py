"""What ``mmi predict`` writes: one JSON line for each document, as soon as it is there."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from mmi.training.metrics import DocumentScore

SCHEMA_VERSION = 1


class PredictionFile(Callback):
    """Write the scores of documents while they are computed.

    Args:
        file: JSON lines, replaced if it exists; further ranks write beside it with their number in the name.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.n_documents, self.n_labels, self.loss = 0, 0, 0.0
        self._stream: TextIO | None = None

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the file, once those of an earlier call with more ranks are gone."""
        if trainer.is_global_zero:
            for stale in self.file.parent.glob(f"{self.file.stem}.rank*{self.file.suffix}"):
                stale.unlink()
        trainer.strategy.barrier()
        if trainer.global_rank:
            self.file = self.file.with_suffix(f".rank{trainer.global_rank}{self.file.suffix}")
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self._stream = self.file.open("w", encoding="utf-8")

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Sequence[DocumentScore],
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the documents of a batch."""
        assert self._stream is not None
        for score in outputs:
            # NaN, for documents without labels, is no JSON.
            record = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(score).items()}
            self._stream.write(json.dumps({"schema_version": SCHEMA_VERSION, **record}, ensure_ascii=False) + "\n")
            self.n_documents += 1
            if score.n_labels:
                self.n_labels += score.n_labels
                self.loss += score.loss * score.n_labels

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the file."""
        if self._stream is not None:
            self._stream.close()

    def summary(self) -> str:
        """Return one sentence: how many documents, their mean loss, where they are."""
        mean = self.loss / self.n_labels if self.n_labels else math.nan
        return f"{self.n_documents} documents, text loss {mean:.4f} over {self.n_labels} labels; each one: {self.file}"
