"""What PororoSV and FlintstonesSV share: stories of five clips, each clip a picture of square frames in a column.

The released frames are 128 pixels wide; a clip of ``n`` frames is a PNG of 128 x ``128 n``. Evaluation takes one frame
of each clip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .errors import FormatError, existing_file, path_inside
from .npy_files import read_npy
from .png_files import encode_rgb

N_CLIPS = 5
FRAME_SIZE = 128


@dataclass(frozen=True)
class Clip:
    """A clip of a story.

    Args:
        clip_id: Unique in its data set; another story may show the same clip.
        image: Path of the strip below the data set's folder.
        captions: The first one is used in evaluation.
    """

    clip_id: str
    image: str
    captions: tuple[str, ...]

    def path(self, folder: str | Path) -> Path:
        """Return where the strip lies.

        Raises:
            FormatError: If its name leads out of the folder.
        """
        return path_inside(folder, self.image, f"clip {self.clip_id}")


@dataclass(frozen=True)
class ClipStory:
    """Five clips in order; the first one's id is the story's."""

    clips: tuple[Clip, ...]

    @property
    def story_id(self) -> str:
        """Unique in its data set."""
        return self.clips[0].clip_id


@dataclass(frozen=True)
class ClipStories:
    """Stories by split.

    Args:
        splits: ``train``, ``val`` and ``test``.
        skipped: Entries of each split that begin no story, because fewer than four clips follow.
    """

    splits: Mapping[str, tuple[ClipStory, ...]]
    skipped: Mapping[str, int]

    def of(self, split: str) -> tuple[ClipStory, ...]:
        """Return the stories of a split.

        Raises:
            FormatError: If there is no such split.
        """
        if split not in self.splits:
            raise FormatError(f'there is no split "{split}"; the splits are: {", ".join(self.splits)}.')
        return self.splits[split]


def check_stories(splits: Mapping[str, Sequence[ClipStory]], names: Sequence[str]) -> dict[str, Clip]:
    """Return the clips by id, in order of appearance, before they are written.

    Raises:
        ValueError: If a split is unknown, a story has not five clips or begins like another, or two clips of one id
            differ.
    """
    if unknown := [name for name in splits if name not in names]:
        raise ValueError(f'unknown split "{unknown[0]}"; expected {", ".join(names)}.')
    clips: dict[str, Clip] = {}
    first: set[str] = set()
    for story in (story for name in names for story in splits.get(name, ())):
        if len(story.clips) != N_CLIPS:
            raise ValueError(f"story {story.story_id} has {len(story.clips)} clips; expected {N_CLIPS}.")
        if story.story_id in first:
            raise ValueError(f"two stories begin with the clip {story.story_id}.")
        first.add(story.story_id)
        for clip in story.clips:
            if clips.setdefault(clip.clip_id, clip) != clip:
                raise ValueError(f"two clips have the id {clip.clip_id}.")
    return clips


def read_strip(path: str | Path) -> np.ndarray:
    """Return the frames of a clip, from a PNG strip or a ``.npy`` array.

    Returns:
        uint8[n, side, side, 3].

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If it is no picture, or not a column of squares.
    """
    path = existing_file(path, "a strip of frames")
    if path.suffix == ".npy":
        frames = read_npy(path, "an array of frames")
        if not _are_frames(frames):
            raise FormatError(f"{path} is {frames.dtype}{list(frames.shape)}; expected uint8[n, side, side, 3].")
        return frames
    try:
        with Image.open(path) as picture:
            strip = np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        said = " ".join(str(error).split())[:80]
        raise FormatError(f"{path} is no readable picture ({said}); fetch it again.") from None
    height, side, _ = strip.shape
    if height % side:
        raise FormatError(f"{path} is {side} wide and {height} high; expected square frames in a column.")
    return strip.reshape(height // side, side, side, 3)


def _are_frames(array: np.ndarray) -> bool:
    return array.dtype == np.uint8 and array.ndim == 4 and array.shape[1] == array.shape[2] and array.shape[3] == 3


def write_strip(path: str | Path, frames: np.ndarray) -> None:
    """Write frames as a PNG strip whose bytes depend on the pixels only.

    Args:
        path: Its folder is created if needed.
        frames: uint8[n, side, side, 3].

    Raises:
        ValueError: If they are not square.
    """
    if not _are_frames(frames) or not frames.size:
        raise ValueError(f"frames are {frames.dtype}{list(frames.shape)}; expected uint8[n, side, side, 3].")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_rgb(frames.reshape(-1, frames.shape[2], 3)))


def spell_names(caption: str, names: Sequence[str]) -> str:
    """Lower the caption's case but spell the characters' names with a capital, as the official system does.

    A name inside a longer word is capitalised too (SPEC 3.5).

    Example:
        >>> spell_names("PORORO sees eddy.\\n", ["Pororo", "Eddy"])
        'Pororo sees Eddy.'
    """
    caption = caption.lower()
    for name in names:
        caption = caption.replace(name.lower(), name)
    return caption.replace("\n", "").replace("\t", "").strip()
