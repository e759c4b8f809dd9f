"""Who may look at which image, computed from token ids alone (SPEC 1.10, 1.11).

Images of a batch are packed: image ``m`` stands in row ``image_row[m]`` and its ``<BoI>`` token at ``image_start[m]``,
in reading order. A *slot* is the place an image has among the images of its row. Nothing here loops over images, and
with no image at all every result is an empty tensor of the right shape.

The examples use the row of SPEC Appendix A, two documents with two placeholders per image:

    position  0 1 2 3 4 5 6   7 8 9 10 11 12 13   14
    token     B a b S I I E   B S I I  c  d  E    p
"""

from __future__ import annotations

import torch
from torch import Tensor


def document_starts(text_ids: Tensor, *, bos_token_id: int) -> Tensor:
    """Find, for every token, where its document begins.

    Args:
        text_ids: int64[B, T] token ids of packed rows.
        bos_token_id: The id that opens a document.

    Returns:
        int64[B, T] position of the latest ``bos_token_id`` at or before each token, ``-1`` where there is none.

    Example:
        >>> document_starts(torch.tensor([[5, 1, 6, 7, 1, 8]]), bos_token_id=1)
        tensor([[-1,  1,  1,  1,  4,  4]])
    """
    positions = torch.arange(text_ids.shape[1], device=text_ids.device)
    opened = torch.where(text_ids == bos_token_id, positions, -1)
    return opened.cummax(dim=1).values


def image_slots(image_row: Tensor, n_rows: int) -> Tensor:
    """Lay packed images out in rows.

    Args:
        image_row: int64[M] row of each image, in reading order.
        n_rows: Rows ``B`` of the batch.

    Returns:
        int64[B, N] the packed image in each slot, ``-1`` where a row has fewer images; ``N`` is what the fullest row
        needs (one number is read back from the device for it).

    Example:
        >>> image_slots(torch.tensor([0, 0, 2]), n_rows=3)
        tensor([[ 0,  1],
                [-1, -1],
                [ 2, -1]])
    """
    counts = torch.zeros(n_rows, dtype=torch.int64, device=image_row.device)
    counts = counts.scatter_add(0, image_row, torch.ones_like(image_row))
    n_slots = int(counts.max()) if image_row.numel() else 0
    first = counts.cumsum(0) - counts
    slots = torch.arange(n_slots, device=image_row.device)
    return torch.where(slots < counts[:, None], first[:, None] + slots, -1)


def slot_values(packed: Tensor, image_table: Tensor, fill: int = -1) -> Tensor:
    """Read one number per image into the slots of each row.

    Args:
        packed: int64[M] a number per image, such as ``image_start``.
        image_table: int64[B, N] as from `image_slots`.
        fill: What empty slots get.

    Returns:
        int64[B, N].

    Example:
        >>> slot_values(torch.tensor([3, 8, 4]), torch.tensor([[0, 1], [2, -1]]))
        tensor([[ 3,  8],
                [ 4, -1]])
    """
    if packed.numel() == 0:
        return torch.full_like(image_table, fill)
    return torch.where(image_table >= 0, packed[image_table.clamp(min=0)], fill)


def visible_images(text_ids: Tensor, image_starts: Tensor, *, bos_token_id: int) -> Tensor:
    """Say which images each token may look at: those before it, in its own document.

    With ``p`` the first placeholder of an image and ``b`` the start of the token's document, token ``t`` sees the image
    if ``b < p <= t``. So placeholders see their own image and the ``<BoI>`` before them does not. Tokens of a document
    whose start was cut away see the images from the start of the row.

    Args:
        text_ids: int64[B, T] token ids of packed rows; padding may stand on either side.
        image_starts: int64[B, N] position of each image's ``<BoI>``, ``-1`` where a row has fewer than ``N`` images.
        bos_token_id: The id that opens a document.

    Returns:
        bool[B, T, N].

    Example:
        >>> B, E, S, I, p = 1, 2, 8, 9, 0
        >>> ids = torch.tensor([[B, 4, 5, S, I, I, E, B, S, I, I, 6, 7, E, p]])
        >>> visible_images(ids, torch.tensor([[3, 8]]), bos_token_id=B).int()[0].T
        tensor([[0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0],
                [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1]], dtype=torch.int32)
    """
    positions = torch.arange(text_ids.shape[1], device=text_ids.device)[None, :, None]
    starts = document_starts(text_ids, bos_token_id=bos_token_id)[:, :, None]
    placeholder = (image_starts + 1)[:, None, :]
    return (image_starts >= 0)[:, None, :] & (starts < placeholder) & (placeholder <= positions)  # (B, T, N)


def context_starts(
    text_ids: Tensor,
    image_row: Tensor,
    image_start: Tensor,
    *,
    bos_token_id: int,
    attention_mask: Tensor | None = None,
) -> Tensor:
    """Find where the context of each image begins: its document's start.

    Args:
        text_ids: int64[B, T].
        image_row: int64[M].
        image_start: int64[M] position of each ``<BoI>``.
        bos_token_id: The id that opens a document.
        attention_mask: bool[B, T], needed where rows are padded on the left: a document without a start then begins at
            the first real token.

    Returns:
        int64[M] first position of the context; it ends with the image's own ``<BoI>``.

    Example:
        >>> ids = torch.tensor([[1, 4, 5, 8, 9, 9, 2, 1, 8, 9, 9, 6, 7, 2, 0]])
        >>> context_starts(ids, torch.tensor([0, 0]), torch.tensor([3, 8]), bos_token_id=1)
        tensor([0, 7])
    """
    starts = document_starts(text_ids, bos_token_id=bos_token_id)[image_row, image_start]
    if attention_mask is None:
        return starts.clamp(min=0)
    first_real = attention_mask.int().argmax(dim=1)
    return torch.maximum(starts, first_real[image_row])


