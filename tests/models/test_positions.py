import pytest
import torch

from mmi.models.positions import resize_grid_table, resize_patch_table, sincos_1d, sincos_2d


@pytest.mark.parametrize("d", [2, 6, 96])
def test_one_dimensional_table_is_sine_then_cosine_of_falling_frequencies(d):
    table = sincos_1d(7, d)
    angles = 5 * 10000.0 ** (-2 * torch.arange(d // 2, dtype=torch.float64) / d)
    torch.testing.assert_close(table[5], torch.cat([angles.sin(), angles.cos()]).float())
    assert table.dtype == torch.float32


def test_two_dimensional_table_holds_row_then_column():
    table = sincos_2d(3, 5, 16).view(3, 5, 16)
    assert torch.equal(table[2, 4, :8], sincos_1d(3, 8)[2])
    assert torch.equal(table[2, 4, 8:], sincos_1d(5, 8)[4])


def test_widths_that_do_not_split_are_named():
    with pytest.raises(ValueError, match="d=7"):
        sincos_1d(3, 7)
    with pytest.raises(ValueError, match="divisible by 4, got d=6"):
        sincos_2d(3, 3, 6)


def test_resizing_to_the_same_size_returns_the_same_numbers():
    table = torch.randn(12, 5)
    assert torch.equal(resize_grid_table(table, (3, 4), (3, 4)), table)


def test_align_corners_keeps_the_corner_cells_and_half_pixel_does_not():
    table = torch.randn(9, 2)
    aligned = resize_grid_table(table, (3, 3), (5, 5), align_corners=True).view(5, 5, 2)
    torch.testing.assert_close(aligned[::4, ::4], table.view(3, 3, 2)[::2, ::2])
    half_pixel = resize_grid_table(table, (3, 3), (5, 5)).view(5, 5, 2)
    assert not torch.allclose(half_pixel[0, 0], table[0])


def test_the_class_row_survives_resizing():
    table = torch.randn(1 + 16, 3)
    resized = resize_patch_table(table, 7)
    assert resized.shape == (50, 3)
    assert torch.equal(resized[0], table[0])


def test_low_precision_tables_are_interpolated_in_float32():
    table = torch.randn(16, 3).bfloat16()
    resized = resize_grid_table(table, (4, 4), (6, 6))
    assert torch.equal(resized, resize_grid_table(table.float(), (4, 4), (6, 6)).bfloat16())
