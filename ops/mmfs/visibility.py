"""Which images a query may look at, and how far back each one lies."""

from __future__ import annotations

from torch import Tensor


def relative_image_index(visible: Tensor, max_images: int) -> tuple[Tensor, Tensor]:
    """Number the visible images of every query from the nearest (1) backwards; hidden images get 0.

    The index table has ``max_images`` rows and row 0 stands for "hidden", so ``max_images - 1`` images fit. If more
    are visible the nearest stay and the rest are hidden and counted (the released code stops with an assertion).

    Args:
        visible: bool[B, Q, N], images in reading order, nearest last.
        max_images: Rows of the index table.

    Returns:
        int64[B, Q, N] relative indices, and int64[] the number of (query, image) pairs hidden for lack of rows, as a
        tensor on the same device so that nobody has to wait for it.

    Raises:
        ValueError: If the table has no row for an image.

    Example:
        Three images before the query, then the middle one hidden (SPEC Appendix A), then a table of three rows:

        >>> import torch
        >>> relative_image_index(torch.tensor([[[True, True, True], [True, False, True]]]), 50)[0]
        tensor([[[3, 2, 1],
                 [2, 0, 1]]])
        >>> relative_image_index(torch.tensor([[[True, True, True]]]), 3)
        (tensor([[[0, 2, 1]]]), tensor(1))
    """
    if max_images < 2:
        raise ValueError(f"max_images is {max_images}; expected at least 2, since row 0 stands for hidden images.")
    index = _count_from_last(visible) * visible
    too_far = index >= max_images
    return index.masked_fill(too_far, 0), too_far.sum()


def nearest_visible(visible: Tensor, k: int | None) -> Tensor:
    """Keep only the ``k`` nearest visible images of every query; ``None`` keeps all.

    Args:
        visible: bool[B, Q, N], images in reading order, nearest last.
        k: How many images a query may see at most.

    Returns:
        bool[B, Q, N].

    Raises:
        ValueError: If ``k`` is negative.

    Example:
        >>> import torch
        >>> nearest_visible(torch.tensor([[[True, True, False, True]]]), 2).int()
        tensor([[[0, 1, 0, 1]]], dtype=torch.int32)
    """
    if k is None:
        return visible
    if k < 0:
        raise ValueError(f"k is {k}; expected the number of images to keep, or None for all.")
    return visible & (_count_from_last(visible) <= k)


def _count_from_last(visible: Tensor) -> Tensor:
    """Count the visible images from each slot to the last one: int64[B, Q, N]."""
    return visible.long().flip(-1).cumsum(-1).flip(-1)
