from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch
from diffusers import UNet2DConditionModel
from recorded_calls import WAITING, RecordedCalls
from torch import Tensor

from mmfs import ImageView
from mmi.config import CodecConfig, ConfigError, ImageDecoderConfig, MMFSConfig, ResamplerConfig, UNetConfig
from mmi.models.positions import resize_grid_table, sincos_2d
from mmi.models.spatial_mmfs import PreviousImages, pixel_centres
from mmi.models.unet import UNet

PYRAMID_WIDTH = 12
TINY = UNetConfig(
    sample_size=8,
    in_channels=4,
    block_channels=(8, 16),
    down_blocks=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_blocks=("UpBlock2D", "CrossAttnUpBlock2D"),
    layers_per_block=1,
    attention_heads=(2, 4),
    d_condition=20,
    norm_groups=4,
)
MMFS = MMFSConfig(n_heads=2, n_points=2, d_inner=8, levels=(0, 1, 2, 3), base_size=None, max_images=4, offset_init=1.0)


def make_unet(placement="skips", config: UNetConfig = TINY, level_sizes=None, *, awake=True, **mmfs) -> UNet:
    """A tiny U-Net whose MMFS branches are not silent."""
    torch.manual_seed(0)
    unet = UNet(config, replace(MMFS, **mmfs), placement, PYRAMID_WIDTH, level_sizes).eval()
    if awake:
        with torch.no_grad():
            for module in unet.mmfs:
                for parameter in (*module.conv.parameters(), *module.attention.parameters()):
                    parameter.normal_(0, 0.3)
    return unet


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs(n: int, size: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    return noise(n, 4, size, size, seed=1), torch.arange(n) * 300 + 5, noise(n, 3, 20, seed=2)


def pyramid(n: int, finest: int = 16, seed: int = 3) -> list[Tensor]:
    return [noise(n, PYRAMID_WIDTH, finest >> level, finest >> level, seed=seed + level) for level in range(4)]


def look(unet: UNet, table: list[list[int]], visible: list[list[int]], maps: list[Tensor]) -> PreviousImages:
    return PreviousImages(unet.project_pyramid(maps), torch.tensor(table), torch.tensor(visible).bool())


PLACEMENTS = pytest.mark.parametrize("placement", ["skips", "up_blocks"])
BLOCKS = [
    pytest.param(("DownBlock2D", "CrossAttnDownBlock2D"), ("CrossAttnUpBlock2D", "UpBlock2D"), 8, id="attention-low"),
    pytest.param(("DownBlock2D", "DownBlock2D"), ("UpBlock2D", "UpBlock2D"), 8, id="attention-in-the-middle-only"),
    pytest.param(("CrossAttnDownBlock2D",) * 3, ("CrossAttnUpBlock2D",) * 3, 12, id="three-levels-size-12"),
    pytest.param(("AttnDownBlock2D", "DownBlock2D"), ("UpBlock2D", "AttnUpBlock2D"), 8, id="self-attention"),
    pytest.param(("CrossAttnDownBlock2D", "DownBlock2D"), ("UpBlock2D", "CrossAttnUpBlock2D"), 7, id="odd-size"),
]


@pytest.mark.parametrize(("down", "up", "size"), BLOCKS)
@PLACEMENTS
def test_with_zero_convolutions_the_output_is_the_librarys(placement, down, up, size):
    n = len(down)
    config = replace(
        TINY,
        sample_size=size,
        block_channels=(8, 16, 16)[:n],
        down_blocks=down,
        up_blocks=up,
        attention_heads=(2, 4, 4)[:n],
    )
    unet = make_unet(placement, config, awake=False)
    library = UNet2DConditionModel(
        sample_size=size,
        in_channels=4,
        out_channels=4,
        block_out_channels=config.block_channels,
        down_block_types=down,
        up_block_types=up,
        layers_per_block=1,
        attention_head_dim=config.attention_heads,
        cross_attention_dim=20,
        norm_num_groups=4,
        use_linear_projection=True,
    ).eval()
    library.load_state_dict({k: v for k, v in unet.state_dict().items() if not k.startswith("mmfs.")})
    latents, time, condition = inputs(2, size)
    previous = look(unet, [[0], [1]], [[1], [1]], pyramid(2))
    with torch.no_grad():
        theirs = library(latents, time, condition, return_dict=False)[0]
        assert torch.allclose(unet(latents, time, condition, previous), theirs, atol=1e-5)
        assert torch.allclose(unet(latents, time, condition), theirs, atol=1e-5)


@PLACEMENTS
@torch.no_grad()
def test_a_previous_image_changes_its_own_sample_only(placement):
    unet = make_unet(placement)
    maps = pyramid(2)
    other = [m.clone() for m in maps]
    for m in other:
        m[1] = m[1].flip(0)
    before = unet(*inputs(2), look(unet, [[0], [1]], [[1], [1]], maps))
    after = unet(*inputs(2), look(unet, [[0], [1]], [[1], [1]], other))
    assert torch.equal(before[0], after[0])
    assert (before[1] - after[1]).abs().max() > 1e-3


@PLACEMENTS
@pytest.mark.parametrize("attention", ["deformable", "dense"])
@pytest.mark.parametrize("null_slot", [True, False], ids=["null-slot", "no-null-slot"])
@torch.no_grad()
def test_a_hidden_image_equals_no_image_at_all(placement, attention, null_slot):
    unet = make_unet(placement, attention=attention, null_slot=null_slot)
    hidden = unet(*inputs(2), look(unet, [[0], [1]], [[0], [0]], pyramid(2)))
    absent = unet(*inputs(2), look(unet, [[-1], [-1]], [[0], [0]], pyramid(0)))
    without = unet(*inputs(2))
    narrowed = look(unet, [[0], [1]], [[0], [0]], pyramid(2)).narrowed()
    assert narrowed is None
    assert torch.allclose(hidden, without, atol=1e-5)
    assert torch.allclose(absent, without, atol=1e-5)


@torch.no_grad()
def test_without_an_image_the_constant_of_the_null_vector_is_added():
    unet = make_unet(awake=True)
    silent = copy.deepcopy(unet)
    for module in silent.mmfs:
        for parameter in module.conv.parameters():
            parameter.zero_()
    assert (unet(*inputs(1)) - silent(*inputs(1))).abs().max() > 1e-3
    module = unet.mmfs[0]
    vector = module.attention.output_proj(module.attention.null_value.flatten())
    expected = module.conv(vector[None, :, None, None])
    assert torch.allclose(module(noise(1, 8, 8, 8), None), expected, atol=1e-6)


@PLACEMENTS
@torch.no_grad()
def test_leaving_out_the_samples_that_see_nothing_changes_nothing(placement):
    unet = make_unet(placement)
    previous = look(unet, [[0, 1], [-1, -1], [1, -1]], [[1, 1], [0, 0], [0, 0]], pyramid(2))
    narrowed = previous.narrowed()
    assert narrowed is not None
    assert narrowed.rows is not None
    assert narrowed.rows.tolist() == [0]
    assert torch.allclose(unet(*inputs(3), previous), unet(*inputs(3), narrowed), atol=1e-5)


@PLACEMENTS
@torch.no_grad()
def test_images_are_numbered_once_for_all_modules_and_nothing_waits_for_the_device(placement):
    unet = make_unet(placement)
    previous = look(unet, [[0, 1], [-1, -1], [1, -1]], [[1, 1], [0, 0], [0, 0]], pyramid(2)).narrowed()
    with RecordedCalls() as calls:
        unet(*inputs(3), previous)
    assert len(calls.arguments["mmfs::attention"]) == len(unet.mmfs)
    assert len(calls.arguments["aten::cumsum"]) == 1
    assert not WAITING & calls.names


@torch.no_grad()
def test_samples_of_a_batch_do_not_influence_each_other():
    unet = make_unet()
    latents, time, condition = inputs(3)
    previous = look(unet, [[0], [1], [0]], [[1], [1], [0]], pyramid(2))
    together = unet(latents, time, condition, previous)
    for i in range(3):
        part = PreviousImages(previous.values, previous.image_table[i : i + 1], previous.visible[i : i + 1])
        alone = unet(latents[i : i + 1], time[i : i + 1], condition[i : i + 1], part)
        assert torch.allclose(together[i], alone[0], atol=1e-5)


@PLACEMENTS
@torch.no_grad()
def test_a_padding_slot_changes_nothing(placement):
    unet = make_unet(placement)
    narrow = unet(*inputs(1), look(unet, [[0]], [[1]], pyramid(1)))
    wide = unet(*inputs(1), look(unet, [[0, -1, -1]], [[1, 0, 0]], pyramid(1)))
    assert torch.allclose(narrow, wide, atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"placement": "up_blocks"},
        {"attention": "dense"},
        {"levels": (0, 1)},
        {"levels": (2,)},
        {"n_points": 3},
        {"enabled": False},
        {"null_slot": False},
        {"base_size": 64},
        {"level_sizes": (64.0, 2.0, 16.0, 1.0)},
    ],
    ids=lambda change: "-".join(f"{k}={v}" for k, v in change.items()),
)
@torch.no_grad()
def test_every_switch_changes_the_computation(change):
    base, other = make_unet(), make_unet(**change)
    own, theirs = base.state_dict(), other.state_dict()
    for name, tensor in theirs.items():
        if name in own and own[name].shape == tensor.shape:
            tensor.copy_(own[name])
    a = base(*inputs(1), look(base, [[0]], [[1]], pyramid(1)))
    b = other(*inputs(1), look(other, [[0]], [[1]], pyramid(1)))
    assert (a - b).abs().max() > 1e-4


