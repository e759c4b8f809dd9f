"""SPEC Appendix A through the whole network: two packed pairs, one of which opens with its image."""

from __future__ import annotations

import pytest
import torch
from factories import batch, tiny_config, wake_up

from mmi.config import LossConfig, Preset
from mmi.models.build import build_network
from mmi.models.noise import DiffusionDraws
from mmi.training.loss import count_terms, weigh


@pytest.mark.parametrize(("preset", "divided_by"), [("official", 2), ("corrected", 1)])
def test_appendix_a_labels_image_mask_and_normalisation(preset: Preset, divided_by: int) -> None:
    torch.manual_seed(0)
    network = build_network(tiny_config(n_tokens=2), preset).eval()
    wake_up(network)
    data = batch([[("ab", 0), (1, "cd")]], n_tokens=2, length=15)
    assert data.image_start.tolist() == [3, 8]
    assert network.image_decoder is not None
    draws = DiffusionDraws.create(0, 0, 0, 2, network.image_decoder.latent_shape, 1000, 0.0)
    output = network(data, draws)
    assert output.text_position.tolist() == [1, 2, 3, 6, 11, 12, 13]
    assert output.image_index.tolist() == [0]
    assert output.n_visible.tolist() == [0]
    loss = weigh(output, LossConfig(), count_terms(output), image_denominator=preset)
    assert loss.image.item() == pytest.approx(output.image_loss.item() / divided_by)
    assert loss.text.item() == pytest.approx(output.text_loss.mean().item())
    assert loss.total.item() == pytest.approx(loss.text.item() + 10 * loss.image.item(), rel=1e-5)
