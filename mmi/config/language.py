"""Numbers of the language model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mmi.config.attention import MMFSConfig
from mmi.config.checks import require


@dataclass(frozen=True)
class RopeScalingConfig:
    """The library's ``rope_parameters`` beside the base (``llama3`` is what Llama 3.1 and later use).

    Args:
        kind: ``rope_type`` of the library; ``linear`` only reads ``factor``.
        original_max_positions: Length the model was first trained for.
    """

    kind: Literal["linear", "llama3"] = "llama3"
    factor: float = 8.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_positions: int = 8192


@dataclass(frozen=True)
class LanguageConfig:
    """A llama-like causal language model with MMFS in every k-th layer (SPEC 1.2, 1.9).

    Args:
        weights: A ``transformers`` folder or hub id; ``None`` starts at random with the numbers below.
        family: ``model_type`` of the library: llama, mistral, qwen2, qwen3.
        vocab_size: Rows of the base vocabulary; the two image tokens get the next two ids.
        rope_scaling: How rotary angles are stretched beyond the length first trained for; ``None`` leaves them plain.
        sliding_window: Tokens a layer attends back over; ``None`` is all.
        full_attention_layers: Leading layers without the sliding window (qwen2 and qwen3; mistral has none).
        mmfs_every: Layers ``0, k, 2k, ...`` get an MMFS between self-attention and feed-forward.
        attention_backend: ``attn_implementation`` of the library, such as sdpa, eager or flash_attention_2.
        init_std: Spread of a random start of the library's weights; narrow models want more than the usual 0.02.
        pad_token_id: Never a label; 31999 is an ordinary rare entry in the official vocabulary (D18).
    """

    weights: str | None = None
    frozen: bool = True
    allow_frozen_random: bool = False
    family: Literal["llama", "mistral", "qwen2", "qwen3"] = "llama"
    vocab_size: int = 32000
    d_model: int = 5120
    n_layers: int = 40
    n_heads: int = 40
    n_kv_heads: int = 40
    d_head: int = 128
    d_mlp: int = 13824
    max_positions: int = 2048
    rope_theta: float = 10000.0
    rope_scaling: RopeScalingConfig | None = None
    sliding_window: int | None = None
    full_attention_layers: int = 0
    norm_eps: float = 1e-6
    tie_embeddings: bool = False
    bos_token_id: int = 1
    eos_token_id: int = 2
    pad_token_id: int = 31999
    mmfs_every: int = 4
    mmfs: MMFSConfig = field(default_factory=MMFSConfig)
    attention_backend: str = "sdpa"
    activation_checkpointing: bool = False
    init_std: float = 0.02

    def __post_init__(self) -> None:
        require(self.mmfs_every >= 1, f"language.mmfs_every is {self.mmfs_every}; expected at least 1.")
        require(
            self.family in ("llama", "mistral", "qwen2", "qwen3"),
            f"language.family is {self.family!r}; expected llama, mistral, qwen2 or qwen3.",
        )
        require(
            self.sliding_window is None or self.family != "llama",
            "language.sliding_window is set but llama models have none; choose the family mistral, qwen2 or qwen3.",
        )
        require(
            not self.mmfs.enabled or self.mmfs.base_size is not None,
            "language.mmfs.base_size is null, but tokens have no grid of their own; give the unit of the offsets, such "
            "as 16.",
        )
        require(
            self.n_heads % self.n_kv_heads == 0,
            f"language.n_heads {self.n_heads} is not divisible by n_kv_heads {self.n_kv_heads}.",
        )
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            value = getattr(self, name)
            require(
                0 <= value < self.vocab_size,
                f"language.{name} is {value}; expected an id below vocab_size {self.vocab_size}.",
            )

    @property
    def image_start_token_id(self) -> int:
        """Id of ``<|beginofimage|>``, the first row after the base vocabulary."""
        return self.vocab_size

    @property
    def image_token_id(self) -> int:
        """Id of the ``<|image|>`` placeholder, the second row after the base vocabulary."""
        return self.vocab_size + 1
