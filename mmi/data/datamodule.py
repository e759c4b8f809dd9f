"""Sources to loaders: the data side of a run (INTERFACES, SPEC 3)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info

from mmi.batch import InterleavedBatch
from mmi.config import ConfigError, NetworkConfig, weight_place
from mmi.data.collate import Collator
from mmi.data.encode import EncodingRules
from mmi.data.images import Crop, ImageViews
from mmi.data.loader import BatchLoader, PlanFactory
from mmi.data.mixture import Mixture
from mmi.data.pack import BestFitPacker, OfficialPacker, Packer, Packing
from mmi.data.plan import BatchPlan, evaluation_plans, training_plans
from mmi.data.rows import RowStream
from mmi.data.skips import SkipLog
from mmi.data.sources import Source, SourceConfig, open_source
from mmi.tokens import Tokenizer


class InterleavedDataModule(LightningDataModule):
    """Turn named sources into an endless training stream and a finite, fixed evaluation stream.

    Training never ends by itself (``trainer.max_steps`` ends it). Every batch carries where the stream stands after
    it; call ``note_consumed`` with each batch that was trained on, *before* anything saves a checkpoint, and the next
    run goes on with exactly the following batch, whatever was prefetched.

    Args:
        tokenizer: Folder with ``tokenizer.json`` or ``tokenizer.model``.
        train: Training sources by name.
        val: Evaluation sources by name, also used by ``test`` and ``predict``; none by default.
        seq_length: Tokens in a row.
        batch_size: Rows per step and rank.
        image_size: Side of the pictures the encoder sees; must be the network's ``vision.image_size``.
        target_size: Side of the pictures that are drawn, the network's ``image_decoder.image_size``; ``None`` where
            nothing is drawn.
        tokens_per_image: Placeholders per picture; must be the network's ``vision.resampler.n_tokens``.
        num_workers: Processes that decode pictures; the batches are the same for any number.
        seed: Decides order, mixture and every random choice of the documents.
        packing: ``best_fit`` keeps documents whole, ``official`` chains and cuts them (SPEC 3.3).
        max_images_per_row: Pictures in a row, unless a source sets its own limit.
        buffer: Documents of a source that wait to be chosen from under ``best_fit``.
        crop: ``center`` cuts the middle square out of pictures, ``resize`` squeezes them.
        skip_log: File that names every record not used; a run folder's ``skipped.jsonl`` is set by the run itself.
    """

    def __init__(
        self,
        tokenizer: str,
        train: dict[str, SourceConfig],
        val: dict[str, SourceConfig] | None = None,
        seq_length: int = 2048,
        batch_size: int = 1,
        image_size: int = 224,
        target_size: int | None = 512,
        tokens_per_image: int = 64,
        num_workers: int = 0,
        seed: int = 0,
        packing: Packing = "best_fit",
        max_images_per_row: int = 30,
        buffer: int = 64,
        crop: Crop = "center",
        skip_log: str | None = None,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("seq_length", seq_length, tokens_per_image + 3),
            ("batch_size", batch_size, 1),
            ("image_size", image_size, 1),
            ("target_size", target_size, 1),
            ("tokens_per_image", tokens_per_image, 1),
            ("num_workers", num_workers, 0),
            ("max_images_per_row", max_images_per_row, 1),
            ("buffer", buffer, 1),
        ):
            if value is not None and value < least:
                why = " (a picture, <s> and </s> must fit in a row)" if name == "seq_length" else ""
                raise ConfigError(f"data.{name} is {value}; expected at least {least}{why}.")
        self.tokenizer = Tokenizer.load(weight_place(tokenizer, "data.tokenizer"))
        self.skips = SkipLog(skip_log)
        self._configs = {
            "train": {name: config for name, config in train.items() if config.weight > 0},
            "val": dict(val or {}),
        }
        self._sources: dict[str, list[Source]] = {}
        self._seq_length = seq_length
        self._batch_size = batch_size
        self._num_workers = num_workers
        self._seed = seed
        self._packing: Packing = packing
        self._max_images = max_images_per_row
        self._buffer = buffer
        self._tokens_per_image = tokens_per_image
        self._views = ImageViews(image_size, target_size, crop)
        self._cursor: dict[str, Any] | None = None
        for split, configs in self._configs.items():
            for name, config in configs.items():
                _check_paths(f"data.{split}.{name}", config)

    @property
    def source_names(self) -> tuple[str, ...]:
        """Names of all sources, each once; those of training first."""
        return tuple(dict.fromkeys(name for configs in self._configs.values() for name in configs))

    def check_network(self, config: NetworkConfig) -> None:
        """Say whether the batches fit a network.

        Raises:
            ConfigError: If picture sizes, placeholders or special ids differ.
        """
        special = self.tokenizer.special
        decoder = config.image_decoder
        for what, here, there in (
            ("data.image_size", self._views.image_size, config.vision.image_size),
            ("data.tokens_per_image", self._tokens_per_image, config.tokens_per_image),
            ("data.target_size", self._views.target_size, decoder.image_size if decoder.enabled else None),
            ("the tokenizer's vocabulary", self.tokenizer.vocab_size, config.language.vocab_size),
            ("the tokenizer's <s>", special.bos, config.language.bos_token_id),
            ("the tokenizer's </s>", special.eos, config.language.eos_token_id),
            ("the tokenizer's padding id", special.pad, config.language.pad_token_id),
        ):
            if here != there and not (what == "data.target_size" and there is None):
                raise ConfigError(f"{what} is {here} but the network is built for {there}; set both to one value.")

    def setup(self, stage: str | None = None) -> None:
        """Open the sources that a stage needs and tell how many documents they hold."""
        for split in ("train", "val") if stage in (None, "fit") else ("val",):
            if split in self._sources:
                continue
            opened = []
            for name, config in self._configs[split].items():
                source = open_source(name, config, self._seed, where=f"data.{split}.{name}")
                opened.append(source)
                share = f", weight {config.weight:g}" if split == "train" else ""
                rank_zero_info(f"data.{split}.{name}: {len(source):,} documents ({config.format}{share})")
            self._sources[split] = opened

    def train_dataloader(self) -> BatchLoader:
        """Return the endless training stream; each iteration goes on where the last one was consumed."""
        if not self._configs["train"]:
            raise ConfigError(
                "data.train names no source with a weight above 0; add one by data.train.NAME.format and .path."
            )
        return self._loader(self._training_plans)

    def val_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """Return the evaluation stream: every document once, in file order."""
        return self._loader(self._evaluation_plans) if self._configs["val"] else []

    def test_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """Return the evaluation stream."""
        return self.val_dataloader()

    def predict_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """Return the evaluation stream."""
        return self.val_dataloader()

    def transfer_batch_to_device(
        self, batch: InterleavedBatch, device: torch.device, dataloader_idx: int
    ) -> InterleavedBatch:
        """Move every tensor of a batch."""
        return batch.to(device, non_blocking=True)

    def note_consumed(self, batch: InterleavedBatch) -> None:
        """Remember that training has used a batch; a checkpoint from now on continues after it."""
        if batch.cursor is not None:
            self._cursor = batch.cursor

    def state_dict(self) -> dict[str, Any]:
        """Return where the training stream stands, in plain types."""
        return {} if self._cursor is None else {"cursor": self._cursor}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue behind the last consumed batch of the run that saved this."""
        self._cursor = state_dict.get("cursor")

    def teardown(self, stage: str | None = None) -> None:
        """Tell what was left out.

        That is what planning left out and the pictures that rank 0 could not decode; ``skip_log`` names every rank's.
        """
        rank_zero_info(self.skips.summary())

    def _loader(self, plans: PlanFactory) -> BatchLoader:
        collator = Collator(self.tokenizer.special, self._tokens_per_image, self._views)
        return BatchLoader(plans, collator, self._num_workers, self.skips)

    def _training_plans(self) -> Iterator[BatchPlan]:
        settings = {
            "seed": self._seed,
            "packing": self._packing,
            "seq_length": self._seq_length,
            "tokens_per_image": self._tokens_per_image,
            "max_images_per_row": self._max_images,
            "buffer": self._buffer,
        }
        weights = [config.weight for config in self._configs["train"].values()]
        mixture = Mixture(self._streams("train"), weights, seed=self._seed, settings=settings)
        if self._cursor is not None:
            mixture.restore(self._cursor)
        rank, n_ranks = self._place()
        return training_plans(mixture, batch_size=self._batch_size, rank=rank, n_ranks=n_ranks)

    def _evaluation_plans(self) -> Iterator[BatchPlan]:
        rank, n_ranks = self._place()
        return evaluation_plans(self._streams("val"), batch_size=self._batch_size, rank=rank, n_ranks=n_ranks)

    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def _streams(self, split: str) -> list[RowStream]:
        if split not in self._sources:
            self.setup("fit" if split == "train" else "validate")
        return [self._stream(source, split) for source in self._sources[split]]

    def _stream(self, source: Source, split: str) -> RowStream:
        config = self._configs[split][source.name]
        rules = EncodingRules(
            tokens_per_image=self._tokens_per_image,
            ignore_caption_before_image=config.ignore_caption_before_image,
            max_length=self._seq_length if source.pairs else None,
        )
        return RowStream(
            source,
            self.tokenizer,
            rules,
            self._packer(source, config.max_images_per_row or self._max_images),
            seed=self._seed,
            endless=split == "train",
        )

    def _packer(self, source: Source, max_images: int) -> Packer:
        if self._packing == "official":
            return OfficialPacker(self._seq_length, max_images, source.row_cut, self.tokenizer.special)
        # Of a small source never more than one epoch waits, or its longest documents would come several times first.
        return BestFitPacker(self._seq_length, max_images, min(self._buffer, len(source)), self.tokenizer.special)


def _check_paths(key: str, config: SourceConfig) -> None:
    """Refuse paths that lead nowhere before anything expensive is built."""
    for path in config.paths:
        fixed = re.split(r"[{*]", path)[0]
        root = Path(path) if fixed == path else Path(fixed + "x").parent
        if not Path(path).exists() and (fixed == path or not root.exists()):
            raise FileNotFoundError(f"{key}.path is {path}, but {root} does not exist; set it to a file or folder.")
    if config.image_folder is not None and not config.image_folder.is_dir():
        raise FileNotFoundError(
            f"{key}.images is {config.images}, which is not a folder; set it to the folder of the pictures."
        )
