"""Joint story: from the first sentence and picture, all later sentences and pictures, told and drawn in turn.

The paper shows such stories (Figure 9) and does not score them; the micro-world can, since its judges see what a
picture shows and its sentences name it.
Data: a story set of five clips (PororoSV, FlintstonesSV layout) of the micro-world, and its scene graphs, for who looks
how.
Prompt: the first sentence, the first picture. The model writes up to the next picture and draws it, four times; each
sentence and picture is read before the next. Every story is two samples: what was told (``/told``), and its pictures
(``/frames``); both are made by the same draws.
Metric: judged by the world's own networks, against what the model itself told. "turn right": a sentence was told, a
picture follows it, the background is the place told last, and everything the sentence names is in the picture. Beside
it each alone: "told and drawn"; "background"; "named thing", the share of named things that are shown; "match", the
likeness of picture and sentence, and that with the sentences of another story; "new sentence", none told before.
A turn that was not told has nothing right. Sentences that make things go ("takes", "leaves") name nothing to be shown.
Baselines: the real sentences with their pictures (real_story), and with the first picture again (first_frame_again).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from PIL import Image

from mmi_eval.formats.flintstones import read_flintstones
from mmi_eval.formats.frame_strips import N_CLIPS
from mmi_eval.formats.pororo import read_pororo
from mmi_eval.model import Drawing, InterleavedModel, TextDecoding
from mmi_eval.sample import Picture, Sample

from .interleaved_frames import contents, pictures_as_seen
from .interleaved_scores import END_MARK, MORE_MARK, PICTURE_MARK, judge_notes
from .protocol import Answer, PerSample, Scored, Seen, averaged
from .story_frames import clip_samples, real_frames

if TYPE_CHECKING:
    from mmi_eval.judges import Judges, PictureContent

TOLD, FRAMES = "told", "frames"
RIGHT, DRAWN, BACKGROUND, NAMED = "turn right", "told and drawn", "background", "named thing"
MATCH, SHUFFLED, NEW = "match", "match, another story", "new sentence"
_READERS = {"pororo": read_pororo, "flintstones": read_flintstones}
_GOES = re.compile(r"\b(takes|hides|leaves|goes home)\b")
_MARKS = {"picture": PICTURE_MARK, "end": END_MARK, "more text": MORE_MARK}

Look = tuple[str, str]
"""Colour and shape."""


@dataclass(frozen=True)
class JointStory:
    """Settings of the benchmark.

    Args:
        folder: The data set's folder.
        scenes: JSON lines with the scene graph of each picture of the split.
        judges: Folder of the world's judges.
        layout: Whose layout the folder has.
        split: ``test``, ``val`` or ``train``.
        n: Only so many stories, evenly spread.
        names: Who is spelt with a capital in lower-cased captions; ``None`` leaves captions as they are.
        seed: Picks the frame of each strip.
        continuing: How sentences are chosen.
        drawing: How pictures are drawn.
        seen: What was trained on.
    """

    folder: Path
    scenes: Path
    judges: Path
    layout: Literal["pororo", "flintstones"] = "pororo"
    split: str = "test"
    n: int | None = None
    names: tuple[str, ...] | None = None
    seed: int = 0
    continuing: TextDecoding = field(default_factory=lambda: TextDecoding(60))
    drawing: Drawing = field(default_factory=Drawing)
    seen: Seen = field(default_factory=lambda: Seen(in_house=True))

    name: ClassVar[str] = "joint_story"
    version: ClassVar[int] = 1
    raw_units: ClassVar[tuple[str, ...]] = ()
    lower_is_better: ClassVar[tuple[str, ...]] = (SHUFFLED,)
    result_keys: ClassVar[tuple[str, str] | None] = None

    @property
    def protocol(self) -> str:
        """Whose judgement it is."""
        return "micro-judges"

    def check(self) -> None:
        """Look for the judges.

        Raises:
            FileNotFoundError: If they are not there.
            FormatError: If they are damaged.
        """
        self._judges()

    def samples(self) -> list[Sample]:
        """Read the stories in the order of their split; the two samples of one follow each other."""
        stories = _READERS[self.layout](self.folder).of(self.split)
        found = []
        for story in clip_samples(stories, self.folder, self.names, self.seed, self.n):
            meta = {**story.meta, "story": story.id, "noise": _number(story.id)}
            own = replace(story, prompt=story.prompt[:2], meta=meta, group=story.id)
            found.append(replace(own, id=f"{story.id}/{TOLD}", request="text"))
            found.append(replace(own, id=f"{story.id}/{FRAMES}", request="images"))
        return found

    def answer(self, model: InterleavedModel, batch: Sequence[Sample]) -> list[Any]:
        """Ask for the stories of a batch, each once."""
        stories = {sample.meta["story"]: sample for sample in batch}
        told = dict(zip(stories, self._tell(model, list(stories.values())), strict=True))
        return [told[sample.meta["story"]][sample.request == "images"] for sample in batch]

    def score(self, samples: Sequence[Sample], answers: Sequence[Answer | None]) -> Scored:
        """Judge each picture by the sentence before it."""
        judges = self._judges()
        texts: dict[str, list[str]] = {}
        frames: dict[str, Sequence[Picture | None]] = {}
        owner = {}
        for sample, answer in zip(samples, answers, strict=True):
            story = sample.meta["story"]
            if sample.request == "text":
                texts[story] = answer.split("\n") if isinstance(answer, str) else []
            else:
                owner[story] = sample
                frames[story] = answer if isinstance(answer, tuple) else (None,) * (N_CLIPS - 1)
        per_sample = self._table(judges, owner, texts, frames)
        lost = sum(frame is None for story in frames.values() for frame in story)
        assets = {"micro-judges": f"sha256:{judges.digest}"}
        values = averaged(per_sample, samples, hits=False)
        return Scored(values, per_sample, counts={"pictures lost": lost}, assets=assets, notes=judge_notes(judges))

    def baselines(self, samples: Sequence[Sample]) -> dict[str, Scored]:
        """Score the real stories, and their first picture shown four more times."""
        real: list[Answer | None] = []
        still: list[Answer | None] = []
        for sample in samples:
            told = "\n".join(f"{text} {PICTURE_MARK}" for text in sample.meta["captions"][1:])
            first = next(piece for piece in sample.prompt if isinstance(piece, Picture))
            real.append(told if sample.request == "text" else tuple(real_frames(sample)))
            still.append(told if sample.request == "text" else (first,) * (N_CLIPS - 1))
        return {"real_story": self.score(samples, real), "first_frame_again": self.score(samples, still)}

    def _judges(self) -> Judges:
        from mmi_eval.judges import load_judges

        return load_judges(self.judges)

    def _tell(self, model: InterleavedModel, stories: Sequence[Sample]) -> list[tuple[str, list[Image.Image]]]:
        """Write and draw four turns of each story."""
        prompts = [list(story.opened()) for story in stories]
        texts: list[list[str]] = [[] for _ in stories]
        frames: list[list[Image.Image]] = [[] for _ in stories]
        for turn in range(N_CLIPS - 1):
            for prompt, own, one in zip(prompts, texts, model.continue_text(prompts, self.continuing), strict=True):
                own.append(" ".join(f"{one.text} {_MARKS[one.then]}".split()))
                prompt += [one.text] if one.text else []
            seeds = [story.meta["noise"] + turn for story in stories]
            drawn = model.generate_image(prompts, self.drawing, seeds)
            for prompt, own, picture in zip(prompts, frames, drawn, strict=True):
                own.append(picture)
                prompt.append(picture)
        return [("\n".join(told), own) for told, own in zip(texts, frames, strict=True)]

    def _table(
        self,
        judges: Judges,
        owner: Mapping[str, Sample],
        texts: Mapping[str, Sequence[str]],
        frames: Mapping[str, Sequence[Picture | None]],
    ) -> PerSample:
        """Score the turns of each story and average them, under the id of its sample of pictures."""
        looks, places = read_looks(self.scenes), judges.classes.background
        ids = list(owner)
        told = {story: told_turns(texts.get(story, ())) for story in ids}
        flat = [frame for story in ids for frame in frames[story]]
        seen = contents(judges, flat)
        table: PerSample = {}
        for number, story in enumerate(ids):
            shown = seen[number * (N_CLIPS - 1) : (number + 1) * (N_CLIPS - 1)]
            rows = turn_scores(owner[story].meta["captions"][0], told[story], shown, looks, places)
            for name, values in rows.items():
                table.setdefault(name, {})[owner[story].id] = float(np.mean(values))
        vectors = judges.picture_vectors(pictures_as_seen(judges, flat)).reshape(len(ids), N_CLIPS - 1, -1)
        said = judges.text_vectors([text or "" for story in ids for text in told[story]]).reshape(vectors.shape)
        for name, others in ((MATCH, said), (SHUFFLED, np.roll(said, 1, axis=0))):
            cosines = (vectors * others).sum(-1).mean(1)
            table[name] = {owner[story].id: float(value) for story, value in zip(ids, cosines, strict=True)}
        return table


def told_turns(lines: Sequence[str]) -> list[str | None]:
    """Return the sentence of each turn; ``None`` from the first on that is empty or that no picture follows.

    Example:
        >>> told_turns(["Ada leaves. <picture>", "Ben walks. <end>", "Ben sleeps. <picture>"])
        ['Ada leaves.', None, None, None]
    """
    found: list[str | None] = []
    for line in lines[: N_CLIPS - 1]:
        text = line.removesuffix(PICTURE_MARK).strip()
        if not line.endswith(PICTURE_MARK) or not text:
            break
        found.append(text)
    return found + [None] * (N_CLIPS - 1 - len(found))


def turn_scores(
    opening: str,
    told: Sequence[str | None],
    seen: Sequence[PictureContent | None],
    looks: Mapping[str, Look],
    places: Sequence[str],
) -> dict[str, list[float]]:
    """Compare what was drawn with what was told, turn by turn.

    Args:
        opening: The given sentence.
        told: Of ``told_turns``.
        seen: What a judge sees in each picture; ``None`` for one that could not be had.
        looks: Colour and shape of who is named.
        places: Names of backgrounds.
    """
    rows: dict[str, list[float]] = {name: [] for name in (RIGHT, DRAWN, BACKGROUND, NAMED, NEW)}
    place, before = _last_place(opening, places), {opening.lower()}
    for text, picture in zip(told, seen, strict=True):
        there = text is not None and picture is not None
        place = _last_place(text or "", places) or place
        named = named_looks(text or "", looks)
        shown = {(thing.colour, thing.shape) for thing in picture.things} if picture is not None else set()
        share = float(np.mean([look in shown for look in named])) if named else 1.0
        background = text is not None and picture is not None and picture.background == place
        rows[DRAWN].append(float(there))
        rows[BACKGROUND].append(float(background))
        rows[NAMED].append(share if there else 0.0)
        rows[RIGHT].append(float(there and background and share == 1.0))
        rows[NEW].append(float(text is not None and text.lower() not in before))
        before.add((text or "").lower())
    return rows


def named_looks(text: str, looks: Mapping[str, Look]) -> set[Look]:
    """Return colour and shape of everything a sentence names and leaves in the picture, however it is spelt.

    Example:
        >>> sorted(named_looks("ada sees a small red cross.", {"Ada": ("blue", "heart"), "": ("red", "cross")}))
        [('blue', 'heart'), ('red', 'cross')]
        >>> named_looks("Ada hides the red cross.", {"Ada": ("blue", "heart")})
        set()
    """
    if _GOES.search(text):
        return set()
    words = set(re.findall(r"\w+", text.lower()))
    by_name = {look for name, look in looks.items() if name.lower() in words}
    return by_name | {look for look in looks.values() if f"{look[0]} {look[1]}" in text.lower()}


def read_looks(scenes: Path) -> dict[str, Look]:
    """Return who and what there is in a world, by name; things without a name stand under "colour shape"."""
    looks: dict[str, Look] = {}
    with open(scenes, encoding="utf-8") as rows:
        for row in rows:
            for thing in json.loads(row)["things"]:
                look = (thing["colour"], thing["shape"])
                looks[thing.get("name") or " ".join(look)] = look
    return looks


def _last_place(text: str, places: Sequence[str]) -> str:
    found = [word for word in re.findall(r"\w+", text.lower()) if word in places]
    return found[-1] if found else ""


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
