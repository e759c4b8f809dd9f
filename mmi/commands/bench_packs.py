"""Rows as training packs them, filled with drawn words and pictures: what ``mmi bench train`` works on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mmi.batch import InterleavedBatch
from mmi.config import ConfigError, NetworkConfig
from mmi.tokens import IGNORE_LABEL

# Words of a caption, fewest and most.
CAPTION_WORDS = (12, 24)
# Documents of a row and pictures of each, as MMC4 fills rows of 2048 tokens (11 pictures in 4 documents).
STORY_PICTURES = (3, 3, 3, 2)
_PICTURE = -1

Draw = torch.Generator


def caption_row(config: NetworkConfig, length: int, draw: Draw) -> list[list[int]]:
    """Fill a row with documents of one picture and its caption, every second with the picture first.

    Returns:
        The number of words before each picture and at the end, ``-1`` standing for the picture.
    """
    documents: list[list[int]] = []
    room = length
    while True:
        n_words = int(torch.randint(CAPTION_WORDS[0], CAPTION_WORDS[1] + 1, (), generator=draw))
        size = _size([n_words, _PICTURE], config)
        if size > room:
            return documents
        documents.append([_PICTURE, n_words] if len(documents) % 2 == 0 else [n_words, _PICTURE])
        room -= size


def story_row(config: NetworkConfig, length: int, draw: Draw) -> list[list[int]]:
    """Fill a row with four documents of several pictures, each after some words; the first opens with its picture."""
    room, documents = length // len(STORY_PICTURES), []
    for number, n_pictures in enumerate(STORY_PICTURES):
        words = (room - _size([_PICTURE] * n_pictures, config)) // n_pictures
        if words < 1:
            raise ConfigError(
                f"a row of {length} tokens has no room for {n_pictures} pictures of {config.tokens_per_image} tokens "
                f"and words in each of {len(STORY_PICTURES)} documents; give --tokens."
            )
        pairs = [words, _PICTURE] if number else [_PICTURE, words]
        documents.append(pairs * n_pictures)
    return documents


PACKS: dict[str, Callable[[NetworkConfig, int, Draw], list[list[int]]]] = {"captions": caption_row, "mmc4": story_row}


def draw_pack(kind: str, config: NetworkConfig, rows: int, length: int) -> InterleavedBatch:
    """Draw a batch of one kind; the same at every call.

    Args:
        kind: One of ``PACKS``.
        config: Of the network: ids, placeholders, picture sizes.
        rows: Rows.
        length: Tokens of a row.

    Raises:
        ConfigError: If not one document fits.
    """
    draw = torch.Generator().manual_seed(0)
    language = config.language
    special = {language.bos_token_id, language.eos_token_id, language.pad_token_id}
    plain = torch.tensor([i for i in range(min(language.vocab_size, 4096)) if i not in special])
    ids = torch.full((rows, length), language.pad_token_id)
    document_ids, positions = torch.full_like(ids, -1), torch.zeros_like(ids)
    real = torch.zeros_like(ids, dtype=torch.bool)
    places: list[tuple[int, int]] = []
    for row in range(rows):
        end = 0
        for number, parts in enumerate(PACKS[kind](config, length, draw)):
            begin = end
            tokens = [torch.tensor([language.bos_token_id])]
            for part in parts:
                if part == _PICTURE:
                    places.append((row, begin + sum(map(len, tokens))))
                    tokens.append(torch.tensor([language.image_start_token_id]))
                    tokens.append(torch.full((config.tokens_per_image,), language.image_token_id))
                else:
                    tokens.append(plain[torch.randint(len(plain), (part,), generator=draw)])
            tokens.append(torch.tensor([language.eos_token_id]))
            document = torch.cat(tokens)
            end = begin + len(document)
            ids[row, begin:end], document_ids[row, begin:end] = document, number
            positions[row, begin:end], real[row, begin:end] = torch.arange(len(document)), True
    if not places:
        raise ConfigError(f"no document fits into a row of {length} tokens; give --tokens.")
    decoder = config.image_decoder
    return InterleavedBatch(
        text_ids=ids,
        labels=_labels(ids, real, config),
        attention_mask=real,
        document_ids=document_ids,
        position_ids=positions,
        images=_pixels(len(places), config.vision.image_size, draw),
        target_images=_pixels(len(places), decoder.image_size, draw) if decoder.enabled else None,
        image_row=torch.tensor([row for row, _ in places]),
        image_start=torch.tensor([start for _, start in places]),
        image_loss=torch.ones(len(places), dtype=torch.bool),
        tokens_per_image=config.tokens_per_image,
    )


def _labels(ids: Tensor, real: Tensor, config: NetworkConfig) -> Tensor:
    """Leave labels on words, ends and image starts that do not open their document (SPEC 2.1)."""
    language = config.language
    without = ~real | (ids == language.bos_token_id) | (ids == language.image_token_id)
    opens = (ids[:, 1:] == language.image_start_token_id) & (ids[:, :-1] == language.bos_token_id)
    without[:, 1:] |= opens
    return ids.masked_fill(without, IGNORE_LABEL)


def _pixels(n: int, side: int, draw: Draw) -> Tensor:
    return torch.randint(256, (n, 3, side, side), generator=draw, dtype=torch.uint8)


def _size(parts: list[int], config: NetworkConfig) -> int:
    """Count the tokens of a document, its start and end included."""
    return 2 + sum(config.tokens_per_image + 1 if part == _PICTURE else part for part in parts)
