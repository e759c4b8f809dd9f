"""Ask a model what was not asked yet, in one process or several, and put every answer on disk at once.

Batches are formed over all samples of a task and then dealt, so the same samples are asked together whatever the number
of processes and wherever an earlier call stopped; answers are then the same to the last digit (defect D9 of the
official system: uneven shares there lose samples, or ask some twice).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .model import InterleavedModel
from .outputs import saved_output
from .predictions import Prediction
from .ranks import Ranks
from .results import Evaluation
from .sample import Sample
from .tasks.protocol import Task

Progress = Callable[[int, int], None]
"""Is told the samples done and all samples."""
OnError = Literal["record", "stop"]
GIVE_UP_AFTER = 16
"""Errors without a single answer after which a model counts as unable to do a task."""


class EvaluationError(RuntimeError):
    """Say in one sentence why a task could not be run."""


def batches_of(samples: Sequence[Sample], batch_size: int) -> list[list[Sample]]:
    """Put samples into batches; equally many pictures make prompts of about equal length.

    Example:
        >>> [[s.id for s in batch] for batch in batches_of([Sample(i, ()) for i in "abcde"], 2)]
        [['a', 'b'], ['c', 'd'], ['e']]
    """
    ordered = sorted(samples, key=lambda sample: len(sample.pictures))
    return [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]


@dataclass(frozen=True)
class Asking:
    """The questions of one evaluation on their way to a model.

    Args:
        task: The benchmark.
        model: Who is asked.
        samples: All samples, in order.
        evaluation: Where answers go.
        batch_size: Samples asked at once.
        on_error: ``stop`` ends the command at the first sample that fails.
        ranks: The processes that share the work.
        tell: Told how far all of them are, in the first one.
        name: Name of this evaluation among those of the command, for counters.
    """

    task: Task
    model: InterleavedModel
    samples: Sequence[Sample]
    evaluation: Evaluation
    batch_size: int
    on_error: OnError
    ranks: Ranks
    tell: Progress
    name: str

    def run(self) -> None:
        """Ask all samples without an answer; return when every process has.

        Raises:
            EvaluationError: If not a single sample could be answered, or one could not and ``on_error`` is ``stop``.
            FormatError: If answers that are there are malformed.
        """
        there = self._answered()
        n_there, n_errors, first = len(there), 0, ""
        self._report(n_there)
        for batch in self._mine(there):
            self.ranks.check()
            lines = self._ask(batch)
            errors = [line for line in lines if line.error is not None]
            n_errors, first = n_errors + len(errors), first or (errors[0].error or "" if errors else "")
            self._report(n_there + self.ranks.add(f"{self.name}/done", len(batch)))
            n_answers = n_there + self.ranks.add(f"{self.name}/answers", len(lines) - len(errors))
            if errors and self.on_error == "stop":
                raise EvaluationError(f"{self.task.name}, sample {errors[0].id}: {errors[0].error}")
            if not n_answers and n_errors >= GIVE_UP_AFTER:
                raise self._given_up(n_errors, first)
        told = [json.loads(said) for said in self.ranks.gather(json.dumps([n_errors, first]))]
        if not n_there + self.ranks.add(f"{self.name}/answers", 0):
            raise self._given_up(sum(n for n, _ in told), next(error for n, error in told if n))
        self._report(len(self.samples))

    def _answered(self) -> set[str]:
        """Return what every process finds answered; none of them writes before all have looked."""
        if self.ranks.rank == 0:
            self.evaluation.predictions.repair()
        if self.ranks.size > 1:
            self.evaluation.predictions.part(self.ranks.rank).repair()
        self.ranks.gather("repaired")
        folder, known = self.evaluation.folder, self.evaluation.predictions.read_all()
        there = {s.id for s in self.samples if s.id in known and known[s.id].is_usable(folder)}
        seen = self.ranks.gather(hashlib.sha256("\n".join(sorted(there)).encode()).hexdigest())
        if len(set(seen)) > 1:
            raise EvaluationError(
                f"the processes see different answers in {folder}; run them where all see the same files."
            )
        return there

    def _mine(self, there: set[str]) -> Iterator[list[Sample]]:
        """Yield this process's batches; of one that is answered in part, what is missing."""
        missing = [[s for s in batch if s.id not in there] for batch in batches_of(self.samples, self.batch_size)]
        yield from [batch for batch in missing if batch][self.ranks.rank :: self.ranks.size]

    def _ask(self, batch: Sequence[Sample]) -> list[Prediction]:
        began = time.perf_counter()
        outputs = list(_answers(self.task, self.model, batch))
        seconds = round((time.perf_counter() - began) / len(batch), 6)
        lines = [self._prediction(s, output, seconds) for s, output in zip(batch, outputs, strict=True)]
        file = self.evaluation.predictions
        (file if self.ranks.size == 1 else file.part(self.ranks.rank)).append(lines)
        return lines

    def _prediction(self, sample: Sample, output: Any, seconds: float) -> Prediction:
        task, version = self.task.name, self.task.version
        if isinstance(output, Exception):
            message = " ".join(f"{type(output).__name__}: {output}".split())[:300]
            return Prediction(task, version, sample.id, None, seconds, message)
        saved = saved_output(output, sample, self.evaluation.folder)
        return Prediction(task, version, sample.id, saved, seconds)

    def _given_up(self, n_errors: int, first: str) -> EvaluationError:
        return EvaluationError(f"none of {n_errors} samples of {self.task.name} could be answered: {first}")

    def _report(self, n_done: int) -> None:
        if self.ranks.rank == 0:
            self.tell(n_done, len(self.samples))


def _answers(task: Task, model: InterleavedModel, batch: Sequence[Sample]) -> Iterator[Any]:
    """Yield the answer to each sample, or the exception it raises on its own."""
    try:
        answers = task.answer(model, batch)
    except Exception as error:
        # Whatever the reason: halves find the sample that fails, and need less memory.
        if len(batch) == 1:
            yield error
            return
        middle = len(batch) // 2
        yield from _answers(task, model, batch[:middle])
        yield from _answers(task, model, batch[middle:])
        return
    if len(answers) != len(batch):
        raise EvaluationError(f"{task.name} gave {len(answers)} answers to {len(batch)} samples; mend its answer().")
    yield from answers
