"""Numbers of the parts that both the language model and the image decoder have: MMFS and Q-Former."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mmi.config.checks import divides, require


@dataclass(frozen=True)
class ResamplerConfig:
    """A Q-Former that turns any number of vectors into ``n_tokens`` (SPEC 1.7).

    Args:
        n_tokens: Learned queries, and so output tokens.
        cross_attention_every: Layers ``0, k, 2k, ...`` look at the input.
        qk_norm: LayerNorm on queries and keys of each head, after the split.
        read_input: Off makes the output a learned constant that never sees the picture (Table 8).
        init_std: Spread of the random start of queries and weights. The official 0.02 suits widths near 1000; narrow
            resamplers say almost nothing with it and want about ``1 / sqrt(d_model)``.
    """

    n_tokens: int = 64
    d_model: int = 768
    n_layers: int = 12
    n_heads: int = 12
    d_mlp: int = 3072
    cross_attention_every: int = 2
    qk_norm: bool = True
    dropout: float = 0.1
    read_input: bool = True
    init_std: float = 0.02

    def __post_init__(self) -> None:
        divides("resampler.d_model", self.d_model, self.n_heads)
        require(
            self.cross_attention_every >= 1,
            f"resampler.cross_attention_every is {self.cross_attention_every}; expected at least 1.",
        )
        require(self.n_tokens >= 1, f"resampler.n_tokens is {self.n_tokens}; expected at least 1.")


@dataclass(frozen=True)
class MMFSConfig:
    """Numbers of one kind of MMFS module (paper section 3.2, SPEC 1.8) and the switches of its ablations.

    Args:
        enabled: Off removes the modules (Table 5a).
        attention: ``dense`` replaces deformable sampling by attention to every position (Table 6).
        transition: A resampler between the chosen levels and dense attention, shared by all layers; close to Flamingo's
            cross-attention (Table 6, third row). Only in the language model; ``None`` is none.
        n_heads: Heads ``H``.
        n_points: Sampling points ``P`` per head, shared by all levels.
        d_inner: Width the sampled values have over all heads.
        levels: Pyramid levels looked at, 0 is the finest (Table 9).
        base_size: ``S0``, the grid whose cells are the unit of the offsets; ``None`` takes the query's own grid.
        max_images: Rows of the relative-index table; ``max_images - 1`` images can be visible, the nearest win.
        visible_images: How many of the images before a query it may see, nearest first; ``None`` is all.
        offset_init: Offsets start uniform in ``[-offset_init, offset_init]`` grid cells.
        null_slot: Keep the implicit "look at nothing" slot of the released code.
        train_null_value: Whether the vector behind that slot is trained.
    """

    enabled: bool = True
    attention: Literal["deformable", "dense"] = "deformable"
    transition: ResamplerConfig | None = None
    n_heads: int = 16
    n_points: int = 8
    d_inner: int = 1024
    levels: tuple[int, ...] = (1, 2, 3)
    base_size: int | None = 16
    max_images: int = 50
    visible_images: int | None = None
    offset_init: float = 3.0
    null_slot: bool = True
    train_null_value: bool = True

    def __post_init__(self) -> None:
        divides("mmfs.d_inner", self.d_inner, self.n_heads)
        require(
            len(set(self.levels)) == len(self.levels) > 0 and set(self.levels) <= {0, 1, 2, 3},
            f"mmfs.levels is {self.levels}; expected distinct pyramid levels out of 0 (finest) to 3.",
        )
        require(
            self.transition is None or self.attention == "dense",
            "mmfs.transition gives tokens without a place, which cannot be sampled; set mmfs.attention: dense.",
        )
        require(self.n_points > 0, f"mmfs.n_points is {self.n_points}; expected at least 1.")
        require(self.max_images >= 2, f"mmfs.max_images is {self.max_images}; expected at least 2 (one visible image).")
        require(
            self.visible_images is None or self.visible_images >= 1,
            f"mmfs.visible_images is {self.visible_images}; expected at least 1, or null for all images.",
        )
