"""CLIP from a folder of ``transformers``: pictures and texts as unit vectors (Radford et al. 2021)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTextConfig, CLIPTokenizer
from transformers.modeling_outputs import BaseModelOutputWithPooling

from mmi_eval.formats.errors import FormatError
from mmi_eval.sample import Picture

from .judging import load_model

_BATCH = 32


@dataclass(frozen=True)
class CLIPMatcher:
    """CLIP as its publisher prepares its input: short side and centre crop by bicubic; texts cut at its length.

    Args:
        model: The network.
        tokenizer: Of its texts.
        processor: Of its pictures.
        digest: SHA-256 of the weights.
    """

    model: CLIPModel
    tokenizer: CLIPTokenizer
    processor: CLIPImageProcessorPil
    digest: str

    name = "CLIP"
    asset = "clip"

    @classmethod
    def load(cls, folder: Path, sha256: str) -> CLIPMatcher:
        """Load a folder whose weights have the hash ``sha256``; nothing is fetched.

        Raises:
            FormatError: If it is no CLIP of ``transformers``.
        """
        return _loaded(folder, sha256)

    def picture_vectors(self, pictures: Sequence[Picture | Image.Image]) -> np.ndarray:
        """Return unit vectors float32[N, D]."""
        return self._vectors(pictures, self._seen)

    def text_vectors(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit vectors float32[N, D]; what is longer than the network reads (77 tokens) is cut off."""
        return self._vectors(texts, self._read)

    @torch.no_grad()
    def _vectors(self, items: Sequence, embed: Callable[[Sequence], Tensor]) -> np.ndarray:
        found = [np.zeros((0, self.model.visual_projection.out_features), np.float32)]
        for start in range(0, len(items), _BATCH):
            vectors = F.normalize(embed(items[start : start + _BATCH]).float(), dim=-1)
            found.append(vectors.cpu().numpy())
        return np.concatenate(found)

    def _seen(self, pictures: Sequence[Picture | Image.Image]) -> Tensor:
        images = [p.open() if isinstance(p, Picture) else p.convert("RGB") for p in pictures]
        pixels = self.processor(images=images, return_tensors="pt")["pixel_values"]
        return _pooled(self.model.get_image_features(pixel_values=pixels.to(self.model.device)))

    def _read(self, texts: Sequence[str]) -> Tensor:
        config = self.model.config.text_config
        assert isinstance(config, CLIPTextConfig)
        length = config.max_position_embeddings
        tokens = self.tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        ).to(self.model.device)
        return _pooled(
            self.model.get_text_features(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        )


def _pooled(output: object) -> Tensor:
    assert isinstance(output, BaseModelOutputWithPooling)
    assert output.pooler_output is not None
    return output.pooler_output


@lru_cache(maxsize=1)
def _loaded(folder: Path, sha256: str) -> CLIPMatcher:
    model = load_model(CLIPModel, folder, "networks.clip")
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        processor = CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise FormatError(
            f"{folder} (networks.clip) lacks its tokenizer or its picture settings ({str(error).splitlines()[0]:.160})."
        ) from None
    return CLIPMatcher(model, tokenizer, processor, sha256)
