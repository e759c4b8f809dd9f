"""Batches accumulated in a step weigh what they would weigh in one large batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from factories import batch, wake_up
from lightning.pytorch.callbacks import Callback
from toy_training import ToyData, toy_module, toy_trainer

from mmi.batch import InterleavedBatch
from mmi.commands.settings import _trainer_settings
from mmi.config import ConfigError
from mmi.data.whole_steps import WholeSteps, counted_steps
from mmi.training.loss import count_terms, without_losses
from mmi.training.run import RunConfig


def all_rows() -> InterleavedBatch:
    """Eight rows: many labels and two pictures, few labels, none at all, pictures without a loss, a filler."""
    documents = [("red", 1, "hat is red", 2, "far"), ("a",), ("two cats and a hat", 3), ("b",), (4, "c"), ("sun",)]
    made = batch([*([document] for document in documents), [("blue", 5)], [("green", 6, "and blue")]])
    labels = made.labels.clone()
    labels[[3, 4]] = -100
    image_loss = made.image_loss.clone()
    image_loss[2] = False
    weights = torch.tensor([1.0] * 7 + [0.0])
    return replace(made, labels=labels, image_loss=image_loss, row_weight=weights)


def rows_of(whole: InterleavedBatch, first: int, stop: int) -> InterleavedBatch:
    here = (whole.image_row >= first) & (whole.image_row < stop)
    rows = slice(first, stop)
    assert whole.target_images is not None
    assert whole.row_weight is not None
    return replace(
        whole,
        **{name: getattr(whole, name)[rows] for name in ("text_ids", "labels", "attention_mask", "document_ids")},
        position_ids=whole.position_ids[rows],
        row_weight=whole.row_weight[rows],
        **{name: getattr(whole, name)[here] for name in ("images", "target_images", "image_start", "image_loss")},
        image_row=whole.image_row[here] - first,
    )


class Gradients(Callback):
    """Keep the gradients of every step."""

    def __init__(self) -> None:
        self.by_step: list[dict[str, torch.Tensor]] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        named = pl_module.network.named_parameters()
        self.by_step.append({name: p.grad.clone() for name, p in named if p.grad is not None})


class Epoch:
    """The first batches and then no more."""

    def __init__(self, make: Callable[[int], InterleavedBatch], n: int) -> None:
        self.make, self.n = make, n

    def __iter__(self) -> Iterator[InterleavedBatch]:
        return map(self.make, range(self.n))


class EpochData(ToyData):
    def __init__(self, make: Callable[[int], InterleavedBatch], n: int) -> None:
        super().__init__(0)
        self.epoch = Epoch(make, n)

    def train_dataloader(self) -> Any:
        assert self.trainer is not None
        return WholeSteps(self.epoch, self.trainer)

    def note_consumed(self, batch: InterleavedBatch) -> None:
        pass


def gradients(n_batches: int, n_rows: int, accumulated: int, **settings: Any) -> tuple[list[dict], list[float]]:
    """Train on the first batches of so many rows for one epoch; return gradients, and the logged losses."""
    seen, whole = Gradients(), all_rows()
    module = toy_module()
    wake_up(module.network)
    logged: list[float] = []
    module._write = lambda values: logged.append(values["train/loss"])  # pyright: ignore[reportAttributeAccessIssue]
    trainer = toy_trainer([seen], -1, max_epochs=1, accumulate_grad_batches=accumulated, **settings)
    data = EpochData(lambda number: rows_of(whole, number * n_rows, (number + 1) * n_rows), n_batches)
    trainer.fit(module, data)
    return seen.by_step, logged


def assert_same(found: list[dict], expected: list[dict]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        # A batch without pictures leaves their parameters without a gradient, which is zero.
        for name in {**one, **other}:
            some = one[name] if name in one else other[name]
            zero = torch.zeros_like(some)
            torch.testing.assert_close(one.get(name, zero), other.get(name, zero), rtol=2e-4, atol=2e-6, msg=name)


@pytest.fixture(scope="module")
def in_one() -> tuple[list[dict], list[float]]:
    """Gradient and loss of all eight rows at once."""
    return gradients(1, 8, 1)


@pytest.mark.parametrize(
    ("n_batches", "accumulated"), [(8, 8), (2, 2), (2, 3)], ids=["eight", "two", "two-of-three-at-the-end"]
)
def test_accumulated_batches_give_the_gradient_and_loss_of_one_large_batch(
    in_one, n_batches: int, accumulated: int
) -> None:
    found, losses = gradients(n_batches, 8 // n_batches, accumulated)
    assert_same(found, in_one[0])
    assert losses == pytest.approx(in_one[1], rel=1e-5)


def test_what_is_counted_ahead_is_what_the_network_counts() -> None:
    module, whole = toy_module(), all_rows()
    for made in (whole, rows_of(whole, 1, 2), rows_of(whole, 3, 5), rows_of(whole, 7, 8)):
        output = module.network(without_losses(made), None)
        assert module.count_terms(made).tolist() == count_terms(output).tolist()


def test_batches_know_their_whole_step_and_are_read_evenly() -> None:
    whole, read = all_rows(), []

    def rows() -> Iterator[InterleavedBatch]:
        for number in range(5):
            read.append(number)
            yield rows_of(whole, number, number + 1)

    def count(made: InterleavedBatch) -> torch.Tensor:
        return torch.tensor([made.n_images, 1])

    found, when = [], []
    for made in counted_steps(rows(), 2, count):
        assert made.step_terms is not None
        found.append(made.step_terms.tolist())
        when.append(len(read))
    assert found == [[2, 2], [2, 2], [1, 2], [1, 2], [1, 1]]
    assert when == [2, 3, 4, 5, 5]


def test_a_loader_that_does_not_look_ahead_is_refused() -> None:
    data = ToyData(0)
    data.train_dataloader = lambda: Epoch(lambda number: rows_of(all_rows(), 0, 1), 2)
    with pytest.raises(RuntimeError, match=r"a batch does not know what is in the others of its step"):
        toy_trainer([], 1, accumulate_grad_batches=2).fit(toy_module(), data)


@pytest.mark.parametrize("name", ["val_check_interval", "limit_train_batches"])
def test_a_step_cut_in_two_is_refused(name: str) -> None:
    given = {"max_steps": 4, "accumulate_grad_batches": 2, name: 5}
    said = rf"trainer.{name} is 5 batches, which cuts an optimizer step .* multiple of 2"
    with pytest.raises(ConfigError, match=said):
        _trainer_settings(given, RunConfig(), has_validation=True)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"max_time": "00:01:00:00"},
            r"trainer\.max_time can end a run inside an optimizer step .* set trainer\.max_steps",
        ),
        ({"val_check_interval": "00:00:10:00"}, r"val_check_interval is a time, .* multiple of 2\."),
        (
            {"max_epochs": 2},
            r"trainer\.max_epochs is 2 and data\.stop ends each epoch, .* to 1, or data\.stop to never",
        ),
        ({"max_epochs": -1}, r"trainer\.max_epochs is -1 "),
    ],
    ids=["max-time", "validation-by-time", "epochs", "endless-epochs"],
)
def test_what_can_end_or_save_inside_a_step_is_refused(given: dict[str, Any], said: str) -> None:
    settings: dict[str, Any] = {"has_validation": True, "data_ends": "max_epochs" in given}
    with pytest.raises(ConfigError, match=said) as caught:
        _trainer_settings({"accumulate_grad_batches": 2, **given}, RunConfig(), **settings)
    assert "\n" not in str(caught.value)
    _trainer_settings({"accumulate_grad_batches": 1, **given}, RunConfig(), **settings)
    if "max_epochs" in given:
        _trainer_settings({"accumulate_grad_batches": 2, **given}, RunConfig(), has_validation=True)
