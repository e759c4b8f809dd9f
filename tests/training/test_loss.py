"""Weighing: means over a micro-batch on any number of ranks, exact zeros, nothing computed for a weight of zero."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from factories import batch

from mmi.config import LossConfig
from mmi.models.output import NetworkOutput
from mmi.training.loss import count_terms, touch, weigh, without_losses


def output(text: list[float], image: list[float], *, n_image_loss: int | None = None, n_images: int = 0):
    def long(values: list[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.long)

    text_loss = torch.tensor(text, requires_grad=True)
    image_loss = torch.tensor(image, requires_grad=True)
    return NetworkOutput(
        text_loss=text_loss,
        text_correct=torch.zeros(len(text), dtype=torch.bool),
        text_row=long([0] * len(text)),
        text_position=long(list(range(len(text)))),
        image_loss=image_loss,
        image_index=long(list(range(len(image)))),
        timesteps=long([0] * len(image)),
        n_visible=long([0] * len(image)),
        n_image_loss=torch.tensor(len(image) if n_image_loss is None else n_image_loss),
        n_images=torch.tensor(n_images or len(image)),
        n_hidden=torch.tensor(0),
    )


def alone(out: NetworkOutput, config: LossConfig | None = None, denominator="corrected"):
    return weigh(out, config or LossConfig(), count_terms(out), image_denominator=denominator)


def test_the_total_is_the_weighted_sum_of_both_means() -> None:
    loss = alone(output([1.0, 3.0], [0.5]))
    assert (loss.text.item(), loss.image.item(), loss.total.item()) == (2.0, 0.5, 1.0 * 2.0 + 10.0 * 0.5)


def test_a_step_without_labels_and_images_is_exactly_zero_and_has_a_graph() -> None:
    out = output([], [])
    loss = alone(out)
    assert float(loss.total.detach()) == 0.0
    loss.total.backward()
    assert out.text_loss.grad is not None


@pytest.mark.parametrize(("denominator", "expected"), [("corrected", 1.0), ("official", 0.5)])
def test_the_official_image_loss_divides_by_images_without_a_loss_too(denominator, expected: float) -> None:
    assert float(alone(output([], [0.5, 1.5], n_images=4), denominator=denominator).image) == expected


def test_images_left_out_to_save_time_are_stood_for_by_the_others() -> None:
    everything = output([], [1.0, 2.0, 3.0, 6.0])
    pairs = [output([], [a, b], n_image_loss=4, n_images=4) for a in (1.0, 2.0) for b in (3.0, 6.0)]
    estimates = [float(alone(pair).image) for pair in pairs]
    assert sum(estimates) / len(estimates) == float(alone(everything).image) == 3.0


def test_two_ranks_give_the_loss_and_gradients_of_one_process() -> None:
    parts = [output([1.0, 2.0, 6.0], [0.25]), output([4.0], [0.5, 1.0, 0.75])]
    whole = output([1.0, 2.0, 6.0, 4.0], [0.25, 0.5, 1.0, 0.75])
    counts = sum(count_terms(part) for part in parts)
    shares = [weigh(part, LossConfig(), counts, image_denominator="corrected").total for part in parts]
    together = alone(whole).total
    average = sum(shares) / 2  # what gradient averaging does
    torch.testing.assert_close(average, together)
    average.backward()
    together.backward()
    for name in ("text_loss", "image_loss"):
        torch.testing.assert_close(torch.cat([getattr(part, name).grad for part in parts]), getattr(whole, name).grad)


def test_a_rank_without_images_does_not_change_what_the_others_weigh() -> None:
    parts = [output([1.0], [0.5, 1.5]), output([1.0], [])]
    counts = sum(count_terms(part) for part in parts)
    images = [weigh(p, LossConfig(), counts, image_denominator="corrected").image for p in parts]
    assert float(sum(images) / 2) == 1.0


def test_a_loss_of_weight_zero_cannot_poison_the_total() -> None:
    assert alone(output([1.0], [float("inf")]), LossConfig(image_weight=0.0)).total.item() == 1.0
    assert alone(output([float("nan")], [0.5]), LossConfig(text_weight=0.0)).total.item() == 5.0


def test_rows_that_only_fill_a_step_have_no_loss() -> None:
    rows = batch([[("a", 1)], [("b", 2)]])
    filled = without_losses(replace(rows, row_weight=torch.tensor([1.0, 0.0])))
    assert bool((filled.labels[1] == -100).all())
    assert torch.equal(filled.labels[0], rows.labels[0])
    assert filled.image_loss.tolist() == [True, False]
    assert without_losses(rows) is rows
    assert bool((without_losses(rows, text=False).labels == -100).all())


def test_touching_nothing_is_zero() -> None:
    assert torch.equal(touch([]), torch.zeros(()))


def test_touching_gives_every_parameter_a_zero_gradient_whatever_its_value() -> None:
    parameters = [torch.nn.Parameter(torch.tensor(float("nan"))), torch.nn.Parameter(torch.full((2, 3), float("inf")))]
    zero = touch(parameters)
    assert float(zero.detach()) == 0.0
    zero.backward()
    for parameter in parameters:
        assert torch.equal(parameter.grad, torch.zeros_like(parameter))
