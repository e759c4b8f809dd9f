"""From numbers to a network; the nesting is the architecture."""

from __future__ import annotations

import logging
from dataclasses import replace

from mmi.config import CompatConfig, ImageDecoderConfig, NetworkConfig, Preset
from mmi.models.freezing import backbone_states
from mmi.models.image_decoder import ImageDecoder
from mmi.models.language_model import LanguageModel
from mmi.models.mm_interleaved import MMInterleaved
from mmi.models.visual_tokenizer import VisualTokenizer

_LOG = logging.getLogger(__name__)


def build_network(
    config: NetworkConfig, compat: Preset | CompatConfig = "corrected", *, load_weights: bool = True
) -> MMInterleaved:
    """Build the network that ``config`` describes, and log for each backbone whether it is frozen.

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
            _with_level_sizes(config, switches),
            config.language.d_model,
            vision.d_pyramid,
            load_weights=load_weights,
        )
    network = MMInterleaved(config, vision, language, decoder, switches)
    for state in backbone_states(network):
        _LOG.info(state)
    return network


def _with_level_sizes(config: NetworkConfig, compat: CompatConfig) -> ImageDecoderConfig:
    """Fix the pyramid sizes that scale the decoder's offsets where the released code does (D14, SPEC B13)."""
    decoder, trunk = config.image_decoder, config.vision.trunk
    if decoder.mmfs_level_sizes is not None or compat.offset_scale != "official":
        return decoder
    own = replace(config.vision, image_size=trunk.image_size)
    return replace(decoder, mmfs_level_sizes=tuple(float(size) for size in own.pyramid_sizes))
