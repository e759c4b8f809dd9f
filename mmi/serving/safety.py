"""The safety checker that comes with Stable Diffusion, where one is given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mmi.config import ConfigError

_FEATURES = "feature_extractor"
_CHECKER = "safety_checker"


def load_safety_checker(folder: Path, device: str | torch.device = "cpu") -> Callable[[Image.Image], bool]:
    """Return what says whether a picture must not be shown.

    Args:
        folder: What a diffusers pipeline has: ``safety_checker/`` and ``feature_extractor/``; or a folder that holds
            the weights and ``preprocessor_config.json`` itself. Weights are read from safetensors only.
        device: Where it runs.

    Raises:
        ConfigError: If the folder holds no such checker.
    """
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPImageProcessorPil

    checker_folder = folder / _CHECKER if (folder / _CHECKER).is_dir() else folder
    features_folder = folder / _FEATURES if (folder / _FEATURES).is_dir() else folder
    for needed in (checker_folder / "config.json", features_folder / "preprocessor_config.json"):
        if not needed.is_file():
            raise ConfigError(
                f"{needed} does not exist; expected a folder with {_CHECKER}/ and {_FEATURES}/, as a diffusers "
                "pipeline has them."
            )
    try:
        checker: torch.nn.Module = StableDiffusionSafetyChecker.from_pretrained(
            checker_folder, use_safetensors=True, local_files_only=True
        )
    except OSError as error:
        raise ConfigError(f"{checker_folder} holds no safety checker in safetensors ({error}).") from None
    torch.nn.Module.to(checker, device).eval()
    processor = CLIPImageProcessorPil.from_pretrained(features_folder, local_files_only=True)

    @torch.no_grad()
    def is_unsafe(image: Image.Image) -> bool:
        pixels = processor(image, return_tensors="pt").pixel_values.to(device)
        # What it paints black is a copy; only its verdict is used.
        (verdict,) = checker(images=np.zeros((1, 1, 1, 3)), clip_input=pixels)[1]
        return bool(verdict)

    return is_unsafe
