"""Every architecture number, loss weight and compatibility switch, checked when built.

Defaults are the official 13B model (SPEC section 1). Sizes are in pixels unless a name says otherwise. Names of the
paper are mapped to ours in the docstrings; where the released code and the paper differ, the default follows the code
and the paper's variant is a named value (SPEC section 8).
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Literal, get_args

Preset = Literal["corrected", "official"]


class ConfigError(ValueError):
    """Say in one sentence which setting is wrong, what was expected and what to do."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _divides(name: str, width: int, heads: int) -> None:
    _require(heads > 0 and width % heads == 0, f"{name}: width {width} is not divisible by n_heads {heads}.")


@dataclass(frozen=True)
class CompatConfig:
    """Choose, defect by defect, between the official system's behaviour and the corrected one (SPEC 9.1).

    Args:
        preset: What every field left at ``None`` follows.
        image_loss_denominator: D7. ``official`` divides the image loss by all images, masked ones included.
        cross_document_attention: D8. ``official`` lets documents packed in a row attend to each other and counts
            positions through the row; ``corrected`` blocks that and restarts positions in each document.
    """

    preset: Preset = "corrected"
    image_loss_denominator: Preset | None = None
    cross_document_attention: Preset | None = None

    @classmethod
    def of(cls, choice: Preset | CompatConfig) -> CompatConfig:
        """Return the switches with every ``None`` filled from the preset.

        Raises:
            ConfigError: If a value is neither ``corrected`` nor ``official``.
        """
        compat = cls(preset=choice) if isinstance(choice, str) else choice
        for item in fields(compat):
            value = getattr(compat, item.name)
            allowed = get_args(Preset)
            if value is not None and value not in allowed:
                raise ConfigError(f"compat.{item.name} is {value!r}; expected one of {', '.join(allowed)}.")
        unset = {f.name: compat.preset for f in fields(compat) if getattr(compat, f.name) is None}
        return replace(compat, **unset)


@dataclass(frozen=True)
class MMFSConfig:
    """Numbers of one kind of MMFS module (paper section 3.2, SPEC 1.8) and the switches of its ablations.

    Args:
        enabled: Off removes the modules (Table 5a).
        attention: ``dense`` replaces deformable sampling by attention to every position (Table 6).
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
        _divides("mmfs.d_inner", self.d_inner, self.n_heads)
        _require(
            len(set(self.levels)) == len(self.levels) > 0 and set(self.levels) <= {0, 1, 2, 3},
            f"mmfs.levels is {self.levels}; expected distinct pyramid levels out of 0 (finest) to 3.",
        )
        _require(self.n_points > 0, f"mmfs.n_points is {self.n_points}; expected at least 1.")
        _require(self.max_images >= 2, f"mmfs.max_images is {self.max_images}; expected at least 2 (one visible image).")
        _require(
            self.visible_images is None or self.visible_images >= 1,
            f"mmfs.visible_images is {self.visible_images}; expected at least 1, or null for all images.",
        )


@dataclass(frozen=True)
class ResamplerConfig:
    """A Q-Former that turns any number of vectors into ``n_tokens`` (SPEC 1.7).

    Args:
        n_tokens: Learned queries, and so output tokens.
        cross_attention_every: Layers ``0, k, 2k, ...`` look at the input.
        qk_norm: LayerNorm on queries and keys of each head, after the split.
        read_input: Off makes the output a learned constant that never sees the picture (Table 8).
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

    def __post_init__(self) -> None:
        _divides("resampler.d_model", self.d_model, self.n_heads)
        _require(self.n_tokens >= 1, f"resampler.n_tokens is {self.n_tokens}; expected at least 1.")


