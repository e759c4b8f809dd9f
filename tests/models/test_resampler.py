from dataclasses import replace

import pytest
import torch
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from mmi.checkpoints.official_vision import RESAMPLER_KEYS
from mmi.config import ResamplerConfig
from mmi.models.resampler import Resampler

SMALL = ResamplerConfig(n_tokens=5, d_model=24, n_layers=3, n_heads=3, d_mlp=32, cross_attention_every=2, dropout=0.0)


def build(config=SMALL, seed=0):
    torch.manual_seed(seed)
    return Resampler(config, d_input=10).eval()


def louder(resampler):
    """Scale the linear layers up, so that differences are far above rounding."""
    with torch.no_grad():
        for module in resampler.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.mul_(10)
    return resampler


@pytest.mark.parametrize("qk_norm", [True, False])
@pytest.mark.parametrize("n_inputs", [1, 7, 50])
def test_any_number_of_inputs_becomes_the_same_number_of_tokens(n_inputs, qk_norm):
    assert build(replace(SMALL, qk_norm=qk_norm))(torch.randn(2, n_inputs, 10)).shape == (2, 5, 24)


@pytest.mark.parametrize(("every", "expected"), [(1, [0, 1, 2]), (2, [0, 2]), (5, [0])])
def test_layers_with_cross_attention(every, expected):
    layers = build(replace(SMALL, cross_attention_every=every)).layers
    assert [index for index, layer in enumerate(layers) if layer.cross_attention is not None] == expected


def test_masked_inputs_do_not_matter():
    resampler = louder(build())
    inputs = torch.randn(2, 6, 10)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]]).bool()
    masked = resampler(inputs, mask)
    torch.testing.assert_close(masked[:1], resampler(inputs[:1, :4]))
    changed = inputs.clone()
    changed[0, 4:] = 100.0
    torch.testing.assert_close(resampler(changed, mask), masked)
    assert not torch.allclose(resampler(changed), resampler(inputs))


def test_the_order_of_inputs_does_not_matter():
    resampler = louder(build())
    inputs = torch.randn(1, 6, 10)
    torch.testing.assert_close(resampler(inputs.flip(1)), resampler(inputs))


def test_output_depends_on_the_picture_only_if_it_is_read():
    first, second = torch.randn(1, 6, 10), torch.randn(1, 6, 10)
    reading = louder(build())
    assert not torch.allclose(reading(first), reading(second))
    blind = louder(build(replace(SMALL, read_input=False)))
    assert torch.equal(blind(first), blind(second))
    assert all(layer.cross_attention is None for layer in blind.layers)


def test_head_norm_changes_the_computation():
    config = replace(SMALL, qk_norm=False)
    plain, normed = louder(build(config)), louder(build())
    plain.load_state_dict(
        {k: v for k, v in normed.state_dict().items() if "query_norm" not in k and "key_norm" not in k}
    )
    inputs = torch.randn(1, 6, 10)
    assert not torch.allclose(plain(inputs), normed(inputs))


def test_no_pictures_give_no_tokens_and_zero_gradients():
    resampler = build().train()
    tokens = resampler(torch.zeros(0, 6, 10), torch.ones(0, 6, dtype=torch.bool))
    assert tokens.shape == (0, 5, 24)
    tokens.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in resampler.parameters())


def test_dropout_acts_in_training_only():
    resampler = build(replace(SMALL, dropout=0.5))
    inputs = torch.randn(1, 6, 10)
    assert torch.equal(resampler(inputs), resampler(inputs))
    resampler.train()
    assert not torch.equal(resampler(inputs), resampler(inputs))


def test_equals_the_librarys_q_former():
    """The same computation as the published Q-Former, apart from its head norms, which it does not have."""
    torch.manual_seed(0)
    theirs = Blip2QFormerModel(
        Blip2QFormerConfig(
            hidden_size=24, num_hidden_layers=3, num_attention_heads=3, intermediate_size=32, encoder_hidden_size=10,
            cross_attention_frequency=2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )
    ).eval()  # fmt: skip
    ours = build(replace(SMALL, qk_norm=False))
    state = {RESAMPLER_KEYS.ours(f"blip2qformer.{key}"): value for key, value in theirs.state_dict().items()}
    ours.load_state_dict({"queries": ours.queries.detach()} | state)
    inputs = torch.randn(2, 6, 10)
    mask = torch.tensor([[1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]]).bool()
    expected = theirs(
        query_embeds=ours.queries.expand(2, -1, -1), encoder_hidden_states=inputs, encoder_attention_mask=mask.long()
    ).last_hidden_state
    torch.testing.assert_close(ours(inputs, mask), expected, rtol=0, atol=1e-5)
