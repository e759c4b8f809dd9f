"""Pictures of another size than the trunk was trained at: which grids grow, and the two ways to resize positions."""

import math
from dataclasses import replace
from functools import cache

import pytest
import torch
from factories import batch, tiny_config, wake_up
from torch import Tensor

from mmi.commands.settings import network_settings
from mmi.compose import compose
from mmi.config import CompatConfig, VisionTrunkConfig
from mmi.models.build import build_network
from mmi.models.clip_trunk import ClipTrunk
from mmi.models.noise import DiffusionDraws
from mmi.models.positions import resize_patch_table, sincos_2d

CONFIG = "model/mm_interleaved_13b_448.yaml"


@cache
def on_meta(name, compat="corrected"):
    with torch.device("meta"):
        network, _ = network_settings(compose([name]))
        return build_network(network, compat, load_weights=False)


def cubic(distance: float) -> float:
    """Keys' cubic convolution kernel with a = -0.75."""
    x, a = abs(distance), -0.75
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def resizing(n_from: int, n_to: int, *, align_corners: bool) -> Tensor:
    """The matrix float64[n_to, n_from] that resizes one axis; the border is repeated outside."""
    matrix = torch.zeros(n_to, n_from, dtype=torch.float64)
    for i in range(n_to):
        place = i * (n_from - 1) / (n_to - 1) if align_corners else (i + 0.5) * n_from / n_to - 0.5
        for j in range(math.floor(place) - 1, math.floor(place) + 3):
            matrix[i, min(max(j, 0), n_from - 1)] += cubic(place - j)
    return matrix


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("side", "wanted"), [(16, 32), (16, 24), (4, 3)])
def test_both_ways_to_resize_equal_a_plain_cubic_in_float64(side, wanted, align_corners):
    table = torch.randn(1 + side * side, 5)
    axis = resizing(side, wanted, align_corners=align_corners)
    grid = table[1:].double().view(side, side, 5)
    expected = torch.einsum("ay,bx,yxc->abc", axis, axis, grid).reshape(-1, 5)
    resized = resize_patch_table(table, wanted, align_corners=align_corners)
    assert torch.equal(resized[0], table[0])
    torch.testing.assert_close(resized[1:].double(), expected, rtol=0, atol=1e-5)


def test_aligned_corners_keep_the_corner_patches_and_half_pixels_do_not():
    table = torch.randn(1 + 16 * 16, 4)
    corners = lambda t, side: t[1:].view(side, side, 4)[[0, 0, -1, -1], [0, -1, 0, -1]]  # noqa: E731
    aligned, half = resize_patch_table(table, 32, align_corners=True), resize_patch_table(table, 32)
    torch.testing.assert_close(corners(aligned, 32), corners(table, 16))
    assert (corners(half, 32) - corners(table, 16)).abs().max() > 0.05


@pytest.mark.parametrize("convention", ["half_pixel", "align_corners"])
def test_the_trunk_adds_the_table_of_its_convention(convention):
    config = VisionTrunkConfig(
        frozen=False, image_size=16, patch_size=4, d_model=8, n_layers=4, n_heads=2, d_mlp=8,
        position_interpolation=convention,
    )  # fmt: skip
    trunk = ClipTrunk(config)
    trunk.pre_norm = torch.nn.Identity()
    axis = resizing(4, 8, align_corners=convention == "align_corners")
    grid = trunk.position_embedding[1:].detach().double().view(4, 4, 8)
    pixels = torch.randn(1, 3, 32, 32)
    added = trunk.embed(pixels)[0, 1:] - trunk.patch_embedding(pixels).flatten(2)[0].T
    expected = torch.einsum("ay,bx,yxc->abc", axis, axis, grid).reshape(-1, 8)
    torch.testing.assert_close(added.double(), expected, rtol=0, atol=1e-5)


def test_at_448_only_grids_grow_so_a_checkpoint_of_224_fits():
    small, large = on_meta("model/mm_interleaved_13b.yaml"), on_meta(CONFIG)
    shapes = [{name: tensor.shape for name, tensor in network.state_dict().items()} for network in (small, large)]
    assert shapes[0] == shapes[1]
    assert large.config.vision.patch_grid == 32
    assert large.config.vision.pyramid_sizes == (128, 64, 32, 16)


def test_at_448_the_language_model_looks_at_64_32_16_with_the_base_of_16():
    vision, mmfs = (on_meta(CONFIG).config.vision, on_meta(CONFIG).config.language.mmfs)
    assert [vision.pyramid_sizes[level] for level in mmfs.levels] == [64, 32, 16]
    assert mmfs.base_size == 16


def test_at_448_the_image_decoder_scales_by_real_sizes_unless_the_official_ones_are_asked_for():
    assert on_meta(CONFIG).image_decoder.config.mmfs_level_sizes is None
    official = on_meta(CONFIG, CompatConfig(offset_scale="official"))
    assert official.image_decoder.config.mmfs_level_sizes == (64, 32, 16, 8)


def test_positions_of_tokens_and_maps_are_resized_from_the_trained_grid():
    config = tiny_config()
    vision = build_network(replace(config, vision=replace(config.vision, image_size=64))).visual_tokenizer
    axis = resizing(4, 8, align_corners=False)
    table = sincos_2d(4, 4, 32).double().view(4, 4, 32)
    expected = torch.einsum("ay,bx,yxc->abc", axis, axis, table)
    torch.testing.assert_close(vision.token_positions[1:].double(), expected.reshape(-1, 32), rtol=0, atol=1e-5)
    assert not vision.token_positions[0].any()
    found = vision.get_buffer("map_positions_2").permute(1, 2, 0)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


def test_training_runs_at_twice_the_size_and_the_convention_changes_the_loss():
    config = tiny_config()
    losses = []
    for convention in ("half_pixel", "align_corners"):
        trunk = replace(config.vision.trunk, position_interpolation=convention)
        torch.manual_seed(0)
        network = build_network(replace(config, vision=replace(config.vision, image_size=64, trunk=trunk))).eval()
        wake_up(network)
        rows = batch([[("ab", 1, "cd", 2, "e")]])
        rows = replace(rows, images=rows.images.repeat_interleave(2, 2).repeat_interleave(2, 3))
        output = network(rows, DiffusionDraws.create(0, 0, 0, 2, network.image_decoder.latent_shape, 1000, 0.0))
        losses.append(output.text_loss.mean() + output.image_loss.mean())
    losses[0].backward()
    assert losses[0].isfinite()
    assert not torch.allclose(losses[0], losses[1], rtol=1e-6)
