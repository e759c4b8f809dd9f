"""PororoSV: stories of five clips of a cartoon, with four files beside the strips.

``img_cache4.npy``: path of the first clip of each story. ``following_cache4.npy``: the four after it.
``train_seen_unseen_ids.npy``: rows of the two, as three arrays: train, val ("seen") and test ("unseen").
``descriptions.npy``: a pickled dictionary from the path without ``.png`` to a list of texts. The paths are byte
strings, sometimes kept as text of the form ``b'...png'``. See https://github.com/adymaharana/storydalle.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .errors import FormatError
from .frame_strips import N_CLIPS, Clip, ClipStories, ClipStory, check_stories
from .npy_files import read_npy, write_npy

NAMES = ("Pororo", "Loopy", "Eddy", "Harry", "Poby", "Tongtong", "Crong", "Rody", "Petty")
SPLITS = ("train", "val", "test")

_BYTES_AS_TEXT = re.compile(r"b(['\"])(.*)\1", re.DOTALL)


def read_pororo(folder: str | Path) -> ClipStories:
    """Read the stories of every split, ordered by id as the official system orders them.

    Args:
        folder: Where the four files are.

    Raises:
        FileNotFoundError: If a file is not there.
        FormatError: If a file is malformed, or they do not belong together.
    """
    folder = Path(folder)
    firsts = _paths(folder / "img_cache4.npy", "the first clip of each story of PororoSV", 1)
    following = _paths(folder / "following_cache4.npy", "the clips that follow in PororoSV", 2)
    if following.shape != (len(firsts), N_CLIPS - 1):
        raise FormatError(
            f"{folder / 'following_cache4.npy'} has the shape {following.shape}; expected {N_CLIPS - 1} clips for each "
            f"of the {len(firsts)} in img_cache4.npy. Use the files of one release."
        )
    descriptions = _descriptions(folder / "descriptions.npy")
    ids = _split_ids(folder / "train_seen_unseen_ids.npy", len(firsts))
    splits = {
        name: tuple(
            ClipStory(tuple(_clip(path, descriptions, folder) for path in (firsts[i], *following[i]))) for i in rows
        )
        for name, rows in zip(SPLITS, ids, strict=True)
    }
    return ClipStories(splits, dict.fromkeys(SPLITS, 0))


def _paths(path: Path, what: str, n_axes: int) -> np.ndarray:
    """Return object[...] of texts."""
    array = read_npy(path, what)
    if array.ndim != n_axes or array.dtype.kind not in "SUO":
        raise FormatError(f"{path} holds {array.dtype}{list(array.shape)}; expected paths along {n_axes} axes.")
    texts = np.empty(array.shape, object)
    for place, value in enumerate(array.ravel().tolist()):
        if not isinstance(value, str | bytes):
            raise FormatError(f"{path}, entry {place} is {type(value).__name__}; expected the path of a picture.")
        texts.flat[place] = _text(value)
    return texts


def _text(value: str | bytes) -> str:
    if isinstance(value, bytes):
        return value.decode("latin1")
    quoted = _BYTES_AS_TEXT.fullmatch(value)
    return quoted[2] if quoted else value


def _descriptions(path: Path) -> dict[str, tuple[str, ...]]:
    array = read_npy(path, "the descriptions of PororoSV")
    content: Any = array.item() if array.shape == () and array.dtype.hasobject else None
    if not isinstance(content, dict):
        raise FormatError(f"{path} holds {array.dtype}{list(array.shape)}; expected one dictionary of texts.")
    result: dict[str, tuple[str, ...]] = {}
    for key, value in content.items():
        texts = [value] if isinstance(value, str | bytes) else value
        if not isinstance(key, str | bytes) or not isinstance(texts, list | tuple | np.ndarray):
            raise FormatError(f"{path}, entry {str(key)[:60]!r} is no list of texts; get the file again.")
        if not all(isinstance(text, str | bytes) for text in texts):
            raise FormatError(f"{path}, entry {str(key)[:60]!r} holds something else than texts; get the file again.")
        result[_text(key)] = tuple(text.decode("latin1") if isinstance(text, bytes) else str(text) for text in texts)
    return result


def _split_ids(path: Path, n_stories: int) -> list[list[int]]:
    array = read_npy(path, "the ids of the splits of PororoSV")
    rows = list(array) if array.ndim in (1, 2) else []
    if len(rows) != len(SPLITS):
        raise FormatError(f"{path} has the shape {array.shape}; expected three lists of ids: train, val, test.")
    ids: list[list[int]] = []
    for name, row in zip(SPLITS, rows, strict=True):
        values = row.tolist() if isinstance(row, np.ndarray) else row
        if not isinstance(values, list | tuple) or not all(type(i) is int for i in values):
            raise FormatError(f"{path}: the ids of {name} are not all whole numbers; get the file again.")
        if outside := [i for i in values if not 0 <= i < n_stories]:
            raise FormatError(f"{path}: {name} has the id {outside[0]}, but img_cache4.npy holds {n_stories} stories.")
        ids.append(sorted(values))
    return ids


def _clip(path: str, descriptions: Mapping[str, tuple[str, ...]], folder: Path) -> Clip:
    clip_id = path.replace(".png", "")
    captions = descriptions.get(clip_id)
    if not captions:
        raise FormatError(
            f'{folder / "descriptions.npy"} has no text for "{clip_id:.80}"; use the files of one release.'
        )
    return Clip(clip_id, path, captions)


def write_pororo(folder: str | Path, splits: Mapping[str, Sequence[ClipStory]]) -> int:
    """Write the four files and return the number of stories; the strips are written by ``write_strip``.

    Args:
        folder: Created if needed.
        splits: Stories of ``train``, ``val`` and ``test``; each clip's ``image`` is its ``clip_id`` with ``.png``.

    Raises:
        ValueError: If a story or clip does not fit the layout.
    """
    clips = check_stories(splits, SPLITS)
    for clip in clips.values():
        if clip.image != f"{clip.clip_id}.png" or ".png" in clip.clip_id or not clip.captions:
            raise ValueError(f"clip {clip.clip_id} shows {clip.image}; expected a text and its id with .png.")
    stories = [story for name in SPLITS for story in splits.get(name, ())]
    paths = np.array([[clip.image.encode("latin1") for clip in story.clips] for story in stories], bytes)
    paths = paths.reshape(-1, N_CLIPS)
    ids = np.empty(len(SPLITS), object)
    start = 0
    for row, name in enumerate(SPLITS):
        ids[row] = np.arange(start, start + len(splits.get(name, ())), dtype=np.int64)
        start += len(splits.get(name, ()))
    descriptions = np.empty((), object)
    descriptions[()] = {clip.clip_id: list(clip.captions) for clip in clips.values()}
    folder = Path(folder)
    write_npy(folder / "img_cache4.npy", paths[:, 0])
    write_npy(folder / "following_cache4.npy", paths[:, 1:])
    write_npy(folder / "train_seen_unseen_ids.npy", ids)
    write_npy(folder / "descriptions.npy", descriptions)
    return len(stories)
