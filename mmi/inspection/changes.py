"""One picture of a prompt changed and nothing else: exchanged for another sample's, blurred, or made grey.

Pictures are counted back from the end of the prompt, 1 the nearest; every change keeps their number, so each token
stays at its position.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from PIL import Image, ImageFilter

from mmi_eval.formats.errors import FormatError
from mmi_eval.sample import Picture, Sample

Kind = Literal["same", "swap", "blur", "drop"]
"""``same`` changes nothing: what differs then is the noise of asking twice."""
KINDS: tuple[Kind, ...] = get_args(Kind)
CHANGING: tuple[Kind, ...] = KINDS[1:]
BLUR = 0.1


@dataclass(frozen=True)
class BlurredPicture(Picture):
    """A picture out of focus.

    Args:
        share: Standard deviation of the Gaussian, as a share of the longer side.
    """

    share: float = BLUR

    def open(self) -> Image.Image:
        """Return it upright, as RGB, blurred; raises what ``Picture.open`` raises."""
        image = super().open()
        return image.filter(ImageFilter.GaussianBlur(self.share * max(image.size)))


class Donors:
    """Pictures to exchange others for: of the same task, as far from the end of their prompt, of another group.

    Args:
        samples: All samples of the task, so that a limit on what is asked changes no exchange.
        seed: Another seed, other pictures.
    """

    def __init__(self, samples: Sequence[Sample], seed: int = 0) -> None:
        self._seed = seed
        self._pools: dict[int, list[tuple[str, Picture]]] = {}
        known: set[tuple[int, object]] = set()
        for sample in samples:
            for distance, picture in enumerate(reversed(sample.pictures), start=1):
                if (distance, picture.path) not in known:
                    known.add((distance, picture.path))
                    self._pools.setdefault(distance, []).append((sample.group or sample.id, picture))

    def choose(self, sample: Sample, distance: int) -> Picture:
        """Return another picture for the one at a distance: never one of the prompt, nor one that is to be drawn.

        Raises:
            FormatError: If no other sample has a picture there.
        """
        pool = self._pools.get(distance, [])
        own = {picture.path for picture in (*sample.pictures, *sample.targets)}
        word = hashlib.sha256(f"{self._seed}/{sample.id}/{distance}".encode()).digest()[:8]
        first = int.from_bytes(word, "big")
        for step in range(len(pool)):
            group, picture = pool[(first + step) % len(pool)]
            if group != (sample.group or sample.id) and picture.path not in own:
                return picture
        raise FormatError(
            f"sample {sample.id} has no other picture to swap its {place_words(distance)} one with: no other group of "
            "samples shows one there; leave swap out, or ask more samples."
        )


def changed_sample(sample: Sample, kind: Kind, distance: int, donors: Donors, blur: float = BLUR) -> Sample:
    """Return a sample with one of its pictures changed; id, seed and references stay.

    Args:
        sample: As the task has it.
        kind: What happens to the picture. ``drop`` makes it the grey of the control ``blank``.
        distance: Which picture, 1 the nearest to the end of the prompt.
        donors: Where ``swap`` takes pictures from.
        blur: Standard deviation of the Gaussian, as a share of the longer side.

    Raises:
        ValueError: If the prompt has no such picture.
        FormatError: If there is none to swap with.
    """
    places = [place for place, piece in enumerate(sample.prompt) if isinstance(piece, Picture)]
    if not 1 <= distance <= len(places):
        raise ValueError(f"sample {sample.id} has {len(places)} pictures; there is none at distance {distance}.")
    place = places[-distance]
    picture = sample.prompt[place]
    assert isinstance(picture, Picture)
    other = picture
    if kind == "swap":
        other = donors.choose(sample, distance)
    elif kind == "blur":
        other = BlurredPicture(picture.path, picture.blank, blur)
    elif kind == "drop":
        other = replace(picture, blank=True)
    return replace(sample, prompt=(*sample.prompt[:place], other, *sample.prompt[place + 1 :]))


def place_words(distance: int) -> str:
    """Return where a picture stands in words, as the tags of the micro-world count.

    Example:
        >>> place_words(1), place_words(3)
        ('nearest', '2 earlier')
    """
    return "nearest" if distance == 1 else f"{distance - 1} earlier"
