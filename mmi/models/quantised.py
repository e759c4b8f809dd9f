"""Frozen weights in fewer bits, bfloat16 or 4-bit NormalFloat, and products with them.

NormalFloat (QLoRA, arXiv 2305.14314) holds 64 numbers as one scale and 64 of 16 levels, which are spaced so that each
is equally likely for a normal distribution. The form is that of bitsandbytes without its second quantisation (of the
scales, 0.4 bits a number): the high half of a byte comes first. One tensor of bytes holds levels and scales, so that
casts of the network to another type, hashes, and moves between devices treat a weight as one thing under its old name.

`unpack` in plain torch is the definition and runs anywhere. On CUDA, products go through the kernels of bitsandbytes
where that is installed (the extra ``quant``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmi.models.autocast import autocast_dtype

BLOCK = 64
LEVELS = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
    *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
"""Appendix E of the paper."""
_BLOCKS_AT_ONCE = 1 << 18


def packed_size(n: int) -> int:
    """Return the bytes of ``n`` numbers: half a byte each, and four for the scale of every 64.

    Example:
        >>> packed_size(5120 * 5120) / (5120 * 5120)
        0.5625
    """
    n_blocks = -(-n // BLOCK)
    return n_blocks * (BLOCK // 2 + 4)


@torch.no_grad()
def pack(weight: Tensor) -> Tensor:
    """Round float[...] to bfloat16 and then to 4-bit NormalFloat.

    Language models are read in bfloat16, so that every way from the same weights leads to the same bytes.

    Returns:
        uint8[K] two levels a byte, then the float32 scales; the last block is filled up with zeros.

    Example:
        >>> unpack(pack(torch.tensor([[0.0, 3.0], [-3.0, 1.0]])), (2, 2), torch.float32)
        tensor([[ 0.0000,  3.0000],
                [-3.0000,  1.0137]])
    """
    if weight.is_meta:
        return torch.empty(packed_size(weight.numel()), dtype=torch.uint8, device="meta")
    flat = weight.reshape(-1)
    flat = F.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    levels = _levels(weight.device)
    between = (levels[1:] + levels[:-1]) / 2
    scales, bytes_ = [], []
    for some in flat.split(_BLOCKS_AT_ONCE):
        some = some.bfloat16().float()
        scale = some.abs().amax(dim=1)
        codes = torch.bucketize(some / scale.clamp(min=torch.finfo(torch.float32).tiny)[:, None], between)
        codes = codes.to(torch.uint8).view(-1, 2)
        bytes_.append((codes[:, 0] << 4) | codes[:, 1])
        scales.append(scale)
    return torch.cat([*bytes_, torch.cat(scales).view(torch.uint8)])


def unpack(packed: Tensor, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """Return the numbers that `pack` rounded to, float[shape] in ``dtype``."""
    if packed.is_meta:
        return packed.new_empty(shape, dtype=dtype)
    bytes_, scales = _halves(packed)
    numbers = F.embedding(bytes_.int(), _pairs(packed.device)).view(-1, BLOCK) * scales[:, None]
    return numbers.to(dtype).view(-1)[: shape[0] * shape[1]].view(shape)


def is_packed(weight: Tensor) -> bool:
    """Say whether a weight is held in 4 bits."""
    return weight.dtype == torch.uint8


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None, out_features: int = 0) -> Tensor:
    """Multiply float[..., in] by a weight in any form and add a bias, as ``F.linear``.

    Under mixed precision everything is computed in its type. Elsewhere a weight in bfloat16 or 4 bits is multiplied in
    bfloat16, for a copy of it in float32 would cost more than it is worth, and the result is given in the type of
    ``x``.

    Args:
        x: float[..., in].
        weight: float[out, in], or what `pack` returns.
        bias: float[out].
        out_features: ``out``, where the weight is packed.
    """
    lower = autocast_dtype(x.device)
    if is_packed(weight):
        dtype = lower or (x.dtype if x.dtype in (torch.bfloat16, torch.float16) else torch.bfloat16)
        found = _packed_product(x.to(dtype), weight, out_features)
        found = found if bias is None else found + bias.to(dtype)
        return found if lower is not None else found.to(x.dtype)
    if lower is not None or weight.dtype == x.dtype:
        return F.linear(x, weight, bias)
    return F.linear(x.to(weight.dtype), weight, bias).to(x.dtype)


def _packed_product(x: Tensor, packed: Tensor, out_features: int) -> Tensor:
    shape = (out_features, x.shape[-1])
    if x.is_cuda and _has_bitsandbytes() and not shape[0] * shape[1] % BLOCK:
        return bitsandbytes_product(x, packed, shape)
    return cast(Tensor, _PackedProduct.apply(x, packed, shape))


class _PackedProduct(torch.autograd.Function):
    """Multiply by a packed weight that gets no gradient, and unpack it again for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, packed: Tensor, shape: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(packed)
        ctx.shape = shape
        return F.linear(x, unpack(packed, shape, x.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (packed,), (grad,) = ctx.saved_tensors, grads
        return torch.matmul(grad, unpack(packed, ctx.shape, grad.dtype)), None, None


def bitsandbytes_product(x: Tensor, packed: Tensor, shape: tuple[int, int]) -> Tensor:
    """Multiply by a packed weight with the kernels of bitsandbytes."""
    import bitsandbytes  # pyright: ignore[reportMissingImports] - an extra
    from bitsandbytes.functional import QuantState  # pyright: ignore[reportMissingImports]

    bytes_, scales = _halves(packed)
    state = QuantState(
        absmax=scales,
        shape=torch.Size(shape),
        code=_levels(x.device),
        blocksize=BLOCK,
        quant_type="nf4",
        dtype=x.dtype,
    )
    return bitsandbytes.matmul_4bit(x, bytes_[:, None].t(), quant_state=state)


@cache
def _has_bitsandbytes() -> bool:
    return find_spec("bitsandbytes") is not None


def _halves(packed: Tensor) -> tuple[Tensor, Tensor]:
    """Return levels uint8[K] and scales float32[n / 64] of a packed weight."""
    n_blocks = len(packed) // (BLOCK // 2 + 4)
    n_bytes = n_blocks * BLOCK // 2
    return packed[:n_bytes], packed[n_bytes:].view(torch.float32)


@cache
def _levels(device: torch.device) -> Tensor:
    return torch.tensor(LEVELS, dtype=torch.float32, device=device)


@cache
def _pairs(device: torch.device) -> Tensor:
    """Return float32[256, 2] the two levels of every byte."""
    levels = _levels(device)
    return torch.stack([levels.repeat_interleave(16), levels.repeat(16)], dim=1)


class FrozenLinear(nn.Linear):
    """A linear map of the library with its weight in any form; the names of its tensors stay.

    Args:
        base: The linear map whose tensors are taken over.
        packed: Hold its weight in 4 bits.
    """

    def __init__(self, base: nn.Linear, *, packed: bool = False) -> None:
        super().__init__(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
        self.weight, self.bias = base.weight, base.bias
        if packed:
            self.weight = nn.Parameter(pack(base.weight), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map float[..., in] to float[..., out]."""
        return product(x, self.weight, self.bias, self.out_features)

    def plain_weight(self) -> Tensor:
        """Return the weight as float[out, in]: as it is, or what products use of a packed one."""
        if not is_packed(self.weight):
            return self.weight
        return unpack(self.weight, (self.out_features, self.in_features), torch.bfloat16)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Round the weight of a checkpoint where this one is packed and that one is not."""
        weight = state_dict.get(prefix + "weight")
        if weight is not None and is_packed(self.weight) and weight.is_floating_point():
            # Lightning and torch read the same dictionary again for other modules.
            state_dict = {**state_dict, prefix + "weight": pack(weight)}
        super()._load_from_state_dict(state_dict, prefix, *args)


def replace_linears(part: nn.Module, make: Callable[[str, nn.Linear], nn.Linear]) -> None:
    """Put what ``make`` returns for the name and object of every linear map inside a part in its place."""
    for parent in list(part.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                setattr(parent, name, make(name, child))


def frozen_linears(network: nn.Module) -> Iterator[tuple[str, FrozenLinear]]:
    """Yield the name of the weight and the map, for every linear map with a frozen weight in a form of its own."""
    for name, module in network.named_modules():
        if isinstance(module, FrozenLinear):
            yield f"{name}.weight" if name else "weight", module


def stored_layout(network: nn.Module, found: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Return a tensor without values for every one that a checkpoint may hold of a network, for comparing shapes.

    Args:
        network: The network.
        found: Shapes in the checkpoint; weights that are packed in the network may be packed or plain there.
    """
    layout: dict[str, Tensor] = {name: tensor.to("meta") for name, tensor in network.state_dict().items()}
    for name, module in frozen_linears(network):
        if name not in found or tuple(layout[name].shape) != tuple(found[name]):
            layout[name] = torch.empty(module.out_features, module.in_features, device="meta")
    return layout


def plain_state(network: nn.Module) -> dict[str, Tensor]:
    """Return the state of a network with packed weights as the numbers that products use."""
    return network.state_dict() | {name: m.plain_weight().detach() for name, m in frozen_linears(network)}


@torch.no_grad()
def fill(held: Tensor, stored: Tensor) -> None:
    """Copy a tensor of a checkpoint into one of a network, which may hold it in another form."""
    held.copy_(pack(stored.to(held.device)) if is_packed(held) and stored.is_floating_point() else stored)


def count_numbers(part: nn.Module) -> dict[str, int]:
    """Return how many numbers every parameter stands for, by name; bytes of packed weights are not numbers."""
    counts = {name: parameter.numel() for name, parameter in part.named_parameters()}
    packed = {name: m.in_features * m.out_features for name, m in frozen_linears(part) if is_packed(m.weight)}
    return counts | {name: n for name, n in packed.items() if name in counts}
