"""Condition, U-Net with MMFS, masked image loss, text loss, total loss and gradients against plain loops in float64.

Three models: the tiny official checkpoint; one with other widths, two levels, 128 px and v-prediction; and that one
with two U-Net blocks. Rows hold 3, 0 and 3 images, and one starts in the middle of a document.
"""

from __future__ import annotations

import pytest
import torch
from plain_decoder import ParityCase
from second_model import SECOND, SHALLOW, second_network
from tiny_official import BOS, tiny_network

from mmi.config import LossConfig, Preset
from mmi.models.visibility import context_starts, gather_contexts
from mmi.training.loss import count_terms, weigh


@pytest.fixture(scope="module", params=["tiny official", "second", "second, shallow"])
def case(request: pytest.FixtureRequest) -> ParityCase:
    if request.param == "tiny official":
        return ParityCase.of(tiny_network())
    return ParityCase.of(second_network(config=SECOND if request.param == "second" else SHALLOW))


def test_the_rows_are_the_wanted_ones(case: ParityCase) -> None:
    assert torch.bincount(case.batch.image_row, minlength=3).tolist() == [3, 0, 3]
    assert case.rows[2][0] != BOS
    n = case.network.config.tokens_per_image
    assert [len(place.context) for place in case.places] == [4, 6 + n, 2, 1, n + 4, 4]
    assert [place.previous for place in case.places] == [None, 0, None, None, 3, None]


@torch.no_grad()
def test_contexts_are_chosen_reversed_and_resampled_as_the_formula_says(case: ParityCase) -> None:
    batch = case.batch
    hidden, _ = case.network.encode(batch, case.network.visual_tokenizer(batch.images))
    begin = context_starts(batch.text_ids, batch.image_row, batch.image_start, bos_token_id=BOS)
    contexts, mask = gather_contexts(hidden, batch.image_row, batch.image_start, begin)
    for image, place in enumerate(case.places):
        assert torch.equal(contexts[image][mask[image]], hidden[place.row][place.context])
    ours = case.decoder.condition(contexts, mask)
    torch.testing.assert_close(ours, torch.stack(case.conditions(hidden)), rtol=1e-6, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("image", [1, 2], ids=["sees a previous image", "sees none"])
def test_the_unet_predicts_as_the_librarys_with_the_formula_of_mmfs_in_it(case: ParityCase, image: int) -> None:
    pyramid = case.network.visual_tokenizer(case.batch.images).pyramid
    previous = case.places[image].previous
    table = torch.tensor([[-1 if previous is None else previous]])
    look = case.decoder.look_at(pyramid, table, table >= 0)
    noise = case.draws.noise[image].double()
    shape = case.decoder.unconditional.shape[1:]
    tokens = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    time = int(case.draws.timesteps[image])
    ours = case.decoder.unet(noise[None], torch.tensor([time]), tokens[None], look)[0]
    expected = case.unet()(noise, time, tokens, case.additions(pyramid, previous))
    assert expected.std() > 0.01
    # The position tables are float32.
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


def test_losses_and_the_gradient_of_every_parameter_are_those_of_the_formulas(case: ParityCase) -> None:
    output = case.network(case.batch, case.draws)
    assert output.image_index.tolist() == [0, 1, 4, 5], "images with at most two tokens of context have no loss"
    ours = weigh(output, LossConfig(), count_terms(output), image_denominator="official")
    text, image = case.losses()
    assert ours.text.item() == pytest.approx(text.item(), rel=1e-6)
    assert ours.image.item() == pytest.approx(image.item(), rel=1e-5)
    total = text + 10 * image
    assert ours.total.item() == pytest.approx(total.item(), rel=1e-5)

    found, expected = case.gradients(ours.total), case.gradients(total)
    overall = torch.stack([g.norm() for g in expected.values()]).norm()
    for name, gradient in expected.items():
        error = (found[name] - gradient).norm()
        assert error <= 2e-4 * gradient.norm() + 1e-7 * overall, f"{name}: {error:.2g} of {gradient.norm():.2g}"
    assert sum(bool(g.any()) for g in expected.values()) > 0.95 * len(expected)


@torch.no_grad()
@pytest.mark.parametrize(("preset", "denominator"), [("official", 6), ("corrected", 4)])
def test_masked_images_stay_in_the_official_denominator(case: ParityCase, preset: Preset, denominator: int) -> None:
    output = case.network(case.batch, case.draws)
    loss = weigh(output, LossConfig(), count_terms(output), image_denominator=preset)
    assert loss.image.item() == pytest.approx(output.image_loss.sum().item() / denominator)


@torch.no_grad()
def test_float32_stays_close_to_float64(case: ParityCase) -> None:
    wide = case.network(case.batch, case.draws)
    narrow = case.network.float()(case.batch, case.draws)
    case.network.double()
    torch.testing.assert_close(narrow.text_loss, wide.text_loss.float(), rtol=0, atol=1e-4)
    torch.testing.assert_close(narrow.image_loss, wide.image_loss.float(), rtol=1e-4, atol=0)


@torch.no_grad()
def test_documents_of_a_packed_row_attend_to_each_other_only_officially() -> None:
    joined, apart = (ParityCase.of(second_network(preset)) for preset in ("official", "corrected"))
    first, second = (case.network(case.batch, case.draws).text_loss for case in (joined, apart))
    labels_in_first_documents = 4
    torch.testing.assert_close(first[:labels_in_first_documents], second[:labels_in_first_documents])
    assert (first - second).abs().max() > 1e-4
