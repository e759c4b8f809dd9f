"""Answers are on disk before they are scored, none is lost, none is asked twice, and other questions never mix."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
from PIL import Image
from toy_benchmarks import CHECKPOINT, ToyJudges, ToyModel, lines, oracle, tasks, write_benchmarks

from mmi_eval.formats.errors import FormatError
from mmi_eval.predictions import PredictionFile
from mmi_eval.results import Condition, Evaluation, find_evaluations, paired_differences
from mmi_eval.runner import GIVE_UP_AFTER, EvaluationError, Runner, score_file, share_untrained
from mmi_eval.sample import Picture, Sample
from mmi_eval.tasks.protocol import Scored, Seen, averaged


@pytest.fixture
def files(tmp_path):
    return write_benchmarks(tmp_path / "data")


@pytest.fixture
def task(files):
    return tasks(files)["vqav2"]


@pytest.fixture
def runner(tmp_path):
    return Runner(tmp_path / "run", batch_size=5, code_version="1")


def saved(evaluation: Evaluation) -> list[dict]:
    return [json.loads(line) for line in evaluation.predictions.path.read_text().splitlines()]


def test_every_answer_is_a_line(runner, task):
    evaluation = runner.evaluate(task, oracle(task), CHECKPOINT)
    rows = saved(evaluation)
    assert [row["id"] for row in rows] == [sample.id for sample in task.samples()]
    assert set(rows[0]) == {"task", "version", "id", "output", "seconds", "error"}
    assert (rows[0]["task"], rows[0]["version"], rows[0]["output"]) == ("vqav2", task.version, "blue")
    score = evaluation.score
    assert score["headline"] == "accuracy"
    assert score["values"]["accuracy"] == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 24}
    assert score["counts"] | {"n_samples": 24, "n_errors": 0} == score["counts"]
    assert not score["limited"]
    keys = "protocol split prompt decoding answers_file_hash data_fingerprint assets seen source code_version"
    assert set(keys.split()) <= set(score)


def test_a_stopped_run_goes_on_where_it_was(runner, task):
    class Stopped(ToyModel):
        def generate_text(self, prompts, decoding):
            if self.asked:
                raise KeyboardInterrupt
            return super().generate_text(prompts, decoding)

    with pytest.raises(KeyboardInterrupt):
        runner.evaluate(task, Stopped(task.samples()), CHECKPOINT)
    (unfinished,) = find_evaluations(runner.run)
    assert len(saved(unfinished)) == 5
    assert not unfinished.is_scored
    model = oracle(task)
    evaluation = runner.evaluate(task, model, CHECKPOINT)
    assert model.asked == [sample.id for sample in task.samples()[5:]]
    assert evaluation.value("accuracy").value == pytest.approx(19 / 24)
    again = oracle(task)
    runner.evaluate(task, again, CHECKPOINT)
    assert again.asked == []


def test_a_torn_last_line_is_asked_again(runner, task):
    evaluation = runner.evaluate(task, oracle(task), CHECKPOINT)
    path = evaluation.predictions.path
    path.write_bytes(path.read_bytes()[:-20])
    assert len(evaluation.predictions.read()) == 23
    model = oracle(task)
    assert runner.evaluate(task, model, CHECKPOINT).value("accuracy").value == 1
    assert model.asked == [task.samples()[-1].id]
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_last_line_that_only_lacks_its_newline_counts(runner, task):
    path = runner.evaluate(task, oracle(task), CHECKPOINT).predictions.path
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    model = oracle(task)
    runner.evaluate(task, model, CHECKPOINT)
    assert model.asked == []


def test_a_malformed_line_in_the_middle_is_named(runner, task):
    path = runner.evaluate(task, oracle(task), CHECKPOINT).predictions.path
    path.write_text(path.read_text().replace('"id":"10"', '"di":"10"'))
    with pytest.raises(FormatError, match="line 3 has no key"):
        runner.evaluate(task, oracle(task), CHECKPOINT)


def test_a_sample_that_fails_takes_no_other_along_and_is_asked_again(runner, task):
    samples = task.samples()

    def fails_once(sample):
        if sample.id == "31":
            raise RuntimeError("no memory\nleft")
        return sample.meta["answer"]

    evaluation = runner.evaluate(task, ToyModel(samples, fails_once), CHECKPOINT)
    (failed,) = [row for row in saved(evaluation) if row["error"]]
    assert (failed["id"], failed["output"], failed["error"]) == ("31", None, "RuntimeError: no memory left")
    assert evaluation.score["counts"]["n_errors"] == 1
    assert evaluation.value("accuracy").value == pytest.approx(23 / 24)
    mended = oracle(task)
    evaluation = runner.evaluate(task, mended, CHECKPOINT)
    assert mended.asked == ["31"]
    assert evaluation.score["counts"]["n_errors"] == 0


def test_a_picture_that_cannot_be_read_is_an_error_of_its_samples(runner, task, files):
    samples = task.samples()
    model = oracle(task)
    (files / "images" / "4.png").write_bytes(b"no picture")
    evaluation = runner.evaluate(task, model, CHECKPOINT)
    failed = [row for row in saved(evaluation) if row["error"]]
    assert [row["id"] for row in failed] == [s.id for s in samples if s.group == "4"]
    assert "4.png is no picture" in failed[0]["error"]


def test_a_model_that_can_answer_nothing_is_given_up_early(runner, task):
    def broken(sample):
        raise ValueError("out of order")

    model = ToyModel(task.samples(), broken)
    with pytest.raises(EvaluationError, match="samples of vqav2 could be answered: ValueError: out of order"):
        runner.evaluate(task, model, CHECKPOINT)
    assert len(set(model.asked)) < GIVE_UP_AFTER + runner.batch_size


def test_batches_change_no_score(tmp_path, task):
    one, many = (
        Runner(tmp_path / name, batch_size=size).evaluate(task, oracle(task), CHECKPOINT)
        for name, size in (("one", 1), ("many", 50))
    )
    assert one.score["values"] == many.score["values"]
    assert [row["output"] for row in saved(one)] == [row["output"] for row in saved(many)]


def test_drawn_pictures_are_files_that_are_judged_again(runner, files, monkeypatch):
    monkeypatch.setattr("mmi_eval.judges.load_judges", lambda folder: ToyJudges())
    task = tasks(files)["micro_drawing"]
    evaluation = runner.evaluate(task, oracle(task), CHECKPOINT)
    rows = saved(evaluation)
    assert all((evaluation.folder / row["output"]).is_file() for row in rows)
    assert evaluation.value("colour at place").value == 1
    assert evaluation.score["baselines"]["real_pictures"]["differences"]["colour at place"]["value"] == 0
    (evaluation.folder / rows[2]["output"]).unlink()
    model = oracle(task)
    runner.evaluate(task, model, CHECKPOINT)
    assert model.asked == [rows[2]["id"]]


@dataclass(frozen=True)
class Frames:
    """Draw two pictures after each caption, and compare them with the real ones."""

    images: Path
    n: int = 3

    name: ClassVar[str] = "frames"
    version: ClassVar[int] = 1
    raw_units: ClassVar[tuple[str, ...]] = ()
    lower_is_better: ClassVar[tuple[str, ...]] = ()
    result_keys: ClassVar[tuple[str, str] | None] = None
    protocol: ClassVar[str] = "same pixels"
    split: ClassVar[str] = "val"
    seen: ClassVar[Seen] = Seen()

    def check(self):
        pass

    def samples(self):
        paths = [[str(self.images / f"{i + k}.png") for k in range(2)] for i in range(self.n)]
        return [Sample(f"s/{i}", (f"story {i}",), (), {"targets": two}, "images") for i, two in enumerate(paths)]

    def answer(self, model, batch):
        return [model.draw(sample) for sample in batch]

    def score(self, samples, answers):
        right = {
            sample.id: float([p.open().tobytes() for p in drawn] == [p.open().tobytes() for p in sample.targets])
            for sample, drawn in zip(samples, answers, strict=True)
        }
        return Scored(averaged({"right": right}, samples), {"right": right})

    def baselines(self, samples):
        return {}


class Painter:
    """Draws the real pictures, or anything else that is given to it."""

    def __init__(self, output=None):
        self.asked, self.output = [], output

    def draw(self, sample):
        self.asked.append(sample.id)
        return self.output or [picture.open() for picture in sample.targets]


def test_an_answer_of_several_pictures_is_several_files(runner, files):
    task = Frames(files / "images")
    evaluation = runner.evaluate(task, Painter(), CHECKPOINT)
    rows = saved(evaluation)
    assert [len(row["output"]) for row in rows] == [2, 2, 2]
    assert len({name for row in rows for name in row["output"]}) == 6
    assert all((evaluation.folder / name).is_file() for row in rows for name in row["output"])
    assert rows[0]["output"][1].endswith("-2.png")
    assert evaluation.value("right").value == 1
    (evaluation.folder / rows[1]["output"][1]).unlink()
    again = Painter()
    assert runner.evaluate(task, again, CHECKPOINT).value("right").value == 1
    assert again.asked == ["s/1"]


def test_where_real_pictures_lie_does_not_count(runner, files):
    first = runner.evaluate(Frames(files / "images"), Painter(), CHECKPOINT).folder
    files.rename(files.with_name("moved"))
    again = Painter()
    assert runner.evaluate(Frames(files.with_name("moved") / "images"), again, CHECKPOINT).folder == first
    assert again.asked == []


def test_a_text_is_no_answer_of_several_pictures(runner, files):
    with pytest.raises(FormatError, match="the prediction of s/0 is no list of pictures"):
        runner.evaluate(Frames(files / "images"), Painter("no picture"), CHECKPOINT)


def test_what_changes_answers_changes_the_folder(runner, task):
    model = oracle(task)
    folders = {runner.evaluate(task, model, CHECKPOINT).folder}
    folders.add(runner.evaluate(task, model, replace(CHECKPOINT, sha256="1" * 64)).folder)
    folders.add(runner.evaluate(task, oracle(task), CHECKPOINT, Condition(mmfs=False)).folder)
    reworded = replace(task, prompt="{image}{question}")
    folders.add(runner.evaluate(reworded, oracle(reworded), CHECKPOINT).folder)
    folders.add(Runner(runner.run, limit=4).evaluate(task, model, CHECKPOINT).folder)
    assert len(folders) == 5


def test_what_changes_no_answer_does_not(runner, task, files):
    first = runner.evaluate(task, oracle(task), CHECKPOINT).folder
    files.rename(files.with_name("moved"))
    moved = tasks(files.with_name("moved"))["vqav2"]
    model = oracle(moved)
    assert runner.evaluate(moved, model, replace(CHECKPOINT, name="best")).folder == first
    assert model.asked == []


def test_scoring_is_repeated_without_a_model(runner, task):
    evaluation = runner.evaluate(task, oracle(task), CHECKPOINT)
    before = evaluation.score
    (evaluation.folder / "score.json").unlink()
    assert Runner(runner.run, code_version="1").score(task, Evaluation(evaluation.folder)).score == before


def test_scoring_refuses_other_data_and_unfinished_answers(runner, task, files):
    evaluation = runner.evaluate(task, oracle(task), CHECKPOINT)
    with pytest.raises(FormatError, match="answers other samples than task vqav2"):
        runner.score(replace(task, n=3), evaluation)
    path = evaluation.predictions.path
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))
    with pytest.raises(FormatError, match="lacks 2 of 24 samples, such as 110"):
        runner.score(task, evaluation)


def test_a_label_names_an_entry_and_changes_no_answer(runner, task):
    first = runner.evaluate(task, oracle(task), CHECKPOINT)
    model = oracle(task)
    second = runner.evaluate(task, model, CHECKPOINT, label="questions")
    assert (second.folder, model.asked) == (first.folder, [])
    assert (second.plan.label, second.score["label"]) == ("questions", "questions")
    assert first.plan.hash == second.plan.hash


def test_the_size_of_a_picture_is_that_of_the_opened_one(tmp_path):
    for orientation in (1, 3, 6, 8):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg", exif=exif)
        assert Picture(tmp_path / "a.jpg").size() == Picture(tmp_path / "a.jpg").open().size
    (tmp_path / "b.jpg").write_bytes(b"no")
    with pytest.raises(FormatError, match=r"b\.jpg is no picture"):
        Picture(tmp_path / "b.jpg").size()


def test_two_samples_of_one_id_are_refused(runner, files):
    class Twice(Frames):
        def samples(self):
            return super().samples() * 2

    with pytest.raises(EvaluationError, match="frames has 2 samples with the id s/0"):
        runner.evaluate(Twice(files / "images"), Painter(), CHECKPOINT)


def test_limited_runs_say_so(runner, task):
    evaluation = Runner(runner.run, limit=4).evaluate(task, oracle(task), CHECKPOINT)
    assert (evaluation.score["limited"], evaluation.score["limit"]) == (True, 4)
    assert evaluation.value("accuracy").n == 4


def test_controlled_pictures_are_what_the_model_sees(runner, task):
    seen = []

    class Looking(ToyModel):
        def generate_text(self, prompts, decoding):
            seen.extend(piece for prompt in prompts for piece in prompt if not isinstance(piece, str))
            return ["blue"] * len(prompts)

    evaluation = runner.evaluate(task, Looking(task.samples()), CHECKPOINT, Condition("blank"))
    assert all(picture.getcolors() == [(32 * 32, (128, 128, 128))] for picture in seen)
    assert evaluation.score["condition_label"] == "blank pictures"


def test_baselines_stand_beside_the_score_with_paired_differences(runner, task):
    score = runner.evaluate(task, oracle(task), CHECKPOINT).score
    majority = score["baselines"]["majority"]
    expected = 1 - majority["values"]["accuracy"]["value"]
    assert majority["differences"]["accuracy"]["value"] == pytest.approx(expected)
    assert majority["differences"]["accuracy"]["low"] > 0


@pytest.mark.parametrize("untrained_first", [True, False])
def test_the_untrained_network_becomes_a_baseline(runner, task, untrained_first):
    def trained():
        return runner.evaluate(task, oracle(task), CHECKPOINT)

    def untrained():
        return runner.evaluate(task, ToyModel(task.samples()), CHECKPOINT, Condition(weights="untrained"))

    for step in (untrained, trained) if untrained_first else (trained, untrained):
        step()
    first, second = find_evaluations(runner.run)
    assert first.score["baselines"]["untrained"]["values"]["accuracy"]["value"] == 0
    assert first.score["baselines"]["untrained"]["differences"]["accuracy"]["value"] == 1
    assert "untrained" not in second.score["baselines"]


def test_scores_of_other_judges_are_no_baseline(runner, task):
    runner.evaluate(task, oracle(task), CHECKPOINT)
    runner.evaluate(task, ToyModel(task.samples()), CHECKPOINT, Condition(weights="untrained"))
    trained, untrained = find_evaluations(runner.run)
    trained.write_score({**trained.score, "baselines": {}})
    untrained.write_score({**untrained.score, "assets": {"clip": "sha256:1"}})
    share_untrained(runner.run, task.name)
    assert "untrained" not in find_evaluations(runner.run)[0].score["baselines"]


def test_two_evaluations_are_compared_sample_by_sample(runner, task):
    whole = runner.evaluate(task, oracle(task), CHECKPOINT)
    half = ToyModel(task.samples(), lambda sample: sample.meta["answer"] if sample.meta["type"] == "colour" else "")
    less = runner.evaluate(task, half, CHECKPOINT, Condition(mmfs=False))
    found = paired_differences(whole, less)
    assert found["accuracy"].value == pytest.approx(0.5)
    assert (found["type/colour"].value, found["type/place"].value) == (0, 1)
    with pytest.raises(FormatError, match="did not ask the same samples"):
        paired_differences(whole, Runner(runner.run, limit=4).evaluate(task, oracle(task), CHECKPOINT))


@pytest.mark.parametrize("name", ["coco_caption", "refcoco", "micro_quiz", "micro_image_loss"])
def test_every_task_runs_and_is_scored_again(runner, files, name):
    task = tasks(files)[name]
    evaluation = runner.evaluate(task, oracle(task), CHECKPOINT)
    before = evaluation.score["values"]
    assert before
    assert runner.score(task, Evaluation(evaluation.folder)).score["values"] == before


def test_official_result_files_are_scored(task, tmp_path):
    rows = [{"question_id": int(s.id), "answer": s.meta["answer"]} for s in task.samples()]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(rows))
    assert score_file(task, path)["values"]["accuracy"]["value"] == 1
    path.write_text(json.dumps(rows[:6]))
    record = score_file(task, path)
    assert record["limited"]
    assert record["counts"]["not in the file"] == 18


def test_our_own_lines_are_scored_from_anywhere(runner, task, tmp_path):
    evaluation = runner.evaluate(task, oracle(task), CHECKPOINT)
    path = tmp_path / "elsewhere.jsonl"
    path.write_bytes(evaluation.predictions.path.read_bytes())
    assert score_file(task, path)["values"] == evaluation.score["values"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[{"question_id": 1}]', 'entry 0 has no key "answer"'),
        ('[{"question_id": 999, "answer": "a"}]', "answers 1 samples that vqav2 does not hold, such as 999"),
        ('[{"question_id": 0, "answer": "a"}, {"question_id": 0, "answer": "b"}]', "there twice"),
        ("[]", "answers no sample"),
        ('{"task":"okvqa","version":1,"id":"0","output":"a"}', "answers the task okvqa"),
        ("[", "is not JSON"),
    ],
    ids=["key missing", "unknown id", "twice", "nothing", "other task", "malformed"],
)
def test_a_wrong_answer_file_is_one_sentence(task, tmp_path, text, sentence):
    (tmp_path / "answers").write_text(text)
    with pytest.raises(FormatError, match=sentence):
        score_file(task, tmp_path / "answers")


def test_pictures_outside_the_folder_are_not_opened(files, tmp_path, monkeypatch):
    monkeypatch.setattr("mmi_eval.judges.load_judges", lambda folder: ToyJudges())
    task = tasks(files)["micro_drawing"]
    row = {"task": "micro_drawing", "version": 1, "id": task.samples()[0].id, "output": "../secret.png", "seconds": 0}
    lines(tmp_path / "p.jsonl", [row])
    with pytest.raises(FormatError, match="expected a relative path below"):
        score_file(task, tmp_path / "p.jsonl")


def test_a_file_that_is_not_there_holds_no_predictions(tmp_path):
    file = PredictionFile(tmp_path / "none.jsonl")
    assert (file.read(), file.repair()) == ({}, 0)
