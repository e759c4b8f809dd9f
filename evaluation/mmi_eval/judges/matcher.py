"""The image-text matcher: two towers that were taught which caption belongs to which picture."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attributes import D_FEATURES
from .pictures import N_CELLS

PAD, UNKNOWN = 0, 1
_WORDS = re.compile(r"\d|[^\W\d]+|[^\w\s]")


def words_of(text: str) -> list[str]:
    """Split a text into lower-case words, single digits and marks.

    Example:
        >>> words_of("Ada holds a 7.")
        ['ada', 'holds', 'a', '7', '.']
    """
    return _WORDS.findall(text.lower())


def known_words(texts: Iterable[str]) -> tuple[str, ...]:
    """Return every word of the texts in alphabetical order."""
    return tuple(sorted(Counter(word for text in texts for word in words_of(text))))


class TextTower(nn.Module):
    """Words to one vector: convolutions bind what stands together, and the sum counts everything that is said.

    Args:
        words: Known words; all others are one unknown word.
        d_model: Width of words.
        d_joint: Width of the space shared with pictures.
    """

    def __init__(self, words: Sequence[str], d_model: int, d_joint: int) -> None:
        super().__init__()
        self.words = tuple(words)
        self._ids = {word: index for index, word in enumerate(self.words, start=2)}
        self.table = nn.Embedding(len(self.words) + 2, d_model, padding_idx=PAD)
        self.near = nn.Conv1d(d_model, d_model, 7, padding=3)
        self.far = nn.Conv1d(d_model, d_model, 9, padding=4)
        self.exit = nn.Sequential(nn.Linear(2 * d_model, d_joint), nn.GELU(), nn.Linear(d_joint, d_joint))

    def ids(self, texts: Sequence[str]) -> Tensor:
        """Return int64[N, T], ended by padding."""
        rows = [torch.tensor([self._ids.get(word, UNKNOWN) for word in words_of(text)] or [PAD]) for text in texts]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)

    def forward(self, ids: Tensor) -> Tensor:
        """Map int64[N, T] to float32[N, d_joint]."""
        is_word = (ids != PAD)[:, None]
        hidden = self.table(ids).mT  # (N, C, T)
        hidden = hidden + F.gelu(self.near(hidden)) * is_word
        hidden = torch.cat([hidden, F.gelu(self.far(hidden))], dim=1) * is_word
        return self.exit(hidden.sum(-1) / 8)


class PictureTower(nn.Module):
    """What the attribute judge sees in each cell, to one vector: a code per cell and thing, summed.

    Args:
        d_model: Width of a cell.
        d_joint: Width of the space shared with texts.
    """

    def __init__(self, d_model: int, d_joint: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(D_FEATURES)
        self.entry = nn.Linear(D_FEATURES, d_model)
        self.place = nn.Parameter(torch.randn(N_CELLS, d_model))
        self.cell = nn.Sequential(nn.GELU(), nn.Linear(d_model, d_model), nn.GELU())
        self.exit = nn.Sequential(nn.Linear(d_model, d_joint), nn.GELU(), nn.Linear(d_joint, d_joint))

    def forward(self, features: Tensor) -> Tensor:
        """Map features of cells float32[N, 9, 64] to float32[N, d_joint]."""
        return self.exit(self.cell(self.entry(self.norm(features)) + self.place).sum(1) / 3)


class Matcher(nn.Module):
    """Two towers and a temperature.

    The picture's tower stands on the features of the finished attribute judge: what texts mean is left to learn.

    Args:
        words: Known words.
        d_model: Width inside the towers.
        d_joint: Width of the shared space.
    """

    def __init__(self, words: Sequence[str], d_model: int = 96, d_joint: int = 128) -> None:
        super().__init__()
        self.d_joint = d_joint
        self.text = TextTower(words, d_model, d_joint)
        self.picture = PictureTower(2 * d_model, d_joint)
        self.log_scale = nn.Parameter(torch.tensor(2.5))

    def texts(self, ids: Tensor) -> Tensor:
        """Return unit vectors float32[N, d_joint] of int64[N, T]."""
        return F.normalize(self.text(ids), dim=-1)

    def pictures(self, features: Tensor) -> Tensor:
        """Return unit vectors float32[N, d_joint] of float32[N, 9, 64]."""
        return F.normalize(self.picture(features), dim=-1)

    def loss(self, features: Tensor, ids: Tensor, foils: Tensor) -> Tensor:
        """Return the contrast of pictures and their texts in both directions, a scalar.

        Args:
            features: float32[N, 9, 64].
            ids: int64[N, T] a text of each picture.
            foils: int64[N, T] a text of each picture that is wrong in one detail; one more candidate for the picture.
        """
        scale = self.log_scale.exp().clamp(max=100.0)
        pictures, texts = self.pictures(features), self.texts(ids)
        logits = scale * pictures @ texts.mT
        wrong = scale * (pictures * self.texts(foils)).sum(-1, keepdim=True)
        truth = torch.arange(len(logits), device=logits.device)
        by_picture = F.cross_entropy(torch.cat([logits, wrong], dim=1), truth)
        return 0.5 * (by_picture + F.cross_entropy(logits.mT, truth))


def retrieval_accuracy(pictures: Tensor, texts: Tensor, among: int = 100) -> tuple[float, float]:
    """Say how often the right one is the nearest of ``among`` candidates.

    Args:
        pictures: float[N, D] unit vectors.
        texts: float[N, D] unit vectors of the texts that belong to them.
        among: Pictures are taken in groups of this many; a last uneven group counts too.

    Returns:
        Share of texts that find their picture, share of pictures that find their text.
    """
    by_text = by_picture = 0
    for some, belonging in zip(pictures.split(among), texts.split(among), strict=True):
        similarity = belonging @ some.mT
        truth = torch.arange(len(some), device=some.device)
        by_text += int((similarity.argmax(1) == truth).sum())
        by_picture += int((similarity.argmax(0) == truth).sum())
    return by_text / len(pictures), by_picture / len(pictures)
