"""Numbers of a network that the shapes of an official checkpoint show.

Where several tensors show the same number the most frequent value counts, so that one wrong tensor is found against the
others and not believed. Numbers that no shape shows, or a single one, are assumptions and are listed as such.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mmi.config import ConfigError

Shapes = Mapping[str, tuple[int, ...]]
_ENCODER = "visual_tokenizer.encoder.vision_model."
_FORMER = "blip2qformer.encoder.layer."
_UNET_MMFS = r"image_decoder\.decoder\.mmfs_module\.(mmfs_mid_block|mmfs_down_blocks\.\d+)\."
_UNET = _UNET_MMFS + r"mmfs\."
_LANGUAGE_MMFS = r"mm_decoder\.layers\.\d+\.llama_cross_attn\.attn\."


@dataclass
class FoundNumbers:
    """What shapes show.

    Args:
        tree: Settings below ``model.network``.
        assumed: Settings that no shape or a single one shows, with where the value comes from.
    """

    tree: dict[str, Any] = field(default_factory=dict)
    assumed: dict[str, str] = field(default_factory=dict)

    def put(self, name: str, value: object) -> None:
        """Set ``a.b.c``; None is no finding."""
        if value is None:
            return
        *parents, last = name.split(".")
        node = self.tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value


def numbers_from_shapes(
    shapes: Shapes, *, clip_heads: int, d_vision: int, n_levels: int = 3, n_unet_levels: int = 4
) -> FoundNumbers:
    """Read the numbers that no configuration of a backbone holds.

    Args:
        shapes: Names and shapes of an official checkpoint.
        clip_heads: Heads of the vision trunk; the released adapter has as many.
        d_vision: Width of the vision trunk.
        n_levels: Pyramid levels the language model looks at, where shapes leave a choice.
        n_unet_levels: The same of the image decoder.

    Raises:
        ConfigError: If one of them looks at another number of levels, whose sizes no shape shows.
    """
    found = FoundNumbers()
    _adapter(found, shapes, clip_heads, d_vision)
    d_head = _resampler(found, shapes, "visual_tokenizer.", "vision.resampler")
    _resampler(found, shapes, "image_decoder.", "image_decoder.resampler", d_head)
    for part, before, wanted in (("language", _LANGUAGE_MMFS, n_levels), ("image_decoder", _UNET, n_unet_levels)):
        levels = _mmfs(found, shapes, before, f"{part}.mmfs", wanted)
        if levels is not None and levels != wanted:
            raise ConfigError(
                f"the checkpoint's {part.replace('_', ' ')} part looks at {levels} pyramid levels, the configuration "
                f"at {wanted}; say which with --model.network.{part}.mmfs.levels, such as [1, 2]."
            )
    layers = {int(m[1]) for name in shapes if (m := re.match(r"mm_decoder\.layers\.(\d+)\.", name))}
    looking = {int(m[1]) for name in shapes if (m := re.match(r"mm_decoder\.layers\.(\d+)\.llama_cross_attn\.", name))}
    found.put("language.mmfs_every", _stride(looking, len(layers)))
    cells = _usual(_sizes(shapes, _UNET_MMFS + "pos_embed"))
    if cells is not None and math.isqrt(cells) ** 2 == cells:
        found.put("image_decoder.unet.sample_size", math.isqrt(cells))
    return found


def _adapter(found: FoundNumbers, shapes: Shapes, clip_heads: int, d_vision: int) -> None:
    stem = _usual(_sizes(shapes, re.escape(_ENCODER) + r"adapter_spm\.stem\.\d\.weight"))
    found.put("vision.adapter.d_stem", stem)
    extractor = re.escape(_ENCODER) + r"adapter_interactions\.\d+\.(extractor|extra_extractors\.\d+)\."
    values = _usual(_sizes(shapes, extractor + r"attn\.value_proj\.weight"))
    hidden = _usual(_sizes(shapes, extractor + r"ffn\.fc1\.weight"))
    found.put("vision.adapter.value_ratio", None if values is None else values / d_vision)
    found.put("vision.adapter.ffn_ratio", None if hidden is None else hidden / d_vision)
    extra = {int(m[1]) for name in shapes if (m := re.search(r"\.extra_extractors\.(\d+)\.", name))}
    found.put("vision.adapter.n_extra_extractors", len(extra))
    weights = _usual(_sizes(shapes, extractor + r"attn\.attention_weights\.(weight|bias)"))
    if weights is not None and weights % clip_heads == 0:  # an extractor looks at one level
        found.put("vision.adapter.n_heads", clip_heads)
        found.put("vision.adapter.n_points", weights // clip_heads)
        found.assumed["vision.adapter.n_heads"] = f"{clip_heads}, as many as the vision trunk has; no shape shows it"


def _resampler(found: FoundNumbers, shapes: Shapes, prefix: str, where: str, d_head: int | None = None) -> int | None:
    """Read a resampler's numbers and return the width of its heads."""
    before = re.escape(f"{prefix}perceiver_resampler.")
    layer = before + re.escape(_FORMER) + r"\d+\."
    witnesses = (f"{prefix}perceiver_resampler.queries", f"{prefix}neg_prompt_embeds")
    counts = {shapes[name][1:2] for name in witnesses if len(shapes.get(name, ())) > 1}
    d_model = _usual(_sizes(shapes, layer + r"attention\.attention\.query\.(weight|bias)"))
    layers = {int(m[1]) for n in shapes if (m := re.match(before + re.escape(_FORMER) + r"(\d+)\.", n))}
    crossed = {int(m[1]) for n in shapes if (m := re.match(before + re.escape(_FORMER) + r"(\d+)\.crossatt", n))}
    normed = _usual(_sizes(shapes, layer + r"(attention|crossattention)\.attention\.[qk]_norm\.(weight|bias)"))
    # Where the two that show it disagree neither is believed.
    n_tokens = next(iter(counts))[0] if len(counts) == 1 else None
    found.put(f"{where}.n_tokens", n_tokens)
    if n_tokens is not None and sum(name in shapes for name in witnesses) == 1:
        found.assumed[f"{where}.n_tokens"] = f"{n_tokens}; a single tensor shows it"
    found.put(f"{where}.d_model", d_model)
    found.put(f"{where}.n_layers", len(layers) or None)
    found.put(f"{where}.d_mlp", _usual(_sizes(shapes, layer + r"intermediate_query\.dense\.(weight|bias)")))
    found.put(f"{where}.cross_attention_every", _stride(crossed, len(layers)))
    found.put(f"{where}.qk_norm", normed is not None)
    width = normed or d_head
    if d_model is not None and width is not None and d_model % width == 0:
        found.put(f"{where}.n_heads", d_model // width)
        if normed is None:
            found.assumed[f"{where}.n_heads"] = (
                f"{d_model // width}, as wide as the visual resampler's heads; no shape shows it"
            )
    return width


def _mmfs(found: FoundNumbers, shapes: Shapes, before: str, where: str, n_levels: int) -> int | None:
    """Read the numbers of MMFS modules and return how many levels they look at."""
    offsets = _usual(_sizes(shapes, before + r"sampling_offsets\.(weight|bias)"))
    weights = _usual(_sizes(shapes, before + r"attention_weights\.(weight|bias)"))
    found.put(f"{where}.d_inner", _usual(_sizes(shapes, before + r"value_proj\.(weight|bias)")))
    found.put(f"{where}.max_images", _usual(_sizes(shapes, before + r"query_relpos\.weight")))
    if offsets is None or weights is None:
        return None
    # Offsets have 2 H P rows, weights L H (P + 1).
    for levels in sorted((1, 2, 3, 4), key=lambda level: level != n_levels):
        heads, rest = weights // levels - offsets // 2, weights % levels
        if not rest and heads > 0 and (offsets // 2) % heads == 0:
            found.put(f"{where}.n_heads", heads)
            found.put(f"{where}.n_points", offsets // 2 // heads)
            return levels
    return None


def _stride(indices: set[int], n_layers: int) -> int | None:
    if not indices:
        return None
    return math.gcd(*indices) or max(n_layers, 1)


def _sizes(shapes: Shapes, pattern: str) -> list[int]:
    """Return the first size of every tensor of that name."""
    compiled = re.compile(pattern)
    return [shape[0] for name, shape in shapes.items() if shape and compiled.fullmatch(name)]


def _usual(values: Iterable[int]) -> int | None:
    counted = Counter(values).most_common(1)
    return counted[0][0] if counted else None