@dataclass(frozen=True)
class VisionTrunkConfig:
    """The CLIP vision transformer under the adapter (SPEC 1.4).

    Args:
        weights: A ``transformers`` folder or hub id, or an open_clip weight file; ``None`` starts at random.
        frozen: Keep the trunk as it is; gradients still flow through it to the adapter.
        allow_frozen_random: Accept a frozen trunk at random weights (only sensible in speed benchmarks).
        image_size: The resolution its position table was trained at.
        position_interpolation: How the table is resized for other sizes: ``half_pixel`` (align_corners=False, what
            official checkpoints get at 448 px) or ``align_corners`` (what official construction does).
        activation_checkpointing: Recompute each layer in the backward pass instead of keeping its activations.
    """

    weights: str | None = None
    frozen: bool = True
    allow_frozen_random: bool = False
    image_size: int = 224
    patch_size: int = 14
    d_model: int = 1024
    n_layers: int = 24
    n_heads: int = 16
    d_mlp: int = 4096
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"
    position_interpolation: Literal["half_pixel", "align_corners"] = "half_pixel"
    activation_checkpointing: bool = False

    def __post_init__(self) -> None:
        _divides("vision.trunk.d_model", self.d_model, self.n_heads)
        _require(
            self.image_size % self.patch_size == 0,
            f"vision.trunk.image_size {self.image_size} is not divisible by patch_size {self.patch_size}.",
        )


@dataclass(frozen=True)
class AdapterConfig:
    """The ViT-Adapter that adds a feature pyramid to the trunk (SPEC 1.5).

    Args:
        d_stem: Channels of the convolution stem; later convolutions are 2 and 4 times as wide.
        value_ratio: Width of the deformable attention's values relative to the trunk.
        ffn_ratio: Width of the convolutional feed-forward relative to the trunk.
        n_extra_extractors: Extractors after the last interaction's own.
        offset_init: ``ring`` spreads the points of a head as Deformable-DETR means to; ``zero`` is what the released
            code ends up with (D2).
    """

    d_stem: int = 64
    n_heads: int = 16
    n_points: int = 4
    value_ratio: float = 0.5
    ffn_ratio: float = 0.25
    n_extra_extractors: int = 2
    offset_init: Literal["ring", "zero"] = "ring"


