"""Random states: set from a counter, read, put back."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn


def seed_step(*counters: int) -> None:
    """Set torch's random state from counters such as (seed, step, rank).

    What a training step draws (dropout) then depends on nothing that happened before, so a resumed run draws the same.
    """
    digest = hashlib.blake2b(repr(counters).encode(), digest_size=8).digest()
    torch.manual_seed(int.from_bytes(digest, "little") >> 1)


def random_state() -> dict[str, Any]:
    """Return the states of python, numpy and torch as plain types and tensors."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (kind, np.asarray(keys).tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Put back what ``random_state`` returned; states of GPUs that are not there are left out."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.asarray(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available():
        for device, cuda in zip(range(torch.cuda.device_count()), state["cuda"], strict=False):
            torch.cuda.set_rng_state(cuda, device)


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Run a block in evaluation mode and without gradients, and leave random states and modes as they were."""
    state, modes = random_state(), {part: part.training for part in module.modules()}
    module.eval()
    try:
        # Not inference_mode: tensors a module caches inside it could not be used in training afterwards.
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode
        restore_random_state(state)