def test_a_place_table_tells_places_apart_and_a_pooled_condition_reaches_every_place():
    latents, timesteps, condition = torch.zeros(1, 4, 8, 8), torch.tensor([500]), noise(1, 3, 20, seed=2)
    extended = replace(TINY, place_table=True, pooled_condition=True)
    plain, placed = make_unet(enabled=False), make_unet(config=extended, enabled=False)
    assert plain.place_table is None
    assert plain.pooled_condition is None
    with torch.no_grad():
        assert placed.place_table is not None
        assert placed.pooled_condition is not None
        told_apart = placed(latents, timesteps, condition) - plain(latents, timesteps, condition)
        assert told_apart.abs().max() > 0
        placed.place_table.zero_()
        for parameter in placed.pooled_condition.parameters():
            parameter.zero_()
        torch.testing.assert_close(placed(latents, timesteps, condition), plain(latents, timesteps, condition))
        placed.pooled_condition.bias.fill_(1.0)
        assert (placed(latents, timesteps, condition) != plain(latents, timesteps, condition)).all()


def test_a_condition_map_adds_every_token_where_it_lies():
    mapped = make_unet(config=replace(TINY, condition_map=True), enabled=False)
    assert mapped.condition_map is not None
    added = []
    mapped.down_blocks[0].register_forward_pre_hook(
        lambda _, __, named: added.append(named["hidden_states"]), with_kwargs=True
    )
    condition = noise(1, 16, 20, seed=2)
    with torch.no_grad():
        for changed in (condition, condition.index_add(1, torch.tensor([6]), torch.ones(1, 1, 20))):
            mapped(torch.zeros(1, 4, 8, 8), torch.tensor([500]), changed)
    there = (added[0] != added[1]).any(dim=1)[0]
    # Token 6 of 4 x 4 lies in the second row and third column, two cells wide.
    assert there.nonzero().tolist() == [[2, 4], [2, 5], [3, 4], [3, 5]]


