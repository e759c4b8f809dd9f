"""A real network under a real trainer: what is learned, logged and saved, and going on as if never stopped."""

from __future__ import annotations

import csv
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from factories import batch, tiny_config
from toy_training import StepLosses, ToyData, run_config, toy_batch, toy_module, toy_trainer

from mmi.checkpoints.run_folder import RunFolder
from mmi.checkpoints.storage import CheckpointError, read_manifest, read_state, read_tensors
from mmi.config import ConfigError, LossConfig, NetworkConfig, ResamplerConfig
from mmi.training.optimizer import OptimizerConfig
from mmi.training.run import make_callbacks, make_loggers

STEPS = 6


def network() -> NetworkConfig:
    """A network with dropout, so that a resumed run must draw the same random numbers."""
    config = tiny_config()
    resampler = ResamplerConfig(n_tokens=3, d_model=32, n_layers=1, n_heads=4, d_mlp=48, dropout=0.2)
    return replace(config, vision=replace(config.vision, resampler=resampler))


def fit(
    folder: Path, steps: int, *, checkpoint: str | None = None, save_every: int = 2, **settings
) -> dict[int, float]:
    """Train in a run folder and return the loss of every step."""
    config = run_config(folder, save_every=save_every)
    run = RunFolder(config.path)
    losses = StepLosses()
    trainer = toy_trainer(
        [losses, *make_callbacks(config, run)], steps, make_loggers(config, run), val_check_interval=3, **settings
    )
    path = run.find_checkpoint(checkpoint) if checkpoint else None
    trainer.fit(toy_module(network()), ToyData(), ckpt_path=path)
    return losses.by_step


def rows(folder: Path) -> list[dict[str, str]]:
    with open(RunFolder(folder / "toy").metrics_file, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, float]]:
    """An uninterrupted run: its folder and its losses."""
    folder = tmp_path_factory.mktemp("runs")
    return folder, fit(folder, STEPS)


@pytest.mark.parametrize("stop", [5, 3], ids=["saved-at-the-end", "saved-after-validation"])
def test_a_resumed_run_takes_the_same_steps_as_one_never_stopped(finished, tmp_path: Path, stop: int) -> None:
    _, uninterrupted = finished
    first = fit(tmp_path, stop)
    second = fit(tmp_path, STEPS, checkpoint="last")
    assert list(second) == list(range(stop + 1, STEPS + 1))
    assert first | second == uninterrupted
    assert [int(row["step"]) for row in rows(tmp_path)] == list(range(1, STEPS + 1))


def test_resuming_from_an_earlier_checkpoint_replaces_what_was_logged_after_it(finished, tmp_path: Path) -> None:
    folder, uninterrupted = finished
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    assert fit(tmp_path, 5, checkpoint="step-4") == {5: uninterrupted[5]}
    assert [int(row["step"]) for row in rows(tmp_path)] == list(range(1, 6))


def test_resuming_between_accumulated_steps_draws_the_same(tmp_path: Path) -> None:
    whole = fit(tmp_path, 2, save_every=1, accumulate_grad_batches=2)
    assert [int(row["step"]) for row in rows(tmp_path)] == [1, 2]
    rest = fit(tmp_path, 2, checkpoint="step-1", save_every=1, accumulate_grad_batches=2)
    assert rest[2] == whole[2]
    assert [int(row["step"]) for row in rows(tmp_path)] == [1, 2]


def test_the_kept_checkpoints_are_last_best_and_the_newest_steps(finished) -> None:
    folder = RunFolder(finished[0] / "toy")
    steps = {path.name: read_manifest(path).step for path in folder.checkpoints.iterdir()}
    best = steps.pop("best")
    assert steps == {"last": 6, "step-4": 4, "step-6": 6}
    scores = {int(row["step"]): float(row["val/loss"]) for row in rows(finished[0]) if row["val/loss"]}
    assert scores[best] == min(scores.values())
    assert read_manifest(folder.checkpoints / "best").metrics["val/loss"] == pytest.approx(scores[best])


def test_a_checkpoint_holds_the_network_under_its_own_names_and_the_batch_consumed(finished) -> None:
    place = RunFolder(finished[0] / "toy").checkpoints / "step-4"
    assert read_tensors(place).keys() == toy_module(network()).network.state_dict().keys()
    state = read_state(place)
    # Lightning has fetched a fifth batch by then.
    assert state["trainer"]["ToyData"] == {"consumed": 4}
    assert set(state) == {"optimizer", "loops", "random", "trainer"}


def test_every_logged_step_is_one_row_with_all_that_is_known_about_it(finished) -> None:
    table = rows(finished[0])
    assert [int(row["step"]) for row in table] == list(range(1, STEPS + 1))
    for row in table:
        for name in (
            "train/loss", "train/loss_text", "train/loss_image", "train/loss_text/pairs", "train/loss_text/texts",
            "train/accuracy_text", "train/fill", "train/tokens_per_second", "train/images_per_second",
            "train/gradient_norm", "train/loss_image/visible_0", "gate/language_model.layers.0.mmfs", "lr/gates",
            "lr/unet",
        ):  # fmt: skip
            assert math.isfinite(float(row[name])), name
        parts = float(row["train/loss_text"]) + 10 * float(row["train/loss_image"])
        assert float(row["train/loss"]) == pytest.approx(parts, rel=1e-5)
    assert [bool(row["val/loss"]) for row in table] == [False, False, True, False, False, True]
    bins = [name for name in table[0] if name.startswith("train/loss_image/t")]
    assert all(sum(bool(row[name]) for name in bins) == 1 for row in table)


