"""Prompts with solved examples: pictures and texts of the training split before the question (SPEC 3.6, Table 10).

Examples are drawn by chance for each question, or are those whose pictures are most like the question's, by the
picture vectors of the matching network (RICES: Yang et al. 2022, An Empirical Study of GPT-3 for Few-Shot
Knowledge-Based VQA). Each comes from another picture, and never from the question's own. What is chosen depends on the
seed and the question alone, so order, batches and ``--limit`` change nothing. The official code hands pictures to CLIP
without normalising them (D17); here the network prepares its own.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from mmi_eval.formats.errors import FormatError
from mmi_eval.networks import Networks, PictureTextMatcher, picture_text_matcher
from mmi_eval.sample import Picture, Sample, spread

_ROWS = 256
_NEAR = 32


@dataclass(frozen=True)
class FewShot:
    """How many solved examples stand before a question, and which.

    Args:
        n: Examples before each question; the official number is 2, and 0 is none.
        seed: Of the draws; where examples are retrieved it chooses among several texts of one picture.
        similar: Retrieve by similarity of pictures, the most similar last, instead of drawing by chance.
        pool: Only so many training examples, evenly spread, may be chosen; ``None`` is all of them.
    """

    n: int = 0
    seed: int = 0
    similar: bool = False
    pool: int | None = None

    def __post_init__(self) -> None:
        if self.n < 0:
            raise ValueError(f"few_shot has n {self.n}; expected at least 0.")
        if self.pool is not None and self.pool <= self.n:
            raise ValueError(f"few_shot has a pool of {self.pool} for n {self.n}; expected a pool that is larger.")


@dataclass(frozen=True)
class Example:
    """A solved example.

    Args:
        picture: A training picture.
        text: What stands after it, such as ``Question: what is it? Short answer: a dog``.
        id: Noted with the samples that show it; by default the picture's file name.
    """

    picture: Picture
    text: str
    id: str = ""

    @property
    def name(self) -> str:
        """What is noted."""
        return self.id or self.picture.path.name


def with_examples(
    samples: Sequence[Sample], examples: Sequence[Example], settings: FewShot, networks: Networks
) -> list[Sample]:
    """Put examples before the prompts; their names go into ``meta["examples"]`` in reading order.

    Args:
        samples: Questions; their prompts stay as they are, so their wording should be that of the examples.
        examples: Of the training split.
        settings: How many and which.
        networks: Where the matching network lies, if examples are retrieved.

    Raises:
        FileNotFoundError: If a picture or the network is not there (retrieval only).
        FormatError: If there are too few examples, or there is nothing to compare pictures with.
    """
    if settings.n == 0:
        return list(samples)
    texts: dict[Path, list[Example]] = {}
    for example in spread(examples, settings.pool):
        texts.setdefault(example.picture.path, []).append(example)
    pictures = list(texts)
    if settings.similar:
        orders = _by_similarity(samples, pictures, networks)
    else:
        orders = _by_chance(samples, pictures, settings)
    pairs = zip(samples, orders, strict=True)
    return [_preceded(sample, _chosen(sample, order, texts, settings)) for sample, order in pairs]


def _by_chance(samples: Sequence[Sample], pictures: Sequence[Path], settings: FewShot) -> Iterator[Iterator[Path]]:
    """Yield for each sample the pictures in an order of its own, each once."""
    for sample in samples:
        yield _shuffled(pictures, _draws(sample, settings))


def _shuffled(pictures: Sequence[Path], draws: random.Random) -> Iterator[Path]:
    drawn: set[int] = set()
    while len(drawn) < len(pictures):
        place = draws.randrange(len(pictures))
        if place not in drawn:
            drawn.add(place)
            yield pictures[place]


def _by_similarity(samples: Sequence[Sample], pictures: Sequence[Path], networks: Networks) -> Iterator[Iterator[Path]]:
    """Yield for each sample the pictures, the one most like the last picture of its prompt first."""
    asked: list[Path] = []
    for sample in samples:
        if not sample.pictures:
            raise FormatError(f"sample {sample.id} has no picture to compare with; set few_shot.similar: false.")
        asked.append(sample.pictures[-1].path)
    known = _vectors(tuple(pictures), networks)
    distinct = list(dict.fromkeys(asked))
    vectors = dict(zip(distinct, _vectors(tuple(distinct), networks), strict=True))
    for start in range(0, len(asked), _ROWS):
        rows = np.stack([vectors[path] for path in asked[start : start + _ROWS]])
        for similarity in rows @ known.T:
            yield (pictures[place] for place in _nearest_first(similarity))


def _nearest_first(similarity: np.ndarray) -> Iterator[int]:
    """Yield places by falling similarity, equal ones in file order; sorts all only where the nearest do not suffice."""
    n_near = min(_NEAR, len(similarity))
    lowest = np.partition(similarity, -n_near)[-n_near]
    near = np.flatnonzero(similarity >= lowest)
    near = near[np.argsort(-similarity[near], kind="stable")]
    yield from near.tolist()
    yield from np.argsort(-similarity, kind="stable")[len(near) :].tolist()


@lru_cache(maxsize=4)
def _vectors(pictures: tuple[Path, ...], networks: Networks) -> np.ndarray:
    """Return unit vectors float32[N, D], from ``networks.statistics`` where they are known."""
    matcher = picture_text_matcher(networks)
    if networks.statistics is None:
        return _looked_at(pictures, matcher)
    digest = hashlib.sha256(matcher.digest.encode())
    for path in pictures:
        state = path.stat()
        digest.update(f"{path}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
    file = networks.statistics / f"picture-vectors-{digest.hexdigest()[:16]}.npy"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        # A name of its own for each process: several may write the same file.
        draft = file.with_name(f"{file.stem}.{os.getpid()}.npy")
        np.save(draft, _looked_at(pictures, matcher), allow_pickle=False)
        draft.replace(file)
    return np.load(file, allow_pickle=False)


def _looked_at(pictures: Sequence[Path], matcher: PictureTextMatcher) -> np.ndarray:
    batches = (pictures[start : start + _ROWS] for start in range(0, len(pictures), _ROWS))
    return np.concatenate([matcher.picture_vectors([Picture(path) for path in batch]) for batch in batches])


def _chosen(
    sample: Sample, order: Iterable[Path], texts: Mapping[Path, Sequence[Example]], settings: FewShot
) -> list[Example]:
    """Return the first examples of an order that show other pictures than the sample, the first of them last."""
    draws = _draws(sample, settings)
    found: list[Example] = []
    for path in order:
        if not any(_is_same_picture(path, own.path) for own in sample.pictures):
            found.append(draws.choice(texts[path]))
            if len(found) == settings.n:
                return found[::-1]
    raise FormatError(
        f"few_shot.n is {settings.n} but there are {len(found)} training pictures that are not those of sample "
        f"{sample.id}; give more training examples or ask for fewer."
    )


def _draws(sample: Sample, settings: FewShot) -> random.Random:
    return random.Random(f"{settings.seed}/{sample.id}")


def _is_same_picture(one: Path, other: Path) -> bool:
    """Say whether two files are one picture: the same file, or a copy under another name."""
    if one == other:
        return True
    if not (one.is_file() and other.is_file()) or one.stat().st_size != other.stat().st_size:
        return False
    return one.read_bytes() == other.read_bytes()


def _preceded(sample: Sample, examples: Sequence[Example]) -> Sample:
    prompt: list[str | Picture] = []
    for example in examples:
        prompt += [example.picture, example.text]
    first, *rest = sample.prompt
    if isinstance(first, str):
        prompt[-1] = f"{examples[-1].text} {first}"
    else:
        prompt.append(first)
    meta = {**sample.meta, "examples": [example.name for example in examples]}
    return replace(sample, prompt=(*prompt, *rest), meta=meta)
