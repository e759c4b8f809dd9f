"""Interleaved world: what a model remembers over 1 to 8 pictures of a story, when it draws and when it writes.

The benchmark that the paper leaves for future work, on a world whose every picture has a scene graph.
Data: the micro-world's stories (MMC4 layout) with their scene graphs; contexts longer than a story are made by
interrupting it (``interleaved_stories``). Each episode asks four things:
1. frame: after all sentences and pictures and the next sentence, draw its picture. "named thing": shape and colour of
   who or what the sentence speaks of, at the right place; "thing gone": what left is not drawn; "persistence": shape,
   colour, texture, size and print (``attribute/``) of what earlier pictures of the story show and the sentence leaves
   unsaid; background and empty cells.
2. the same frame after the pictures of another episode with as many ("shuffled context"), with the same noise: paired
   differences say what the pictures of the context are worth.
3. reference: a question about an earlier picture, whose answer is another one for the latest; "text reference" is the
   share answered from the right picture, "text reference, another picture" that answered from a wrong one.
4. order: after a sentence comes its picture at once; after a picture come text and then a picture. Judged on what the
   model continues with, text first and then which of picture, end and more text.
The main properties also by the number of context pictures ("named thing, context/3") and by whether the story was
interrupted ("named thing, story/interrupted").
Metric: judged by the world's own networks; their held-out accuracy stands beside the scores.
Baselines: the real pictures (real_pictures), the most a model can reach; the latest picture drawn again, and its
answers to the questions (latest_picture); the story's own latest picture drawn again (latest_of_story).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mmi_eval.formats.errors import FormatError
from mmi_eval.model import Drawing, InterleavedModel, TextDecoding
from mmi_eval.sample import Picture, Sample, controlled

from .interleaved_frames import expected_of
from .interleaved_questions import ask_about
from .interleaved_scores import (
    AFTER_PICTURE,
    AFTER_TEXT,
    CONFUSED,
    END_MARK,
    FRAME,
    MORE_MARK,
    ORDER,
    PICTURE_MARK,
    REFERENCE,
    SHUFFLED,
    by_context,
    compared,
    frame_table,
    in_order_of_names,
    judge_notes,
    text_of,
    text_table,
)
from .interleaved_stories import MOST_CONTEXT, Episode, make_episodes, read_world_stories
from .prompts import fill
from .protocol import Answer, Scored, Seen, averaged

if TYPE_CHECKING:
    from mmi_eval.judges import Judges


@dataclass(frozen=True)
class InterleavedWorld:
    """Settings of the benchmark.

    Args:
        stories: Stories of the split, in the MMC4 layout.
        images: Folder of their pictures.
        scenes: JSON lines with the scene graph of each picture.
        judges: Folder of the world's judges.
        split: Name of the split.
        n: Episodes, with 1 to ``most_context`` context pictures in turn.
        n_shuffled: So many of the first episodes are drawn again after a shuffled context; 0 leaves that out.
        most_context: Most context pictures.
        with_texts: Show the sentences of earlier pictures; without them all that is remembered is from pictures.
        question: With ``{question}``.
        drawing: How pictures are drawn.
        answering: How answers are chosen.
        continuing: How continuations are chosen.
        seen: What was trained on.
    """

    stories: Path
    images: Path
    scenes: Path
    judges: Path
    split: str = "test"
    n: int = 64
    n_shuffled: int = 32
    most_context: int = MOST_CONTEXT
    with_texts: bool = True
    question: str = "{question}"
    drawing: Drawing = field(default_factory=Drawing)
    answering: TextDecoding = field(default_factory=lambda: TextDecoding(8))
    continuing: TextDecoding = field(default_factory=lambda: TextDecoding(40))
    seen: Seen = field(default_factory=lambda: Seen(in_house=True))

    name: ClassVar[str] = "interleaved_world"
    version: ClassVar[int] = 1
    raw_units: ClassVar[tuple[str, ...]] = ()
    lower_is_better: ClassVar[tuple[str, ...]] = (CONFUSED,)
    result_keys: ClassVar[tuple[str, str] | None] = None

    def __post_init__(self) -> None:
        if not 1 <= self.most_context <= MOST_CONTEXT:
            raise ValueError(f"most_context is {self.most_context}; expected 1 to {MOST_CONTEXT}.")
        if not 0 <= self.n_shuffled <= self.n or self.n < 1:
            raise ValueError(f"n is {self.n} and n_shuffled {self.n_shuffled}; expected 0 <= n_shuffled <= n.")

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
        """Make the episodes; the samples of one follow each other."""
        episodes = make_episodes(read_world_stories(self.stories, self.images, self.scenes), self.n, self.most_context)
        frames = [self._frame(episode) for episode in episodes]
        shuffled = self._shuffled(frames)
        found = []
        for number, (episode, frame) in enumerate(zip(episodes, frames, strict=True)):
            found += [frame, *shuffled[number : number + 1], *self._texts(episode, frame)]
        return found

    def answer(self, model: InterleavedModel, batch: Sequence[Sample]) -> list[Any]:
        """Ask for pictures, answers and continuations, those of a kind together."""
        askers: dict[str, Callable[[list[Sample]], Sequence[Any]]] = {
            FRAME: lambda some: self._draw(model, some),
            REFERENCE: lambda some: model.generate_text([s.opened() for s in some], self.answering),
            ORDER: lambda some: self._continue(model, some),
        }
        answers: dict[str, Any] = {}
        for kind, ask in askers.items():
            if some := [sample for sample in batch if _ability(sample) == kind]:
                answers |= dict(zip([sample.id for sample in some], ask(some), strict=True))
        return [answers[sample.id] for sample in batch]

    def score(self, samples: Sequence[Sample], answers: Sequence[Answer | None]) -> Scored:
        """Score all kinds; what could not be had has nothing right."""
        judges = self._judges()
        pairs = list(zip(samples, answers, strict=True))
        frames = frame_table(judges, [pair for pair in pairs if pair[0].meta["kind"] == FRAME])
        shuffled = frame_table(judges, [pair for pair in pairs if pair[0].meta["kind"] == SHUFFLED])
        own = in_order_of_names(frames | text_table(pairs))
        per_sample = own | {f"{name}, shuffled context": column for name, column in shuffled.items()}
        per_sample |= by_context(own, samples)
        counts = {
            "pictures lost": sum(s.request == "image" and not isinstance(a, Picture) for s, a in pairs),
            "empty answers": sum(s.meta["kind"] == REFERENCE and not text_of(a).strip() for s, a in pairs),
        }
        assets = {"micro-judges": f"sha256:{judges.digest}"}
        values = averaged(per_sample, samples)
        return Scored(values, per_sample, compared(frames, shuffled, samples), counts, assets, judge_notes(judges))

    def baselines(self, samples: Sequence[Sample]) -> dict[str, Scored]:
        """Score real pictures, the latest picture, and the story's own latest picture."""
        frames = [sample for sample in samples if sample.meta["kind"] == FRAME]
        asked = [sample for sample in samples if sample.meta["kind"] == REFERENCE]
        latest: list[Answer | None] = [sample.pictures[-1] for sample in frames]
        latest += [sample.meta["latest"] for sample in asked]
        return {
            "real_pictures": self.score(frames, [sample.target for sample in frames]),
            "latest_picture": self.score([*frames, *asked], latest),
            "latest_of_story": self.score(frames, [s.pictures[s.meta["n_own"] - 1] for s in frames]),
        }

    def _judges(self) -> Judges:
        from mmi_eval.judges import load_judges

        return load_judges(self.judges)

    def _context(self, episode: Episode) -> tuple[str | Picture, ...]:
        if not self.with_texts:
            return tuple(frame.picture for frame in episode.context)
        return tuple(piece for frame in episode.context for piece in (frame.text, frame.picture))

    def _meta(self, kind: str, episode: Episode) -> dict[str, Any]:
        told = "interrupted" if episode.guests else "in a row"
        return {"kind": kind, "n_context": len(episode.context), "story": told}

    def _frame(self, episode: Episode) -> Sample:
        sample_id = f"{episode.id}/{FRAME}"
        meta = self._meta(FRAME, episode) | {
            "n_own": len(episode.own),
            "expected": expected_of(episode),
            "noise": _number(sample_id),
        }
        prompt = (*self._context(episode), episode.next.text)
        return Sample(sample_id, prompt, (), meta, "image", episode.next.picture, episode.story.id)

    def _shuffled(self, frames: Sequence[Sample]) -> list[Sample]:
        """Return twins of the first frames with the pictures of other episodes with as many."""
        first = frames[: self.n_shuffled]
        counts = {frame.meta["n_context"] for frame in first}
        try:
            others = controlled([frame for frame in frames if frame.meta["n_context"] in counts], "swapped")
        except FormatError as error:
            raise FormatError(
                f"the {len(frames)} episodes have no other pictures to shuffle with; set n to {2 * self.most_context} "
                "or more, or n_shuffled to 0."
            ) from error
        swapped = {other.id: other for other in others}
        return [
            replace(
                swapped[frame.id],
                id=f"{frame.id}, shuffled",
                meta={**frame.meta, "kind": SHUFFLED, "pair": frame.id},
            )
            for frame in first
        ]

    def _texts(self, episode: Episode, frame: Sample) -> list[Sample]:
        """Return the question about an earlier picture, where there is one, and the two about order."""
        context, group = self._context(episode), episode.story.id
        found = []
        asked = ask_about([frame.scene for frame in episode.context], _number(episode.id))
        if asked is not None:
            meta = self._meta(REFERENCE, episode) | {
                "question": asked.text,
                "latest": asked.latest,
                "others": list(asked.others),
                "tags": [f"steps back {asked.steps_back}", asked.kind],
            }
            prompt = (*context, *fill(self.question, {"question": asked.text}))
            found.append(Sample(f"{episode.id}/{REFERENCE}", prompt, (asked.answer,), meta, group=group))
        for kind, prompt in ((AFTER_TEXT, frame.prompt), (AFTER_PICTURE, context)):
            found.append(Sample(f"{episode.id}/{kind}", prompt, (), self._meta(kind, episode), group=group))
        return found

    def _draw(self, model: InterleavedModel, samples: Sequence[Sample]) -> list[Any]:
        return model.generate_image([s.opened() for s in samples], self.drawing, [s.meta["noise"] for s in samples])

    def _continue(self, model: InterleavedModel, samples: Sequence[Sample]) -> list[str]:
        marks = {"picture": PICTURE_MARK, "end": END_MARK, "more text": MORE_MARK}
        found = model.continue_text([sample.opened() for sample in samples], self.continuing)
        return [f"{one.text} {marks[one.then]}".strip() for one in found]


def _ability(sample: Sample) -> str:
    """Say what a sample asks of a model: a frame, an answer, or how it goes on."""
    kind = sample.meta["kind"]
    return FRAME if kind in (FRAME, SHUFFLED) else REFERENCE if kind == REFERENCE else ORDER


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
