"""VisDial: rank a hundred answers to the last question of a dialog about a picture.

Data: https://visualdialog.org/data, v1.0; one round of each dialog has dense annotations (val: 2,064 dialogs). Pictures
of ``VisualDialog_val2018``. The micro-world writes the same layout. One sample is one annotated round. Those
of test-std are on a server: set ``dense: null``, and the last round of every dialog is ranked for a submission.
Prompt: SPEC 5.3, the rounds before the question as history. The official system leaves out the round just before it
(D5): ``history: official`` asks that way, and the name of the protocol says so.
Answer: log-probability of each option after the prompt, not divided by its length. Options are ranked by it; equal ones
keep the order of the file, and rounds with equal ones are counted.
Metric: NDCG of the challenge's starter kit (PROTOCOLS T), k being the number of relevant options; rounds without any
have none and are counted. Beside it, of the answer given by a person: mean reciprocal rank, recall at 1, 5 and 10, mean
rank. A round that could not be ranked gets the floor of each: 0, and the last rank.
Baselines: options in random order (chance, the exact expectation), and ranked by how often training dialogs gave them
as an answer (frequent_answers).
Paper: NDCG 48.7 zero-shot, 53.7 after fine-tuning.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from mmi_eval.formats.errors import FormatError, path_inside
from mmi_eval.formats.visdial import (
    DenseAnnotation,
    Dialog,
    RankedRound,
    dense_rounds,
    read_dense_annotations,
    read_ranks,
    read_visdial,
    write_ranks,
)
from mmi_eval.metrics.visdial import ranks_of_scores
from mmi_eval.model import InterleavedModel
from mmi_eval.sample import Picture, Sample, spread

from .answer_tables import read_tags
from .option_ranks import score_chance, score_ranks
from .prompts import fill
from .protocol import Answer, Scored, Seen

History = Literal["full", "official"]
PROMPT = "{image} caption: {caption}. {history}question: {question}? answer:"
TURN = "question: {question}? answer: {answer}. "


@dataclass(frozen=True)
class VisDial:
    """Settings of the benchmark.

    Args:
        dialogs: Dialogs file.
        dense: Dense annotations of the same split; ``None`` where only the test server has them.
        images: Folder of the pictures.
        image_name: File name of a picture by its id.
        train_dialogs: Training dialogs, for a baseline.
        tags: JSON lines with what each round (``image_id/round_id``) tests.
        split: Name of the split.
        n: Only so many rounds, evenly spread.
        history: All rounds before the question, or all but the last of them as in the official system.
        prompt: With ``{image}``, ``{caption}``, ``{history}`` and ``{question}``.
        turn: A round of the history, with ``{question}`` and ``{answer}``.
        seen: What was trained on.
    """

    dialogs: Path
    dense: Path | None
    images: Path
    image_name: str = "VisualDialog_val2018_{image_id:012d}.jpg"
    train_dialogs: Path | None = None
    tags: Path | None = None
    split: str = "val"
    n: int | None = None
    history: History = "full"
    prompt: str = PROMPT
    turn: str = TURN
    seen: Seen = field(default_factory=Seen)

    name: ClassVar[str] = "visdial"
    version: ClassVar[int] = 1
    raw_units: ClassVar[tuple[str, ...]] = ("mean rank",)
    lower_is_better: ClassVar[tuple[str, ...]] = ("mean rank",)
    result_keys: ClassVar[tuple[str, str] | None] = None

    @property
    def protocol(self) -> str:
        """Rule of the headline, and which rounds stood in the prompt."""
        return f"visdial-challenge NDCG, history {self.history}"

    def check(self) -> None:
        """Nothing is needed but the files that ``samples`` reads."""

    def samples(self) -> list[Sample]:
        """Read the annotated rounds in the order of their file, or the last round of each dialog.

        Raises:
            FileNotFoundError: If a file is not there.
            FormatError: If one is malformed, or the two are not of the same split.
        """
        tags = {} if self.tags is None else read_tags(self.tags)
        dialogs = read_visdial(self.dialogs)
        if self.dense is None:
            last = [DenseAnnotation(dialog.image_id, len(dialog.rounds), ()) for dialog in dialogs]
            rounds = list(zip(dialogs, last, strict=True))
        else:
            rounds = dense_rounds(dialogs, read_dense_annotations(self.dense))
        return [self.sample(dialog, dense, tags) for dialog, dense in spread(rounds, self.n)]

    def answer(self, model: InterleavedModel, batch: Sequence[Sample]) -> list[dict[str, float]]:
        """Ask for the log-probability of each option, by its place among the options.

        Raises:
            ValueError: If the model gives fewer numbers, or one that is not finite.
        """
        answers = []
        for sample in batch:
            options = sample.meta["options"]
            scores = model.score_continuations(sample.opened(), options)
            if len(scores) != len(options) or not all(map(math.isfinite, scores)):
                raise ValueError(f"the model gave no finite log-probability for each of {len(options)} options.")
            answers.append({str(place): float(score) for place, score in enumerate(scores)})
        return answers

    def score(self, samples: Sequence[Sample], answers: Sequence[Answer | None]) -> Scored:
        """Score the order of the options; a round that could not be ranked gets the floor of each value.

        Raises:
            FormatError: If there are no dense annotations, or an answer has not one number for each option.
        """
        if self.dense is None:
            raise FormatError(
                f"visdial {self.split} has no dense annotations, so NDCG is for its server to compute; write a "
                "submission with --submission, or set dense to score here."
            )
        ranks = [_ranks(sample, answer) for sample, answer in zip(samples, answers, strict=True)]
        scored = score_ranks(samples, ranks)
        given = [answer for answer in answers if isinstance(answer, Mapping)]
        counts = {
            "unranked rounds": ranks.count(None),
            "rounds with equal scores": sum(len(set(answer.values())) < len(answer) for answer in given),
            "rounds without a relevant option": sum(not any(s.meta["relevance"]) for s in samples),
        }
        return replace(scored, counts=counts)

    def baselines(self, samples: Sequence[Sample]) -> dict[str, Scored]:
        """Score a random order, and the order of how often training dialogs gave an answer."""
        found = {"chance": score_chance(samples)}
        if self.train_dialogs is not None:
            given = Counter(turn.answer for dialog in read_visdial(self.train_dialogs) for turn in dialog.rounds)
            counted = [[given[option] for option in sample.meta["options"]] for sample in samples]
            scored = score_ranks(samples, [ranks_of_scores([row])[0].tolist() for row in counted])
            found["frequent_answers"] = replace(scored, notes={"counted on": "training dialogs"})
        return found

    def write_submission(self, path: Path, samples: Sequence[Sample], answers: Sequence[Answer | None]) -> None:
        """Write the ranks of every round of the split as the evaluation server takes them.

        Raises:
            FormatError: If a round has no answer.
        """
        ranks = {s.id: _ranks(s, answer) for s, answer in zip(samples, answers, strict=True)}
        everything = replace(self, n=None).samples()
        found = [(sample, ranks.get(sample.id)) for sample in everything]
        if lacking := [sample.id for sample, order in found if order is None]:
            raise FormatError(
                f"{len(lacking)} of {len(everything)} rounds of {self.dialogs} are not ranked, such as {lacking[0]} "
                "(image_id/round_id); a submission needs all of them: evaluate with n: null and no --limit."
            )
        rows = [(s.meta["image_id"], s.meta["round_id"], order) for s, order in found if order is not None]
        write_ranks(path, [RankedRound(image_id, round_id, tuple(order)) for image_id, round_id, order in rows])

    def sample(self, dialog: Dialog, dense: DenseAnnotation, tags: Mapping[str, tuple[str, ...]]) -> Sample:
        """Return the question of an annotated round.

        Raises:
            FormatError: If the round has no options, or its history no answers.
        """
        where = f"image_id {dialog.image_id} of {self.dialogs}"
        if not dialog.rounds or not dialog.rounds[dense.round_id - 1].options:
            raise FormatError(f"{where} has no options in round {dense.round_id}; use dialogs with answer_options.")
        asked = dialog.rounds[dense.round_id - 1]
        picture = Picture(path_inside(self.images, self._file_name(dialog.image_id), where))
        sample_id = _sample_id(dense)
        meta = {
            "image_id": dense.image_id,
            "round_id": dense.round_id,
            "options": list(asked.options),
            "relevance": list(dense.relevance),
            "true option": asked.true_option,
            "tags": list(tags.get(sample_id, ())),
        }
        prompt = dialog_prompt(dialog, dense.round_id, picture, self.history, self.prompt, self.turn)
        references = () if asked.answer is None else (asked.answer,)
        return Sample(sample_id, prompt, references, meta, "scores", group=str(dense.image_id))

    def _file_name(self, image_id: int) -> str:
        try:
            return self.image_name.format(image_id=image_id)
        except (ValueError, KeyError, IndexError) as error:
            raise FormatError(
                f'image_name "{self.image_name}" cannot hold the id {image_id} ({error}); write it with '
                "{image_id:012d} or the like."
            ) from error


def dialog_prompt(
    dialog: Dialog,
    round_id: int,
    picture: Picture,
    history: History = "full",
    prompt: str = PROMPT,
    turn: str = TURN,
) -> tuple[str | Picture, ...]:
    """Write a dialog up to a question whose answer is to come.

    Args:
        dialog: The dialog.
        round_id: Which question, counted from one.
        picture: What it is about.
        history: Which rounds before it are told.
        prompt: As in the settings of the task.
        turn: As in the settings of the task.

    Raises:
        FormatError: If a round of the history has no answer, or a template an unknown mark.
    """
    told = dialog.rounds[: round_id - 1]
    if history == "official":
        # D5: the loop of the released code stops one round early.
        told = told[:-1]
    texts: list[str | Picture] = []
    for number, one in enumerate(told, start=1):
        if one.answer is None:
            raise FormatError(
                f"round {number} of image_id {dialog.image_id} has no answer, but round {round_id} is asked after it; "
                "use dialogs whose history is complete."
            )
        texts.extend(fill(turn, {"question": one.question, "answer": one.answer}))
    fields: dict[str, str | Picture] = {
        "image": picture,
        "caption": dialog.caption,
        "history": "".join(text for text in texts if isinstance(text, str)),
        "question": dialog.rounds[round_id - 1].question,
    }
    return fill(prompt, fields)


def read_results(path: str | Path) -> dict[str, dict[str, float]]:
    """Read a submission file from anywhere as answers of this task, by sample id; the best rank scores highest.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If it is malformed, or ranks are not each of 1 to their count once.
    """
    rows = read_ranks(path)
    return {_sample_id(row): {str(place): float(-rank) for place, rank in enumerate(row.ranks)} for row in rows}


def score_results(path: str | Path, dialogs: str | Path, dense: str | Path) -> Scored:
    """Score a submission file; rounds it does not rank are left out and counted.

    A submission may rank rounds without dense annotations too, as files for the validation server rank all ten of a
    dialog: those count where the human answer is looked for (MRR, R@k, mean rank), as in the starter kit.

    Args:
        path: The submission.
        dialogs: Dialogs file of the split.
        dense: Its dense annotations.

    Raises:
        FileNotFoundError: If a file is not there.
        FormatError: If one is malformed, or the submission ranks other rounds or another number of options.
    """
    task = VisDial(Path(dialogs), Path(dense), Path(dialogs).parent)
    results, annotated = read_results(path), task.samples()
    others = _other_rounds(task, read_ranks(path), {sample.id for sample in annotated})
    samples = [sample for sample in annotated if sample.id in results]
    if not samples:
        raise FormatError(f"{path} ranks no round of {dense}; check that it is the right file.")
    asked = [*samples, *others]
    scored = task.score(asked, [results[sample.id] for sample in asked])
    irrelevant = scored.counts["rounds without a relevant option"] - len(others)
    found = {"not in the file": len(annotated) - len(samples), "rounds without a relevant option": irrelevant}
    notes = {"rounds without dense annotations": len(others)} if others else {}
    return replace(scored, counts=scored.counts | found, notes=notes)


def _other_rounds(task: VisDial, ranked: Sequence[RankedRound], annotated: Set[str]) -> list[Sample]:
    """Return the ranked rounds without dense annotations; no option of theirs is known to be relevant.

    Raises:
        FormatError: If the dialogs do not hold such a round.
    """
    rows = [row for row in ranked if _sample_id(row) not in annotated]
    dialogs = {dialog.image_id: dialog for dialog in read_visdial(task.dialogs)} if rows else {}
    found = []
    for row in rows:
        dialog = dialogs.get(row.image_id)
        if dialog is None or row.round_id > len(dialog.rounds) or not dialog.rounds[row.round_id - 1].options:
            raise FormatError(
                f"the submission ranks round {_sample_id(row)} (image_id/round_id), which {task.dialogs} does not "
                "hold; use the dialogs of the same split."
            )
        relevance = (0.0,) * len(dialog.rounds[row.round_id - 1].options)
        found.append(task.sample(dialog, DenseAnnotation(row.image_id, row.round_id, relevance), {}))
    return found


def _ranks(sample: Sample, answer: Any) -> list[int] | None:
    if answer is None:
        return None
    n = len(sample.meta["options"])
    if not isinstance(answer, Mapping) or set(answer) != {str(place) for place in range(n)}:
        raise FormatError(
            f"the answer to round {sample.id} (image_id/round_id) does not hold one number for each of its {n} "
            "options; rank the options of the same files."
        )
    return ranks_of_scores([[answer[str(place)] for place in range(n)]])[0].tolist()


def _sample_id(row: DenseAnnotation | RankedRound) -> str:
    return f"{row.image_id}/{row.round_id}"
