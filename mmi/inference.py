"""Strings and pictures in, strings and pictures out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmi.config import ConfigError, WeightsDtype
from mmi.config_tree import from_tree
from mmi.data.document import ImageItem, TextItem
from mmi.data.encode import encode_items
from mmi.data.images import Crop, to_pixels, to_rgb, to_square
from mmi.models.generation import (
    DrawProgress,
    GenerationSettings,
    ImagePiece,
    InterleavedState,
    TextPiece,
    continue_document,
)
from mmi.models.image_sampling import ImageSampling
from mmi.models.mm_interleaved import MMInterleaved
from mmi.models.option_scoring import score_options
from mmi.models.text_decoding import TextDecoding
from mmi.tokens import Tokenizer

if TYPE_CHECKING:
    from mmi.checkpoints.run_folder import Weights

Prompt = Sequence[str | Image.Image]


def _no_file() -> None:
    raise AssertionError("pictures of a prompt are already in memory")


class Generator:
    """Use a network: continue documents, answer, draw, score.

    Args:
        network: The model; put into eval mode.
        tokenizer: The one it was trained with.
        crop: How pictures were made square in training: ``data.crop`` of the run.
        model_hash: SHA-256 of the file of its weights, where it comes from one.

    Raises:
        ValueError: If tokenizer and network disagree about the vocabulary.
    """

    def __init__(
        self, network: MMInterleaved, tokenizer: Tokenizer, crop: Crop = "center", model_hash: str | None = None
    ) -> None:
        language, special = network.config.language, tokenizer.special
        for what, here, there in (
            ("vocabulary", tokenizer.vocab_size, language.vocab_size),
            ("<s>", special.bos, language.bos_token_id),
            ("</s>", special.eos, language.eos_token_id),
            ("padding id", special.pad, language.pad_token_id),
        ):
            if here != there:
                raise ValueError(f"the tokenizer's {what} is {here} but the network was built for {there}.")
        self.network = network.eval()
        self.tokenizer = tokenizer
        self.crop: Crop = crop
        self.model_hash = model_hash

    @classmethod
    def load(
        cls,
        run_dir: str | Path,
        checkpoint: str = "best-or-last",
        *,
        device: str | torch.device = "cpu",
        weights_dtype: WeightsDtype | None = None,
        weights: Weights = "trained",
    ) -> Generator:
        """Rebuild the network of a run folder.

        Args:
            run_dir: Such as ``runs/demo``.
            checkpoint: ``best``, ``last``, ``step-N``, a path, or ``best-or-last`` for the first there is.
            device: Where to run.
            weights_dtype: Hold the language model's weights in this form; None is as in training.
            weights: ``ema`` takes the running averages of trained weights.
        """
        from mmi.checkpoints.run_folder import RunFolder, load_network, weights_hash

        loaded = load_network(Path(run_dir), checkpoint, weights_dtype=weights_dtype, weights=weights)
        found = weights_hash(RunFolder(Path(run_dir)).find_checkpoint(checkpoint), weights)
        return cls(loaded.network.to(device), loaded.require_tokenizer(), crop_of(loaded.config), found)

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, device: str | torch.device = "cpu", crop: Crop = "center"
    ) -> Generator:
        """Read network and tokenizer of a folder to pass on, or of a hub id.

        Args:
            source: What ``mmi checkpoint export --to safetensors`` wrote, or an ``owner/name`` to download.
            device: Where to run.
            crop: ``data.crop`` of the run it comes from, which such a folder does not tell.

        Raises:
            ConfigError: If there is no such folder, or it does not hold a network of ours.
            FileNotFoundError: If it holds no tokenizer.
        """
        from mmi.models.hub_folder import TOKENIZER, find_hub_folder

        folder = find_hub_folder(source)
        tokenizer = Tokenizer.load(folder / TOKENIZER)
        return cls(MMInterleaved.from_pretrained(folder).to(device), tokenizer, crop)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.network.language_model.new_tokens.device

    def stream(
        self, prompt: Prompt, settings: GenerationSettings, progress: DrawProgress | None = None
    ) -> Iterator[str | Image.Image]:
        """Continue a document and yield each text and picture when it is ready.

        Args:
            prompt: Text and pictures in reading order; may be empty.
            settings: How to go on.
            progress: Told about sampling steps.

        Yields:
            Non-empty text and pictures in reading order.
        """
        state = self.read([prompt])
        for piece in continue_document(state, settings, progress):
            if isinstance(piece, ImagePiece):
                yield to_picture(piece.pixels)
            elif isinstance(piece, TextPiece) and (text := self.tokenizer.decode(piece.ids).strip()):
                yield text

    def generate(
        self, prompt: Prompt, settings: GenerationSettings, progress: DrawProgress | None = None
    ) -> list[str | Image.Image]:
        """Continue a document; the same as collecting :meth:`stream`."""
        return list(self.stream(prompt, settings, progress))

    def generate_text(self, prompts: Sequence[Prompt], settings: TextDecoding, *, seed: int = 0) -> list[str]:
        """Continue each prompt with text up to the next picture or the end."""
        if not prompts:
            return []
        generator = torch.Generator(device=self.device).manual_seed(seed)
        rows = self.read(prompts).write(settings, generator=generator)
        return [self.tokenizer.decode(ids).strip() for ids in rows]

    def generate_image(
        self, prompts: Sequence[Prompt], settings: ImageSampling, seeds: Sequence[int]
    ) -> list[Image.Image]:
        """Draw the picture that follows each prompt."""
        if not prompts:
            return []
        state, row, place = self._read_up_to_picture(prompts)
        return [to_picture(p) for p in state.draw(row, place, settings, seeds)]

    def image_losses(
        self, prompts: Sequence[Prompt], images: Sequence[Image.Image], seeds: Sequence[int]
    ) -> list[float]:
        """Return how badly each picture is predicted after its prompt: its denoising loss, over eight timesteps.

        Args:
            prompts: What comes before each picture.
            images: The pictures.
            seeds: One per picture; a seed fixes the noise, so that losses after two prompts can be compared.
        """
        if not prompts:
            return []
        size = self.network.config.image_decoder.image_size
        targets = torch.stack([self._square(image, size) for image in images]).to(self.device)
        state, row, place = self._read_up_to_picture(prompts)
        return state.image_losses(row, place, targets, seeds).tolist()

    def _read_up_to_picture(self, prompts: Sequence[Prompt]) -> tuple[InterleavedState, Tensor, Tensor]:
        """Read prompts and the image start after each; return the state, and row and place of the image starts."""
        state = self.read(prompts)
        row = torch.arange(len(prompts), device=self.device)
        state.read(torch.full((len(prompts), 1), self.tokenizer.special.image_start, device=self.device))
        return state, row, torch.full_like(row, state.language.text_ids.shape[1] - 1)

    def score_continuations(self, prompt: Prompt, continuations: Sequence[str]) -> list[float]:
        """Return the summed log-probability of each continuation; the prompt is read once (SPEC 5.3).

        Raises:
            ValueError: If a continuation has no token.
        """
        options = [self.tokenizer.encode(text) for text in continuations]
        for text, ids in zip(continuations, options, strict=True):
            if not ids:
                raise ValueError(f"continuation {text!r} has no token to score.")
        return score_options(self.read([prompt]).language, options) if options else []

    def read(self, prompts: Sequence[Prompt]) -> InterleavedState:
        """Read prompts, one row each, padded on the left."""
        special = self.tokenizer.special
        rows: list[list[int]] = []
        pixels: list[Tensor] = []
        places: list[tuple[int, int]] = []
        for r, prompt in enumerate(prompts):
            if isinstance(prompt, str):
                raise TypeError('a prompt is a sequence of texts and pictures; wrap the text: ["..."].')
            items = [TextItem(p) if isinstance(p, str) else ImageItem(_no_file, "prompt") for p in prompt]  # pyright: ignore[reportArgumentType]
            encoded = encode_items(items, self.tokenizer, self.network.config.tokens_per_image)
            rows.append([special.bos, *encoded.ids])
            places.extend((r, start + 1) for start in encoded.image_starts)
            pixels.extend(self._pixels(p) for p in prompt if not isinstance(p, str))
        width = max(map(len, rows))
        shift = [width - len(row) for row in rows]
        ids = torch.tensor([[special.pad] * n + row for n, row in zip(shift, rows, strict=True)], device=self.device)
        mask = torch.arange(width, device=self.device) >= torch.tensor(shift, device=self.device)[:, None]
        state = InterleavedState(self.network, len(rows))
        state.read(
            ids,
            mask,
            torch.stack(pixels).to(self.device) if pixels else None,
            torch.tensor([r for r, _ in places], dtype=torch.int64, device=self.device),
            torch.tensor([shift[r] + start for r, start in places], dtype=torch.int64, device=self.device),
        )
        return state

    def _pixels(self, image: Image.Image) -> Tensor:
        return self._square(image, self.network.config.vision.image_size)

    def _square(self, image: Image.Image, size: int) -> Tensor:
        return to_pixels(to_square(to_rgb(image), size, self.crop))


def crop_of(config: Mapping[str, Any]) -> Crop:
    """Return ``data.crop`` of a run's configuration: a network sees pictures as it was trained to.

    Raises:
        ConfigError: If it is no such word.
    """
    crop = (config.get("data") or {}).get("crop", "center")
    if crop not in get_args(Crop):
        raise ConfigError(f"data.crop is {crop!r}; expected one of {', '.join(get_args(Crop))}.")
    return crop


def generation_settings(run_dir: str | Path) -> GenerationSettings:
    """Return how a run continues documents where nothing else is asked for: ``run.generation`` of its configuration.

    Args:
        run_dir: Such as ``runs/demo``.

    Raises:
        ConfigError: If the folder is none of a run, or its configuration is wrong there.
    """
    from mmi.checkpoints.run_folder import RunFolder

    chosen = (RunFolder(Path(run_dir)).read_config().get("run") or {}).get("generation") or {}
    return from_tree(GenerationSettings, chosen, "run.generation")


def to_picture(pixels: Tensor) -> Image.Image:
    """Turn uint8[3, H, W] into a picture."""
    return Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).cpu().numpy()))
