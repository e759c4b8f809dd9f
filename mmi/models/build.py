"""From numbers to a network; the nesting is the architecture."""

from __future__ import annotations

from mmi.config import CompatConfig, NetworkConfig, Preset
from mmi.models.image_decoder import ImageDecoder
from mmi.models.language_model import LanguageModel
from mmi.models.mm_interleaved import MMInterleaved
from mmi.models.visual_tokenizer import VisualTokenizer


def build_network(
    config: NetworkConfig, compat: Preset | CompatConfig = "corrected", *, load_weights: bool = True
) -> MMInterleaved:
    """Build the network that ``config`` describes.

    Args:
        config: Every architecture number, and where pretrained weights come from.
        compat: Defects followed or corrected.
        load_weights: False leaves pretrained weights out, because a checkpoint that holds everything comes next.

    Raises:
        ConfigError: If weights and numbers disagree, or a frozen backbone would stay at random weights.
    """
    switches = CompatConfig.of(compat)
    vision = VisualTokenizer(config.vision, config.language.d_model, load_weights=load_weights)
    language = LanguageModel(config.language, vision.d_pyramid, switches, load_weights=load_weights)
    decoder = None
    if config.image_decoder.enabled:
        decoder = ImageDecoder(
            config.image_decoder,
            config.language.d_model,
            vision.d_pyramid,
            load_weights=load_weights,
        )
    return MMInterleaved(config, vision, language, decoder, switches)
