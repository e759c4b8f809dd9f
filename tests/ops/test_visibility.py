"""Which images a query sees, and how they are numbered."""

from __future__ import annotations

import pytest
import torch

from mmfs import nearest_visible, relative_image_index


def bools(*rows: str) -> torch.Tensor:
    """Read rows of digits as one batch row: bool[1, Q, N]."""
    return torch.tensor([[[digit == "1" for digit in row] for row in rows]])


def test_the_worked_example_of_the_specification() -> None:
    index, n_hidden = relative_image_index(bools("111", "101"), 50)
    assert index.tolist() == [[[3, 2, 1], [2, 0, 1]]]
    assert n_hidden.item() == 0


def test_hidden_images_have_index_zero_and_do_not_count() -> None:
    index, _ = relative_image_index(bools("0000", "0110", "1001"), 50)
    assert index.tolist() == [[[0, 0, 0, 0], [0, 2, 1, 0], [2, 0, 0, 1]]]


def test_when_the_table_is_full_the_nearest_stay_and_the_rest_are_counted() -> None:
    index, n_hidden = relative_image_index(bools("11111", "00011", "11011"), 4)
    assert index.tolist() == [[[0, 0, 3, 2, 1], [0, 0, 0, 2, 1], [0, 3, 0, 2, 1]]]
    assert isinstance(n_hidden, torch.Tensor)
    assert n_hidden.item() == 3


def test_a_table_without_room_for_an_image_is_refused() -> None:
    with pytest.raises(ValueError, match="max_images is 1"):
        relative_image_index(bools("1"), 1)


@pytest.mark.parametrize(
    ("k", "expected"), [(None, "110101"), (9, "110101"), (2, "000101"), (1, "000001"), (0, "000000")]
)
def test_only_the_nearest_images_stay_visible(k: int | None, expected: str) -> None:
    assert torch.equal(nearest_visible(bools("110101"), k), bools(expected))


def test_a_negative_number_of_images_is_refused() -> None:
    with pytest.raises(ValueError, match="k is -1"):
        nearest_visible(bools("1"), -1)


def test_no_slots_and_no_queries_are_fine() -> None:
    for shape in ((2, 3, 0), (2, 0, 3), (0, 3, 2)):
        visible = torch.zeros(shape, dtype=torch.bool)
        assert relative_image_index(visible, 5)[0].shape == shape
        assert nearest_visible(visible, 1).shape == shape
