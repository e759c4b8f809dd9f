"""The data module's settings, messages and life inside Lightning."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from shared_data import shared_path

from mmi.batch import InterleavedBatch
from mmi.config import ConfigError
from mmi.data.datamodule import InterleavedDataModule
from mmi.data.sources import SourceConfig
from mmi_eval.formats.mmc4 import MMC4Document, MMC4Image, write_mmc4
from mmi_eval.formats.pair_tars import TarPair, write_pair_tar


def data(world: Path, tokenizer: str, **settings: Any) -> InterleavedDataModule:
    given: dict[str, Any] = {
        "train": {
            "pairs": SourceConfig("pair_tars", str(world / "pairs.tar")),
            "web": SourceConfig("mmc4", str(world / "mmc4.jsonl")),
        },
        "val": {"photos": SourceConfig("coco_captions", str(world / "captions.json"), images=str(world / "photos"))},
        "seq_length": 96,
        "batch_size": 2,
        "image_size": 8,
        "target_size": 10,
        "tokens_per_image": 3,
        "buffer": 5,
    }
    return InterleavedDataModule(tokenizer, **(given | settings))


class Listener(LightningModule):
    """Remembers the documents of each step; has one parameter to train."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.steps: list[list[str]] = []
        self.n_val = 0

    def training_step(self, batch: InterleavedBatch, batch_idx: int) -> torch.Tensor:
        self.steps.append([f"{span.source}/{span.document_id}" for span in batch.provenance])
        self.trainer.datamodule.note_consumed(batch)  # type: ignore[attr-defined]
        return self.weight * batch.images.float().mean()

    def validation_step(self, batch: InterleavedBatch, batch_idx: int) -> None:
        self.n_val += len(batch.provenance)

    def predict_step(self, batch: InterleavedBatch, batch_idx: int) -> int:
        return len(batch.provenance)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def trainer(folder: Path, **settings: Any) -> Trainer:
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return Trainer(accelerator="cpu", devices=1, default_root_dir=folder, **(quiet | settings))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_stopped_in_lightning_goes_on_with_the_next_batch(
    world: Path, tokenizer_folder: str, workers: int, tmp_path: Path
) -> None:
    def run(max_steps: int, checkpoint: Path | None = None) -> tuple[Listener, Trainer]:
        module = Listener()
        lightning = trainer(tmp_path, max_steps=max_steps, enable_checkpointing=False, val_check_interval=3)
        lightning.fit(module, datamodule=data(world, tokenizer_folder, num_workers=workers), ckpt_path=checkpoint)
        return module, lightning

    whole, _ = run(9)
    stopped, lightning = run(5)
    lightning.save_checkpoint(tmp_path / "stopped.ckpt")
    resumed, _ = run(9, tmp_path / "stopped.ckpt")
    assert len(whole.steps) == 9
    assert stopped.steps + resumed.steps == whole.steps
    assert whole.n_val >= 9 * 3, "validation ran in between"


def test_several_short_epochs_are_one_stream(world: Path, tokenizer_folder: str, tmp_path: Path) -> None:
    steps = []
    for settings in ({"max_steps": 6}, {"max_epochs": 3, "limit_train_batches": 2}):
        module = Listener()
        lightning = trainer(tmp_path, enable_checkpointing=False, limit_val_batches=0, **settings)
        lightning.fit(module, datamodule=data(world, tokenizer_folder))
        steps.append(module.steps)
    assert steps[0] == steps[1]


def test_predict_and_test_use_the_evaluation_data(world: Path, tokenizer_folder: str, tmp_path: Path) -> None:
    module = data(world, tokenizer_folder)
    predicted = trainer(tmp_path).predict(Listener(), datamodule=module)
    assert predicted is not None
    assert sum(int(n) for n in predicted) == 9  # type: ignore[arg-type]


def test_training_works_without_evaluation_data(world: Path, tokenizer_folder: str, tmp_path: Path) -> None:
    module = Listener()
    lightning = trainer(tmp_path, max_steps=2, enable_checkpointing=False)
    lightning.fit(module, datamodule=data(world, tokenizer_folder, val=None))
    assert len(module.steps) == 2


