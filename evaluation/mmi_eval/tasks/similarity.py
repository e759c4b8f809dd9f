"""Cosines between pictures, or pictures and texts, by whichever network fills the slot of CLIP."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmi_eval.networks import AnyPicture, Networks, PictureTextMatcher, picture_text_matcher

_CHUNK = 256


class Similarity(NamedTuple):
    """Cosines under the name their value has.

    Args:
        name: ``CLIP similarity``, or ``micro-similarity`` where the micro-world's judges compare.
        cosines: One for each pair; 0 where there is no drawn picture.
        assets: Hash of the network, by its name.
    """

    name: str
    cosines: list[float]
    assets: Mapping[str, str]


def similarity_to_texts(drawn: Sequence[AnyPicture | None], texts: Sequence[str], networks: Networks) -> Similarity:
    """Compare each picture with its text.

    Args:
        drawn: ``None`` is like no text.
        texts: As many.
        networks: Where the matcher lies.
    """
    matcher = picture_text_matcher(networks)
    return _paired(drawn, matcher, lambda rows: matcher.text_vectors([texts[row] for row in rows]))


def similarity_to_pictures(
    drawn: Sequence[AnyPicture | None], real: Sequence[AnyPicture], networks: Networks
) -> Similarity:
    """Compare each picture with the real one in its place.

    Args:
        drawn: ``None`` is like no picture.
        real: As many.
        networks: Where the matcher lies.
    """
    matcher = picture_text_matcher(networks)
    return _paired(drawn, matcher, lambda rows: matcher.picture_vectors([real[row] for row in rows]))


def _paired(
    drawn: Sequence[AnyPicture | None],
    matcher: PictureTextMatcher,
    others: Callable[[Sequence[int]], NDArray[np.float32]],
) -> Similarity:
    cosines = [0.0] * len(drawn)
    there = [(row, picture) for row, picture in enumerate(drawn) if picture is not None]
    for start in range(0, len(there), _CHUNK):
        part = there[start : start + _CHUNK]
        rows = [row for row, _ in part]
        seen = np.asarray(matcher.picture_vectors([picture for _, picture in part]), np.float64)
        for row, cosine in zip(rows, (seen * others(rows)).sum(axis=1).tolist(), strict=True):
            cosines[row] = cosine
    name = "micro-similarity" if matcher.name == "micro" else f"{matcher.name} similarity"
    return Similarity(name, cosines, {matcher.asset: f"sha256:{matcher.digest}"})
