"""Features of the FID Inception from a file of weights."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from mmi_eval.formats.errors import FormatError
from mmi_eval.sample import Picture

from .inception_inputs import PROTOCOLS
from .inception_trunk import D_FEATURES, InceptionTrunk
from .judging import set_to_judge

_BATCH = 32
_UNUSED = ("fc.", "AuxLogits.")


@dataclass(frozen=True)
class InceptionFeatures:
    """The FID Inception.

    Args:
        trunk: The network.
        digest: SHA-256 of its weights.
    """

    trunk: nn.Module
    digest: str

    asset = "inception"
    protocols = tuple(PROTOCOLS)
    kernel_name = "kid"

    @classmethod
    def load(cls, path: Path, sha256: str) -> InceptionFeatures:
        """Load weights whose hash is known to be ``sha256``; nothing but tensors is read.

        Raises:
            FormatError: If they are not the tensors of this network.
        """
        return cls(_loaded(path, sha256), sha256)

    @torch.no_grad()
    def features(self, pictures: Sequence[Picture | Image.Image], protocol: str) -> np.ndarray:
        """Return float64[N, 2048]."""
        if protocol not in PROTOCOLS:
            raise ValueError(f'unknown protocol "{protocol}"; expected one of {", ".join(PROTOCOLS)}.')
        device = next(self.trunk.parameters()).device
        found = [np.zeros((0, D_FEATURES), np.float32)]
        with ThreadPoolExecutor(max_workers=8) as pool:
            for start in range(0, len(pictures), _BATCH):
                batch = pictures[start : start + _BATCH]
                inputs = torch.stack(list(pool.map(lambda picture: _prepared(picture, protocol), batch)))
                found.append(self.trunk(inputs.to(device)).cpu().numpy())
        return np.concatenate(found).astype(np.float64)


def _prepared(picture: Picture | Image.Image, protocol: str) -> Tensor:
    image = picture.open() if isinstance(picture, Picture) else picture.convert("RGB")
    return PROTOCOLS[protocol](image)


@lru_cache(maxsize=1)
def _loaded(path: Path, sha256: str) -> InceptionTrunk:
    """Build the network; the hash stands for the content, so a changed file is read again."""
    state = {name: tensor for name, tensor in _read(path).items() if not name.startswith(_UNUSED)}
    with torch.device("meta"):
        trunk = InceptionTrunk()
    wanted = trunk.state_dict()
    # Older files lack the counter of batches seen in training, which nothing here reads.
    counters = {name: torch.zeros((), dtype=torch.long) for name in wanted if name.endswith("num_batches_tracked")}
    state = counters | state
    if lost := sorted(wanted.keys() - state.keys()) or sorted(state.keys() - wanted.keys()):
        raise FormatError(f"{path} and the FID Inception differ in the tensor {lost[0]}; get the file again.")
    for name, tensor in state.items():
        if tensor.shape != wanted[name].shape:
            raise FormatError(
                f"{path}: {name} is {list(tensor.shape)}; expected {list(wanted[name].shape)}. Get the file again."
            )
    trunk.load_state_dict({name: t.float() if t.is_floating_point() else t for name, t in state.items()}, assign=True)
    set_to_judge(trunk)
    return trunk


def _read(path: Path) -> dict[str, Tensor]:
    from pickle import UnpicklingError

    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FormatError(f"{path} holds no tensors that can be read ({first:.120}); get the file again.") from None
    if not isinstance(content, dict) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise FormatError(f"{path} holds something else than named tensors; get the file again.")
    return content
