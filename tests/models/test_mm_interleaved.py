"""Properties of the whole network on tiny random weights."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from factories import batch, tiny_config, wake_up

from mmi.batch import InterleavedBatch
from mmi.config import MMFSConfig, NetworkConfig
from mmi.models.build import build_network
from mmi.models.mm_interleaved import MMInterleaved
from mmi.models.noise import DiffusionDraws
from mmi.models.output import NetworkOutput

FIRST = ("ab", 1, "cd", 2, "e")
SECOND = (3, "xy", 4)


@cache
def network(config: NetworkConfig | None = None, compat: str = "corrected") -> MMInterleaved:
    torch.manual_seed(0)
    built = build_network(config or tiny_config(), compat).eval()
    wake_up(built)
    return built


def draws(net: MMInterleaved, n: int, first: int = 0) -> DiffusionDraws:
    assert net.image_decoder is not None
    return DiffusionDraws.create(0, 0, first, n, net.image_decoder.latent_shape, 1000, 0.0)


def run(net: MMInterleaved, data: InterleavedBatch, first_draw: int = 0) -> NetworkOutput:
    with torch.no_grad():
        return net(data, draws(net, data.n_images, first_draw))


def test_a_document_gets_the_same_losses_alone_and_packed_behind_another() -> None:
    net = network()
    packed, second = run(net, batch([[FIRST, SECOND]])), run(net, batch([[SECOND]]), first_draw=2)
    n = len(second.text_loss)
    torch.testing.assert_close(packed.text_loss[-n:], second.text_loss)
    torch.testing.assert_close(packed.image_loss[-1:], second.image_loss)


def test_packed_documents_influence_each_other_under_official_compat() -> None:
    net = network(compat="official")
    packed, second = run(net, batch([[FIRST, SECOND]])), run(net, batch([[SECOND]]), first_draw=2)
    assert not torch.allclose(packed.text_loss[-len(second.text_loss) :], second.text_loss)


def test_a_later_image_changes_no_earlier_loss_and_every_later_one() -> None:
    net = network()
    before, after = run(net, batch([[FIRST]])), run(net, batch([[("ab", 1, "cd", 9, "e")]]))
    changed = before.text_loss != after.text_loss
    # The second image stands after position 9; the label after its placeholders is the first it may change.
    torch.testing.assert_close(changed, before.text_position > 10, rtol=0, atol=0)
    torch.testing.assert_close(before.image_loss[0], after.image_loss[0])


def test_the_image_decoder_sees_the_image_before_its_own() -> None:
    net = network()
    before, after = run(net, batch([[FIRST]])), run(net, batch([[("ab", 7, "cd", 2, "e")]]))
    assert before.n_visible.tolist() == [0, 1]
    assert not torch.isclose(before.image_loss[1], after.image_loss[1])


def test_swapping_two_images_changes_the_losses() -> None:
    net = network()
    before, after = run(net, batch([[FIRST]])), run(net, batch([[("ab", 2, "cd", 1, "e")]]))
    assert not torch.allclose(before.text_loss, after.text_loss)


def test_padding_changes_nothing() -> None:
    net = network()
    tight, padded = run(net, batch([[FIRST]])), run(net, batch([[FIRST]], length=40))
    torch.testing.assert_close(tight.text_loss, padded.text_loss)
    torch.testing.assert_close(tight.image_loss, padded.image_loss)


def test_rows_with_more_images_do_not_change_other_rows() -> None:
    net = network()
    alone, beside = run(net, batch([[FIRST]])), run(net, batch([[FIRST], [(5, "u", 6, "v", 7, "w", 8)]]))
    n = len(alone.text_loss)
    torch.testing.assert_close(alone.text_loss, beside.text_loss[:n])
    torch.testing.assert_close(alone.image_loss, beside.image_loss[:2])


def test_an_image_that_opens_a_document_has_no_loss() -> None:
    out = run(network(), batch([[SECOND]]))
    assert out.image_index.tolist() == [1]
    assert (int(out.n_image_loss), int(out.n_images)) == (1, 2)


@pytest.mark.parametrize("rows", [[[("only text",)]], [[("",)]]], ids=["text", "empty"])
def test_rows_without_images_work(rows: list) -> None:
    net = network()
    out = net(batch(rows), draws(net, 0))
    assert len(out.image_loss) == 0
    assert bool(out.text_loss.isfinite().all())


def test_without_labels_there_is_no_loss_and_no_nan() -> None:
    net = network()
    data = batch([[FIRST]])
    out = net(replace(data, labels=torch.full_like(data.labels, -100)), None)
    assert out.text_loss.shape == (0,)
    assert out.text_loss.sum().item() == 0.0


def test_without_draws_the_image_decoder_does_not_run() -> None:
    net = network(tiny_config(decoder={"enabled": False}))
    out = net(batch([[FIRST]]), None)
    assert out.image_loss.shape == (0,)
    assert len(out.text_loss) > 0


def test_every_trainable_parameter_gets_a_gradient() -> None:
    net = network()
    data = batch([[FIRST, SECOND], [("k", 3, "l", 4)]])
    noise = draws(net, data.n_images)
    out = net(data, replace(noise, drop_condition=torch.tensor([True, False] * 3)))
    (out.text_loss.mean() + out.image_loss.mean()).backward()
    without = [n for n, p in net.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert without == []


def test_max_targets_diffuses_that_many_of_the_images_with_a_loss() -> None:
    whole, part = network(), network(tiny_config(decoder={"max_targets": 2}))
    data = batch([[FIRST], [("k", 3, "l", 4, "m", 5)]])
    all_of_them, some = run(whole, data), run(part, data)
    assert (len(all_of_them.image_loss), len(some.image_loss), int(some.n_image_loss)) == (5, 2, 5)
    torch.testing.assert_close(some.image_loss, all_of_them.image_loss[some.image_index])


def mmfs(**changes: object) -> MMFSConfig:
    return replace(tiny_config().language.mmfs, **changes)  # type: ignore[arg-type]


def decoder_mmfs(**changes: object) -> MMFSConfig:
    return replace(tiny_config().image_decoder.mmfs, **changes)  # type: ignore[arg-type]


def resampler(read_input: bool) -> NetworkConfig:
    config = tiny_config()
    changed = replace(config.vision.resampler, read_input=read_input)
    return replace(config, vision=replace(config.vision, resampler=changed))


TEXT_SWITCHES = {
    "language MMFS off": tiny_config(language_mmfs=mmfs(enabled=False)),
    "dense": tiny_config(language_mmfs=mmfs(attention="dense")),
    "one level": tiny_config(language_mmfs=mmfs(levels=(2,))),
    "nearest image": tiny_config(language_mmfs=mmfs(visible_images=1)),
    "more points": tiny_config(language_mmfs=mmfs(n_points=4)),
    "every layer": tiny_config(language={"mmfs_every": 1}),
    "more tokens": tiny_config(n_tokens=5),
    "learned tokens": resampler(read_input=False),
    "no null slot": tiny_config(language_mmfs=mmfs(null_slot=False)),
}
IMAGE_SWITCHES = {
    "decoder MMFS off": tiny_config(decoder_mmfs=decoder_mmfs(enabled=False)),
    "dense": tiny_config(decoder_mmfs=decoder_mmfs(attention="dense")),
    "one level": tiny_config(decoder_mmfs=decoder_mmfs(levels=(2,))),
    "all images": tiny_config(decoder_mmfs=decoder_mmfs(visible_images=None)),
    "after up blocks": tiny_config(decoder={"mmfs_placement": "up_blocks"}),
}


def shared_weights(config: NetworkConfig) -> MMInterleaved:
    """The network of ``config`` with the weights it shares with the unchanged one, so that only the switch differs."""
    torch.manual_seed(0)
    net = build_network(config).eval()
    wake_up(net)
    own = net.state_dict()
    for name, value in network().state_dict().items():
        if name in own and own[name].shape == value.shape:
            own[name] = value
    net.load_state_dict(own)
    return net


@pytest.mark.parametrize("config", TEXT_SWITCHES.values(), ids=TEXT_SWITCHES)
def test_a_switch_changes_the_text_loss(config: NetworkConfig) -> None:
    document = ("ab", 1, "cd", 2, "ef", 3, "gh")
    plain = run(network(), batch([[document]]))
    n = config.tokens_per_image
    changed = run(shared_weights(config), batch([[document]], n_tokens=n))
    assert not torch.allclose(plain.text_loss, changed.text_loss, atol=1e-5)


@pytest.mark.parametrize("config", IMAGE_SWITCHES.values(), ids=IMAGE_SWITCHES)
def test_a_switch_changes_the_image_loss_and_not_the_text_loss(config: NetworkConfig) -> None:
    data = batch([[("ab", 1, "cd", 2, "ef", 3)]])
    plain, changed = run(network(), data), run(shared_weights(config), data)
    torch.testing.assert_close(plain.text_loss, changed.text_loss)
    assert not torch.allclose(plain.image_loss[1:], changed.image_loss[1:], atol=1e-5)


def test_learned_tokens_hide_the_picture_where_mmfs_is_off() -> None:
    config = resampler(read_input=False)
    config = replace(config, language=replace(config.language, mmfs=mmfs(enabled=False)))
    net = network(config)
    before, after = run(net, batch([[FIRST]])), run(net, batch([[("ab", 8, "cd", 9, "e")]]))
    torch.testing.assert_close(before.text_loss, after.text_loss)


def test_more_visible_images_than_the_index_table_holds_are_counted_and_the_nearest_stay() -> None:
    net = network(tiny_config(language_mmfs=mmfs(max_images=3)))
    first, second = ("a", 1, "b", 2, "c", 3, "d"), ("a", 9, "b", 2, "c", 3, "d")
    out = run(net, batch([[first]]))
    assert int(out.n_hidden) > 0
    nearest = run(network(tiny_config(language_mmfs=mmfs(max_images=3, visible_images=2))), batch([[first]]))
    torch.testing.assert_close(out.text_loss, nearest.text_loss)
    assert not torch.allclose(out.text_loss, run(net, batch([[second]])).text_loss)  # through its visual tokens


def test_images_the_decoder_s_index_table_cannot_hold_are_counted_and_not_called_visible() -> None:
    net = network(tiny_config(decoder_mmfs=decoder_mmfs(visible_images=None, max_images=3)))
    out = run(net, batch([[("a", 1, "b", 2, "c", 3, "d", 4)]]))
    assert out.n_visible.tolist() == [0, 1, 2, 2]
    assert int(out.n_hidden) == 1


def test_official_offsets_reach_half_as_far_at_twice_the_resolution() -> None:
    config = tiny_config()
    large = replace(config, vision=replace(config.vision, image_size=64))
    own, official = build_network(large), build_network(large, "official")
    assert own.image_decoder is not None
    assert official.image_decoder is not None
    assert own.image_decoder.config.mmfs_level_sizes is None
    assert official.image_decoder.config.mmfs_level_sizes == (16.0, 8.0, 4.0, 2.0)


def test_a_batch_made_for_another_number_of_visual_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="2 placeholders per image but the network makes 3"):
        run(network(), batch([[FIRST]], n_tokens=2))
