"""A llama-like language model that reads visual tokens and looks into image pyramids (SPEC 1.2, 1.9, 1.10)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import DynamicCache

from mmfs import ImageView, PyramidValues, nearest_visible, relative_image_index
from mmi.config import CompatConfig, ConfigError, LanguageConfig, SavingsConfig
from mmi.models.attention_mask import attention_masks, count_positions
from mmi.models.decoder_block import AttentionInputs, DecoderBlock, LayerImages, MMFSBranch
from mmi.models.language_backbone import as_if_trained, hold_frozen, layer_kinds, load_backbone, portable_attention
from mmi.models.resampler import Resampler
from mmi.models.text_head import TextHead


@dataclass(frozen=True)
class ImageContext:
    """The images a batch of tokens may look at, shared by all layers.

    Args:
        values: Projected pyramids of the packed images, one per MMFS layer, as `LanguageModel.project_pyramid` gives.
        image_table: int64[B, N] packed image in each slot of a row, ``-1`` in empty ones, in reading order.
        visible: bool[B, T, N] which slots each new token may look at.
    """

    values: tuple[PyramidValues, ...]
    image_table: Tensor
    visible: Tensor


class LanguageModel(nn.Module):
    """Turn embeddings of interleaved text and images into hidden states.

    The decoder layers, embedding table, final norm, rotary tables and output matrix are the library's own objects,
    held as parts; `DecoderBlock` calls them. At construction the result is compared with the untouched library model.

    Args:
        config: Numbers, weights and switches.
        d_pyramid: Channels of the feature pyramid.
        compat: Whether documents packed in one row attend to each other (D8).
        load_weights: False leaves pretrained weights out, because a checkpoint that holds everything comes next.

    Raises:
        ConfigError: If numbers and weights disagree, a random model would stay frozen, or the library's layers are not
            of the kind our block can run.
    """

    savings = SavingsConfig()

    def __init__(
        self, config: LanguageConfig, d_pyramid: int, compat: CompatConfig, *, load_weights: bool = True
    ) -> None:
        super().__init__()
        self.config = config
        self.joined_documents = CompatConfig.of(compat).cross_document_attention == "official"
        backbone = load_backbone(config, load_weights=load_weights)
        self.library_config = backbone.config
        self.kinds = layer_kinds(backbone.config)
        self.embed_tokens = backbone.embed_tokens
        self.new_tokens = nn.Parameter(torch.randn(2, config.d_model) * 0.02)
        self.image_start = nn.Parameter(torch.zeros(config.d_model))
        transition = config.mmfs.transition if config.mmfs.enabled else None
        self.mmfs_transition = None if transition is None else Resampler(transition, d_pyramid)
        d_pyramid = d_pyramid if transition is None else transition.d_model
        self.layers = nn.ModuleList(
            DecoderBlock(layer, self._branch(i, d_pyramid)) for i, layer in enumerate(backbone.layers)
        )
        self.norm = backbone.norm
        self.text_head = TextHead(config.d_model, config.vocab_size, None if config.tie_embeddings else backbone.output)
        # Not a submodule: a cast of the network to a half type must not round the rotary frequencies.
        with torch.device("cpu"):
            self._rotary = (type(backbone.rotary)(backbone.config),)
        self._freeze(config.frozen)
        self._check_against(backbone.probe, backbone.expected)
        hold_frozen(config, [block.layer for block in self.blocks], self.text_head)

    def _branch(self, index: int, d_pyramid: int) -> MMFSBranch | None:
        config = self.config
        if not config.mmfs.enabled or index % config.mmfs_every:
            return None
        return MMFSBranch(config.mmfs, config.d_model, d_pyramid, config.norm_eps)

    def _freeze(self, frozen: bool) -> None:
        parts = [self.embed_tokens, self.norm, *(block.layer for block in self.blocks)]
        parts += [self.text_head.base] if self.text_head.base is not None else []
        for part in parts:
            part.requires_grad_(not frozen)
        self.new_tokens.requires_grad_(not frozen)

    @torch.no_grad()
    def _check_against(self, probe: Tensor | None, expected: Tensor | None) -> None:
        """Compare with the untouched library model: all gates are zero, so nothing may differ."""
        if probe is None or expected is None:
            return
        with portable_attention(self.library_config), as_if_trained(self.config, probe.device):
            found = self(probe)
        scale = expected.abs().max().clamp(min=1.0)
        error = (found - expected).abs().max() / scale
        # In mixed precision both do the same roundings, unless a kernel differs.
        tolerance = 256 * torch.finfo(expected.dtype).eps if self.config.weights_dtype == "float32" else 0.03
        if not error <= tolerance:
            raise ConfigError(
                f"language.family {self.config.family}: with closed gates our layers give other hidden states than "
                f"the library's model (relative difference {float(error):.1e}), so its layers do more than attention, "
                "feed-forward and two norms; choose llama, mistral, qwen2 or qwen3."
            )

    @property
    def blocks(self) -> tuple[DecoderBlock, ...]:
        """The decoder blocks in order."""
        return tuple(cast(DecoderBlock, block) for block in self.layers)

    @property
    def branches(self) -> tuple[MMFSBranch, ...]:
        """The MMFS branches in order of their layers."""
        return tuple(block.mmfs for block in self.blocks if block.mmfs is not None)

    def embed_text(self, text_ids: Tensor) -> Tensor:
        """Look up embeddings float[B, T, d] of ids int64[B, T] of the extended vocabulary."""
        n_base = self.config.vocab_size
        # In the type of what is trained, whatever type the frozen table is held in.
        old = self.embed_tokens(text_ids.clamp(max=n_base - 1)).to(self.image_start.dtype)
        new_rows = torch.stack([self.new_tokens[0] + self.image_start, self.new_tokens[1]]).to(old.dtype)
        new = F.embedding((text_ids - n_base).clamp(0, 1), new_rows)
        return torch.where((text_ids >= n_base)[..., None], new, old)

    def embed(self, text_ids: Tensor, visual_tokens: Tensor, image_row: Tensor, image_start: Tensor) -> Tensor:
        """Look up embeddings and put visual tokens in the places of their placeholders.

        A trained vector, zero at first, is added to the embedding of every ``<BoI>``.

        Args:
            text_ids: int64[B, T].
            visual_tokens: float[M, n, d] tokens of the packed images; ``M`` may be 0.
            image_row: int64[M] row of each image.
            image_start: int64[M] position of its ``<BoI>``; the ``n`` placeholders follow it.

        Returns:
            float[B, T, d].
        """
        embeddings = self.embed_text(text_ids)
        rows, length, width = embeddings.shape
        n_tokens = visual_tokens.shape[1]
        offsets = torch.arange(1, n_tokens + 1, device=text_ids.device)
        places = (image_row * length + image_start)[:, None] + offsets  # (M, n)
        flat = embeddings.reshape(rows * length, width)
        flat = flat.index_copy(0, places.reshape(-1), visual_tokens.reshape(-1, width).to(flat.dtype))
        return flat.view(rows, length, width)

    def project_pyramid(self, pyramid: Sequence[Tensor]) -> tuple[PyramidValues, ...]:
        """Project the chosen levels for every MMFS layer, once for all later queries.

        Args:
            pyramid: Four maps float[M, C, h, w], finest first.

        Returns:
            One entry per MMFS layer; empty if MMFS is off.
        """
        maps = [pyramid[level] for level in self.config.mmfs.levels]
        flat = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], dim=1)  # (M, S, C)
        shapes = tuple((m.shape[2], m.shape[3]) for m in maps)
        if self.mmfs_transition is not None:
            flat = self.mmfs_transition(flat)
            shapes = ((flat.shape[1], 1),)
        return tuple(branch.project(flat, shapes) for branch in self.branches)

    def no_images(self) -> tuple[PyramidValues, ...]:
        """Return values of zero images, one entry per MMFS layer."""
        return tuple(branch.no_images() for branch in self.branches)

    def count_hidden(self, visible: Tensor) -> Tensor:
        """Count (token, image) pairs that the relative-index table cannot hold; the nearest images stay visible.

        Args:
            visible: bool[B, T, N].

        Returns:
            int64[].
        """
        config = self.config.mmfs
        if not config.enabled:
            return torch.zeros((), dtype=torch.int64, device=visible.device)
        return relative_image_index(nearest_visible(visible, config.visible_images), config.max_images)[1]

    def new_cache(self) -> DynamicCache:
        """Return an empty cache of keys and values."""
        return DynamicCache(config=self.library_config)

    def head(self, hidden: Tensor) -> Tensor:
        """Return logits float[..., vocab_size + 2] of hidden states float[..., d], in float32 or wider."""
        return self.text_head(hidden, self.embed_tokens.weight if self.config.tie_embeddings else None)

    def forward(
        self,
        embeddings: Tensor,
        *,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        document_ids: Tensor | None = None,
        images: ImageContext | None = None,
        cache: DynamicCache | None = None,
    ) -> Tensor:
        """Run the decoder over new tokens.

        Args:
            embeddings: float[B, T, d].
            attention_mask: bool[B, S] over cached and new tokens, True on real ones; ``None`` if all are real.
            position_ids: int64[B, T]; ``None`` counts the real tokens of the row.
            document_ids: int64[B, T] for packed rows as collation makes them, padded on the right. They keep
                documents apart, or, under ``compat.cross_document_attention: official``, are ignored together with
                ``position_ids``: plain causal attention with positions through the row.
            images: What MMFS may look at; ``None`` is the same as no image at all, not the same as MMFS switched off.
            cache: Earlier keys and values, extended in place.

        Returns:
            float[B, T, d] after the final norm.
        """
        rows, length, _ = embeddings.shape
        n_cached = cache.get_seq_length() if cache is not None else 0
        if document_ids is not None:
            assert cache is None, "packed rows are not continued"
            # Nobody looks right, so padding there needs no mask, and plain causal kernels are the fastest.
            attention_mask = None
            if self.joined_documents:
                document_ids = position_ids = None
        if position_ids is None:
            position_ids = count_positions(attention_mask, rows, length, n_cached, embeddings.device)

        def attention_inputs(kinds: Sequence[str]) -> dict[str, AttentionInputs]:
            masks = attention_masks(self.library_config, kinds, embeddings, attention_mask, cache, document_ids)
            rotary = self._cos_sin(embeddings, position_ids)
            return {kind: AttentionInputs(mask, position_ids, rotary, cache) for kind, mask in masks.items()}

        shared = attention_inputs(self.kinds) if self.savings.shared_tables else None
        layer_images = self._layer_images(embeddings, images)
        recompute = self.config.activation_checkpointing and torch.is_grad_enabled() and cache is None and self.training

        hidden = embeddings
        for kind, block, seen in zip(self.kinds, self.blocks, layer_images, strict=True):
            attention = (attention_inputs([kind]) if shared is None else shared)[kind]
            if recompute:
                # Only LoRA drops anything here; without it the random state need not be kept.
                drops = self.config.lora is not None and self.config.lora.dropout > 0
                hidden = checkpoint(block, hidden, attention, seen, use_reentrant=False, preserve_rng_state=drops)
            else:
                hidden = block(hidden, attention, seen)
        return self.norm(hidden)

    def _cos_sin(self, embeddings: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        (rotary,) = self._rotary
        if next(rotary.buffers()).device != embeddings.device:
            rotary.to(embeddings.device)
        return rotary(embeddings, position_ids)

    def _layer_images(self, embeddings: Tensor, images: ImageContext | None) -> list[LayerImages | None]:
        """Give every layer with MMFS its own values and the shared view, and the others nothing."""
        config = self.config.mmfs
        if not config.enabled:
            return [None] * len(self.blocks)
        if images is None:
            rows, length, _ = embeddings.shape
            table = torch.zeros(rows, 0, dtype=torch.int64, device=embeddings.device)
            visible = torch.zeros(rows, length, 0, dtype=torch.bool, device=embeddings.device)
            images = ImageContext(self.no_images(), table, visible)
        values = iter(images.values)
        view = self._view(images)
        return [
            LayerImages(next(values), view if self.savings.shared_tables else self._view(images))
            if block.mmfs is not None
            else None
            for block in self.blocks
        ]

    def _view(self, images: ImageContext) -> ImageView:
        """Number the images that each token sees."""
        visible = nearest_visible(images.visible, self.config.mmfs.visible_images)
        return ImageView.of(images.image_table, visible, self.config.mmfs.max_images)
