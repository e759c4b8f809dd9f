"""Files for test servers: written from the answers on disk, read back, and checked before anyone uploads them.

VQAv2, VizWiz, NoCaps, VisDial and GQA have servers; their tasks write the official layout in ``write_submission``.
Servers want every question of a split and refuse files that lack one (PROTOCOLS E).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeGuard

from .formats.errors import FormatError
from .outputs import opened_answer
from .predictions import read_answers
from .results import Evaluation
from .sample import Sample, fingerprint
from .tasks.protocol import Answer, Task

FILE_NAME = "submission.json"


class WritesSubmission(Task, Protocol):
    """A task with a test server."""

    def write_submission(self, path: Path, samples: Sequence[Sample], answers: Sequence[Answer | None]) -> None:
        """Write the official layout.

        Raises:
            FormatError: If a question has no answer.
        """
        ...


def can_submit(task: Task) -> TypeGuard[WritesSubmission]:
    """Say whether a task has a test server's layout."""
    return callable(getattr(task, "write_submission", None))


def check_submissions(tasks: Mapping[str, Task]) -> None:
    """Refuse early what no server would take.

    Args:
        tasks: By label.

    Raises:
        FormatError: If none of them has a server, or one asks a part of its questions only.
    """
    having = {label: task for label, task in tasks.items() if can_submit(task)}
    if not having:
        raise FormatError(
            f"none of the tasks {', '.join(tasks)} has a test server; vqav2, vizwiz, gqa, nocaps and visdial have one."
        )
    for label, task in having.items():
        if (n := getattr(task, "n", None)) is not None:
            raise FormatError(
                f"tasks.{label}.n is {n}, but a test server wants every question; set --tasks.{label}.n=null."
            )


def write_submission(task: Task, evaluation: Evaluation) -> Path:
    """Write ``submission.json`` into the folder of an evaluation, and check it.

    Raises:
        FormatError: If the run was limited, the task has no server, the data have changed, or a question has no
            answer.
    """
    plan = evaluation.plan
    if not can_submit(task):
        raise FormatError(f"{plan.label} has no test server; leave it out.")
    if plan.limit is not None:
        raise FormatError(
            f"{plan.label} was asked with --limit {plan.limit}, but a test server wants every question; run mmi "
            "evaluate without it."
        )
    check_submissions({plan.label: task})
    samples = task.samples()
    if fingerprint(samples) != plan.samples:
        raise FormatError(f"{evaluation.folder} answers other samples than {plan.label} has now; restore its data.")
    predictions = evaluation.predictions.read_all()
    if lost := [sample.id for sample in samples if sample.id not in predictions]:
        raise FormatError(f"{evaluation.folder} lacks {len(lost)} answers, such as {lost[0]}; run mmi evaluate again.")
    answers = [opened_answer(predictions[sample.id], sample, evaluation.folder) for sample in samples]
    path = evaluation.folder / FILE_NAME
    path.unlink(missing_ok=True)
    task.write_submission(path, samples, answers)
    try:
        check_submission(path, task, samples)
    except FormatError:
        path.unlink()
        raise
    return path


def check_submission(path: Path, task: Task, samples: Sequence[Sample]) -> None:
    """Read a submission as its server would and compare it with the questions.

    Layouts that are no list of id and answer are checked by their own reader when the task writes them.

    Raises:
        FormatError: If it is malformed, lacks a question, or answers an unknown one or one twice.
    """
    if task.result_keys is None:
        return
    answers = read_answers(path, task.name, task.result_keys)
    questions = {sample.id for sample in samples}
    if lost := sorted(questions - answers.keys()):
        raise FormatError(f"{path} lacks {len(lost)} of {len(questions)} questions, such as {lost[0]}.")
    if unknown := sorted(answers.keys() - questions):
        raise FormatError(f"{path} answers {len(unknown)} questions that are not asked, such as {unknown[0]}.")
