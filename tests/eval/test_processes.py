"""Any number of processes asks each sample once, in the same batches, with the same answers; one that fails stops all.

Here the processes are threads that share a store in memory; ``tests/commands/test_evaluate_processes.py`` starts real
ones.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from toy_benchmarks import CHECKPOINT, ToyModel, oracle, tasks, write_benchmarks

from mmi_eval.asking import GIVE_UP_AFTER, batches_of
from mmi_eval.predictions import Prediction, PredictionFile
from mmi_eval.results import Evaluation, find_evaluations
from mmi_eval.runner import Runner
from mmi_eval.sample import Sample


class Meeting:
    """What processes share: a place where all say something, counters, and whether one has failed."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.barrier = threading.Barrier(size)
        self.said: list[str] = [""] * size
        self.counters: Counter[str] = Counter()
        self.lock = threading.Lock()


class ThreadRanks:
    """One of several threads that act as processes."""

    def __init__(self, rank: int, meeting: Meeting) -> None:
        self.rank, self.size, self.meeting = rank, meeting.size, meeting

    def gather(self, value: str) -> list[str]:
        self.meeting.said[self.rank] = value
        self._wait()
        said = list(self.meeting.said)
        self._wait()
        return said

    def add(self, name: str, n: int) -> int:
        with self.meeting.lock:
            self.meeting.counters[name] += n
            return self.meeting.counters[name]

    def check(self) -> None:
        if self.meeting.barrier.broken:
            raise SystemExit(1)

    def _wait(self) -> None:
        try:
            self.meeting.barrier.wait(timeout=20)
        except threading.BrokenBarrierError:
            raise SystemExit(1) from None


def together(size: int, work: Callable[[ThreadRanks], object]) -> list[BaseException | None]:
    """Let ``size`` processes work; return what each of them raised."""
    meeting = Meeting(size)
    raised: list[BaseException | None] = [None] * size

    def run(rank: int) -> None:
        try:
            work(ThreadRanks(rank, meeting))
        except BaseException as error:
            raised[rank] = error
            meeting.barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def reasons(raised: list[BaseException | None]) -> set[str]:
    """Return what those say that were not stopped by another one."""
    assert all(raised)
    return {str(error) for error in raised if not isinstance(error, SystemExit)}


class BatchModel(ToyModel):
    """Its answers depend on who is asked together, as rounding does in a network; remembers every batch."""

    def __init__(self, samples) -> None:
        super().__init__(samples)
        self.batches: list[list[str]] = []

    def generate_text(self, prompts, decoding):
        ids = [self.recognise(prompt).id for prompt in prompts]
        self.batches.append(ids)
        return [f"{' '.join(ids)} at {place}" for place in range(len(ids))]


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return tasks(write_benchmarks(tmp_path_factory.mktemp("processes") / "data"))["vqav2"]


def evaluate(run: Path, task, size: int, model: Callable[[int], ToyModel], **settings) -> list[BaseException | None]:
    return together(
        size,
        lambda ranks: Runner(run, ranks=ranks, **{"batch_size": 5, **settings}).evaluate(
            task, model(ranks.rank), CHECKPOINT
        ),
    )


def answers(run: Path) -> list[tuple[str, str]]:
    (evaluation,) = find_evaluations(run)
    assert not list(evaluation.folder.glob("predictions.rank-*"))
    rows = [json.loads(line) for line in evaluation.predictions.path.read_text().splitlines()]
    return [(row["id"], row["output"]) for row in rows]


@pytest.mark.parametrize("n", [1, 2, 7, 24])
@pytest.mark.parametrize("batch_size", [1, 5, 24])
def test_one_two_three_and_five_processes_agree_to_the_last_digit(tmp_path, task, n, batch_size):
    task = replace(task, n=n)
    found = {}
    for size in (1, 2, 3, 5):
        models = {rank: BatchModel(task.samples()) for rank in range(size)}
        run = tmp_path / str(size)
        assert evaluate(run, task, size, models.__getitem__, batch_size=batch_size) == [None] * size
        asked = [sample_id for model in models.values() for sample_id in model.asked]
        assert sorted(asked) == sorted(sample.id for sample in task.samples())
        (evaluation,) = find_evaluations(run)
        score = {key: value for key, value in evaluation.score.items() if key not in ("seconds", "answers_file_hash")}
        found[size] = (answers(run), score)
        assert [sample_id for sample_id, _ in found[size][0]] == [sample.id for sample in task.samples()]
    assert all(one == found[1] for one in found.values())


