"""Pictures to visual tokens for the language model and a feature pyramid for MMFS (SPEC 1.4 to 1.7)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmi.config import SavingsConfig, VisionConfig
from mmi.models.clip_trunk import ClipTrunk
from mmi.models.positions import resize_grid_table, resize_patch_table, sincos_2d
from mmi.models.reference_step import rebuilt_grid_table
from mmi.models.resampler import Resampler
from mmi.models.vit_adapter import ViTAdapter

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class VisualFeatures:
    """What the rest of the network sees of M pictures.

    Args:
        tokens: float[M, n_tokens, d_language], in place of the image placeholders.
        pyramid: Four float[M, C, s, s], finest first, positions added: the values of MMFS.
    """

    tokens: Tensor
    pyramid: tuple[Tensor, Tensor, Tensor, Tensor]


class TokenHead(nn.Module):
    """Prepare patch tokens for the resampler: project, normalise, add positions, normalise (SPEC 1.6)."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.projection = nn.Linear(d_model, d_model)
        self.norm = nn.LayerNorm(d_model, eps=1e-6)
        self.output_norm = nn.LayerNorm(d_model, eps=1e-6)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Map float[M, T, C] tokens with a table float[T, C] to float[M, T, C]."""
        return self.output_norm(self.norm(self.projection(tokens)) + positions)


class VisualTokenizer(nn.Module):
    """Turn pictures into ``config.resampler.n_tokens`` tokens and a four-level pyramid each.

    Args:
        config: Numbers of all parts.
        d_language: Width of the language model.
        load_weights: Off leaves the trunk at random values for a checkpoint to fill.

    Raises:
        ConfigError: If the trunk's weights do not fit, or a frozen trunk would stay random.
    """

    savings = SavingsConfig()

    def __init__(self, config: VisionConfig, d_language: int, *, load_weights: bool = True) -> None:
        super().__init__()
        d_model = config.trunk.d_model
        self.config = config
        self.trunk = ClipTrunk(config.trunk, load_weights=load_weights)
        self.adapter = ViTAdapter(d_model, config.adapter)
        # A resampler that reads nothing needs no head before it; unused parameters would stall distributed training.
        self.token_head = TokenHead(d_model) if config.resampler.read_input else None
        self.resampler = Resampler(config.resampler, d_model)
        self.projection = nn.Linear(config.resampler.d_model, d_language)
        nn.init.normal_(self.projection.weight, std=1e-3)
        nn.init.zeros_(self.projection.bias)

        # The table belongs to the grid the trunk was trained at; other sizes are interpolated from it, because that
        # is what official checkpoints were trained with.
        side = config.trunk.image_size // config.trunk.patch_size
        table = sincos_2d(side, side, d_model)
        tokens = torch.cat([torch.zeros(1, d_model), table])
        self.register_buffer("token_positions", resize_patch_table(tokens, config.patch_grid), persistent=False)
        for level, size in enumerate(config.pyramid_sizes):
            resized = resize_grid_table(table, (side, side), (size, size))
            self.register_buffer(f"map_positions_{level}", resized.T.reshape(d_model, size, size), persistent=False)

    @property
    def d_pyramid(self) -> int:
        """Channels of every pyramid level."""
        return self.config.trunk.d_model

    def forward(self, images: Tensor) -> VisualFeatures:
        """Tokenize pictures; the tensor passed in is not changed.

        Args:
            images: uint8[M, 3, s, s], or float in ``[0, 1]``, with ``s = config.image_size``; M may be 0.

        Raises:
            ValueError: If the pictures have another size.
        """
        size = self.config.image_size
        if images.dim() != 4 or images.shape[1:] != (3, size, size):
            raise ValueError(
                f"images has shape {list(images.shape)}; expected [M, 3, {size}, {size}] (vision.image_size is {size})."
            )
        if images.shape[0] == 0:
            # One blank picture, then none of it: shapes, dtypes and (zero) gradients come out as with pictures.
            blank = self(images.new_zeros(1, *images.shape[1:]))
            return VisualFeatures(blank.tokens[:0], _four([level[:0] for level in blank.pyramid]))
        seen = self.adapter(normalize_pixels(images).to(self.trunk.patch_embedding.weight.dtype), self.trunk)
        inputs = seen.tokens if self.token_head is None else self.token_head(seen.tokens, self.token_positions)
        pyramid = [level + self._map_positions(index).to(level.dtype) for index, level in enumerate(seen.pyramid)]
        return VisualFeatures(self.projection(self.resampler(inputs)), _four(pyramid))

    def _map_positions(self, level: int) -> Tensor:
        """Return the places of one level's cells, float32[C, s, s]."""
        table = self.get_buffer(f"map_positions_{level}")
        if self.savings.shared_tables:
            return table
        trunk, size = self.config.trunk, (table.shape[1], table.shape[2])
        rebuilt = rebuilt_grid_table(trunk.image_size // trunk.patch_size, len(table), size, table.device)
        return rebuilt.T.reshape(table.shape)


def normalize_pixels(images: Tensor) -> Tensor:
    """Bring pictures to what CLIP was trained on.

    Args:
        images: uint8[M, 3, h, w], or float in ``[0, 1]``.

    Returns:
        float32[M, 3, h, w], mean and deviation of CLIP removed per channel; a new tensor.
    """
    pixels = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    # Python numbers per channel: a buffer would lose digits when the network is cast to bfloat16.
    channels = [(pixels[:, c] - mean) / std for c, (mean, std) in enumerate(zip(CLIP_MEAN, CLIP_STD, strict=True))]
    return torch.stack(channels, dim=1)


def _four(levels: list[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    first, second, third, fourth = levels
    return first, second, third, fourth
