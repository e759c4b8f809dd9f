"""Rows of text and images being continued: everything already seen, computed once (SPEC 5.1)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from mmfs import PyramidValues
from mmi.models.language_model import ImageContext, LanguageModel
from mmi.models.visibility import image_slots, slot_values, visible_images

_NO_HIDDEN = "this state keeps no hidden states; build it with keep_hidden=True."


@dataclass(frozen=True)
class NewImages:
    """Images that come with a stretch of tokens.

    Args:
        tokens: float[M, n, d] visual tokens.
        values: Their projected pyramids, one entry per MMFS layer.
        row: int64[M] row of each image, in reading order.
        start: int64[M] position of its ``<BoI>`` in the stretch.
    """

    tokens: Tensor
    values: tuple[PyramidValues, ...]
    row: Tensor
    start: Tensor


class LanguageState:
    """Hold what a language model has read: keys and values, image values, and what stands at which position.

    A stretch may give some rows more real tokens than others; the rest is padding that nobody attends to, on either
    side or in between, so rows of different lengths go on together.

    Args:
        model: The language model.
        n_rows: Rows ``B``.
        keep_hidden: Keep all hidden states, for drawing images from them.

    Attributes:
        text_ids: int64[B, S] everything read so far.
        attention_mask: bool[B, S], True on real tokens.
        image_table: int64[B, N] packed image in each slot of a row, ``-1`` in empty ones.
        image_starts: int64[B, N] position of the ``<BoI>`` of the image in each slot, ``-1`` in empty ones.
        values: Projected pyramids of all packed images, one entry per MMFS layer; copies of a state share them.
    """

    def __init__(self, model: LanguageModel, n_rows: int, *, keep_hidden: bool = False) -> None:
        self.model = model
        device = model.new_tokens.device
        self.text_ids = torch.zeros(n_rows, 0, dtype=torch.int64, device=device)
        self.attention_mask = torch.zeros(n_rows, 0, dtype=torch.bool, device=device)
        self.image_table = torch.zeros(n_rows, 0, dtype=torch.int64, device=device)
        self.image_starts = torch.zeros(n_rows, 0, dtype=torch.int64, device=device)
        self.values = model.no_images()
        self._cache: DynamicCache = model.new_cache()
        self._padded = False
        # What new text sees: the images the last token read sees, whatever ids are generated (SPEC 1.10).
        self._visible: Tensor | None = None
        self._hidden: list[Tensor] | None = [] if keep_hidden else None

    @property
    def hidden_states(self) -> Tensor:
        """float[B, S, d] after the final norm, of everything read so far.

        Raises:
            ValueError: If the state was built without ``keep_hidden``.
        """
        if self._hidden is None:
            raise ValueError(_NO_HIDDEN)
        if len(self._hidden) > 1:
            self._hidden = [torch.cat(self._hidden, dim=1)]
        return self._hidden[0]

    @property
    def last_hidden(self) -> Tensor | None:
        """float[B, d] after the final norm at the last position read; None if nothing has been read.

        Raises:
            ValueError: If the state was built without ``keep_hidden``.
        """
        if self._hidden is None:
            raise ValueError(_NO_HIDDEN)
        return self._hidden[-1][:, -1] if self._hidden else None

    def extend(
        self,
        text_ids: Tensor,
        attention_mask: Tensor | None = None,
        images: NewImages | None = None,
        *,
        visible: Tensor | None = None,
    ) -> Tensor:
        """Read a stretch of tokens.

        Args:
            text_ids: int64[B, T] new tokens, placeholders of new images among them.
            attention_mask: bool[B, T], False on padding; ``None`` if there is none.
            images: Images whose placeholders stand in the stretch.
            visible: bool[B, T, N] over old and new slots; ``None`` follows the rule of training, which gives new text
                the images the last prompt token sees.

        Returns:
            float[B, T, d] hidden states of the stretch after the final norm.
        """
        model, n_read = self.model, self.text_ids.shape[1]
        self._padded |= attention_mask is not None
        if attention_mask is None:
            attention_mask = torch.ones_like(text_ids, dtype=torch.bool)
        self.text_ids = torch.cat([self.text_ids, text_ids], dim=1)
        self.attention_mask = torch.cat([self.attention_mask, attention_mask], dim=1)
        if images is None:
            embeddings = model.embed_text(text_ids)
        else:
            embeddings = model.embed(text_ids, images.tokens, images.row, images.start)
            self._add_images(images, n_read)
        if visible is None:
            bos = model.config.bos_token_id
            visible = visible_images(self.text_ids, self.image_starts, bos_token_id=bos)[:, n_read:]
        self._visible = visible[:, -1:] if visible.shape[1] else self._visible
        hidden = model(
            embeddings,
            attention_mask=self.attention_mask if self._padded else None,
            images=ImageContext(self.values, self.image_table, visible),
            cache=self._cache,
        )
        if self._hidden is not None:
            self._hidden.append(hidden)
        return hidden

    def _add_images(self, images: NewImages, n_read: int) -> None:
        n_known = self.values[0].n_images if self.values else 0
        table = image_slots(images.row, self.text_ids.shape[0])
        starts = slot_values(images.start + n_read, table)
        table = torch.where(table >= 0, table + n_known, -1)
        self.image_table = torch.cat([self.image_table, table], dim=1)
        self.image_starts = torch.cat([self.image_starts, starts], dim=1)
        if n_known:
            self.values = tuple(PyramidValues.cat(pair) for pair in zip(self.values, images.values, strict=True))
        else:
            self.values = images.values

    def step(self, token_ids: Tensor, active: Tensor | None = None) -> Tensor:
        """Read one token per row and say what comes next; it sees the images that the token before it sees.

        Args:
            token_ids: int64[B].
            active: bool[B], False where a row has ended and reads nothing; ``None`` if none has.

        Returns:
            Logits float[B, vocab_size + 2].
        """
        real = None if active is None else active[:, None]
        return self.model.head(self.extend(token_ids[:, None], real, visible=self._visible)[:, -1])

    def fork(self) -> LanguageState:
        """Return a state that goes on by itself; tensors are shared, which is safe because none is written into."""
        other = copy.copy(self)
        other._hidden = None if self._hidden is None else list(self._hidden)
        other._cache = copy.copy(self._cache)
        other._cache.layers = [copy.copy(layer) for layer in self._cache.layers]
        return other

    def expanded(self, n_copies: int) -> LanguageState:
        """Return a state with every row ``n_copies`` times in a row; image values are shared, not copied."""
        other = copy.copy(self)
        other._hidden = None
        other._cache = copy.copy(self._cache)
        other._cache.layers = [_repeated(layer, n_copies) for layer in self._cache.layers]
        for name in ("text_ids", "attention_mask", "image_table", "image_starts"):
            setattr(other, name, getattr(self, name).repeat_interleave(n_copies, dim=0))
        other._visible = None if self._visible is None else self._visible.repeat_interleave(n_copies, dim=0)
        return other

    def select(self, rows: Tensor) -> None:
        """Keep the rows int64[K], in this order, repeated or left out as given; image values stay where they are."""
        self._cache.batch_select_indices(rows)
        for name in ("text_ids", "attention_mask", "image_table", "image_starts"):
            setattr(self, name, getattr(self, name)[rows])
        self._visible = None if self._visible is None else self._visible[rows]
        if self._hidden is not None:
            self._hidden = [self.hidden_states[rows]]


def _repeated(layer: Any, n_copies: int) -> Any:
    """Return keys and values with every row ``n_copies`` times in a row; of a single row they are a view."""
    layer = copy.copy(layer)
    if layer.get_seq_length() > 0:
        # The next tokens are joined to them, which copies everything once; the library would copy it here too.
        layer.keys, layer.values = (
            held[:, None].expand(-1, n_copies, -1, -1, -1).flatten(0, 1) for held in (layer.keys, layer.values)
        )
    return layer
