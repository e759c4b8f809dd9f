"""Text to ids and back, with the two image tokens after the base vocabulary.

No part of this package needs torch or transformers, so that data preparation stays light; no tokenizer code of a folder
or a hub is ever run. `tokenizer.py` has the noun, `codecs.py` the two file formats, `folder.py` what a folder says.
"""

from mmi.tokens.codecs import TextCodec
from mmi.tokens.tokenizer import (
    DOCUMENT_END,
    DOCUMENT_START,
    IGNORE_LABEL,
    IMAGE,
    IMAGE_START,
    SpecialTokens,
    Tokenizer,
)

__all__ = [
    "DOCUMENT_END",
    "DOCUMENT_START",
    "IGNORE_LABEL",
    "IMAGE",
    "IMAGE_START",
    "SpecialTokens",
    "TextCodec",
    "Tokenizer",
]
