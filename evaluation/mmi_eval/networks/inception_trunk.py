"""The Inception v3 of FID up to its last pooling: the network of 2015-12-05 (Szegedy et al. 2015, Heusel et al. 2017).

It is not torchvision's: average pools leave the padding out of the mean, and the last block pools by maximum, as the
TensorFlow graph did from which its weights come. Layers are named as in the file ``pt_inception-2015-12-05``
(mseitzer/pytorch-fid), so that its tensors fit.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

D_FEATURES = 2048
INPUT_SIDE = 299

Pool = Literal["average", "maximum", "halving"]


@dataclass(frozen=True)
class _Filter:
    """Output channels, kernel ``(height, width)`` and stride; stride 1 keeps the size."""

    channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1

    @property
    def padding(self) -> tuple[int, int]:
        return (0, 0) if self.stride > 1 else (self.kernel[0] // 2, self.kernel[1] // 2)


_Fork = tuple[_Filter, _Filter]
"""Two filters on the same input, named ``a`` and ``b``; their outputs stand side by side."""


class ConvNorm(nn.Module):
    """A convolution without bias, batch normalisation, ReLU."""

    def __init__(self, n_in: int, n_out: int, kernel: tuple[int, int], stride: int, padding: tuple[int, int]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(n_out, eps=1e-3)

    def forward(self, images: Tensor) -> Tensor:
        """Map float32[N, n_in, h, w] to float32[N, n_out, h', w']."""
        return F.relu(self.bn(self.conv(images)), inplace=True)


class Mixed(nn.Module):
    """Branches of filters and a pooled branch, side by side.

    Args:
        n_in: Input channels.
        branches: Filters of each branch; they are called like the branch, with a number where there are several.
        pool: How the last branch pools; ``halving`` halves the size and has no filter.
        pooled: Channels of the last branch's filter.
    """

    def __init__(
        self, n_in: int, branches: Mapping[str, Sequence[_Filter | _Fork]], pool: Pool, pooled: int = 0
    ) -> None:
        super().__init__()
        self.pool = pool
        self.paths: list[list[tuple[str, ...]]] = []
        for branch, steps in branches.items():
            names = [branch] if len(steps) == 1 else [f"{branch}_{number}" for number in range(1, len(steps) + 1)]
            width, path = n_in, []
            for name, step in zip(names, steps, strict=True):
                fork = (
                    {f"{name}{side}": f for side, f in zip("ab", step, strict=True)} if isinstance(step, tuple) else {}
                )
                for label, filters in (fork or {name: step}).items():
                    assert isinstance(filters, _Filter)
                    self.add_module(label, _conv(width, filters))
                path.append(tuple(fork) or (name,))
                width = step.channels if isinstance(step, _Filter) else sum(f.channels for f in step)
            self.paths.append(path)
        if pooled:
            self.branch_pool = _conv(n_in, _Filter(pooled))

    def forward(self, images: Tensor) -> Tensor:
        """Map float32[N, n_in, h, w] to float32[N, n_out, h', w']."""
        outputs = []
        for path in self.paths:
            hidden = images
            for names in path:
                hidden = torch.cat([self.get_submodule(name)(hidden) for name in names], dim=1)
            outputs.append(hidden)
        if self.pool == "halving":
            outputs.append(F.max_pool2d(images, 3, stride=2))
        elif self.pool == "maximum":
            outputs.append(self.branch_pool(F.max_pool2d(images, 3, stride=1, padding=1)))
        else:
            around = F.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
            outputs.append(self.branch_pool(around))
        return torch.cat(outputs, dim=1)


class InceptionTrunk(nn.Sequential):
    """Everything before the classifier.

    Shape:
        float32[N, 3, 299, 299] in about [-1, 1] -> float32[N, 2048], the mean over positions (``pool3``).
    """

    def __init__(self) -> None:
        super().__init__(_layers())

    def forward(self, images: Tensor) -> Tensor:
        """Return the features."""
        return super().forward(images).mean(dim=(2, 3))


def _conv(n_in: int, f: _Filter) -> ConvNorm:
    return ConvNorm(n_in, f.channels, f.kernel, f.stride, f.padding)


def _layers() -> OrderedDict[str, nn.Module]:
    halve = nn.MaxPool2d(3, stride=2)
    return OrderedDict[str, nn.Module](
        Conv2d_1a_3x3=ConvNorm(3, 32, (3, 3), 2, (0, 0)),
        Conv2d_2a_3x3=ConvNorm(32, 32, (3, 3), 1, (0, 0)),
        Conv2d_2b_3x3=ConvNorm(32, 64, (3, 3), 1, (1, 1)),
        maxpool1=halve,
        Conv2d_3b_1x1=ConvNorm(64, 80, (1, 1), 1, (0, 0)),
        Conv2d_4a_3x3=ConvNorm(80, 192, (3, 3), 1, (0, 0)),
        maxpool2=halve,
        Mixed_5b=_mixed_35(192, 32),
        Mixed_5c=_mixed_35(256, 64),
        Mixed_5d=_mixed_35(288, 64),
        Mixed_6a=Mixed(
            288,
            {
                "branch3x3": [_Filter(384, (3, 3), 2)],
                "branch3x3dbl": [_Filter(64), _Filter(96, (3, 3)), _Filter(96, (3, 3), 2)],
            },
            "halving",
        ),
        Mixed_6b=_mixed_17(128),
        Mixed_6c=_mixed_17(160),
        Mixed_6d=_mixed_17(160),
        Mixed_6e=_mixed_17(192),
        Mixed_7a=Mixed(
            768,
            {
                "branch3x3": [_Filter(192), _Filter(320, (3, 3), 2)],
                "branch7x7x3": [_Filter(192), _Filter(192, (1, 7)), _Filter(192, (7, 1)), _Filter(192, (3, 3), 2)],
            },
            "halving",
        ),
        Mixed_7b=_mixed_8(1280, "average"),
        Mixed_7c=_mixed_8(2048, "maximum"),
    )


def _mixed_35(n_in: int, pooled: int) -> Mixed:
    """The block for maps of 35 x 35."""
    branches = {
        "branch1x1": [_Filter(64)],
        "branch5x5": [_Filter(48), _Filter(64, (5, 5))],
        "branch3x3dbl": [_Filter(64), _Filter(96, (3, 3)), _Filter(96, (3, 3))],
    }
    return Mixed(n_in, branches, "average", pooled)


def _mixed_17(width: int) -> Mixed:
    """The block for maps of 17 x 17."""
    across, down = _Filter(width, (1, 7)), _Filter(width, (7, 1))
    branches = {
        "branch1x1": [_Filter(192)],
        "branch7x7": [_Filter(width), across, _Filter(192, (7, 1))],
        "branch7x7dbl": [_Filter(width), down, across, down, _Filter(192, (1, 7))],
    }
    return Mixed(768, branches, "average", 192)


def _mixed_8(n_in: int, pool: Pool) -> Mixed:
    """The block for maps of 8 x 8."""
    fork = (_Filter(384, (1, 3)), _Filter(384, (3, 1)))
    branches: dict[str, list[_Filter | _Fork]] = {
        "branch1x1": [_Filter(320)],
        "branch3x3": [_Filter(384), fork],
        "branch3x3dbl": [_Filter(448), _Filter(384, (3, 3)), fork],
    }
    return Mixed(n_in, branches, pool, 192)
