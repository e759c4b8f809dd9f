"""OneFormer from a folder of ``transformers``: the class of each pixel of a scene (Jain et al. 2023).

The paper's segmenter has a DiNAT backbone, whose attention comes from the package natten; one with a Swin backbone
needs nothing more and gives other scores, so the name says which it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPTokenizer, OneFormerForUniversalSegmentation, OneFormerImageProcessorPil

from mmi_eval.formats.errors import FormatError, as_object, field, load_json
from mmi_eval.sample import Picture

from .judging import load_model

_TASK = "the task is semantic"
_BACKBONES = {"dinat": "DiNAT", "swin": "Swin"}
_NUMBERS = ("size", "resample", "do_resize", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")


@dataclass(frozen=True)
class OneFormerSegmenter:
    """OneFormer asked for the semantic task.

    Args:
        model: The network.
        processor: Of its pictures.
        task: int64[1, T] token ids of the sentence that names the task.
        name: ``OneFormer`` and its backbone.
        digest: SHA-256 of the weights.
    """

    model: OneFormerForUniversalSegmentation
    processor: OneFormerImageProcessorPil
    task: Tensor
    name: str
    digest: str

    asset = "segmenter"

    @classmethod
    def load(cls, folder: Path, sha256: str) -> OneFormerSegmenter:
        """Load a folder whose weights have the hash ``sha256``; nothing is fetched.

        Raises:
            FormatError: If it is no OneFormer of ``transformers``, or the package natten is missing for it.
        """
        return _loaded(folder, sha256)

    @torch.no_grad()
    def segment(self, picture: Picture | Image.Image, size: tuple[int, int]) -> np.ndarray:
        """Return labels uint8[height, width] of ``size``, 1 for the first class."""
        image = picture.open() if isinstance(picture, Picture) else picture.convert("RGB")
        pixels = self.processor.preprocess(images=[image], task_inputs=["semantic"], return_tensors="pt")
        outputs = self.model(
            pixel_values=pixels["pixel_values"].to(self.model.device),
            pixel_mask=pixels["pixel_mask"].to(self.model.device),
            task_inputs=self.task.to(self.model.device),
        )
        classes = self.processor.post_process_semantic_segmentation(outputs, target_sizes=[size])[0]
        return (classes.cpu().numpy() + 1).astype(np.uint8)


def check_backbone(folder: Path) -> str:
    """Return the name of a segmenter by its ``config.json``.

    Raises:
        FormatError: If it is no OneFormer, knows more classes than a label map can hold, or needs a package that is
            not installed.
    """
    path = folder / "config.json"
    config = as_object(load_json(path, "the configuration of a OneFormer"), str(path))
    if config.get("model_type") != "oneformer":
        raise FormatError(f"{path} describes a {config.get('model_type')!r}; networks.segmenter must be a OneFormer.")
    backbone = field(field(config, "backbone_config", dict, str(path)), "model_type", str, str(path))
    if backbone == "dinat" and find_spec("natten") is None:
        raise FormatError(
            f"{folder} has a DiNAT backbone, which needs the package natten: install it, or set networks.segmenter to "
            "a OneFormer with a Swin backbone (its scores stand under its own name)."
        )
    return f"OneFormer {_BACKBONES.get(backbone, backbone)}"


@lru_cache(maxsize=1)
def _loaded(folder: Path, sha256: str) -> OneFormerSegmenter:
    name = check_backbone(folder)
    model = load_model(OneFormerForUniversalSegmentation, folder, "networks.segmenter")
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise FormatError(f"{folder} (networks.segmenter) lacks its tokenizer ({first:.160}).") from None
    n_classes = len(model.config.id2label or ())
    if not 1 <= n_classes <= 255:
        raise FormatError(f"{folder} tells {n_classes} classes apart; label maps hold 1 to 255.")
    words = tokenizer(_TASK, padding="max_length", truncation=True, max_length=model.config.task_seq_len)
    task = torch.tensor([words["input_ids"]]) * torch.tensor([words["attention_mask"]])
    return OneFormerSegmenter(model, _processor(folder), task, name, sha256)


def _processor(folder: Path) -> OneFormerImageProcessorPil:
    """Build the processor from its numbers alone: its own loader would fetch a table of class names from a hub."""
    path = folder / "preprocessor_config.json"
    record = as_object(load_json(path, "the numbers by which pictures are prepared"), str(path))
    return OneFormerImageProcessorPil(**{key: record[key] for key in _NUMBERS if key in record})
