"""Names of the official checkpoint's vision part and of its resamplers, and ours for the same tensors (SPEC 7).

A table of templates, read in both directions: ``{n}`` stands for a number, and every template covers the tensor of
that name and all tensors below it. Shapes agree on both sides. Reading the table is all there is to conversion here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_ATTENTION = (
    ("attention.query", "query"),
    ("attention.key", "key"),
    ("attention.value", "value"),
    ("attention.q_norm", "query_norm"),
    ("attention.k_norm", "key_norm"),
    ("output.dense", "output"),
    ("output.LayerNorm", "norm"),
)
_RESAMPLER = (
    ("queries", "queries"),
    ("blip2qformer.layernorm", "input_norm"),
    *((f"blip2qformer.encoder.layer.{{n}}.attention.{a}", f"layers.{{n}}.self_attention.{b}") for a, b in _ATTENTION),
    *(
        (f"blip2qformer.encoder.layer.{{n}}.crossattention.{a}", f"layers.{{n}}.cross_attention.{b}")
        for a, b in _ATTENTION
    ),
    ("blip2qformer.encoder.layer.{n}.intermediate_query.dense", "layers.{n}.mlp_in"),
    ("blip2qformer.encoder.layer.{n}.output_query.dense", "layers.{n}.mlp_out"),
    ("blip2qformer.encoder.layer.{n}.output_query.LayerNorm", "layers.{n}.mlp_norm"),
)
_DEFORMABLE = ("sampling_offsets", "attention_weights", "value_proj", "output_proj")
_INJECTOR = (
    ("gamma", "gamma"),
    ("query_norm", "query_norm"),
    ("feat_norm", "value_norm"),
    *((f"attn.{name}", f"attention.{name}") for name in _DEFORMABLE),
)
_EXTRACTOR = (
    ("query_norm", "query_norm"),
    ("feat_norm", "value_norm"),
    ("ffn_norm", "ffn_norm"),
    ("ffn.fc1", "ffn.fc1"),
    ("ffn.dwconv.dwconv", "ffn.depthwise"),
    ("ffn.fc2", "ffn.fc2"),
    *((f"attn.{name}", f"attention.{name}") for name in _DEFORMABLE),
)
_TRUNK = (
    ("embeddings.class_embedding", "class_embedding"),
    ("embeddings.position_embedding.weight", "position_embedding"),
    ("embeddings.patch_embedding", "patch_embedding"),
    ("pre_layrnorm", "pre_norm"),
    *((f"encoder.layers.{{n}}.self_attn.{p}_proj", f"layers.{{n}}.self_attn.{p}_proj") for p in ("q", "k", "v", "out")),
    *(
        (f"encoder.layers.{{n}}.{name}", f"layers.{{n}}.{name}")
        for name in ("layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2")
    ),
)
_STEM = (("0", "0.0"), ("1", "0.1"), ("3", "1.0"), ("4", "1.1"), ("6", "2.0"), ("7", "2.1"))
_ADAPTER = (
    ("adapter_level_embed", "level_embedding"),
    ("adapter_up", "up"),
    *((f"adapter_spm.stem.{a}", f"spatial_prior.stem.{b}") for a, b in _STEM),
    *(
        (f"adapter_spm.conv{level + 2}.{part}", f"spatial_prior.downs.{level}.{part}")
        for level in range(3)
        for part in (0, 1)
    ),
    *((f"adapter_spm.fc{level + 1}", f"spatial_prior.projections.{level}") for level in range(4)),
    *((f"adapter_interactions.{{n}}.injector.{a}", f"interactions.{{n}}.injector.{b}") for a, b in _INJECTOR),
    *((f"adapter_interactions.{{n}}.extractor.{a}", f"interactions.{{n}}.extractor.{b}") for a, b in _EXTRACTOR),
    *(
        (f"adapter_interactions.{{n}}.extra_extractors.{{n}}.{a}", f"interactions.{{n}}.extra_extractors.{{n}}.{b}")
        for a, b in _EXTRACTOR
    ),
)
_VISION = (
    *((f"encoder.vision_model.{a}", f"trunk.{b}") for a, b in _TRUNK),
    *((f"encoder.vision_model.{a}", f"adapter.{b}") for a, b in _ADAPTER),
    *((f"perceiver_resampler.{a}", f"resampler.{b}") for a, b in _RESAMPLER),
    ("pos_proj", "token_head.projection"),
    ("pos_ln", "token_head.norm"),
    ("post_ln", "token_head.output_norm"),
    ("proj", "projection"),
)

DERIVED_VISION_KEYS = ("pos_embed", "clip_mean", "clip_std", "encoder.vision_model.embeddings.position_ids")
"""Tensors of the official ``visual_tokenizer`` that we compute instead of storing."""


class KeyTable:
    """Rename tensors by a table of ``(official, ours)`` templates.

    Example:
        >>> RESAMPLER_KEYS.ours("blip2qformer.encoder.layer.4.output_query.LayerNorm.bias")
        'layers.4.mlp_norm.bias'
        >>> VISION_KEYS.ours("encoder.vision_model.adapter_interactions.3.extra_extractors.1.attn.value_proj.weight")
        'adapter.interactions.3.extra_extractors.1.attention.value_proj.weight'
        >>> VISION_KEYS.official("trunk.position_embedding")
        'encoder.vision_model.embeddings.position_embedding.weight'
    """

    def __init__(self, templates: Iterable[tuple[str, str]]) -> None:
        pairs = tuple(templates)
        self._from_official = tuple((_pattern(official), ours) for official, ours in pairs)
        self._to_official = tuple((_pattern(ours), official) for official, ours in pairs)

    def ours(self, official: str) -> str | None:
        """Return our name of an official tensor, or None if the table does not know it."""
        return _rename(official, self._from_official)

    def official(self, ours: str) -> str | None:
        """Return the official name of a tensor of ours, or None if the table does not know it."""
        return _rename(ours, self._to_official)


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.escape(template).replace(r"\{n\}", r"(\d+)") + r"((?:\.weight|\.bias)?)")


def _rename(name: str, rules: tuple[tuple[re.Pattern[str], str], ...]) -> str | None:
    for pattern, template in rules:
        match = pattern.fullmatch(name)
        if match:
            *numbers, leaf = match.groups()
            for number in numbers:
                template = template.replace("{n}", number, 1)
            return template + leaf
    return None


RESAMPLER_KEYS = KeyTable(_RESAMPLER)
"""Names below ``visual_tokenizer.perceiver_resampler``, ``image_decoder.perceiver_resampler``, and of ``Resampler``."""

VISION_KEYS = KeyTable(_VISION)
"""Names below ``visual_tokenizer``, and of ``VisualTokenizer``."""
