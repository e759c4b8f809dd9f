"""The official formulas once more, as plainly as possible: small loops, one thing after the other, any float type.

Written from SPEC 1.8 and 1.10 to 1.12, 2, 5 and Appendix A alone, for tests to compare the networks with. Nothing here
calls `mmfs` or `mmi.models`; parameters are read from a network's ``state_dict`` under our names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

Parameters = Mapping[str, Tensor]
NONE = -100


def below(parameters: Parameters, prefix: str) -> dict[str, Tensor]:
    """The parameters of one part, without its prefix."""
    return {k.removeprefix(prefix): v for k, v in parameters.items() if k.startswith(prefix)}


def linear(p: Parameters, name: str, x: Tensor) -> Tensor:
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def layer_norm(p: Parameters, name: str, x: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt() * p[f"{name}.weight"] + p[f"{name}.bias"]


# Ids


def latest(ids: Sequence[int], wanted: int, position: int) -> int:
    """Latest place of an id at or before a position, -1 if there is none."""
    return max((i for i in range(position + 1) if ids[i] == wanted), default=-1)


def shifted_labels(
    ids: Sequence[int], mask: Sequence[int], *, bos: int, pad: int, soi: int, image: int, offset: int, rule_2: bool
) -> list[int]:
    """Labels of SPEC 2.1 for one row: entry ``i`` is what token ``i`` has to predict."""
    labels = list(ids)
    for t in range(len(ids)):
        if t < offset:
            labels[t] = NONE
        start = latest(ids, soi, t)
        if rule_2 and (start < 0 or start < latest(ids, bos, t)):
            labels[t] = NONE
    for t in range(len(ids)):
        opens_with_image = ids[t] == soi and t > 0 and ids[t - 1] == bos
        if ids[t] in (pad, image, bos) or not mask[t] or opens_with_image:
            labels[t] = NONE
    return labels[1:]


@dataclass
class Placed:
    """One image of a batch: where it stands, where its context begins, which image it may look at."""

    row: int
    soi: int
    bos: int
    previous: int | None

    @property
    def context(self) -> list[int]:
        """Positions of its context, the nearest first."""
        return list(range(self.soi, self.bos - 1, -1))


def placed_images(rows: Sequence[Sequence[int]], *, bos: int, soi: int) -> list[Placed]:
    """Find the images of a batch, and the nearest previous one each may look at (SPEC 1.10)."""
    found: list[Placed] = []
    for r, ids in enumerate(rows):
        for t, token in enumerate(ids):
            if token != soi:
                continue
            begin = max(latest(ids, bos, t), 0)
            before = len(found) - 1
            seen = before >= 0 and found[before].row == r and found[before].soi >= begin
            found.append(Placed(r, t, begin, before if seen else None))
    return found


# MMFS


def bilinear(value: Tensor, h: int, w: int, location: Tensor) -> Tensor:
    """Read a map [h * w, heads, d] at ``(x, y)`` [Q, heads, P, 2]; zero outside, pixel = location * size - 0.5."""
    x, y = location[..., 0] * w - 0.5, location[..., 1] * h - 0.5
    left, top = x.floor(), y.floor()
    heads = torch.arange(value.shape[1])[None, :, None].expand(x.shape)
    result = 0
    for i in (0, 1):
        for j in (0, 1):
            column, line = (left + i).long(), (top + j).long()
            weight = (1 - (x - left - i).abs()) * (1 - (y - top - j).abs())
            inside = (column >= 0) & (column < w) & (line >= 0) & (line < h)
            place = line.clamp(0, h - 1) * w + column.clamp(0, w - 1)
            result = result + (weight * inside)[..., None] * value[place, heads]
    assert isinstance(result, Tensor)
    return result


def mmfs(
    p: Parameters,
    query: Tensor,
    images: Sequence[Sequence[Tensor]],
    reference: Tensor,
    *,
    base_size: float,
    level_sizes: Sequence[float],
    n_heads: int,
    n_points: int,
) -> Tensor:
    """The synchronizer for queries [Q, d] that all see the same images, each a list of normed maps [C, h, w]."""
    n_levels = len(level_sizes)
    total = torch.ones(len(query), n_heads, 1, dtype=query.dtype)
    summed = p["null_value"].expand(len(query), -1, -1)
    for m, maps in enumerate(images):
        u = linear(p, "query_proj", query) + p["index_embedding.weight"][len(images) - m]
        offsets = linear(p, "sampling_offsets", u).view(-1, n_heads, n_points, 2)
        logits = linear(p, "attention_weights", u).view(-1, n_heads, n_levels, n_points)
        for level, feature in enumerate(maps):
            _, h, w = feature.shape
            value = linear(p, "value_proj", feature.flatten(1).T).view(h * w, n_heads, -1)
            size = torch.tensor([w, h], dtype=query.dtype)
            location = reference[:, None, None] + offsets * (level_sizes[level] / base_size) / size
            weight = logits[:, :, level].exp()
            total = total + weight.sum(-1, keepdim=True)
            summed = summed + (weight[..., None] * bilinear(value, h, w, location)).sum(2)
    return linear(p, "output_proj", (summed / total).flatten(1))


def grid_table(side: int, width: int) -> Tensor:
    """Sin-cos table [side * side, width]: first half of the channels the row, second half the column."""
    rows = []
    for y in range(side):
        for x in range(side):
            entry = []
            for position in (y, x):
                angles = [position * 10000 ** (-k / (width // 4)) for k in range(width // 4)]
                entry += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            rows.append(entry)
    return torch.tensor(rows, dtype=torch.float64)


def decoder_mmfs(
    p: Parameters,
    feature: Tensor,
    previous: Sequence[Tensor] | None,
    *,
    table_side: int,
    level_sizes: Sequence[float],
    n_heads: int,
    n_points: int,
) -> Tensor:
    """What one MMFS of the U-Net adds to a feature map [C, h, w]; ``previous`` are the maps of the image it sees."""
    width, h, w = feature.shape
    table = grid_table(table_side, width).T.reshape(1, width, table_side, table_side)
    if table_side != h:
        table = F.interpolate(table.float(), size=(h, w), mode="bicubic", align_corners=False)
    query = layer_norm(p, "query_norm", feature.flatten(1).T, 1e-6) + table.to(feature).flatten(2)[0].T
    centres = [((x + 0.5) / w, (y + 0.5) / h) for y in range(h) for x in range(w)]
    seen = []
    if previous is not None:
        maps = [layer_norm(p, "pyramid_norm", m.permute(1, 2, 0), 1e-6).permute(2, 0, 1) for m in previous]
        seen.append(maps)
    found = mmfs(
        below(p, "attention."),
        query,
        seen,
        torch.tensor(centres, dtype=feature.dtype),
        base_size=w,
        level_sizes=level_sizes,
        n_heads=n_heads,
        n_points=n_points,
    )
    return (found @ p["conv.weight"][:, :, 0, 0].T + p["conv.bias"]).T.view(width, h, w)


# Condition


def attention(p: Parameters, hidden: Tensor, inputs: Tensor, n_heads: int) -> Tensor:
    """One attention of the resampler with residual and norm, for one image: [Q, C] reads [S, C']."""
    q, k, v = linear(p, "query", hidden), linear(p, "key", inputs), linear(p, "value", inputs)
    d = q.shape[1] // n_heads
    heads = []
    for i in range(n_heads):
        part = slice(i * d, (i + 1) * d)
        heads.append((q[:, part] @ k[:, part].T / math.sqrt(d)).softmax(-1) @ v[:, part])
    return layer_norm(p, "norm", hidden + linear(p, "output", torch.cat(heads, 1)), 1e-12)


def condition(p: Parameters, hidden: Tensor, place: Placed, n_heads: int) -> Tensor:
    """Condition tokens of one image from hidden states [T, d] of its row (SPEC 1.11, one layer, no q/k norms)."""
    d = hidden.shape[1]
    rows = []
    for k, position in enumerate(place.context):
        angles = [k * 10000 ** (-i / (d // 2)) for i in range(d // 2)]
        table = torch.tensor([*map(math.sin, angles), *map(math.cos, angles)], dtype=torch.float64)
        rows.append(linear(p, "context_proj", hidden[position]) + table.to(hidden))
    inputs = torch.stack(rows)
    tokens = layer_norm(p, "resampler.input_norm", p["resampler.queries"][0], 1e-12)
    layer = below(p, "resampler.layers.0.")
    tokens = attention(below(layer, "self_attention."), tokens, tokens, n_heads)
    tokens = attention(below(layer, "cross_attention."), tokens, inputs, n_heads)
    update = linear(layer, "mlp_out", F.gelu(linear(layer, "mlp_in", tokens)))
    return layer_norm(layer, "mlp_norm", tokens + update, 1e-12)


# U-Net and losses


class PlainUNet:
    """The library's own U-Net, called as a whole; MMFS enters as its residuals of skips and middle (ControlNet's way).

    Args:
        numbers: The library's numbers.
        parameters: Of our ``UNet``, shared, so that gradients can be compared.
    """

    def __init__(self, numbers: dict, parameters: Parameters) -> None:
        self.library = UNet2DConditionModel(**numbers).eval()
        self.parameters = {k: v for k, v in parameters.items() if not k.startswith("mmfs.")}
        # The library's own `to` warns about every precision.
        nn.Module.to(self.library, next(iter(self.parameters.values())).dtype)
        assert self.library.state_dict().keys() == self.parameters.keys()

    def __call__(self, latents: Tensor, time: int, tokens: Tensor, addition: Callable[[int, Tensor], Tensor]) -> Tensor:
        """Predict for one picture, latents [c, h, w] and tokens [n, d]; MMFS module ``i`` adds ``addition(i, map)``."""
        features: list[Tensor] = []
        middle: list[Tensor] = []
        handles = [self.library.conv_in.register_forward_hook(lambda _, __, out: features.append(out))]
        handles += [
            b.register_forward_hook(lambda _, __, out: features.extend(out[1])) for b in self.library.down_blocks
        ]
        handles += [self.library.mid_block.register_forward_hook(lambda _, __, out: middle.append(out))]
        inputs = (latents[None], torch.tensor([time]), tokens[None])
        self._call(inputs, {})
        for handle in handles:
            handle.remove()
        added = [addition(i, feature[0])[None] for i, feature in enumerate([*features, *middle])]
        residuals = {
            "down_block_additional_residuals": tuple(added[:-1]),
            "mid_block_additional_residual": added[-1],
        }
        return self._call(inputs, residuals)[0]

    def _call(self, inputs: tuple, residuals: dict) -> Tensor:
        return functional_call(self.library, self.parameters, inputs, {**residuals, "return_dict": False})[0]


def alphas(n_timesteps: int = 1000) -> Tensor:
    """Cumulated alphas of the scaled-linear schedule."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, n_timesteps, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0)


def image_loss(clean: Tensor, noise: Tensor, time: int, prediction: str, predict: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean squared error of one picture's prediction, latents [c, h, w] (SPEC 1.12)."""
    a = alphas()[time].to(clean)
    noisy = a.sqrt() * clean + (1 - a).sqrt() * noise
    target = noise if prediction == "epsilon" else a.sqrt() * noise - (1 - a).sqrt() * clean
    return (predict(noisy) - target).square().mean()


def ancestral_sampling(
    predict: Callable[[Tensor, int], Tensor], start: Tensor, noises: Sequence[Tensor], prediction: str, n_steps: int
) -> Tensor:
    """DDPM with leading spacing, offset 1 and the small fixed variance; one noise per step (SPEC 5.2)."""
    cumulated = alphas()
    stride = 1000 // n_steps
    latents = start.double()
    for k, noise in zip(reversed(range(n_steps)), noises, strict=True):
        time = 1 + k * stride
        now = cumulated[time]
        before = cumulated[time - stride] if time - stride >= 0 else torch.ones((), dtype=torch.float64)
        out = predict(latents, time).double()
        if prediction == "epsilon":
            clean = (latents - (1 - now).sqrt() * out) / now.sqrt()
        else:
            clean = now.sqrt() * latents - (1 - now).sqrt() * out
        step = now / before
        mean = before.sqrt() * (1 - step) / (1 - now) * clean + step.sqrt() * (1 - before) / (1 - now) * latents
        variance = ((1 - before) / (1 - now) * (1 - step)).clamp(min=1e-20)
        latents = mean + variance.sqrt() * noise.double()
    return latents