def test_batches_are_formed_over_all_samples_wherever_a_run_stopped(tmp_path, task):
    whole, rest = BatchModel(task.samples()), BatchModel(task.samples())
    evaluate(tmp_path / "whole", task, 1, lambda rank: whole)

    class Stopped(BatchModel):
        def generate_text(self, prompts, decoding):
            if len(self.batches) == 2:
                raise KeyboardInterrupt
            return super().generate_text(prompts, decoding)

    first = Stopped(task.samples())
    assert isinstance(evaluate(tmp_path / "run", task, 1, lambda rank: first)[0], KeyboardInterrupt)
    assert evaluate(tmp_path / "run", task, 3, lambda rank: rest) == [None] * 3
    assert sorted(first.batches + rest.batches) == sorted(whole.batches)
    assert answers(tmp_path / "run") == answers(tmp_path / "whole")


@pytest.mark.parametrize(("before", "after"), [(3, 1), (1, 3), (2, 3), (3, 2)])
def test_a_stopped_run_goes_on_with_another_number_of_processes(tmp_path, task, before, after):
    limit = threading.Semaphore(3)

    class Stopped(BatchModel):
        def generate_text(self, prompts, decoding):
            if not limit.acquire(blocking=False):
                raise KeyboardInterrupt
            return super().generate_text(prompts, decoding)

    first = {rank: Stopped(task.samples()) for rank in range(before)}
    assert any(evaluate(tmp_path, task, before, first.__getitem__))
    second = {rank: BatchModel(task.samples()) for rank in range(after)}
    assert evaluate(tmp_path, task, after, second.__getitem__) == [None] * after
    asked = [sample_id for model in (*first.values(), *second.values()) for sample_id in model.asked]
    assert sorted(asked) == sorted(sample.id for sample in task.samples())
    assert len(answers(tmp_path)) == len(task.samples())


def test_a_finished_run_asks_nothing_more(tmp_path, task):
    assert evaluate(tmp_path, task, 2, lambda rank: oracle(task)) == [None] * 2
    again = {rank: oracle(task) for rank in range(3)}
    assert evaluate(tmp_path, task, 3, again.__getitem__) == [None] * 3
    assert [model.asked for model in again.values()] == [[]] * 3


def test_processes_with_other_settings_do_not_start(tmp_path, task):
    models = [oracle(task), oracle(task)]

    def work(ranks):
        mine = task if ranks.rank == 0 else replace(task, prompt="{image}{question}")
        Runner(tmp_path, ranks=ranks).evaluate(mine, models[ranks.rank], CHECKPOINT)

    (reason,) = reasons(together(2, work))
    assert "process 1 would evaluate vqav2 under the hash" in reason
    assert [model.asked for model in models] == [[], []]
    assert find_evaluations(tmp_path) == []


def test_processes_that_see_different_files_do_not_start(tmp_path, task):
    assert evaluate(tmp_path / "0", task, 1, lambda rank: oracle(task)) == [None]

    def work(ranks):
        Runner(tmp_path / str(ranks.rank), ranks=ranks).evaluate(task, oracle(task), CHECKPOINT)

    assert all("the processes see different answers in" in reason for reason in reasons(together(2, work)))


def failing(task, wrong: set[str]) -> ToyModel:
    def text(sample: Sample) -> str:
        if sample.id in wrong:
            raise RuntimeError("out of order")
        return sample.meta["answer"]

    return ToyModel(task.samples(), text)


