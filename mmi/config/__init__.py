"""Every architecture number, loss weight and compatibility switch, checked when built.

Defaults are the official 13B model (SPEC section 1). Sizes are in pixels unless a name says otherwise. Names of the
paper are mapped to ours in the docstrings; where the released code and the paper differ, the default follows the code
and the paper's variant is a named value (SPEC section 8).
"""

from mmi.config.assets import weight_place
from mmi.config.attention import MMFSConfig, ResamplerConfig
from mmi.config.checks import ConfigError, Preset
from mmi.config.compat import CompatConfig
from mmi.config.image_decoder import CodecConfig, DiffusionConfig, ImageDecoderConfig, UNetConfig
from mmi.config.language import LanguageConfig, LoraConfig, RopeScalingConfig, WeightsDtype
from mmi.config.network import LossConfig, NetworkConfig
from mmi.config.savings import SavingsConfig
from mmi.config.vision import AdapterConfig, VisionConfig, VisionTrunkConfig

__all__ = [
    "AdapterConfig",
    "CodecConfig",
    "CompatConfig",
    "ConfigError",
    "DiffusionConfig",
    "ImageDecoderConfig",
    "LanguageConfig",
    "LoraConfig",
    "LossConfig",
    "MMFSConfig",
    "NetworkConfig",
    "Preset",
    "ResamplerConfig",
    "RopeScalingConfig",
    "SavingsConfig",
    "UNetConfig",
    "VisionConfig",
    "VisionTrunkConfig",
    "WeightsDtype",
    "weight_place",
]
