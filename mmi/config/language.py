"""Numbers of the language model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

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


WeightsDtype = Literal["float32", "bfloat16", "nf4"]
LINEAR_MAPS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Names of the linear maps in a decoder layer of the library, in every family we take."""


@dataclass(frozen=True)
class LoraConfig:
    """Small trained matrices beside frozen ones (LoRA, arXiv 2106.09685): ``W x + alpha / rank * up(down(x))``.

    Args:
        rank: Width between the two matrices.
        alpha: Their product counts ``alpha / rank`` times, so that another rank needs no other learning rate.
        dropout: Share of the inputs of ``down`` that training leaves out.
        targets: Which linear maps of every decoder layer get them: q_proj, k_proj, v_proj, o_proj (attention),
            gate_proj, up_proj, down_proj (feed-forward).
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.05
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")

    def __post_init__(self) -> None:
        require(self.rank >= 1, f"language.lora.rank is {self.rank}; expected at least 1.")
        require(self.alpha > 0, f"language.lora.alpha is {self.alpha}; expected more than 0.")
        require(0 <= self.dropout < 1, f"language.lora.dropout is {self.dropout}; expected from 0 to below 1.")
        require(bool(self.targets), f"language.lora.targets is empty; name some of {', '.join(LINEAR_MAPS)}.")
        for name in self.targets:
            # MMFS reads its predictors as index tables, so a product beside them would never be seen.
            require(
                name in LINEAR_MAPS,
                f"language.lora.targets names {name!r}, which is no linear map of the library's decoder layers (parts "
                f"of MMFS are trained whole); expected some of {', '.join(LINEAR_MAPS)}.",
            )
        require(
            len(set(self.targets)) == len(self.targets),
            f"language.lora.targets names a map twice: {', '.join(self.targets)}.",
        )

    @property
    def scale(self) -> float:
        """How often the product of the two matrices counts."""
        return self.alpha / self.rank


@dataclass(frozen=True)
class LanguageConfig:
    """A llama-like causal language model with MMFS in every k-th layer (SPEC 1.2, 1.9).

    Args:
        weights: A ``transformers`` folder or hub id; ``None`` starts at random with the numbers below.
        frozen: Whether what comes from the library stays as it is.
        weights_dtype: How frozen weights are held. ``bfloat16`` halves them; ``nf4`` holds the linear maps of the
            layers in 4 bits (about 4.5 with their scales) and the tables in bfloat16. What is trained stays float32.
        lora: Small trained matrices beside frozen linear maps; ``None`` adds none.
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
    weights_dtype: WeightsDtype = "float32"
    lora: LoraConfig | None = None
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
            self.weights_dtype in get_args(WeightsDtype),
            f"language.weights_dtype is {self.weights_dtype!r}; expected float32, bfloat16 or nf4.",
        )
        require(
            self.frozen or self.weights_dtype == "float32",
            f"language.weights_dtype is {self.weights_dtype} but language.frozen is false; what is trained is held in "
            "float32, so set frozen: true or weights_dtype: float32.",
        )
        require(
            self.frozen or self.lora is None,
            "language.lora is set but language.frozen is false; set frozen: true to train only what is beside the "
            "weights, or lora: null to train the weights.",
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