def test_document_counts_are_told_at_setup(
    world: Path, tokenizer_folder: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr("mmi.data.datamodule.rank_zero_info", told.append)
    module = data(world, tokenizer_folder)
    module.setup("fit")
    module.setup("fit")
    assert told == [
        "data.train.pairs: 20 documents (pair_tars, weight 1)",
        "data.train.web: 15 documents (mmc4, weight 1)",
        "data.val.photos: 9 documents (coco_captions)",
    ]
    module.teardown("fit")
    assert told[-1].startswith("Nothing was skipped")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_picture_is_left_out_and_named_whoever_decodes(
    world: Path, tokenizer_folder: str, workers: int, tmp_path: Path
) -> None:
    pairs = [(TarPair(str(i), f"caption {i}", "png"), b"broken") for i in range(3)]
    write_pair_tar(tmp_path / "broken.tar", pairs)
    source = SourceConfig("pair_tars", str(tmp_path / "broken.tar"))
    good = SourceConfig("pair_tars", str(world / "pairs.tar"))
    module = data(
        world, tokenizer_folder, val={"good": good, "bad": source}, num_workers=workers,
        skip_log=str(tmp_path / "skipped.jsonl"),
    )  # fmt: skip
    loader = module.val_dataloader()
    assert not isinstance(loader, list)
    seen = [span.document_id for batch in loader for span in batch.provenance]
    assert len(seen) == 20
    assert module.skips.documents == {("bad", "unreadable picture"): 3}
    assert (tmp_path / "skipped.jsonl").read_text().count("broken/1.png") == 1


def test_a_source_of_which_nothing_can_be_used_stops_with_its_reason(world: Path, tokenizer_folder: str) -> None:
    source = SourceConfig("pair_tars", str(world / "pairs.tar"), min_caption_chars=500)
    module = data(world, tokenizer_folder, train={"mine": source}, val={"mine": source})
    with pytest.raises(ConfigError, match=r"data\.train\.mine: none of 20 records can be used \(20 x .* than 500"):
        module.setup("fit")
    # Of a streamed source nobody knows at the start what its shards hold.
    source = replace(source, streaming=True)
    module = data(world, tokenizer_folder, train={"mine": source}, val={"mine": source})
    with pytest.raises(ConfigError, match=r'"mine": no document could be used in 101 epochs.*shorter than 500'):
        next(iter(module.train_dataloader()))
    loader = module.val_dataloader()
    assert not isinstance(loader, list)
    with pytest.raises(ConfigError, match=r'"mine": none of its documents could be used.*shorter than 500'):
        list(loader)


def test_a_source_that_only_chance_leaves_out_is_opened(world: Path, tokenizer_folder: str, tmp_path: Path) -> None:
    write_mmc4(tmp_path / "one.jsonl", [MMC4Document(("A sentence.",), (MMC4Image("0-0.png", 0, 0.3),))])
    source = SourceConfig("mmc4", str(tmp_path / "one.jsonl"), images=str(world / "images"))
    for seed in range(8):
        data(world, tokenizer_folder, train={"mine": source}, seed=seed).setup("fit")


def test_an_empty_first_shard_does_not_stop_a_streamed_source(
    world: Path, tokenizer_folder: str, tmp_path: Path
) -> None:
    write_pair_tar(tmp_path / "0.tar", [])
    shutil.copy(world / "pairs.tar", tmp_path / "1.tar")
    source = SourceConfig("pair_tars", str(tmp_path), streaming=True)
    module = data(world, tokenizer_folder, train={"mine": source})
    assert next(iter(module.train_dataloader())).provenance
    (tmp_path / "1.tar").unlink()
    with pytest.raises(ConfigError, match=r"data\.train\.mine\.path holds no records"):
        data(world, tokenizer_folder, train={"mine": source}).setup("fit")


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"seq_length": 5}, ConfigError, r"data\.seq_length is 5; expected at least 6 \(a picture"),
        ({"batch_size": 0}, ConfigError, r"data\.batch_size is 0"),
        ({"num_workers": -1}, ConfigError, r"data\.num_workers is -1"),
        (
            {"train": {"a": SourceConfig("mmc4", "nowhere/x.jsonl")}},
            FileNotFoundError,
            r"data\.train\.a\.path is nowhere/x\.jsonl, but nowhere/x\.jsonl does not exist; set it",
        ),
        (
            {"val": {"b": SourceConfig("mmc4", "nowhere/{0..3}.jsonl")}},
            FileNotFoundError,
            r"data\.val\.b\.path is nowhere/\{0\.\.3\}\.jsonl, but nowhere does not exist",
        ),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_built(
    settings: dict, error: type[Exception], message: str, world: Path, tokenizer_folder: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        data(world, tokenizer_folder, **settings)
    assert "\n" not in str(caught.value)


def test_a_missing_picture_folder_is_refused(world: Path, tokenizer_folder: str) -> None:
    source = SourceConfig("mmc4", str(world / "mmc4.jsonl"), images="nowhere")
    with pytest.raises(FileNotFoundError, match=r"data\.train\.a\.images is nowhere, which is not a folder"):
        data(world, tokenizer_folder, train={"a": source})


def test_no_training_source_is_told(world: Path, tokenizer_folder: str) -> None:
    source = SourceConfig("mmc4", str(world / "mmc4.jsonl"), weight=0.0)
    with pytest.raises(ConfigError, match="no source with a weight above 0"):
        data(world, tokenizer_folder, train={"a": source}).train_dataloader()


def test_sizes_that_do_not_fit_the_network_are_told(world: Path, tokenizer_folder: str) -> None:
    from factories import tiny_config

    config = tiny_config()
    module = data(world, tokenizer_folder, image_size=32, target_size=32)
    vocabulary = module.tokenizer.vocab_size
    config = replace(config, language=replace(config.language, vocab_size=vocabulary))
    module.check_network(config)
    with pytest.raises(ConfigError, match=r"data\.tokens_per_image is 4 but the network is built for 3"):
        data(world, tokenizer_folder, image_size=32, target_size=32, tokens_per_image=4).check_network(config)
    without = replace(config, image_decoder=replace(config.image_decoder, enabled=False))
    data(world, tokenizer_folder, image_size=32, target_size=None).check_network(without)
    with pytest.raises(ConfigError, match=r"the tokenizer's vocabulary is \d+ but"):
        module.check_network(tiny_config())


def test_the_command_line_parser_builds_it_from_plain_types(world: Path, tokenizer_folder: str) -> None:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(InterleavedDataModule, "data")
    tree = {
        "tokenizer": tokenizer_folder,
        "train": {"web": {"format": "mmc4", "path": [str(world / "mmc4.jsonl")], "max_images": 4}},
        "seq_length": 96,
        "tokens_per_image": 3,
    }
    made = parser.instantiate_classes(parser.parse_object({"data": tree}))
    assert made.data.source_names == ("web",)
    with pytest.raises(Exception, match="max_image"):
        parser.parse_object({"data": tree | {"train": {"web": {"format": "mmc4", "path": "x", "max_image": 4}}}})


def test_real_photographs_pass_through_without_a_skip(tokenizer_folder: str) -> None:
    photos = shared_path("evaldata/photos/coco_captions.json")
    val = {
        "photos": SourceConfig("coco_captions", str(photos), images=str(photos.parent / "coco")),
        "tar": SourceConfig("pair_tars", str(shared_path("evaldata/formats/webdataset_sample_00000.tar"))),
    }
    module = InterleavedDataModule(
        tokenizer_folder, {}, val, seq_length=256, image_size=28, target_size=32, tokens_per_image=4
    )
    loader = module.val_dataloader()
    assert not isinstance(loader, list)
    batches = list(loader)
    assert sum(batch.n_images for batch in batches) == sum(len(batch.provenance) for batch in batches) == 10
    assert "Nothing was skipped" in module.skips.summary()
