"""What a session saves by keeping everything, measured against computing it again (`mmi bench generate`).

Four ways give the same tokens and pictures:

- ``session``: `mmi.serving.session.Session`, which computes nothing twice;
- ``again``: every request reads the whole document once more, and keeps what it computes until it is answered;
- ``released``: the same, and as in the released code nothing projected is kept either: pyramids are projected for
  every token and, for both halves of guidance, at every sampling step;
- ``nothing``: the same, and every token that is written reads the whole document again, pictures included.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from mmi.config import LanguageConfig
from mmi.inference import Generator
from mmi.models.image_decoder import ImageDecoder
from mmi.models.image_sampling import ImageSampling
from mmi.models.text_decoding import TextDecoding
from mmi.serving.session import Session
from mmi.tokens import SpecialTokens, Tokenizer

WAYS = ("session", "again", "released", "nothing")
# Words that small vocabularies know or that cost one entry each.
OPENING, QUESTION = "Cleo is in the town, at the bottom.", "What is at the top?"


class NumberCodec:
    """Every id a word that names it, any other word an id; stands in for a tokenizer where nothing is trained.

    Args:
        config: Its vocabulary and the ids that have a role.
    """

    def __init__(self, config: LanguageConfig) -> None:
        self.vocab_size = config.vocab_size
        roles = {config.bos_token_id, config.eos_token_id, config.pad_token_id}
        self._free = [i for i in range(config.vocab_size) if i not in roles]

    def encode(self, text: str) -> list[int]:
        """Return the ids of the words."""
        return [self._id(word) for word in text.split()]

    def decode(self, ids: list[int]) -> str:
        """Return a word for each id."""
        return " ".join(f"w{i}" for i in ids)

    def _id(self, word: str) -> int:
        if word[0] == "w" and word[1:].isdecimal() and int(word[1:]) < self.vocab_size:
            return int(word[1:])
        return self._free[zlib.crc32(word.encode()) % len(self._free)]


def number_tokenizer(config: LanguageConfig) -> Tokenizer:
    """Return a tokenizer of whole words for a network that was never trained."""
    special = SpecialTokens(
        config.bos_token_id,
        config.eos_token_id,
        config.pad_token_id,
        config.image_start_token_id,
        config.image_token_id,
    )
    return Tokenizer(NumberCodec(config), special)


@dataclass
class Request:
    """One request of a story: what it took, and how much of that within the sampling loop of the U-Net.

    Args:
        kind: ``text`` or ``picture``.
        seconds: Of the processors, or of the GPU.
        loop: Of these, from the first step of the sampler to the last.
    """

    kind: str
    seconds: float
    loop: float = 0.0


@dataclass
class Story:
    """A story told in one way.

    Args:
        requests: In order.
        ids: All tokens, read and written.
        pictures: What was drawn, as arrays.
    """

    requests: list[Request] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    pictures: list[np.ndarray] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Of the whole story."""
        return sum(request.seconds for request in self.requests)

    @property
    def outside(self) -> float:
        """Seconds outside the sampling loop of the U-Net."""
        return self.seconds - sum(request.loop for request in self.requests)

    def difference(self, other: Story) -> int:
        """Return the largest difference of a pixel, 0 to 255.

        Raises:
            ValueError: If a token differs.
        """
        if self.ids != other.ids:
            raise ValueError("two ways wrote different texts")
        pairs = zip(self.pictures, other.pictures, strict=True)
        return max((int(np.abs(a.astype(int) - b.astype(int)).max()) for a, b in pairs), default=0)


def exactly(n_tokens: int) -> TextDecoding:
    """Decode greedily, to exactly so many tokens."""
    return TextDecoding(max_new_tokens=n_tokens, min_new_tokens=n_tokens, n_beams=1)


def tell_story(generator: Generator, way: str, n_turns: int, n_tokens: int, sampling: ImageSampling) -> Story:
    """Tell a story: in each turn a text is written and a picture drawn."""
    session = Session(generator)
    session.append(OPENING)
    story = Story()
    watch = LoopWatch(generator)
    with watch, _way(generator, way):
        for turn in range(n_turns):
            for kind in ("text", "picture"):
                if way != "session":
                    session.release()
                watch.seconds = 0.0
                began = now(generator.device)
                if kind == "text":
                    write(session, way, n_tokens)
                else:
                    drawn = session.ask_image(sampling, seed=turn, progress=watch.step_done)
                    story.pictures.append(np.asarray(drawn))
                story.requests.append(Request(kind, now(generator.device) - began, watch.seconds))
    story.ids = session.token_ids
    return story


def write(session: Session, way: str, n_tokens: int) -> None:
    """Write a text in one request, or where nothing is kept in one request for each token."""
    if way != "nothing":
        session.ask_text(exactly(n_tokens))
        return
    for _ in range(n_tokens):
        session.release()
        session.ask_text(exactly(1))


