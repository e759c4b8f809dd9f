"""Numbers of the whole network, and the weights of its losses."""

from __future__ import annotations

from dataclasses import dataclass, field

from mmi.config.image_decoder import ImageDecoderConfig
from mmi.config.language import LanguageConfig
from mmi.config.vision import VisionConfig


@dataclass(frozen=True)
class NetworkConfig:
    """The whole network: visual tokenizer, language model, image decoder."""

    vision: VisionConfig = field(default_factory=VisionConfig)
    language: LanguageConfig = field(default_factory=LanguageConfig)
    image_decoder: ImageDecoderConfig = field(default_factory=ImageDecoderConfig)

    @property
    def tokens_per_image(self) -> int:
        """Placeholders that follow an image start token."""
        return self.vision.resampler.n_tokens


@dataclass(frozen=True)
class LossConfig:
    """Weights of the two losses (paper equation 5: lambda = 10)."""

    text_weight: float = 1.0
    image_weight: float = 10.0
