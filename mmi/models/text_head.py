"""Hidden states to logits: the old rows of the language model and two new ones (SPEC 1.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmi.models.autocast import without_autocast
from mmi.models.quantised import product

NEW_TOKEN_BIAS = -5.0


class TextHead(nn.Module):
    """Map hidden states to the base vocabulary and the two image tokens.

    The old rows are the language model's own and stay frozen with it. The two new rows are one trainable tensor that
    starts at weight 0 and bias -5. The official pair of heads keeps them as two summands near +-100; we hold the sum,
    taken in float32, because numbers of that size lose precision in half types.

    Args:
        d_model: Width of the hidden states.
        vocab_size: Rows of the base vocabulary.
        base: The library's output layer; ``None`` where it is tied to the embedding table, which is then given to
            `forward`.

    Shape:
        hidden float[..., d] -> logits float[..., vocab_size + 2], float32 or wider.
    """

    base_bias: Tensor

    def __init__(self, d_model: int, vocab_size: int, base: nn.Module | None) -> None:
        super().__init__()
        self.base = base
        # Zero for every model of the library; official files may hold one.
        self.register_buffer("base_bias", torch.zeros(vocab_size))
        self.new_weight = nn.Parameter(torch.zeros(2, d_model))
        self.new_bias = nn.Parameter(torch.full((2,), NEW_TOKEN_BIAS))

    def forward(self, hidden: Tensor, tied_weight: Tensor | None = None) -> Tensor:
        """Return the logits of hidden states float[..., d].

        Args:
            hidden: After the final norm.
            tied_weight: float[vocab_size, d] the embedding table, where the output rows are tied to it.
        """
        if self.base is not None:
            old = self.base(hidden)
        else:
            assert tied_weight is not None, "a tied head needs the embedding table"
            old = product(hidden, tied_weight)
        wide = torch.promote_types(hidden.dtype, torch.float32)
        with without_autocast(hidden.device):
            new = F.linear(hidden.to(wide), self.new_weight.to(wide), self.new_bias.to(wide))
        return torch.cat([(old + self.base_bias).to(wide), new], dim=-1)
