"""Small trained matrices beside frozen linear maps (LoRA, arXiv 2106.09685).

A class of ours and not the library peft: peft wraps a map, so that ``q_proj.weight`` becomes
``q_proj.base_layer.weight``, while conversion, export and starting from other weights rely on names that stay. It is
also a dependency for what is two products.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmi.config import LoraConfig
from mmi.models.autocast import autocast_dtype
from mmi.models.quantised import FrozenLinear, replace_linears

DOWN, UP = "lora_down", "lora_up"


class LoraLinear(FrozenLinear):
    """A frozen linear map and a trained product of two thin matrices beside it: ``W x + b + scale * up(down(x))``.

    ``up`` starts at zero, so the map starts as it was, bit by bit.

    Args:
        base: The linear map whose tensors are taken over.
        config: Rank, scale and dropout.

    Shape:
        x float[..., in] -> float[..., out].
    """

    def __init__(self, base: nn.Linear, config: LoraConfig) -> None:
        super().__init__(base)
        self.scale, self.dropout = config.scale, config.dropout
        device = base.weight.device
        self.lora_down = nn.Parameter(torch.empty(config.rank, self.in_features, device=device))
        self.lora_up = nn.Parameter(torch.zeros(self.out_features, config.rank, device=device))
        # As the authors' code: uniform within 1 / sqrt(in).
        nn.init.kaiming_uniform_(self.lora_down, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """Map float[..., in] to float[..., out]."""
        found = super().forward(x)
        if autocast_dtype(x.device) is None:
            x = x.to(self.lora_down.dtype)
        thin = F.linear(F.dropout(x, self.dropout, self.training), self.lora_down)
        return found + F.linear(thin * self.scale, self.lora_up).to(found.dtype)


def add_lora(layers: Iterable[nn.Module], config: LoraConfig) -> None:
    """Put trained matrices beside the targets in decoder layers of the library.

    The random numbers of ``down`` follow the seed but are taken from nobody: whatever is built afterwards starts as it
    would without them.
    """
    with torch.random.fork_rng(devices=[]):
        for layer in layers:
            replace_linears(layer, lambda name, map_: LoraLinear(map_, config) if name in config.targets else map_)


def merge_lora(tensors: Mapping[str, Tensor], config: LoraConfig) -> dict[str, Tensor]:
    """Add every product of thin matrices to its weight and leave the matrices out.

    Args:
        tensors: State of a network, weights in plain numbers.
        config: For the scale.

    Returns:
        A plain state; merged weights are float32, for a small product would be lost in the rounding of a half type.
    """
    merged = {name: tensor for name, tensor in tensors.items() if not name.endswith((f".{DOWN}", f".{UP}"))}
    for name, down in tensors.items():
        if name.endswith(f".{DOWN}"):
            stem = name.removesuffix(DOWN)
            up = tensors[stem + UP]
            merged[f"{stem}weight"] = tensors[f"{stem}weight"].float() + config.scale * (up.float() @ down.float())
    return merged
