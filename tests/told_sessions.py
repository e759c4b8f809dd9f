"""Sessions with a tiny network: a story told in one, and whether two are the same."""

from __future__ import annotations

import numpy as np
import torch
from factories import byte_tokenizer, picture, tiny_config, wake_up

from mmi.inference import Generator
from mmi.models.build import build_network
from mmi.models.generation import GenerationSettings
from mmi.models.image_sampling import ImageSampling
from mmi.models.text_decoding import TextDecoding
from mmi.serving.session import Session

GREEDY = TextDecoding(max_new_tokens=6, min_new_tokens=2, n_beams=1)
SAMPLED = TextDecoding(max_new_tokens=6, min_new_tokens=2, n_beams=1, do_sample=True)
DRAW = ImageSampling(n_steps=2, guidance_scale=2.0)
SETTINGS = GenerationSettings(text=GREEDY, image=DRAW, max_images=2, min_images=2, seed=3)


def tiny_generator() -> Generator:
    torch.manual_seed(0)
    network = build_network(tiny_config())
    wake_up(network)
    return Generator(network, byte_tokenizer(), model_hash="a" * 64)


def story(session: Session) -> Session:
    """A text, a drawn picture, a given picture, and a text."""
    session.append("once")
    session.ask_text()
    session.ask_image()
    session.append(picture(1, 40))
    session.append("then")
    session.ask_text()
    return session


def shown(pieces) -> list:
    return [p if isinstance(p, str) else np.asarray(p).astype(int) for p in pieces]


def assert_same(first, second) -> None:
    """Texts are equal; pictures too, but for a pixel that lies on the edge of two of its 256 values."""
    assert [type(p) for p in first] == [type(p) for p in second]
    for one, other in zip(shown(first), shown(second), strict=True):
        if isinstance(one, str):
            assert one == other
        else:
            assert np.abs(one - other).max() <= 1
