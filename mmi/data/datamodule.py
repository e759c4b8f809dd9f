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
from mmi.data.images import Crop, ImageViews
from mmi.data.loader import BatchLoader, PlanFactory
from mmi.data.mixture import Mixing, Mixture, SourceShare, Stop, shares_of
from mmi.data.pack import Packing
from mmi.data.plan import BatchPlan, evaluation_plans, training_plans
from mmi.data.row_streams import OpenedSource, RowSettings, check_merging, open_for_reading
from mmi.data.skips import SkipLog
from mmi.data.sources import SourceConfig
from mmi.data.sources.places import is_url
from mmi.data.stream_state import own_position
from mmi.data.streaming import ShardReader
from mmi.data.whole_steps import WholeSteps
from mmi.tokens import Tokenizer


class InterleavedDataModule(LightningDataModule):
    """Turn named sources into an endless training stream and a finite, fixed evaluation stream.

    Training never ends by itself (``trainer.max_steps`` ends it) unless ``stop`` says otherwise. Every batch carries
    where the stream stands after it; call ``note_consumed`` with each batch that was trained on, *before* anything
    saves a checkpoint, and the next run goes on with exactly the following batch, whatever was prefetched.

    Where all training sources are indexed, the batches are the same for any number of ranks. Where one has
    ``streaming``, each rank reads shards of its own (``mmi.data.streaming`` says which) and a checkpoint holds the
    position of every rank; ``state_dict`` must then be called on all ranks.

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
        mixing: ``sequence`` draws a source for each row, ``batch`` for each rank's step, as the official system does;
            rows get the same shares either way.
        stop: What ends an epoch of the trainer: by default nothing does, since a run is measured in steps. ``sum``
            shows every document once, ``longest`` ends when the last source has been read once (others begin again),
            ``shortest`` when the first has.
        max_skipped_share: A run stops when more than this share of the documents read is damaged, after a thousand
            documents; what rules leave out does not count.
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
        mixing: Mixing = "sequence",
        stop: Stop = "never",
        max_skipped_share: float = 0.1,
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
        if not 0 <= max_skipped_share <= 1:
            raise ConfigError(f"data.max_skipped_share is {max_skipped_share}; expected 0 to 1.")
        self.tokenizer = Tokenizer.load(weight_place(tokenizer, "data.tokenizer"))
        self.skips = SkipLog(skip_log, max_skipped_share)
        self._configs = {
            "train": {name: config for name, config in train.items() if config.weight > 0},
            "val": dict(val or {}),
        }
        self._opened: dict[str, dict[str, OpenedSource]] = {}
        self._rows = RowSettings(
            self.tokenizer, seq_length, tokens_per_image, packing, max_images_per_row, buffer, seed=seed
        )
        self._batch_size = batch_size
        self._num_workers = num_workers
        self._mixing: Mixing = mixing
        self._stop: Stop = stop
        self.views = ImageViews(image_size, target_size, crop)
        self._cursor: dict[str, Any] | None = None
        self._saved: dict[str, Any] = {}
        self._left_over: dict[str, Any] = {}
        self._streaming = any(config.streaming for config in self._configs["train"].values())
        for split, configs in self._configs.items():
            for name, config in configs.items():
                _check_paths(f"data.{split}.{name}", config)
                _check_views(f"data.{split}.{name}", config, crop, augments=split == "train")

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
            ("data.image_size", self.views.image_size, config.vision.image_size),
            ("data.tokens_per_image", self._rows.tokens_per_image, config.tokens_per_image),
            ("data.target_size", self.views.target_size, decoder.image_size if decoder.enabled else None),
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
            if split in self._opened:
                continue
            opened: dict[str, OpenedSource] = {}
            for name, config in self._configs[split].items():
                key = f"data.{split}.{name}"
                opened[name] = open_for_reading(name, config, self._rows.seed, where=key)
                check_merging(key, opened[name])
                share = f", weight {config.weight:g}" if split == "train" else ""
                rank_zero_info(f"{key}: {opened[name].told} ({config.format}{share})")
            self._opened[split] = opened

    def train_dataloader(self) -> BatchLoader | WholeSteps:
        """Return the endless training stream; each iteration goes on where the last one was consumed."""
        if not self._configs["train"]:
            raise ConfigError(
                "data.train names no source with a weight above 0; add one by data.train.NAME.format and .path."
            )
        loader = self.loader(self.training_plans)
        return loader if self.trainer is None else WholeSteps(loader, self.trainer)

    def val_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """Return the evaluation stream: every document once, in file order."""
        return self.loader(self._evaluation_plans) if self._configs["val"] else []

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

    @property
    def source_shares(self) -> tuple[SourceShare, ...]:
        """What each training source should give and gave up to the last consumed batch.

        With indexed sources that is over all ranks, with streamed ones over this rank.
        """
        given = {} if self._cursor is None else self._cursor.get("given", {})
        return shares_of(given, {name: config.weight for name, config in self._configs["train"].items()})

    def state_dict(self) -> dict[str, Any]:
        """Return where the training stream stands, in plain types; with streamed sources call it on every rank."""
        if self._cursor is None:
            return dict(self._saved)
        if not self._streaming:
            return {"cursor": self._cursor}
        _, n_ranks = self._place()
        cursors: list[Any] = [self._cursor]
        if n_ranks > 1:
            cursors = [None] * n_ranks
            torch.distributed.all_gather_object(cursors, self._cursor)
        return {"ranks": cursors, "left_over": self._left_over}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue behind the last consumed batch of the run that saved this."""
        self._cursor, self._saved, self._left_over = None, dict(state_dict), {}

    def teardown(self, stage: str | None = None) -> None:
        """Tell what each source gave and what was left out.

        That is what planning left out and the pictures that rank 0 could not decode; ``skip_log`` names every rank's.
        """
        shares = [share for share in self.source_shares if share.rows]
        if stage == "fit" and len(shares) > 1:
            rank_zero_info("\n".join(["Sources:", *(f"  {share}" for share in shares)]))
        rank_zero_info(self.skips.summary())

    def loader(self, plans: PlanFactory) -> BatchLoader:
        """Return a loader of the batches of any plans."""
        collator = Collator(self.tokenizer.special, self._rows.tokens_per_image, self.views)
        most_pictures = self._batch_size * (self._rows.seq_length // (self._rows.tokens_per_image + 1))
        ranks_here = self.trainer.world_size // self.trainer.num_nodes if self.trainer is not None else 1
        # One loader of training and one of evaluation data on each.
        n_loaders = 2 * max(1, ranks_here)
        return BatchLoader(
            plans, collator, self._num_workers, self.skips, most_pictures=most_pictures, n_loaders=n_loaders
        )

    def training_plans(self) -> Iterator[BatchPlan]:
        """Plan the batches from where training stands on; no picture is read."""
        rank, n_ranks = self._place()
        if self._streaming and self._stop != "never" and n_ranks > 1:
            raise ConfigError(
                f'data.stop is "{self._stop}" with streamed sources on {n_ranks} ranks, whose shares end at different '
                'steps; set data.stop to "never" and trainer.max_steps.'
            )
        opened = self._open("train")
        endless = self._stop == "never"
        if self._streaming:
            readers = {name: self._rows.shard_reader(source, rank, n_ranks) for name, source in opened.items()}
            streams = [self._rows.shard_stream(opened[name], readers[name], endless=endless) for name in readers]
            self._find_own_position(readers, rank, n_ranks)
        else:
            streams = [self._rows.training_stream(source, endless=endless) for source in opened.values()]
            if self._cursor is None and self._saved:
                # Of a run that streamed, rank 0 stands for all: each source begins its next epoch.
                self._cursor = self._saved.get("cursor") or self._saved["ranks"][0]
        weights = [config.weight for config in self._configs["train"].values()]
        mixture = Mixture(
            streams, weights, seed=self._rows.seed, settings=self._settings(), mixing=self._mixing, stop=self._stop
        )
        if self._cursor is not None:
            mixture.restore(self._cursor)
        return training_plans(
            mixture, batch_size=self._batch_size, rank=rank, n_ranks=n_ranks, own_rows_only=self._streaming
        )

    def _find_own_position(self, readers: Mapping[str, ShardReader], rank: int, n_ranks: int) -> None:
        if self._cursor is not None:
            for name, reader in readers.items():
                reader.inherit(self._left_over.get(name))
        elif "ranks" in self._saved:
            self._cursor, self._left_over = own_position(self._saved, readers, rank=rank, n_ranks=n_ranks)
        elif self._saved:
            self._cursor = self._saved["cursor"]

    def _settings(self) -> dict[str, Any]:
        rows = self._rows
        return {
            "seed": rows.seed,
            "packing": rows.packing,
            "seq_length": rows.seq_length,
            "tokens_per_image": rows.tokens_per_image,
            "max_images_per_row": rows.max_images,
            "buffer": rows.buffer,
            "mixing": self._mixing,
            "stop": self._stop,
        }

    def _evaluation_plans(self) -> Iterator[BatchPlan]:
        rank, n_ranks = self._place()
        streams = [self._rows.evaluation_stream(source) for source in self._open("val").values()]
        return evaluation_plans(streams, batch_size=self._batch_size, rank=rank, n_ranks=n_ranks)

    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def _open(self, split: str) -> dict[str, OpenedSource]:
        if split not in self._opened:
            self.setup("fit" if split == "train" else "validate")
        return self._opened[split]


def _check_views(key: str, config: SourceConfig, crop: Crop, *, augments: bool) -> None:
    """Refuse pictures that are not those that the texts of a source speak of."""
    if config.rules.boxes and crop != "resize":
        raise ConfigError(
            f"{key} has boxes in numbers of the whole picture, of which data.crop={crop} cuts parts off; set data.crop "
            "to resize."
        )
    if config.augment is not None and config.augment.active and not augments:
        raise ConfigError(f"{key}.augment is set, but pictures are evaluated as they are; drop it.")


def _check_paths(key: str, config: SourceConfig) -> None:
    """Refuse paths that lead nowhere before anything expensive is built."""
    for path in config.paths:
        if is_url(path):
            continue
        fixed = re.split(r"[{*]", path)[0]
        root = Path(path) if fixed == path else Path(fixed + "x").parent
        if not Path(path).exists() and (fixed == path or not root.exists()):
            raise FileNotFoundError(f"{key}.path is {path}, but {root} does not exist; set it to a file or folder.")
    if config.image_folder is not None and not config.image_folder.is_dir():
        raise FileNotFoundError(
            f"{key}.images is {config.images}, which is not a folder; set it to the folder of the pictures."
        )
