"""Write and draw: decode until the end or an image start; there draw the image, read it, go on (SPEC 5).

`InterleavedState` holds everything that was read or made: keys and values, hidden states, pyramids and their
projections. What was read is not read again; only after a beam search the winning ids are.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from mmfs import PyramidValues
from mmi.config import ConfigError
from mmi.models.image_decoder import ImageDecoder, PreviousImages
from mmi.models.image_sampling import ImageSampling, Progress, Seed
from mmi.models.language_state import LanguageState, NewImages
from mmi.models.mm_interleaved import MMInterleaved
from mmi.models.noise import DiffusionDraws
from mmi.models.text_decoding import PRESETS, OnStep, StopRules, TextDecoding, decode
from mmi.models.visibility import context_starts


@dataclass(frozen=True)
class GenerationSettings:
    """How a document is continued.

    Args:
        text: How text is chosen between two images.
        image: How images are drawn.
        max_images: Generation ends before an image more than this.
        min_images: The document may not end with fewer new images than this: where the text stops without one, an
            image is started (official ``force_gen_image_next``).
        seed: Image ``k`` is drawn with ``seed + k``; sampled text draws from ``seed`` too.
    """

    text: TextDecoding = field(default_factory=lambda: PRESETS["demo"])
    image: ImageSampling = field(default_factory=ImageSampling)
    max_images: int = 2
    min_images: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.min_images <= self.max_images:
            raise ConfigError(
                f"min_images is {self.min_images} and max_images {self.max_images}; expected 0 <= min <= max."
            )


@dataclass(frozen=True)
class TextPiece:
    """Generated ids between two images; ids with a role are left out."""

    ids: list[int]


@dataclass(frozen=True)
class ImagePiece:
    """A drawn image, uint8[3, H, W], and the seed it was drawn with."""

    pixels: Tensor
    seed: int


class InterleavedState:
    """Rows of text and images that are read, written and drawn on.

    Args:
        network: The model, in eval mode.
        n_rows: Rows ``B`` that go on together.
    """

    def __init__(self, network: MMInterleaved, n_rows: int = 1) -> None:
        self.network = network
        self.language = LanguageState(network.language_model, n_rows, keep_hidden=True)
        device = self.language.text_ids.device
        self._pyramid: tuple[Tensor, ...] = ()
        self._image_row = torch.zeros(0, dtype=torch.int64, device=device)
        self._image_start = torch.zeros(0, dtype=torch.int64, device=device)
        self._decoder_values: dict[int, tuple[PyramidValues, ...]] = {}

    @property
    def device(self) -> torch.device:
        """Where the rows live."""
        return self.language.text_ids.device

    @property
    def n_images(self) -> int:
        """Images read so far, over all rows."""
        return len(self._image_row)

    @property
    def image_starts(self) -> list[int]:
        """Position of the ``<BoI>`` of each image read, in the order they were read; for states of one row."""
        return self._image_start.tolist()

    def fork(self) -> InterleavedState:
        """Return a state that goes on by itself; what was computed is shared, which is safe: nothing is written into.

        A copy takes no memory of its own until it reads, writes or draws.
        """
        other = copy.copy(self)
        other.language = self.language.fork()
        other._decoder_values = dict(self._decoder_values)
        return other

    @torch.no_grad()
    def read(
        self,
        text_ids: Tensor,
        attention_mask: Tensor | None = None,
        images: Tensor | None = None,
        image_row: Tensor | None = None,
        image_start: Tensor | None = None,
    ) -> None:
        """Read a stretch of tokens and the images whose placeholders stand in it.

        Args:
            text_ids: int64[B, T].
            attention_mask: bool[B, T], False on padding, which stands on the left so that rows end together.
            images: uint8[M, 3, h, w], in reading order.
            image_row: int64[M] row of each image.
            image_start: int64[M] position of its ``<BoI>`` in the stretch; ``-1`` if that was the last token read.
        """
        n_read = self.language.text_ids.shape[1]
        new = None
        if images is not None and image_row is not None and image_start is not None and len(images):
            features = self.network.visual_tokenizer(images)
            values = self.network.language_model.project_pyramid(features.pyramid)
            new = NewImages(features.tokens, values, image_row, image_start)
            self._image_row = torch.cat([self._image_row, image_row])
            self._image_start = torch.cat([self._image_start, image_start + n_read])
            levels = zip(self._pyramid or [None] * len(features.pyramid), features.pyramid, strict=True)
            self._pyramid = tuple(own if old is None else torch.cat([old, own]) for old, own in levels)
        self.language.extend(text_ids, attention_mask, new)

    @torch.no_grad()
    def write(
        self,
        settings: TextDecoding,
        *,
        may_end: bool = True,
        generator: torch.Generator | None = None,
        on_step: OnStep | None = None,
    ) -> list[list[int]]:
        """Continue every row with text until ``</s>``, ``<BoI>`` or the most tokens allowed.

        All generated tokens but the last of each row have been read afterwards; call :meth:`read` with it to go on.

        Args:
            settings: How tokens are chosen.
            may_end: False never chooses ``</s>``.
            generator: Where sampling draws from.
            on_step: Told the ids chosen after each step; what it raises stops, and the state is left in between.

        Raises:
            ValueError: If nothing has been read yet.
        """
        last_hidden = self.language.last_hidden
        if last_hidden is None:
            raise ValueError("nothing has been read yet; read a prompt, at least the document start, first.")
        language = self.network.config.language
        compat = self.network.compat
        official = compat.generated_ids == "official"
        banned = [] if official else [language.image_token_id, language.bos_token_id, language.pad_token_id]
        stop = [language.image_start_token_id]
        (stop if may_end else banned).append(language.eos_token_id)
        if self.network.image_decoder is None:
            stop.remove(language.image_start_token_id)
            banned.append(language.image_start_token_id)
        logits = self.network.language_model.head(last_hidden)
        rules = StopRules(
            stop_ids=tuple(stop),
            banned_ids=tuple(banned),
            first_id=language.bos_token_id if official else None,
            beam_lengths=compat.beam_lengths or compat.preset,
        )
        return decode(self.language, logits, settings, rules, generator=generator, on_step=on_step)

    @torch.no_grad()
    def draw(
        self,
        image_row: Tensor,
        image_start: Tensor,
        settings: ImageSampling,
        seeds: Sequence[Seed],
        progress: Progress | None = None,
    ) -> Tensor:
        """Draw the images whose ``<BoI>`` stand at the given places.

        Args:
            image_row: int64[K].
            image_start: int64[K] position of a ``<BoI>`` that was read.
            settings: Sampler, steps, guidance.
            seeds: One per image, or generators; see ``sample_latents``.
            progress: Told after each sampling step.

        Returns:
            uint8[K, 3, H, W].

        Raises:
            ValueError: If the network has no image decoder.
        """
        decoder = self._decoder()
        condition, previous = self._given(decoder, image_row, image_start)
        pixels = decoder.sample(condition, previous, settings, seeds, progress)
        return (pixels * 255).round().to(torch.uint8)

    @torch.no_grad()
    def image_losses(
        self, image_row: Tensor, image_start: Tensor, targets: Tensor, seeds: Sequence[int], n_timesteps: int = 8
    ) -> Tensor:
        """Say how well known images are predicted at the given places: the denoising loss they were trained with.

        Args:
            image_row: int64[K].
            image_start: int64[K] position of a ``<BoI>`` that was read.
            targets: uint8[K, 3, H, W].
            seeds: One per image; a seed fixes the noise, so that losses under two conditions can be compared.
            n_timesteps: Timesteps the loss is averaged over, evenly spread over the schedule.

        Returns:
            float32[K].

        Raises:
            ValueError: If the network has no image decoder, or the targets are not of its size.
        """
        decoder = self._decoder()
        condition, previous = self._given(decoder, image_row, image_start)
        total = decoder.config.diffusion.n_timesteps
        losses = []
        for k in range(n_timesteps):
            drawn = [DiffusionDraws.create(seed, k, 0, 1, decoder.latent_shape, total, 0.0) for seed in seeds]
            draws = DiffusionDraws.cat(drawn).to(self.device)
            draws = replace(draws, timesteps=torch.full_like(draws.timesteps, (2 * k + 1) * total // (2 * n_timesteps)))
            losses.append(decoder.loss(targets, condition, previous, draws))
        return torch.stack(losses).mean(dim=0)

    def _decoder(self) -> ImageDecoder:
        decoder = self.network.image_decoder
        if decoder is None:
            raise ValueError("this network has no image decoder (image_decoder.enabled is false), so it can't draw.")
        return decoder

    def _given(
        self, decoder: ImageDecoder, image_row: Tensor, image_start: Tensor
    ) -> tuple[Tensor, PreviousImages | None]:
        """Return the condition of the images that begin at these places, and the images they may look at."""
        begin = context_starts(
            self.language.text_ids,
            image_row,
            image_start,
            bos_token_id=self.network.config.language.bos_token_id,
            attention_mask=self.language.attention_mask,
        )
        contexts, mask = self._contexts(image_row, image_start, begin)
        return decoder.condition(contexts, mask), self._previous(image_row, image_start, begin)

    def _contexts(self, image_row: Tensor, image_start: Tensor, begin: Tensor) -> tuple[Tensor, Tensor]:
        """Collect the hidden states of the real tokens of each context, nearest first (SPEC 1.11).

        Rows that ended at different lengths hold padding in between, which belongs to nobody's context.
        """
        hidden, real = self.language.hidden_states, self.language.attention_mask
        contexts = [
            hidden[row, first : last + 1][real[row, first : last + 1]].flip(0)
            for row, first, last in zip(image_row.tolist(), begin.tolist(), image_start.tolist(), strict=True)
        ]
        lengths = torch.tensor([len(context) for context in contexts], device=self.device)
        padded = pad_sequence(contexts, batch_first=True)
        return padded, torch.arange(padded.shape[1], device=self.device) < lengths[:, None]

    def _previous(self, image_row: Tensor, image_start: Tensor, begin: Tensor) -> PreviousImages | None:
        """Look up the images each drawn image may look at, projecting each of them only once in its life."""
        decoder = self.network.image_decoder
        if decoder is None or not len(decoder.unet.mmfs) or not self.n_images:
            return None
        rows, starts = self._image_row.tolist(), self._image_start.tolist()
        nearest = self.network.config.image_decoder.mmfs.visible_images
        lists = []
        for row, start, first in zip(image_row.tolist(), image_start.tolist(), begin.tolist(), strict=True):
            known = sorted((s, i) for i, (r, s) in enumerate(zip(rows, starts, strict=True)) if r == row)
            before = [i for s, i in known if first <= s < start]
            lists.append(before if nearest is None else before[-nearest:])
        used = sorted({i for images in lists for i in images})
        if not used:
            return None
        new = [i for i in used if i not in self._decoder_values]
        if new:
            values = decoder.project_pyramid([level[new] for level in self._pyramid])
            for k, i in enumerate(new):
                self._decoder_values[i] = tuple(v.index(torch.tensor([k], device=self.device)) for v in values)
        packed = tuple(PyramidValues.cat(parts) for parts in zip(*(self._decoder_values[i] for i in used), strict=True))
        width = max(map(len, lists))
        table = [[-1] * (width - len(images)) + [used.index(i) for i in images] for images in lists]
        image_table = torch.tensor(table, device=self.device)
        return PreviousImages(packed, image_table, image_table >= 0)

    def read_image(self, pixels: Tensor) -> None:
        """Read an image after its ``<BoI>``, which was the last token read; for states of one row.

        Args:
            pixels: uint8[3, h, w] of the encoder's size.
        """
        n = self.network.config.tokens_per_image
        ids = torch.full((1, n), self.network.config.language.image_token_id, device=self.device)
        row = torch.zeros(1, dtype=torch.int64, device=self.device)
        self.read(ids, None, pixels[None], row, row - 1)


def encoder_view(pixels: Tensor, size: int) -> Tensor:
    """Scale a drawn image to what the encoder sees: uint8[3, H, W] -> uint8[3, size, size]."""
    if pixels.shape[-1] == size:
        return pixels
    scaled = F.interpolate(pixels[None].float(), size=(size, size), mode="bicubic", antialias=True)
    return scaled[0].round().clamp(0, 255).to(torch.uint8)


# Told after each sampling step: number of the new image, steps done, steps in all.
DrawProgress = Callable[[int, int, int], None]


def continue_document(
    state: InterleavedState, settings: GenerationSettings, progress: DrawProgress | None = None
) -> Iterator[TextPiece | ImagePiece]:
    """Go on with a document, text and images in turn, yielding each piece when it is ready.

    Args:
        state: One row whose prompt has been read.
        settings: How, and how many images.
        progress: Told about sampling steps.
    """
    language = state.network.config.language
    boi, eos = language.image_start_token_id, language.eos_token_id
    can_draw = state.network.image_decoder is not None
    generator = torch.Generator(device=state.device).manual_seed(settings.seed)
    n_drawn = 0
    # A prompt may end with an image start: then an image comes first.
    starts_image = int(state.language.text_ids[0, -1]) == boi
    while True:
        if not starts_image:
            must_go_on = can_draw and n_drawn < settings.min_images
            (ids,) = state.write(settings.text, may_end=not must_go_on, generator=generator)
            starts_image = ids[-1] == boi
            text = [i for i in ids if i not in (boi, eos)]
            if text:
                yield TextPiece(text)
            state.read(torch.tensor([ids[-1:]], device=state.device))
            if must_go_on and not starts_image:
                state.read(torch.tensor([[boi]], device=state.device))
                starts_image = True
        if not starts_image or n_drawn == settings.max_images:
            return
        seed = settings.seed + n_drawn
        place = torch.tensor([state.language.text_ids.shape[1] - 1], device=state.device)
        told = None if progress is None else _numbered(progress, n_drawn)
        (pixels,) = state.draw(torch.zeros_like(place), place, settings.image, [seed], told)
        yield ImagePiece(pixels, seed)
        state.read_image(encoder_view(pixels, state.network.config.vision.image_size))
        n_drawn += 1
        starts_image = False


def _numbered(progress: DrawProgress, image: int) -> Progress:
    return lambda done, total: progress(image, done, total)