def learned_images(image_loss: Tensor, image_start: Tensor, context_start: Tensor, *, min_context: int) -> Tensor:
    """Say which images have a loss: those that may, with a context long enough to be drawn from.

    Args:
        image_loss: bool[M], False where an image must not be learned.
        image_start: int64[M] position of each ``<BoI>``, the last token of its context.
        context_start: int64[M] first position of the context.
        min_context: Fewest tokens of a context, ``<BoI>`` included.

    Returns:
        bool[M].

    Example:
        >>> may, starts = torch.tensor([True, True, False]), torch.tensor([1, 8, 12])
        >>> learned_images(may, starts, torch.tensor([0, 0, 0]), min_context=3)
        tensor([False,  True, False])
    """
    return image_loss & (image_start - context_start + 1 >= min_context)


def gather_contexts(
    hidden_states: Tensor,
    image_row: Tensor,
    image_start: Tensor,
    context_start: Tensor,
) -> tuple[Tensor, Tensor]:
    """Collect the hidden states an image is drawn from, nearest token first, padded with zeros.

    Args:
        hidden_states: float[B, T, d] after the final norm.
        image_row: int64[M].
        image_start: int64[M] position of each ``<BoI>``, the last token of its context.
        context_start: int64[M] first position of the context.

    Returns:
        float[M, Tc, d] contexts from ``<BoI>`` backwards, and bool[M, Tc], True on real tokens; ``Tc`` is the longest
        context (one number is read back from the device for it).

    Example:
        >>> hidden = torch.arange(5.0).view(1, 5, 1)
        >>> row, start, begin = torch.tensor([0, 0]), torch.tensor([2, 4]), torch.tensor([0, 3])
        >>> contexts, mask = gather_contexts(hidden, row, start, begin)
        >>> contexts[..., 0]
        tensor([[2., 1., 0.],
                [4., 3., 0.]])
        >>> mask.int()
        tensor([[1, 1, 1],
                [1, 1, 0]], dtype=torch.int32)
    """
    positions, mask = context_positions(image_start, context_start)
    return contexts_at(hidden_states, image_row, positions, mask), mask


def context_positions(image_start: Tensor, context_start: Tensor) -> tuple[Tensor, Tensor]:
    """List the tokens an image is drawn from, nearest first.

    Args:
        image_start: int64[M] position of each ``<BoI>``, the last token of its context.
        context_start: int64[M] first position of the context.

    Returns:
        int64[M, Tc] positions and bool[M, Tc], False on padding; ``Tc`` is the longest context (one number is read
        back from the device for it).

    Example:
        >>> context_positions(torch.tensor([2, 4]), torch.tensor([0, 3]))[0]
        tensor([[2, 1, 0],
                [4, 3, 2]])
    """
    lengths = image_start - context_start + 1
    longest = int(lengths.max()) if lengths.numel() else 0
    back = torch.arange(longest, device=image_start.device)
    return (image_start[:, None] - back).clamp(min=0), back < lengths[:, None]


def contexts_at(hidden_states: Tensor, image_row: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
    """Collect hidden states float[B, T, d] where `context_positions` says: float[M, Tc, d], zero on padding."""
    contexts = hidden_states[image_row[:, None], positions]
    return torch.where(mask[..., None], contexts, torch.zeros((), dtype=contexts.dtype, device=contexts.device))


def previous_images(
    image_row: Tensor,
    image_start: Tensor,
    context_start: Tensor,
    n_nearest: int | None,
) -> tuple[Tensor, Tensor]:
    """List, for each image, the earlier images of its own document, the nearest last.

    Args:
        image_row: int64[M].
        image_start: int64[M] position of each ``<BoI>``.
        context_start: int64[M] first position of each image's context; earlier images must start there or later.
        n_nearest: Slots ``N``, so the most images listed; ``None`` lists all (reads one number back from the device).

    Returns:
        int64[M, N] packed images, ``-1`` in empty slots, and bool[M, N], True where a slot holds an image.

    Example:
        Three images in one document, then one in the next:

        >>> row, start, begin = torch.tensor([0, 0, 0, 0]), torch.tensor([1, 5, 9, 14]), torch.tensor([0, 0, 0, 13])
        >>> previous_images(row, start, begin, n_nearest=2)[0]
        tensor([[-1, -1],
                [-1,  0],
                [ 0,  1],
                [-1, -1]])
    """
    n_images = image_row.shape[0]
    width = max(n_images - 1, 0) if n_nearest is None else n_nearest
    back = torch.arange(width, 0, -1, device=image_row.device)
    candidates = torch.arange(n_images, device=image_row.device)[:, None] - back  # (M, N)
    known = candidates.clamp(min=0)
    visible = (
        (candidates >= 0) & (image_row[known] == image_row[:, None]) & (image_start[known] >= context_start[:, None])
    )
    if n_nearest is None and width:
        # The visible ones are the nearest, so whole columns on the left are empty.
        used = int(visible.sum(dim=1).max())
        candidates, visible = candidates[:, width - used :], visible[:, width - used :]
    return torch.where(visible, candidates, -1), visible