def test_training_lowers_the_loss_on_a_repeated_batch() -> None:
    losses = StepLosses()
    trainer = toy_trainer([losses], 20, enable_checkpointing=False)
    trainer.fit(toy_module(loss=LossConfig(image_weight=1.0)), ToyData(0, lambda number: toy_batch(0)))
    assert losses.by_step[20] < 0.85 * losses.by_step[1]


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_half_precision_with_clipping_trains(precision: str) -> None:
    losses = StepLosses()
    trainer = toy_trainer([losses], 2, enable_checkpointing=False, precision=precision, val_check_interval=2)
    trainer.fit(toy_module(), ToyData())
    assert all(5 < loss < 15 for loss in losses.by_step.values())
    assert math.isfinite(trainer.callback_metrics["val/loss"])


@pytest.mark.parametrize("what", ["no-labels", "no-images", "nothing", "only-fillers"])
def test_a_batch_with_nothing_to_learn_is_no_mistake(what: str) -> None:
    made = toy_batch(0)
    none = torch.zeros(0, dtype=torch.long)
    if what in ("no-labels", "nothing"):
        made = replace(made, labels=torch.full_like(made.labels, -100))
    if what in ("no-images", "nothing"):
        pixels = made.images[:0]
        made = replace(
            made, images=pixels, target_images=pixels, image_row=none, image_start=none, image_loss=none.bool()
        )
    if what == "only-fillers":
        made = replace(made, row_weight=torch.zeros(2))

    losses = StepLosses()
    module = toy_module()
    toy_trainer([losses], 2, enable_checkpointing=False).fit(module, ToyData(0, lambda number: made))
    assert all(math.isfinite(loss) for loss in losses.by_step.values())
    assert (losses.by_step[1] == 0.0) == (what in ("nothing", "only-fillers"))
    assert all(bool(p.isfinite().all()) for p in module.parameters())


def test_a_cosine_in_a_run_that_only_the_clock_ends_is_refused() -> None:
    module = toy_module()
    module.optimizer_config = OptimizerConfig(warmup_steps=1)
    trainer = toy_trainer([], -1, max_epochs=1, max_time="00:00:01:00")
    with pytest.raises(ConfigError, match=r"needs to know its end; set trainer\.max_steps, or schedule: constant\."):
        trainer.fit(module, ToyData())


def test_validation_repeats_itself_and_leaves_out_what_is_random() -> None:
    module = toy_module(network())
    trainer = toy_trainer([], 1, enable_checkpointing=False)
    visits = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        trainer.validate(module, ToyData(n_val=3), verbose=False)
        visits.append({name: float(value) for name, value in trainer.callback_metrics.items()})
    assert visits[0] == visits[1]
    assert {"val/loss", "val/loss_text", "val/loss_image", "val/accuracy_text"} <= visits[0].keys()


def test_validation_does_not_depend_on_the_batch_size() -> None:
    documents = [[("red", 1, "hat", 2)], [("two", 3, "cat")], [("far", 4)]]
    values = []
    for batches in ([documents], [[row] for row in documents]):
        made = [batch(rows, length=18) for rows in batches]
        data = ToyData(len(made), made.__getitem__)
        trainer = toy_trainer([], 1)
        (found,) = trainer.validate(toy_module(), data, verbose=False)
        values.append(found)
    assert values[1] == pytest.approx(values[0], rel=1e-5)


def test_an_image_loss_of_weight_zero_is_neither_computed_nor_trained() -> None:
    module = toy_module(loss=LossConfig(image_weight=0.0))
    before = {name: p.clone() for name, p in module.network.image_decoder.named_parameters()}
    trainer = toy_trainer([], 2, enable_checkpointing=False, val_check_interval=2)
    trainer.fit(module, ToyData())
    assert "val/loss_image" not in trainer.callback_metrics
    assert all(torch.equal(p, before[name]) for name, p in module.network.image_decoder.named_parameters())


def test_a_text_loss_of_weight_zero_leaves_the_text_head_alone() -> None:
    module = toy_module(loss=LossConfig(text_weight=0.0))
    before = module.network.language_model.text_head.new_weight.clone()
    toy_trainer([], 2, enable_checkpointing=False).fit(module, ToyData(n_val=0))
    assert torch.equal(module.network.language_model.text_head.new_weight, before)


def test_prediction_scores_every_document() -> None:
    batches = toy_trainer([], 1, enable_checkpointing=False).predict(toy_module(), ToyData())
    scores = [score for scores in batches for score in scores]
    assert [(s.document_id, s.source) for s in scores] == [
        ("a0", "pairs"), ("b0", "texts"), ("a1", "pairs"), ("b1", "texts")
    ]  # fmt: skip
    assert all(s.loss > 0 and s.n_labels > 0 for s in scores)


def test_a_checkpoint_of_another_architecture_or_grouping_is_refused_in_one_sentence(finished) -> None:
    path = RunFolder(finished[0] / "toy").find_checkpoint("last")
    with pytest.raises(CheckpointError, match=r"does not fit model\.network") as caught:
        toy_trainer([], 9, enable_checkpointing=False).fit(toy_module(tiny_config()), ToyData(), ckpt_path=path)
    assert "\n" not in str(caught.value)
    frozen = toy_module(network())
    frozen.network.visual_tokenizer.requires_grad_(False)
    with pytest.raises(CheckpointError, match=r"other parameter groups \(.*vision_trunk"):
        toy_trainer([], 9, enable_checkpointing=False).fit(frozen, ToyData(), ckpt_path=path)
