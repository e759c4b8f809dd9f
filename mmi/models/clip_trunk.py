"""The CLIP vision transformer under the adapter: the library's layers, run by our own loop (SPEC 1.4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import CLIPVisionModel

from mmi.config import ConfigError, VisionTrunkConfig
from mmi.models.clip_weights import load_clip_weights, transformers_config, transformers_key
from mmi.models.positions import resize_patch_table


class ClipTrunk(nn.Module):
    """Turn normalised pixels into patch tokens, in steps that others can get between; no final layer norm.

    A frozen trunk has no trainable parameter and stays in evaluation mode, but gradients flow through it. Parameters
    keep our own names (see :mod:`mmi.models.clip_weights`), and the position table keeps the size it was trained at:
    it is resized where it is used, so a checkpoint fits every picture size.

    Args:
        config: Numbers of the transformer and where its weights come from.
        load_weights: Off leaves random values for a checkpoint to fill.

    Raises:
        ConfigError: If a frozen trunk would stay at random weights, or the weights do not fit ``config``.
    """

    def __init__(self, config: VisionTrunkConfig, *, load_weights: bool = True) -> None:
        super().__init__()
        if load_weights and config.frozen and config.weights is None and not config.allow_frozen_random:
            raise ConfigError(
                "vision.trunk is frozen but has no weights, so it would stay random for ever; give "
                "vision.trunk.weights, set vision.trunk.frozen to false, or (speed benchmarks only) "
                "vision.trunk.allow_frozen_random to true."
            )
        self.config = config
        clip = CLIPVisionModel(transformers_config(config))
        self.class_embedding = nn.Parameter(clip.embeddings.class_embedding.detach())
        self.position_embedding = nn.Parameter(clip.embeddings.position_embedding.weight.detach())
        self.patch_embedding = clip.embeddings.patch_embedding
        self.pre_norm = clip.pre_layrnorm
        self.layers = clip.encoder.layers
        if load_weights and config.weights is not None:
            self._load(load_clip_weights(config), config.weights)
        if config.frozen:
            self.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> ClipTrunk:
        """Set the mode; a frozen trunk stays in evaluation mode."""
        return super().train(mode and not self.config.frozen)

    def embed(self, pixels: Tensor) -> Tensor:
        """Cut normalised pixels into patches, add positions and apply the first layer norm.

        Args:
            pixels: float[M, 3, s, s], ``s`` a multiple of the patch size.

        Returns:
            float[M, 1 + g * g, C], class token first.
        """
        patches = self.patch_embedding(pixels.to(self.patch_embedding.weight.dtype))  # (M, C, g, g)
        table = resize_patch_table(
            self.position_embedding,
            patches.shape[-1],
            align_corners=self.config.position_interpolation == "align_corners",
        )
        class_tokens = self.class_embedding.to(patches.dtype).expand(patches.shape[0], 1, -1)
        return self.pre_norm(torch.cat([class_tokens, patches.flatten(2).mT], dim=1) + table)

    def run_layers(self, tokens: Tensor, start: int, stop: int) -> Tensor:
        """Apply layers ``start`` to ``stop - 1`` to float[M, T, C]."""
        recompute = self.config.activation_checkpointing and torch.is_grad_enabled()
        for layer in self.layers[start:stop]:
            tokens = checkpoint(layer, tokens, None, use_reentrant=False) if recompute else layer(tokens, None)
        return tokens

    def forward(self, pixels: Tensor) -> Tensor:
        """Run the plain transformer: float[M, 3, s, s] to float[M, 1 + g * g, C]."""
        return self.run_layers(self.embed(pixels), 0, len(self.layers))

    def _load(self, state: dict[str, Tensor], source: str) -> None:
        own = self.state_dict()
        for name in sorted(own.keys() | state.keys()):
            wanted, found = own.get(name), state.get(name)
            if wanted is None or found is None or wanted.shape != found.shape:
                raise ConfigError(
                    f"vision.trunk.weights {source!r}: {name} has shape {found if found is None else list(found.shape)}"
                    f" but the configured trunk has {wanted if wanted is None else list(wanted.shape)}; give weights "
                    "of a plain CLIP vision transformer, or change vision.trunk."
                )
        self.load_state_dict(state)

    def to_transformers(self) -> CLIPVisionModel:
        """Return a library model with these weights, for its ``save_pretrained``; its last layer norm is untouched."""
        with torch.random.fork_rng(devices=[]):
            clip = CLIPVisionModel(transformers_config(self.config))
        own = self.state_dict()
        state = clip.state_dict()
        clip.load_state_dict({key: own.get(transformers_key(key) or "", tensor) for key, tensor in state.items()})
        return clip