def test_a_process_that_fails_stops_the_others(tmp_path, task):
    stopped = evaluate(tmp_path, task, 3, lambda rank: failing(task, {"51"}), batch_size=2, on_error="stop")
    assert reasons(stopped) == {"vqav2, sample 51: RuntimeError: out of order"}
    assert evaluate(tmp_path, task, 2, lambda rank: oracle(task), on_error="stop") == [None] * 2
    (evaluation,) = find_evaluations(tmp_path)
    assert evaluation.value("accuracy").value == 1


def test_errors_of_all_processes_are_counted_once(tmp_path, task):
    wrong = {"11", "51", "110"}
    assert evaluate(tmp_path, task, 3, lambda rank: failing(task, wrong)) == [None] * 3
    (evaluation,) = find_evaluations(tmp_path)
    assert evaluation.score["counts"]["n_errors"] == 3
    mended = {rank: oracle(task) for rank in range(2)}
    assert evaluate(tmp_path, task, 2, mended.__getitem__) == [None] * 2
    assert {sample_id for model in mended.values() for sample_id in model.asked} == wrong
    assert Evaluation(evaluation.folder).score["counts"]["n_errors"] == 0


@pytest.mark.parametrize("size", [1, 3])
def test_a_model_that_can_answer_nothing_is_given_up(tmp_path, task, size):
    everything = {sample.id for sample in task.samples()}
    models = {rank: failing(task, everything) for rank in range(size)}
    raised = evaluate(tmp_path, task, size, models.__getitem__, batch_size=2)
    assert any("could be answered: RuntimeError: out of order" in str(error) for error in raised)
    assert all(len(set(model.asked)) <= GIVE_UP_AFTER for model in models.values())


def test_few_answers_of_one_process_keep_the_others_going(tmp_path, task):
    wrong = {sample.id for sample in task.samples()[2:]}
    assert evaluate(tmp_path, task, 2, lambda rank: failing(task, wrong), batch_size=2) == [None] * 2
    (evaluation,) = find_evaluations(tmp_path)
    assert evaluation.score["counts"]["n_errors"] == 22


def test_batches_hold_samples_with_equally_many_pictures(task):
    samples = [replace(sample, prompt=sample.prompt * (1 + i % 2)) for i, sample in enumerate(task.samples())]
    batches = batches_of(samples, 6)
    assert [len(batch) for batch in batches] == [6] * 4
    assert all(len({len(sample.pictures) for sample in batch}) == 1 for batch in batches)


def prediction(sample_id: str, output: object = "a", error: str | None = None) -> Prediction:
    return Prediction("t", 1, sample_id, None if error else output, 0.5, error)


def test_parts_become_one_file_in_the_order_of_the_samples(tmp_path):
    file = PredictionFile(tmp_path / "predictions.jsonl")
    file.append([prediction("3"), prediction("1", error="no")])
    file.part(0).append([prediction("4"), prediction("gone")])
    file.part(11).append([prediction("1", "mended"), prediction("2"), prediction("3", error="late")])
    with file.part(2).path.open("ab") as stream:
        stream.write(b'{"task": "t", "id"')  # a killed process left half a line
    file.settle(["1", "2", "3", "4"])
    assert [p.name for p in tmp_path.iterdir()] == ["predictions.jsonl"]
    assert {key: p.output for key, p in file.read().items()} == {"1": "mended", "2": "a", "3": "a", "4": "a"}
    before = file.path.stat().st_mtime_ns
    file.settle(["1", "2", "3", "4"])
    assert file.path.stat().st_mtime_ns == before


def test_an_answer_whose_picture_is_gone_gives_way(tmp_path):
    file = PredictionFile(tmp_path / "predictions.jsonl")
    file.append([prediction("1", ["images/1-1.png", "images/1-2.png"])])
    assert not file.read()["1"].is_usable(tmp_path)
    (tmp_path / "images").mkdir()
    for name in ("1-1.png", "1-2.png"):
        (tmp_path / "images" / name).touch()
    assert file.read()["1"].is_usable(tmp_path)
    (tmp_path / "images" / "1-2.png").unlink()
    file.part(0).append([prediction("1", error="out of memory")])
    assert file.read_all()["1"].error == "out of memory"
