"""A world of squares in the layouts of the scene and story benchmarks, and models that know all or nothing about it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from toy_benchmarks import CELL, CELLS, COLOURS, PLACES, SIDE, ToyJudges

from mmi_eval.formats.ade20k import CaptionedScene, SceneClass, write_classes, write_labels, write_scene_captions
from mmi_eval.formats.flintstones import STRIPS, write_flintstones
from mmi_eval.formats.frame_strips import Clip, ClipStory, write_strip
from mmi_eval.formats.mmc4 import MMC4Document, MMC4Image, write_mmc4
from mmi_eval.formats.pororo import write_pororo
from mmi_eval.formats.vist import VISTFile, VISTSentence, VISTStory, write_vist
from mmi_eval.model import Continuation
from mmi_eval.sample import Sample

CHARACTERS = {"Ada": "red", "Ben": "blue", "Cleo": "green"}
N_STORIES = 24
CLASSES = (*PLACES, *COLOURS)
Look = tuple[str, tuple[tuple[str, int], ...]]
"""A place, and colours of squares with their cells."""


def drawn(look: Look) -> Image.Image:
    place, squares = look
    pixels = np.full((SIDE, SIDE, 3), PLACES[place], np.uint8)
    for colour, cell in squares:
        left, top = 1 + CELL * (cell % 3), 1 + CELL * (cell // 3)
        pixels[top : top + CELL, left : left + CELL] = COLOURS[colour]
    return Image.fromarray(pixels)


def story(i: int) -> list[tuple[str, Look]]:
    """Sentences and looks of story ``i``: somebody comes, walks, finds a yellow square and takes it or travels."""
    name = list(CHARACTERS)[i % 3]
    colour, places = CHARACTERS[name], list(PLACES)
    place, cell = places[i // 3 % 3], i % 4
    there, square = cell + 4, ("yellow", 8)
    frames: list[tuple[str, Look]] = [
        (f"{name} is in the {place}.", (place, ((colour, cell),))),
        (f"{name} walks to the {CELLS[there]}.", (place, ((colour, there),))),
        (f"{name} finds a large yellow square.", (place, ((colour, there), square))),
    ]
    if i % 2:
        frames.append((f"{name} takes the yellow square.", (place, ((colour, there),))))
        frames[-1] = (f"{name} takes the yellow square to the {CELLS[cell]}.", (place, ((colour, cell),)))
    else:
        other = places[(i // 3 + 1) % 3]
        frames.append((f"{name} goes to the {other} with the yellow square.", (other, ((colour, there), square))))
    return frames


def scene(look: Look) -> dict[str, Any]:
    names = {colour: name for name, colour in CHARACTERS.items()}
    square = {"shape": "square", "size": "large", "texture": "plain", "print": None}
    things = [square | {"cell": CELLS[cell], "colour": colour, "name": names.get(colour)} for colour, cell in look[1]]
    return {"place": look[0], "things": things}


def write_world(folder: Path) -> Path:
    """Write stories in the MMC4 layout, their pictures and scene graphs."""
    (folder / "images").mkdir(parents=True)
    documents, rows = [], []
    for i in range(N_STORIES):
        frames = story(i)
        names = [f"{i}-{k}.png" for k in range(len(frames))]
        for name, (_, look) in zip(names, frames, strict=True):
            drawn(look).save(folder / "images" / name)
            rows.append({"image": name, **scene(look)})
        images = tuple(MMC4Image(name, k, 0.3) for k, name in enumerate(names))
        documents.append(MMC4Document(tuple(text for text, _ in frames), images))
    write_mmc4(folder / "stories.jsonl", documents)
    (folder / "scenes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def frames_of_five(i: int) -> list[tuple[str, Look]]:
    """A story of five frames that all differ: a square walks through five cells."""
    place, colour = list(PLACES)[i % 3], list(COLOURS)[i % 4]
    return [(f"PORORO walks on {k}", (place, ((colour, (i + k) % 9),))) for k in range(5)]


def write_clips(folder: Path, kind: str, n: int = 6) -> Path:
    """Write stories of strips; frame ``k`` of a strip is ``k`` brighter than the first, so that each can be told."""
    stories = []
    for i in range(n):
        clips = []
        for k, (text, look) in enumerate(frames_of_five(i)):
            clip_id = f"Toy/{i}_{k}" if kind == "pororo" else f"s_{i}_{k}"
            image = f"{clip_id}.png" if kind == "pororo" else f"{STRIPS}/{clip_id}.png"
            clips.append(Clip(clip_id, image, (text,)))
            first = np.asarray(drawn(look))
            write_strip(folder / image, np.stack([first, first + 1, first + 2]))
        stories.append(ClipStory(tuple(clips)))
    (write_pororo if kind == "pororo" else write_flintstones)(folder, {"test": stories})
    return folder


def write_albums(folder: Path, n: int = 6) -> Path:
    """Write stories in VIST's regrouped layout."""
    (folder / "images").mkdir(parents=True)
    stories = []
    for i in range(n):
        sentences = []
        for k, (text, look) in enumerate(frames_of_five(i)):
            drawn(look).save(folder / "images" / f"{i}{k}.png")
            sentences.append(VISTSentence(f"{i}{k}", text, k))
        stories.append(VISTStory(str(i), tuple(sentences)))
    write_vist(folder / "val.json", VISTFile(tuple(stories)), "formatted")
    return folder


