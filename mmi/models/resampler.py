"""A Q-Former: learned queries that read any number of vectors and become a fixed number of tokens (SPEC 1.7)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmi.config import ResamplerConfig

_NORM_EPS = 1e-12


class ResamplerAttention(nn.Module):
    """Attention, its output projection, and the residual with layer norm after it (post-norm BERT).

    Args:
        config: Width, heads, dropout and whether queries and keys of each head are normalised.
        d_context: Width of keys and values.
    """

    def __init__(self, config: ResamplerConfig, d_context: int) -> None:
        super().__init__()
        d_head = config.d_model // config.n_heads
        self.n_heads, self.dropout = config.n_heads, config.dropout
        self.query = nn.Linear(config.d_model, config.d_model)
        self.key = nn.Linear(d_context, config.d_model)
        self.value = nn.Linear(d_context, config.d_model)
        self.query_norm = nn.LayerNorm(d_head, eps=_NORM_EPS) if config.qk_norm else nn.Identity()
        self.key_norm = nn.LayerNorm(d_head, eps=_NORM_EPS) if config.qk_norm else nn.Identity()
        self.output = nn.Linear(config.d_model, config.d_model)
        self.norm = nn.LayerNorm(config.d_model, eps=_NORM_EPS)

    def forward(self, hidden: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """Let float[M, Q, C] read float[M, S, C'] where bool[M, S] ``mask`` is True.

        Returns:
            float[M, Q, C].
        """
        query = self.query_norm(self._heads(self.query(hidden)))
        key = self.key_norm(self._heads(self.key(context)))
        value = self._heads(self.value(context))
        read = F.scaled_dot_product_attention(
            query,
            key.to(query.dtype),
            value.to(query.dtype),
            attn_mask=None if mask is None else mask[:, None, None],
            dropout_p=self.dropout if self.training else 0.0,
        )
        read = self.output(read.transpose(1, 2).flatten(2))
        return self.norm(hidden + F.dropout(read, self.dropout, self.training))

    def _heads(self, hidden: Tensor) -> Tensor:
        n_rows, n_tokens, width = hidden.shape
        return hidden.view(n_rows, n_tokens, self.n_heads, width // self.n_heads).transpose(1, 2)  # (M, H, T, D)


class ResamplerLayer(nn.Module):
    """Self-attention, cross-attention where the layer has one, feed-forward; a layer norm after each.

    Args:
        config: Numbers of the resampler.
        d_input: Width of the vectors read; None leaves cross-attention out.
    """

    def __init__(self, config: ResamplerConfig, d_input: int | None) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.self_attention = ResamplerAttention(config, config.d_model)
        self.cross_attention = None if d_input is None else ResamplerAttention(config, d_input)
        self.mlp_in = nn.Linear(config.d_model, config.d_mlp)
        self.mlp_out = nn.Linear(config.d_mlp, config.d_model)
        self.mlp_norm = nn.LayerNorm(config.d_model, eps=_NORM_EPS)

    def forward(self, hidden: Tensor, inputs: Tensor, mask: Tensor | None) -> Tensor:
        """Update float[M, n, C] from float[M, S, d_input]."""
        hidden = self.self_attention(hidden, hidden)
        if self.cross_attention is not None:
            hidden = self.cross_attention(hidden, inputs, mask)
        update = self.mlp_out(F.gelu(self.mlp_in(hidden)))
        return self.mlp_norm(hidden + F.dropout(update, self.dropout, self.training))


class Resampler(nn.Module):
    """Turn any number of vectors into ``config.n_tokens`` tokens.

    With ``read_input`` off there is no cross-attention at all, so the tokens are learned constants (Table 8).

    Args:
        config: Numbers of the resampler.
        d_input: Width of the vectors read.

    Shape:
        inputs float[M, S, d_input], mask bool[M, S] (True = readable) -> float[M, n_tokens, d_model]; M may be 0.
    """

    def __init__(self, config: ResamplerConfig, d_input: int) -> None:
        super().__init__()
        self.config = config
        self.queries = nn.Parameter(torch.empty(1, config.n_tokens, config.d_model))
        self.input_norm = nn.LayerNorm(config.d_model, eps=_NORM_EPS)
        self.layers = nn.ModuleList(
            ResamplerLayer(config, d_input if config.read_input and index % config.cross_attention_every == 0 else None)
            for index in range(config.n_layers)
        )
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Start queries and linear weights at N(0, init_std), biases at zero."""
        nn.init.normal_(self.queries, std=self.config.init_std)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=self.config.init_std)
                nn.init.zeros_(module.bias)

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """Read ``inputs`` where ``mask`` is True; see the class for shapes."""
        hidden = self.input_norm(self.queries.expand(inputs.shape[0], -1, -1))
        hidden = F.dropout(hidden, self.config.dropout, self.training)
        for layer in self.layers:
            hidden = layer(hidden, inputs, mask)
        return hidden
