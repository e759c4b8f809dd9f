"""Which earlier tokens each token attends to, and at which position it stands (SPEC 1.10)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask

from mmi.config import ConfigError

_MASKS = {"full_attention": create_causal_mask, "sliding_attention": create_sliding_window_causal_mask}


def count_positions(
    attention_mask: Tensor | None, n_rows: int, n_tokens: int, n_cached: int, device: torch.device
) -> Tensor:
    """Number the newest tokens of each row by the real tokens before them.

    Args:
        attention_mask: bool[B, S] over cached and new tokens, True on real ones; ``None`` if all are real.
        n_rows: ``B``.
        n_tokens: New tokens ``T``.
        n_cached: Tokens in the cache.
        device: Where the result goes.

    Returns:
        int64[B, T]; tokens left of the first real one get 0.

    Example:
        >>> mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]], dtype=torch.bool)
        >>> count_positions(mask, 2, 3, 1, mask.device)
        tensor([[0, 0, 1],
                [1, 2, 3]])
    """
    if attention_mask is None:
        return torch.arange(n_cached, n_cached + n_tokens, device=device).expand(n_rows, n_tokens)
    return (attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)[:, -n_tokens:]


def attention_masks(
    config: PreTrainedConfig,
    kinds: Iterable[str],
    embeddings: Tensor,
    attention_mask: Tensor | None,
    cache: DynamicCache | None,
    document_ids: Tensor | None,
) -> dict[str, Tensor | None]:
    """Build one mask per kind of layer with the library's own functions, for the backend in use.

    Args:
        config: The library's configuration; it names the attention backend.
        kinds: Kinds of layer that occur, ``full_attention`` or ``sliding_attention``.
        embeddings: float[B, T, d] new tokens.
        attention_mask: bool[B, S] over cached and new tokens, False where nobody may look; ``None`` if all are real.
        cache: Earlier keys and values.
        document_ids: int64[B, S] over cached and new tokens; tokens of different documents do not see each other.
            ``None`` lets them.

    Raises:
        ConfigError: If documents are to be kept apart by a backend that takes no such mask.
    """
    if attention_mask is None and document_ids is None and _needs_none(config, kinds, embeddings):
        return dict.fromkeys(kinds)
    apart = None if document_ids is None else _same_document(document_ids, str(config._attn_implementation))
    return {
        kind: _MASKS[kind](
            config=config,
            inputs_embeds=embeddings,
            attention_mask=attention_mask,
            past_key_values=cache,
            and_mask_function=apart,
        )
        for kind in sorted(set(kinds))
    }


def _needs_none(config: PreTrainedConfig, kinds: Iterable[str], embeddings: Tensor) -> bool:
    """Say whether every new token sees all there is: a single one, which decoding asks about for every layer's mask."""
    return embeddings.shape[1] == 1 and set(kinds) == {"full_attention"} and config._attn_implementation == "sdpa"


def _same_document(document_ids: Tensor, backend: str) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    if "flash" in backend:
        raise ConfigError(
            f"language.attention_backend {backend} cannot keep packed documents apart; use sdpa, eager or "
            "flex_attention, or set compat.cross_document_attention to official."
        )

    def same_document(row: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return document_ids[row, query] == document_ids[row, key]

    return same_document
