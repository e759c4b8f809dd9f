"""FlintstonesSV: stories of five clips of a cartoon, with three files beside the strips.

``flintstones_annotations_v1-0.json``: a list of ``globalID``, ``description``, ``setting``, ``characters[]`` of
``entityLabel``. ``following_cache4.pkl``: a pickled dictionary from an id to those of the clips after it.
``train-val-test_split.json``: ids by split; those with fewer than four followers begin no story. Clips lie in
``video_frames_sampled_png/<id>.png`` or, as arrays, ``video_frames_sampled/<id>.npy``. See
https://github.com/adymaharana/storydalle.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import FormatError, as_object, field, load_json, optional_field, text_list, write_json
from .frame_strips import N_CLIPS, Clip, ClipStories, ClipStory, check_stories
from .plain_pickle import write_pickle
from .restricted_pickle import load_pickle

NAMES = ("Fred", "Barney", "Wilma", "Betty", "Pebbles", "Dino", "Slate")
SPLITS = ("train", "val", "test")
STRIPS = "video_frames_sampled_png"


@dataclass(frozen=True)
class ClipAnnotation:
    """What the annotation file says of a clip.

    Args:
        clip_id: ``globalID``.
        description: What happens.
        setting: Where, if the file says so.
        characters: ``entityLabel`` of those who are seen.
    """

    clip_id: str
    description: str
    setting: str | None = None
    characters: tuple[str, ...] = ()


def read_flintstones_annotations(path: str | Path) -> dict[str, ClipAnnotation]:
    """Read the annotations by id, in file order.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If it is malformed, or an id repeats.
    """
    content = load_json(path, "the annotations of FlintstonesSV")
    if not isinstance(content, list):
        raise FormatError(f"{path} holds no list of clips; check the path.")
    result: dict[str, ClipAnnotation] = {}
    for number, value in enumerate(content):
        where = f"{path}, entry {number}"
        row = as_object(value, where)
        clip_id = field(row, "globalID", str, where)
        if clip_id in result:
            raise FormatError(f'{where}: globalID "{clip_id}" is there twice; remove one of them.')
        people = optional_field(row, "characters", list, where) or []
        names = tuple(
            field(as_object(person, f"{where}, character {i}"), "entityLabel", str, f"{where}, character {i}")
            for i, person in enumerate(people)
        )
        setting = optional_field(row, "setting", str, where)
        result[clip_id] = ClipAnnotation(clip_id, field(row, "description", str, where), setting, names)
    return result


def read_flintstones(folder: str | Path) -> ClipStories:
    """Read the stories of every split, in the order of the split file.

    Args:
        folder: Where the three files are.

    Raises:
        FileNotFoundError: If a file is not there.
        FormatError: If a file is malformed, or they do not belong together.
    """
    folder = Path(folder)
    annotations_file = folder / "flintstones_annotations_v1-0.json"
    annotations = read_flintstones_annotations(annotations_file)
    following = _following(folder / "following_cache4.pkl")
    split_file = folder / "train-val-test_split.json"
    content = as_object(load_json(split_file, "the splits of FlintstonesSV"), str(split_file))
    splits: dict[str, tuple[ClipStory, ...]] = {}
    skipped: dict[str, int] = {}
    for name in SPLITS:
        ids = text_list(field(content, name, list, str(split_file)), f'{split_file}: "{name}"')
        whole = [i for i in ids if len(following.get(i, ())) == N_CLIPS - 1]
        skipped[name] = len(ids) - len(whole)
        stories = []
        for first in whole:
            clips = []
            for clip_id in (first, *following[first]):
                if clip_id not in annotations:
                    raise FormatError(f'{annotations_file} has no clip "{clip_id:.60}"; use the files of one release.')
                clips.append(_clip(annotations[clip_id]))
            stories.append(ClipStory(tuple(clips)))
        splits[name] = tuple(stories)
    return ClipStories(splits, skipped)


def _clip(annotation: ClipAnnotation) -> Clip:
    return Clip(annotation.clip_id, f"{STRIPS}/{annotation.clip_id}.png", (annotation.description,))


def _following(path: Path) -> dict[str, tuple[str, ...]]:
    content = load_pickle(path, "the clips that follow in FlintstonesSV")
    if not isinstance(content, dict):
        raise FormatError(f"{path} holds no dictionary of ids; get the file again.")
    result = {}
    for key, value in content.items():
        ids = list(value) if isinstance(value, tuple) else value
        if not isinstance(key, str):
            raise FormatError(f"{path} has the key {str(key)[:60]!r}; expected the id of a clip.")
        result[key] = text_list(ids, f'{path}: "{key:.60}"')
    return result


def write_flintstones(
    folder: str | Path, splits: Mapping[str, Sequence[ClipStory]], annotations: Iterable[ClipAnnotation] = ()
) -> int:
    """Write the three files and return the number of stories; the strips are written by ``write_strip``.

    Args:
        folder: Created if needed.
        splits: Stories of ``train``, ``val`` and ``test``; each clip has one caption, its description.
        annotations: Setting and characters of clips, where known; their descriptions are those of the clips.

    Raises:
        ValueError: If a story or clip does not fit the layout.
    """
    clips = check_stories(splits, SPLITS)
    known = {annotation.clip_id: annotation for annotation in annotations}
    rows = []
    for clip in clips.values():
        if clip.image != f"{STRIPS}/{clip.clip_id}.png" or len(clip.captions) != 1:
            raise ValueError(f"clip {clip.clip_id} shows {clip.image}; expected one text and {STRIPS}/<id>.png.")
        given = known.get(clip.clip_id, ClipAnnotation(clip.clip_id, clip.captions[0]))
        if given.description != clip.captions[0]:
            raise ValueError(f"clip {clip.clip_id} has another text than its annotation.")
        row: dict[str, object] = {
            "globalID": clip.clip_id,
            "description": given.description,
            "characters": [{"entityLabel": name} for name in given.characters],
        }
        rows.append(row if given.setting is None else row | {"setting": given.setting})
    stories = [story for name in SPLITS for story in splits.get(name, ())]
    following = {story.story_id: [clip.clip_id for clip in story.clips[1:]] for story in stories}
    folder = Path(folder)
    write_json(folder / "flintstones_annotations_v1-0.json", rows)
    write_pickle(folder / "following_cache4.pkl", following)
    write_json(
        folder / "train-val-test_split.json",
        {name: [story.story_id for story in splits.get(name, ())] for name in SPLITS},
    )
    return len(stories)