@pytest.mark.parametrize("n_tokens", [15, 9])
def test_tokens_that_make_no_map_are_refused(n_tokens):
    tiny = ImageDecoderConfig(
        image_size=32,
        codec=CodecConfig(kind="pixel_unshuffle", factor=4, latent_channels=48),
        unet=UNetConfig(sample_size=8, in_channels=48, d_condition=128, condition_map=True),
        resampler=ResamplerConfig(n_tokens=16, d_model=128, n_heads=4),
    )
    with pytest.raises(ConfigError, match=f"condition_map lays {n_tokens} condition tokens"):
        replace(tiny, resampler=replace(tiny.resampler, n_tokens=n_tokens))


def test_a_frozen_unet_takes_no_random_place_table():
    with pytest.raises(ConfigError, match="place_table"):
        replace(TINY, frozen=True, allow_frozen_random=True, place_table=True)


def test_gradients_reach_latents_condition_and_every_pyramid_level():
    unet = make_unet()
    latents, time, condition = inputs(2)
    maps = [m.requires_grad_() for m in pyramid(1)]
    tensors = [latents.requires_grad_(), condition.requires_grad_(), *maps]
    unet(latents, time, condition, look(unet, [[0], [-1]], [[1], [0]], maps)).square().sum().backward()
    for tensor in tensors:
        assert tensor.grad is not None
        assert float(tensor.grad.abs().max()) > 0
    missing = [n for n, p in unet.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []


@PLACEMENTS
def test_activation_checkpointing_gives_the_same_output_and_gradients(placement):
    plain = make_unet(placement)
    checkpointed = make_unet(placement, replace(TINY, activation_checkpointing=True))
    checkpointed.load_state_dict(plain.state_dict())
    gradients = []
    for unet in (plain, checkpointed):
        maps = [m.requires_grad_() for m in pyramid(1)]
        output = unet(*inputs(2), look(unet, [[0], [-1]], [[1], [0]], maps).narrowed())
        output.square().sum().backward()
        gradients.append([output.detach(), *(m.grad for m in maps), *(p.grad for p in unet.parameters())])
    for a, b in zip(*gradients, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def test_base_sizes_follow_the_feature_maps_of_the_official_size():
    official = ImageDecoderConfig()
    with torch.device("meta"):
        unet = UNet(official.unet, official.mmfs, "skips", 1024, load_weights=False)
    assert [m.base_size for m in unet.mmfs] == [64] * 3 + [32] * 3 + [16] * 3 + [8] * 4
    assert [m.conv.in_channels for m in unet.mmfs] == [320] * 4 + [640] * 3 + [1280] * 6


def test_half_the_output_size_halves_the_base_sizes_and_the_table():
    small = replace(TINY, sample_size=4)
    assert [m.base_size for m in make_unet().mmfs] == [8, 8, 4, 4, 4]
    assert [m.base_size for m in make_unet(config=small).mmfs] == [4, 4, 2, 2, 2]
    table = resize_grid_table(sincos_2d(4, 4, 16), (4, 4), (2, 2))
    assert torch.allclose(make_unet(config=small).mmfs[3].position_table, table)


@torch.no_grad()
def test_offsets_reach_equally_far_at_448_and_half_as_far_with_the_official_sizes():
    def locations(unet: UNet, finest: int) -> Tensor:
        module = unet.mmfs[0]
        shapes = [(finest >> level, finest >> level) for level in range(4)]
        points = module.attention.sampling_points(
            noise(1, 64, 8),
            shapes,
            ImageView.of(torch.tensor([[0]]), torch.ones(1, 64, 1, dtype=torch.bool), 2),
            pixel_centres(8, 8),
            base_size=module.base_size,
            level_sizes=module.level_sizes,
        )
        return points.locations

    corrected = make_unet()
    official = make_unet(level_sizes=(16.0, 8.0, 4.0, 2.0))
    official.load_state_dict(corrected.state_dict())
    at_224, at_448 = locations(corrected, 16), locations(corrected, 32)
    assert torch.allclose(at_224, at_448, atol=1e-5)
    assert torch.allclose(locations(official, 16), at_224, atol=1e-5)
    centres = pixel_centres(8, 8).view(*(64 if s == 64 else 1 for s in at_224.shape[:-1]), 2)
    assert torch.allclose(locations(official, 32) - centres, (at_224 - centres) / 2, atol=1e-5)


def test_a_frozen_unet_still_trains_its_mmfs():
    unet = make_unet(config=replace(TINY, frozen=True, allow_frozen_random=True))
    trained = {n for n, p in unet.named_parameters() if p.requires_grad}
    assert trained
    assert all(n.startswith("mmfs.") for n in trained)


@torch.no_grad()
def test_weights_of_a_pipeline_folder_or_of_its_unet_subfolder_are_used(tmp_path):
    library = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        down_block_types=TINY.down_blocks,
        up_block_types=TINY.up_blocks,
        layers_per_block=1,
        attention_head_dim=(2, 4),
        cross_attention_dim=20,
        norm_num_groups=4,
        use_linear_projection=True,
    ).eval()
    library.save_pretrained(tmp_path / "sd" / "unet")
    expected = library(*inputs(1), return_dict=False)[0]
    for weights in (tmp_path / "sd", tmp_path / "sd" / "unet"):
        unet = make_unet(config=replace(TINY, weights=str(weights), frozen=True), awake=False)
        assert torch.allclose(unet(*inputs(1)), expected, atol=1e-5)

    with pytest.raises(ConfigError, match=r"norm_num_groups is 4 there and 2 here"):
        make_unet(config=replace(TINY, weights=str(tmp_path / "sd"), norm_groups=2))
    file = tmp_path / "sd" / "unet" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"mid_block_scale_factor": 2}))
    with pytest.raises(ConfigError, match=r"mid_block_scale_factor is 2 there and 1 here"):
        make_unet(config=replace(TINY, weights=str(tmp_path / "sd")))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"frozen": True}, "is frozen but has no weights"),
        ({"weights": "/nowhere"}, "no config.json in /nowhere"),
        ({"down_blocks": ("CrossAttnDownBlock", "DownBlock2D")}, "cannot be built"),
    ],
    ids=["frozen-random", "no-folder", "unknown-block"],
)
def test_a_wrong_unet_is_refused_in_one_sentence(changes, words):
    with pytest.raises(ConfigError, match=words) as caught:
        make_unet(config=replace(TINY, **changes))
    assert "\n" not in str(caught.value)
