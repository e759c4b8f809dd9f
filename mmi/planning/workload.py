"""What a step works on: rows of text and pictures of a stated shape, without content."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmi.batch import InterleavedBatch
from mmi.config import ConfigError, NetworkConfig
from mmi.models.noise import DiffusionDraws
from mmi.tokens import IGNORE_LABEL

# Words that stand with a picture where rows are filled with as many as fit.
CAPTION = 24


@dataclass(frozen=True)
class Workload:
    """One device's share of a step.

    Args:
        rows: Packed rows.
        length: Tokens of a row.
        images: Pictures of a row.
        documents: Documents of a row; its pictures are dealt to them evenly. One document is the heaviest: every token
            sees all pictures before it.
    """

    rows: int = 1
    length: int = 2048
    images: int = 8
    documents: int = 1

    def check(self, config: NetworkConfig) -> None:
        """Refuse what no row can hold.

        Raises:
            ConfigError: If the pictures and a word of text for each do not fit.
        """
        if min(self.rows, self.length, self.documents) < 1 or self.images < 0:
            raise ConfigError("rows, tokens and documents of a plan must be at least 1, pictures at least 0.")
        if self.documents > max(self.images, 1):
            raise ConfigError(f"{self.documents} documents share {self.images} pictures; give each at least one.")
        most = -(-self.images // self.documents)
        needed, room = most * (config.tokens_per_image + 3) + 2, self.length // self.documents
        if needed > room:
            raise ConfigError(
                f"{most} pictures of {config.tokens_per_image} tokens, with text, take {needed} tokens but a document "
                f"has {room}; plan fewer pictures or longer rows."
            )

    def row(self, config: NetworkConfig) -> tuple[Tensor, list[int], Tensor]:
        """Lay out one row: ids int64[T], where pictures start, and the number of each token's document int64[T]."""
        language, n = config.language, config.tokens_per_image
        ids = torch.full((self.length,), _plain_id(config), dtype=torch.int64)
        document = torch.zeros(self.length, dtype=torch.int64)
        starts: list[int] = []
        end = 0
        for number in range(self.documents):
            begin, end = end, self.length * (number + 1) // self.documents
            ids[begin], ids[end - 1] = language.bos_token_id, language.eos_token_id
            document[begin:end] = number
            count = self.images * (number + 1) // self.documents - self.images * number // self.documents
            for i in range(count):
                # Text, then its picture; what is left over is text at the end.
                room = (end - begin - 2) // count
                start = begin + (i + 1) * room - n
                starts.append(start)
                ids[start], ids[start + 1 : start + 1 + n] = language.image_start_token_id, language.image_token_id
        return ids, starts, document

    def batch(self, config: NetworkConfig, device: str) -> InterleavedBatch:
        """Build the rows with pixels on ``device``; ids and places are always real."""
        ids, starts, document = self.row(config)
        rows, n_images = self.rows, self.rows * self.images
        text_ids = ids.repeat(rows, 1)
        unlabelled = (text_ids == config.language.image_token_id) | (text_ids == config.language.bos_token_id)
        decoder, size = config.image_decoder, config.vision.image_size

        def pixels(side: int) -> Tensor:
            return torch.zeros(n_images, 3, side, side, dtype=torch.uint8, device=device)

        return InterleavedBatch(
            text_ids=text_ids,
            labels=text_ids.masked_fill(unlabelled, IGNORE_LABEL),
            attention_mask=torch.ones_like(text_ids, dtype=torch.bool),
            # Shapes are enough for the mask of attention, and the library builds it on the device.
            document_ids=document.repeat(rows, 1).to(device),
            position_ids=_positions(document).repeat(rows, 1).to(device),
            images=pixels(size),
            target_images=pixels(decoder.image_size) if decoder.enabled else None,
            image_row=torch.arange(rows).repeat_interleave(self.images),
            image_start=torch.tensor(starts * rows, dtype=torch.int64),
            image_loss=torch.ones(n_images, dtype=torch.bool),
            tokens_per_image=config.tokens_per_image,
        )

    def draws(self, config: NetworkConfig, device: str) -> DiffusionDraws | None:
        """Make the draws of the image loss, without chance; None without image decoder."""
        if not config.image_decoder.enabled:
            return None
        n, unet = self.rows * self.images, config.image_decoder.unet
        noise = torch.zeros(2, n, unet.in_channels, unet.sample_size, unet.sample_size, device=device)
        return DiffusionDraws(
            noise=noise[0],
            posterior_noise=noise[1],
            timesteps=torch.zeros(n, dtype=torch.int64, device=device),
            drop_condition=torch.zeros(n, dtype=torch.bool, device=device),
            priority=torch.arange(n) / max(n, 1),
        )


def _plain_id(config: NetworkConfig) -> int:
    special = {config.language.bos_token_id, config.language.eos_token_id, config.language.pad_token_id}
    return next(i for i in range(config.language.vocab_size) if i not in special)


def _positions(document: Tensor) -> Tensor:
    """Count the tokens of each document: int64[T]."""
    place = torch.arange(len(document))
    first = torch.zeros_like(document)
    opens = torch.cat([torch.ones(1, dtype=torch.bool), document[1:] != document[:-1]])
    first[opens] = place[opens]
    return place - first.cummax(dim=0).values
