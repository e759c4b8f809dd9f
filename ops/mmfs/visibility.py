"""Which images a query may look at, and how far back each one lies."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class ImageView:
    """Which images every query sees and how far back each one lies, numbered once for all layers that look.

    Args:
        image_table: int64[B, N], the packed image in slot ``n`` of row ``b``, ``-1`` for none; nearest last. Rows may
            share images.
        relative_index: int64[B, Q, N], 0 hidden, 1 the nearest visible image, 2 the one before.
        max_images: Rows of the index table that ``relative_index`` was made for.

    Example:
        Two images, three queries that see none, one and both:

        >>> import torch
        >>> visible = torch.tensor([[[0, 0], [1, 0], [1, 1]]]).bool()
        >>> ImageView.of(torch.tensor([[0, 1]]), visible, max_images=8).relative_index
        tensor([[[0, 0],
                 [1, 0],
                 [2, 1]]])
    """

    image_table: Tensor
    relative_index: Tensor
    max_images: int

    @classmethod
    def of(cls, image_table: Tensor, visible: Tensor, max_images: int) -> ImageView:
        """Number the visible images.

        Args:
            image_table: int64[B, N], ``-1`` where a slot is empty; empty slots are hidden whatever ``visible`` says.
            visible: bool[B, Q, N]. Where more than ``max_images - 1`` are visible the nearest stay;
                :func:`relative_image_index` counts the others.
            max_images: Rows of the layers' index tables.

        Raises:
            ValueError: If the shapes do not fit together, ``visible`` is not bool or the table has no row for an image.
        """
        if visible.dtype != torch.bool:
            raise ValueError(f"visible is {visible.dtype}; expected torch.bool, True where a query may look.")
        if visible.ndim != 3 or (visible.shape[0], visible.shape[2]) != tuple(image_table.shape):
            raise ValueError(
                f"visible has shape {tuple(visible.shape)} and image_table {tuple(image_table.shape)}; "
                "expected (rows, queries, slots) and (rows, slots)."
            )
        index, _ = relative_image_index(visible & (image_table >= 0)[:, None], max_images)
        return cls(image_table, index, max_images)

    def for_each_of(self, n_queries: int) -> ImageView:
        """Give the view of a row's single query to ``n_queries`` queries, without a copy."""
        return replace(self, relative_index=self.relative_index.expand(-1, n_queries, -1))


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
    return visible.flip(-1).cumsum(-1).flip(-1)  # sums of booleans are int64