@dataclass(frozen=True)
class VisionConfig:
    """Image to visual tokens and a four-level pyramid (SPEC 1.4 to 1.7).

    Args:
        image_size: Side of the square pictures the encoder sees; any multiple of the trunk's patch.
    """

    image_size: int = 224
    trunk: VisionTrunkConfig = field(default_factory=VisionTrunkConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    resampler: ResamplerConfig = field(default_factory=ResamplerConfig)

    def __post_init__(self) -> None:
        _require(
            self.image_size % self.trunk.patch_size == 0,
            f"vision.image_size {self.image_size} is not divisible by the trunk's patch_size {self.trunk.patch_size}; "
            f"try {max(1, round(self.image_size / self.trunk.patch_size)) * self.trunk.patch_size}.",
        )
        _require(
            self.trunk.n_layers % 4 == 0,
            f"vision.trunk.n_layers is {self.trunk.n_layers}; the adapter interacts in four equal stages, "
            "so it must be a multiple of 4.",
        )
        _require(self.trunk.d_model % 4 == 0, f"vision.trunk.d_model {self.trunk.d_model} is not divisible by 4.")
        d_value = self.trunk.d_model * self.adapter.value_ratio
        _require(
            abs(d_value - round(d_value)) < 1e-6 and 0 < round(d_value) and round(d_value) % self.adapter.n_heads == 0,
            f"vision.adapter: value_ratio {self.adapter.value_ratio} of trunk.d_model {self.trunk.d_model} does not "
            f"split evenly over n_heads {self.adapter.n_heads}.",
        )
        _require(
            self.trunk.d_model * self.adapter.ffn_ratio >= 1,
            f"vision.adapter.ffn_ratio {self.adapter.ffn_ratio} of trunk.d_model {self.trunk.d_model} leaves no width.",
        )

    @property
    def patch_grid(self) -> int:
        """Patches along one side."""
        return self.image_size // self.trunk.patch_size

    @property
    def pyramid_sizes(self) -> tuple[int, int, int, int]:
        """Sides of the four maps, finest first: 64, 32, 16, 8 at 224 px."""
        grid = self.patch_grid
        return (4 * grid, 2 * grid, grid, (grid + 1) // 2)


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

    def __post_init__(self) -> None:
        _require(self.mmfs_every >= 1, f"language.mmfs_every is {self.mmfs_every}; expected at least 1.")
        _require(
            self.family in ("llama", "mistral", "qwen2", "qwen3"),
            f"language.family is {self.family!r}; expected llama, mistral, qwen2 or qwen3.",
        )
        _require(
            self.sliding_window is None or self.family != "llama",
            "language.sliding_window is set but llama models have none; choose the family mistral, qwen2 or qwen3.",
        )
        _require(
            not self.mmfs.enabled or self.mmfs.base_size is not None,
            "language.mmfs.base_size is null, but tokens have no grid of their own; give the unit of the offsets, such "
            "as 16.",
        )
        _require(
            self.n_heads % self.n_kv_heads == 0,
            f"language.n_heads {self.n_heads} is not divisible by n_kv_heads {self.n_kv_heads}.",
        )
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            value = getattr(self, name)
            _require(
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


@dataclass(frozen=True)
class UNetConfig:
    """The diffusers U-Net (SPEC 1.12); defaults are Stable Diffusion 2.1-base."""

    weights: str | None = None
    frozen: bool = False
    allow_frozen_random: bool = False
    sample_size: int = 64
    in_channels: int = 4
    block_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    down_blocks: tuple[str, ...] = (
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
        "DownBlock2D",
    )
    up_blocks: tuple[str, ...] = (
        "UpBlock2D",
        "CrossAttnUpBlock2D",
        "CrossAttnUpBlock2D",
        "CrossAttnUpBlock2D",
    )
    layers_per_block: int = 2
    attention_heads: tuple[int, ...] = (5, 10, 20, 20)
    d_condition: int = 1024
    norm_groups: int = 32
    linear_projection: bool = True
    activation_checkpointing: bool = False

    def __post_init__(self) -> None:
        counts = {len(self.block_channels), len(self.down_blocks), len(self.up_blocks), len(self.attention_heads)}
        _require(
            len(counts) == 1,
            "image_decoder.unet: block_channels, down_blocks, up_blocks and attention_heads must have one entry "
            f"per block, got {len(self.block_channels)}, {len(self.down_blocks)}, {len(self.up_blocks)} and "
            f"{len(self.attention_heads)}.",
        )


@dataclass(frozen=True)
class CodecConfig:
    """How pixels become the latents that are diffused.

    Args:
        kind: ``vae`` is Stable Diffusion's autoencoder; ``pixel_unshuffle`` moves pixel blocks into channels and is
            exactly invertible, so that small models train without pretrained weights.
        factor: Pixels per latent cell along one side.
        scaling_factor: Latents are multiplied by this.
    """

    kind: Literal["vae", "pixel_unshuffle"] = "vae"
    weights: str | None = None
    frozen: bool = True
    allow_frozen_random: bool = False
    factor: int = 8
    latent_channels: int = 4
    block_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    norm_groups: int = 32
    scaling_factor: float = 0.18215

    def __post_init__(self) -> None:
        if self.kind == "pixel_unshuffle":
            _require(
                self.latent_channels == 3 * self.factor**2,
                f"image_decoder.codec.latent_channels is {self.latent_channels}; pixel_unshuffle with factor "
                f"{self.factor} gives {3 * self.factor**2}.",
            )


@dataclass(frozen=True)
class DiffusionConfig:
    """Noise schedule and training target (SPEC 1.12, 5.2)."""

    n_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: Literal["scaled_linear", "linear", "squaredcos_cap_v2"] = "scaled_linear"
    prediction: Literal["epsilon", "v_prediction", "sample"] = "epsilon"


def _decoder_resampler() -> ResamplerConfig:
    return ResamplerConfig(
        n_tokens=77,
        d_model=1024,
        n_layers=1,
        n_heads=16,
        d_mlp=3072,
        cross_attention_every=1,
        qk_norm=False,
        dropout=0.0,
    )


def _decoder_mmfs() -> MMFSConfig:
    return MMFSConfig(
        levels=(0, 1, 2, 3),
        base_size=None,
        max_images=10,
        visible_images=1,
        offset_init=1.0,
        train_null_value=False,
    )


@dataclass(frozen=True)
class ImageDecoderConfig:
    """Hidden states of the language model to a picture (SPEC 1.11, 1.12).

    Args:
        enabled: Off builds no image decoder at all (text-only fine-tuning needs none).
        image_size: Side of the pictures drawn.
        mmfs_placement: ``skips`` adds MMFS to the skip tensors and the middle block (released code); ``up_blocks``
            adds it after each up-sampling block (paper).
        mmfs_level_sizes: ``S_l`` of the four pyramid levels, finest first, which scale the offsets. ``None`` takes the
            maps' real sizes, so that offsets reach equally far for every encoder resolution; the released code always
            uses 64, 32, 16, 8, which halves their reach at 448 px (D14).
        condition_dropout: Share of training images whose condition is replaced by the learned unconditional one.
        min_context: Images with fewer tokens of context, their own ``<BoI>`` included, have no loss.
        max_targets: Most images diffused in one step on one device, drawn at random from those with a loss; ``None``
            is all. The loss keeps its expectation.
        n_context_positions: Rows of the position table over the context.
    """

    enabled: bool = True
    image_size: int = 512
    unet: UNetConfig = field(default_factory=UNetConfig)
    codec: CodecConfig = field(default_factory=CodecConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    resampler: ResamplerConfig = field(default_factory=_decoder_resampler)
    mmfs: MMFSConfig = field(default_factory=_decoder_mmfs)
    mmfs_placement: Literal["skips", "up_blocks"] = "skips"
    mmfs_level_sizes: tuple[float, ...] | None = None
    condition_dropout: float = 0.1
    min_context: int = 3
    max_targets: int | None = None
    n_context_positions: int = 2048

    def __post_init__(self) -> None:
        if not self.enabled:
            return
        _require(
            self.image_size == self.codec.factor * self.unet.sample_size,
            f"image_decoder.image_size is {self.image_size}; codec.factor {self.codec.factor} x unet.sample_size "
            f"{self.unet.sample_size} gives {self.codec.factor * self.unet.sample_size}.",
        )
        _require(
            self.unet.in_channels == self.codec.latent_channels,
            f"image_decoder.unet.in_channels is {self.unet.in_channels} but codec.latent_channels is "
            f"{self.codec.latent_channels}.",
        )
        _require(
            self.mmfs_level_sizes is None or len(self.mmfs_level_sizes) == 4,
            f"image_decoder.mmfs_level_sizes is {self.mmfs_level_sizes}; expected one number for each of the four "
            "pyramid levels, or null.",
        )
        _require(
            self.resampler.d_model == self.unet.d_condition,
            f"image_decoder.resampler.d_model is {self.resampler.d_model} but unet.d_condition is "
            f"{self.unet.d_condition}.",
        )


@dataclass(frozen=True)
class NetworkConfig:
    """The whole network: visual tokenizer, language model, image decoder."""

    vision: VisionConfig = field(default_factory=VisionConfig)
    language: LanguageConfig = field(default_factory=LanguageConfig)
    image_decoder: ImageDecoderConfig = field(default_factory=ImageDecoderConfig)

    @property
    def tokens_per_image(self) -> int:
        """Placeholders that follow an image start token."""
        return self.vision.resampler.n_tokens


@dataclass(frozen=True)
class LossConfig:
    """Weights of the two losses (paper equation 5: lambda = 10)."""

    text_weight: float = 1.0
    image_weight: float = 10.0