def conversation(generator: Generator, n_pictures: int, n_tokens: int) -> Session:
    """Return a session after turns that each bring a picture and a question, and were answered."""
    session = Session(generator)
    for number in range(n_pictures):
        session.append(noise_picture(number, generator.network.config.vision.image_size))
        session.append(QUESTION)
        session.ask_text(exactly(n_tokens))
    return session


def time_text_turn(before: Session, way: str, n_tokens: int) -> tuple[float, list[int]]:
    """Ask one more question in one way; return the seconds from the question to the last token, and all tokens read."""
    session = before.fork()
    if way != "session":
        session.release()
    generator = before.generator
    with _way(generator, way):
        began = now(generator.device)
        session.append(QUESTION)
        write(session, way, n_tokens)
        return now(generator.device) - began, session.token_ids


def noise_picture(seed: int, size: int) -> Image.Image:
    """Return a picture of random pixels."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8))


def now(device: torch.device) -> float:
    """Return seconds of the processors, over all threads; on a GPU of the clock, when all its work is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


class LoopWatch:
    """Take the time from the first to the last sampling step of a picture.

    Args:
        generator: Whose pictures.
    """

    def __init__(self, generator: Generator) -> None:
        self.seconds = 0.0
        self._device = generator.device
        self._decoder = generator.network.image_decoder
        self._began: float | None = None
        self._hooks: list[Any] = []

    def __enter__(self) -> LoopWatch:
        if self._decoder is not None:
            self._hooks = [self._decoder.unet.register_forward_pre_hook(self._before)]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _before(self, _module: nn.Module, _inputs: tuple[Any, ...]) -> None:
        if self._began is None:
            self._began = now(self._device)

    def step_done(self, done: int, total: int) -> None:
        """Take in that a step is done."""
        if done == total and self._began is not None:
            self.seconds += now(self._device) - self._began
            self._began = None


@contextmanager
def projecting_again(generator: Generator) -> Iterator[None]:
    """Project pyramids for every token that is written and at every sampling step, as the released code does.

    The values that were kept are replaced by the new ones, so a mistake here would show in what comes out. Right for
    requests that read all their pictures at once.
    """
    language, decoder = generator.network.language_model, generator.network.image_decoder
    pyramid: list[Tensor] = []

    def remember(_module: nn.Module, _inputs: tuple[Any, ...], features: Any) -> None:
        pyramid[:] = features.pyramid

    def before_token(_module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if inputs[0].shape[1] != 1 or not pyramid or not named["images"].image_table.numel():
            return None
        images = replace(named["images"], values=language.project_pyramid(pyramid))
        return inputs, named | {"images": images}

    hooks: list[Any] = [
        generator.network.visual_tokenizer.register_forward_hook(remember),
        language.register_forward_pre_hook(before_token, with_kwargs=True),
    ]
    if decoder is not None:
        hooks.append(decoder.unet.register_forward_pre_hook(_before_step(decoder, pyramid)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _before_step(decoder: ImageDecoder, pyramid: Sequence[Tensor]) -> Any:
    def before_step(_module: nn.Module, inputs: tuple[Any, ...]) -> Any:
        latents, timesteps, condition, previous = inputs
        if previous is None:
            return None
        n = previous.values[0].n_images
        # The images that a picture may look at are the nearest, and both halves of guidance bring their own.
        copies = 2 if len(latents) > 1 else 1
        doubled = [level[-n:].repeat(copies, 1, 1, 1) for level in pyramid]
        first = torch.arange(n, device=latents.device)
        values = tuple(v.index(first) for v in decoder.project_pyramid(doubled))
        return latents, timesteps, condition, replace(previous, values=values)

    return before_step


def _way(generator: Generator, way: str) -> Any:
    return projecting_again(generator) if way in ("released", "nothing") else nullcontext()


@dataclass(frozen=True)
class Passes:
    """How much went through the parts of a network.

    Args:
        tokens: Through the language model.
        pictures: Through the encoder.
        projections: Of a picture for one layer of the language model.
        decoder_projections: Of a picture for one module of the U-Net.
    """

    tokens: int
    pictures: int
    projections: int
    decoder_projections: int


@contextmanager
def counting(generator: Generator) -> Iterator[list[Passes]]:
    """Count what goes through a network; the list holds the counts at the end."""
    network = generator.network
    found: list[Passes] = []
    counts: dict[str, int] = dict.fromkeys(("tokens", "pictures", "projections", "decoder_projections"), 0)

    def add(name: str, axis: int) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
            counts[name] += inputs[0].shape[axis]

        return hook

    decoder = network.image_decoder
    layers = network.language_model.branches[:1]
    modules = decoder.unet.spatial_mmfs[:1] if decoder is not None else []
    watched: list[tuple[Any, str, int]] = [
        (network.language_model, "tokens", 1),
        (network.visual_tokenizer, "pictures", 0),
        *((branch.attention.value_proj, "projections", 0) for branch in layers),
        *((module.attention.value_proj, "decoder_projections", 0) for module in modules),
    ]
    hooks = [module.register_forward_pre_hook(add(name, axis)) for module, name, axis in watched]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
        found.append(Passes(**counts))
