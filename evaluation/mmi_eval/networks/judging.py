"""Networks as they judge: complete, without training behaviour or gradients, on the GPU where there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedModel

from mmi_eval.formats.errors import FormatError

M = TypeVar("M", bound=PreTrainedModel)


def load_model(kind: type[M], folder: Path, setting: str) -> M:
    """Load a model of ``transformers`` from a folder, ready to judge; nothing is fetched.

    Args:
        kind: Its class.
        folder: Where it lies.
        setting: The configuration entry, for messages.

    Raises:
        FormatError: If it cannot be loaded, or the folder lacks tensors of it, which would otherwise be random numbers.
    """
    try:
        loaded: Any = kind.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, SafetensorError) as error:
        first = str(error).splitlines()[0]
        raise FormatError(f"{folder} ({setting}) is no {kind.__name__} that can be loaded ({first:.160}).") from None
    model, info = loaded
    if missing := sorted(info["missing_keys"]):
        raise FormatError(
            f"{folder} ({setting}) lacks {len(missing)} tensors of a {kind.__name__}, such as {missing[0]}; download "
            "the model again."
        )
    set_to_judge(model)
    return model


def set_to_judge(network: nn.Module) -> None:
    """Switch dropout and batch statistics off, keep no gradients, and move the network."""
    network.eval().requires_grad_(False)
    network.to("cuda" if torch.cuda.is_available() else "cpu")