def labels_of(image: Image.Image) -> np.ndarray:
    """The class of each pixel: places, then colours; the nearest of them, from 1."""
    table = np.array([*PLACES.values(), *COLOURS.values()], int)
    pixels = np.asarray(image.convert("RGB"), int)
    return (np.abs(pixels[:, :, None] - table).sum(-1).argmin(-1) + 1).astype(np.uint8)


def write_scenes(folder: Path, n: int = 6, width: int = SIDE) -> Path:
    """Write pictures, label maps, captions and classes of ADE20K; wider ones show their first column again."""
    scenes = []
    for i in range(n):
        pixels = np.asarray(drawn(frames_of_five(i)[0][1]))
        left = (width - SIDE) // 2
        wide = np.concatenate([pixels[:, :1]] * left + [pixels] + [pixels[:, :1]] * (width - SIDE - left), axis=1)
        image_id = f"ADE_val_{i + 1:08d}"
        (folder / "images" / "validation").mkdir(parents=True, exist_ok=True)
        Image.fromarray(wide).save(folder / "images" / "validation" / f"{image_id}.png")
        scenes.append(CaptionedScene(image_id, f"a thing in place {i}" + "." * (i % 2)))
        write_labels(scenes[-1].labels_path(folder, "validation"), labels_of(Image.fromarray(wide)))
    write_scene_captions(folder / "validation.json", scenes)
    write_classes(folder / "objectInfo150.csv", [SceneClass(k, f"{c};x") for k, c in enumerate(CLASSES, start=1)])
    return folder


class StoryJudges(ToyJudges):
    """Also compare pictures, and name the class of each pixel."""

    def picture_vectors(self, images: np.ndarray) -> np.ndarray:
        flat = images.reshape(len(images), -1).astype(np.float64)
        return flat / np.linalg.norm(flat, axis=1, keepdims=True)

    def segment(self, images: np.ndarray) -> np.ndarray:
        return np.stack([labels_of(Image.fromarray(image.transpose(1, 2, 0))) for image in images])

    def features(self, images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), 3, 2, -1).mean(-1).reshape(len(images), -1)


class StoryModel:
    """Answers by the sample whose prompt it is asked with; remembers every prompt it draws after.

    Args:
        samples: Those it knows.
        draw: What it draws for a sample.
        text: What it answers.
        go_on: What it continues with.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        draw: Callable[[Sample], Image.Image] = lambda sample: Image.new("RGB", (SIDE, SIDE), (128, 128, 128)),
        text: Callable[[Sample], str] = lambda sample: "",
        go_on: Callable[[Sample], Continuation] = lambda sample: Continuation("", "end"),
    ) -> None:
        self.samples = {(s.meta.get("kind", "").split(",")[0], key(s.opened())): s for s in samples}
        self.draw, self.text, self.go_on = draw, text, go_on
        self.prompts: list[list[Any]] = []
        self.seeds: list[int] = []

    def generate_image(self, prompts: Any, drawing: Any, seeds: Any) -> list[Image.Image]:
        self.prompts += [list(prompt) for prompt in prompts]
        self.seeds += seeds
        return [self.draw(self._known(prompt, "frame", "")) for prompt in prompts]

    def generate_text(self, prompts: Any, decoding: Any) -> list[str]:
        return [self.text(self._known(prompt, "reference")) for prompt in prompts]

    def continue_text(self, prompts: Any, decoding: Any) -> list[Continuation]:
        return [self.go_on(self._known(prompt, "after text", "after picture")) for prompt in prompts]

    def _known(self, prompt: Sequence[Any], *kinds: str) -> Sample:
        return next(self.samples[kind, key(prompt)] for kind in kinds if (kind, key(prompt)) in self.samples)


def key(prompt: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(piece if isinstance(piece, str) else piece.tobytes() for piece in prompt)
