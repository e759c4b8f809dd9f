"""Numbers of the visual tokenizer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mmi.config.attention import ResamplerConfig
from mmi.config.checks import divides, require


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
        divides("vision.trunk.d_model", self.d_model, self.n_heads)
        require(
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
        detail_init: ``random`` is official; with ``zero`` the convolution branch adds nothing at first, so the pyramid
            starts as the trunk's own patches at four sizes. Small experiments on a pretrained trunk need it: random
            detail hides what the trunk knows for hundreds of steps.
        frozen: Keep the adapter as it starts or was loaded; the official system always trains it.
        activation_checkpointing: Recompute each injector and extractor in the backward pass instead of keeping its
            activations.
    """

    d_stem: int = 64
    n_heads: int = 16
    n_points: int = 4
    value_ratio: float = 0.5
    ffn_ratio: float = 0.25
    n_extra_extractors: int = 2
    offset_init: Literal["ring", "zero"] = "ring"
    detail_init: Literal["random", "zero"] = "random"
    frozen: bool = False
    activation_checkpointing: bool = False


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
        require(
            self.image_size % self.trunk.patch_size == 0,
            f"vision.image_size {self.image_size} is not divisible by the trunk's patch_size {self.trunk.patch_size}; "
            f"try {max(1, round(self.image_size / self.trunk.patch_size)) * self.trunk.patch_size}.",
        )
        require(
            self.trunk.n_layers % 4 == 0,
            f"vision.trunk.n_layers is {self.trunk.n_layers}; the adapter interacts in four equal stages, "
            "so it must be a multiple of 4.",
        )
        require(self.trunk.d_model % 4 == 0, f"vision.trunk.d_model {self.trunk.d_model} is not divisible by 4.")
        d_value = self.trunk.d_model * self.adapter.value_ratio
        require(
            abs(d_value - round(d_value)) < 1e-6 and round(d_value) > 0 and round(d_value) % self.adapter.n_heads == 0,
            f"vision.adapter: value_ratio {self.adapter.value_ratio} of trunk.d_model {self.trunk.d_model} does not "
            f"split evenly over n_heads {self.adapter.n_heads}.",
        )
        require(
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
