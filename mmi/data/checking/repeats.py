"""What occurs more than once, and what of an evaluation set occurs in training data."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mmi.data.checking.picture_hashes import DEFAULT_THRESHOLD, near_between, near_within
from mmi.data.checking.records import PictureMark, SourceFindings, looks_of


@dataclass(frozen=True)
class Repeats:
    """Records and pictures of one source that are there more than once.

    Args:
        documents: Groups of documents with the same texts and pictures, by id.
        pictures: Groups of files with the same bytes.
        alike: Pairs of pictures with other bytes that look alike, with the bits that differ.
        n_extra_documents: Documents beyond the first of each group.
        n_extra_pictures: Pictures beyond the first of each group.
    """

    documents: tuple[tuple[str, ...], ...]
    pictures: tuple[tuple[str, ...], ...]
    alike: tuple[tuple[str, str, int], ...]
    n_extra_documents: int
    n_extra_pictures: int


@dataclass(frozen=True)
class Overlap:
    """A picture of the checked data that is, or looks like, one of an evaluation set.

    Args:
        document: The record that shows it.
        uri: Its file.
        other: File of the evaluation set.
        distance: Bits in which the hashes differ; -1 where the bytes are the same.
    """

    document: str
    uri: str
    other: str
    distance: int


def find_repeats(found: SourceFindings, threshold: int = DEFAULT_THRESHOLD) -> Repeats:
    """Group what occurs more than once in a source.

    A picture that one file gives to several records is one picture.

    Args:
        found: What was read.
        threshold: Most differing bits of each hash.
    """
    pictures = list({mark.uri: mark for mark in found.pictures}.values())
    documents = _groups(found.contents.items())
    same = _groups((mark.uri, mark.digest) for mark in pictures)
    # Of files with the same bytes one stands for all.
    different = list({mark.digest: mark for mark in reversed(pictures)}.values())[::-1]
    hashes, numbers = looks_of(different)
    alike = tuple(
        (different[numbers[pair.first]].uri, different[numbers[pair.second]].uri, pair.distance)
        for pair in near_within(hashes, threshold)
    )
    return Repeats(
        documents,
        same,
        alike,
        sum(len(group) - 1 for group in documents),
        sum(len(group) - 1 for group in same),
    )


def find_overlap(
    pictures: Sequence[PictureMark], evaluation: Sequence[PictureMark], threshold: int = DEFAULT_THRESHOLD
) -> tuple[Overlap, ...]:
    """Find pictures that are in an evaluation set, by their bytes or by their looks.

    Args:
        pictures: Those of the checked data.
        evaluation: Those of the evaluation set.
        threshold: Most differing bits of each hash.
    """
    known = {mark.digest: mark.uri for mark in evaluation}
    found = {
        i: Overlap(mark.document, mark.uri, known[mark.digest], -1)
        for i, mark in enumerate(pictures)
        if mark.digest in known
    }
    hashes, numbers = looks_of(pictures)
    others, other_numbers = looks_of(evaluation)
    for pair in near_between(hashes, others, threshold):
        index, mark = numbers[pair.first], pictures[numbers[pair.first]]
        other = evaluation[other_numbers[pair.second]].uri
        found.setdefault(index, Overlap(mark.document, mark.uri, other, pair.distance))
    return tuple(found[index] for index in sorted(found))


def _groups(entries: Iterable[tuple[str, bytes]]) -> tuple[tuple[str, ...], ...]:
    """Return the names that share a digest, where several do."""
    by_digest: defaultdict[bytes, list[str]] = defaultdict(list)
    for name, digest in entries:
        by_digest[digest].append(name)
    return tuple(tuple(names) for names in by_digest.values() if len(names) > 1)
