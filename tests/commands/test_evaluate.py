"""``mmi evaluate`` and ``mmi score`` on a tiny network with random weights, and what is said about wrong input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from tiny_run import write_tiny_run
from toy_benchmarks import N

from mmi.cli import main
from mmi.commands.arguments import Arguments
from mmi.commands.evaluation_model import find_checkpoint, load_model, untrained_like
from mmi.commands.evaluation_tasks import evaluation_config
from mmi.compose import packaged_configs
from mmi_eval.model import Drawing, TextDecoding
from mmi_eval.results import Condition, find_evaluations
from mmi_eval.tasks import TASKS

CONFIG = {
    "paths": {"world": "data"},
    "tasks": {
        "vqav2": {
            "questions": "${paths.world}/questions.json",
            "annotations": "${paths.world}/annotations.json",
            "images": "${paths.world}/images",
            "decoding": {"max_new_tokens": 3, "n_beams": 1},
        },
        "micro_image_loss": {"captions": "${paths.world}/captions.json", "images": "${paths.world}/images", "n": 4},
    },
    "suites": {"looking": ["vqav2"], "both": ["micro_image_loss", "vqav2"]},
    "conditions": [{"control": "blank", "tasks": ["vqav2"]}, {"mmfs": False, "tasks": ["vqav2"]}],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory with a run folder of a random network, toy benchmarks and an evaluation config."""
    folder = tmp_path_factory.mktemp("evaluate")
    write_tiny_run(folder, CONFIG)
    return folder


@pytest.fixture(autouse=True)
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)


@pytest.fixture
def evaluated(folder):
    shutil.rmtree(folder / "runs" / "toy" / "evaluations", ignore_errors=True)
    assert main(["evaluate", "--run", "runs/toy", "--config", "eval.yaml", "--batch-size", "7"]) == 0
    return find_evaluations(folder / "runs" / "toy")


def test_evaluate_asks_scores_and_prints(evaluated, capsys):
    loss, questions = evaluated
    assert (questions.plan.task, len(questions.predictions.read())) == ("vqav2", 2 * N)
    assert loss.value("loss").value > 0
    assert questions.plan.checkpoint.step == 5
    assert main(["score", "--run", "runs/toy"]) == 0
    out = capsys.readouterr().out
    assert "accuracy" in out
    assert "majority" in out
    assert "LIMITED" not in out


def test_evaluate_again_asks_nothing_and_says_the_same(evaluated, capsys, monkeypatch):
    before = {e.folder.name: e.score["values"] for e in evaluated}
    monkeypatch.setattr("mmi.inference.Generator.generate_text", None)
    monkeypatch.setattr("mmi.inference.Generator.image_losses", None)
    assert main(["evaluate", "--run", "runs/toy", "--config", "eval.yaml"]) == 0
    assert {e.folder.name: e.score["values"] for e in find_evaluations("runs/toy")} == before


def test_conditions_are_kept_apart_and_compared(evaluated, capsys):
    capsys.readouterr()
    command = ["evaluate", "--run", "runs/toy", "--config", "eval.yaml", "--tasks", "vqav2"]
    assert main([*command, "--conditions"]) == 0
    assert main([*command, "--untrained"]) == 0
    labels = [e.plan.condition.label for e in find_evaluations("runs/toy") if e.plan.task == "vqav2"]
    assert labels == ["as trained", "blank pictures", "untrained", "without MMFS"]
    assert "Against the model as trained" in capsys.readouterr().out
    assert "untrained" in find_evaluations("runs/toy")[1].score["baselines"]


def test_limited_scores_say_so(folder, capsys):
    command = ["evaluate", "--run", "runs/toy", "--config", "eval.yaml", "--tasks", "vqav2", "--limit", "3"]
    assert main([*command, "--control", "swapped", "--tasks.vqav2.split=toy"]) == 0
    assert "vqav2 LIMITED" in capsys.readouterr().out
    limited = [e for e in find_evaluations("runs/toy") if e.plan.limit]
    assert [(e.score["limited"], e.score["split"], e.value("accuracy").n) for e in limited] == [(True, "toy", 3)]
    assert main([*command, "--conditions"]) == 0
    changes = capsys.readouterr().out.partition("Against the model as trained")[2].partition("Samples and time")[0]
    assert changes.count("vqav2 LIMITED") >= 2


def test_a_control_without_pictures_is_left_out_aloud(capsys):
    command = ["evaluate", "--run", "runs/toy", "--config", "eval.yaml", "--control", "blank"]
    assert main(command) == 0
    assert "micro_image_loss: left out under blank pictures" in capsys.readouterr().out
    assert main([*command, "--tasks", "micro_image_loss"]) == 2
    assert "nothing is left to evaluate" in capsys.readouterr().err


LABELS = """\
base: eval.yaml
tasks:
  val: {task: refcoco, refs: "data/refs(unc).p", instances: data/instances.json, images: data/images, split: val}
  train: {task: refcoco, refs: "data/refs(unc).p", instances: data/instances.json, images: data/images, split: train}
suites: {boxes: [train, val]}
conditions: [{control: blank, tasks: [val]}]
"""


@pytest.fixture
def labelled(folder):
    """Two splits of one benchmark under labels of their own."""
    (folder / "labels.yaml").write_text(LABELS)
    shutil.rmtree(folder / "runs" / "toy" / "evaluations", ignore_errors=True)
    return ["evaluate", "--run", "runs/toy", "--config", "labels.yaml"]


def test_splits_of_one_benchmark_are_tasks_with_labels(labelled, capsys):
    short = ["--tasks.val.decoding={max_new_tokens: 8}", "--tasks.train.decoding={max_new_tokens: 8}"]
    assert main([*labelled, "--suite", "boxes", "--conditions", *short]) == 0
    found = {(e.plan.label, e.plan.condition.label): e for e in find_evaluations("runs/toy")}
    assert set(found) == {("train", "as trained"), ("val", "as trained"), ("val", "blank pictures")}
    assert {e.folder.parent.name for e in found.values()} == {"refcoco"}
    assert {(e.score["label"], e.score["split"]) for e in found.values()} == {("train", "train"), ("val", "val")}
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines()]
    assert ["train", "train", "as", "trained", "accuracy"] in [row[:5] for row in rows]
    assert "Samples and time" in out
    assert ["val", "as", "trained", "11", "0"] in [row[:5] for row in rows]
    assert main(["score", "--run", "runs/toy", "--tasks", "train"]) == 0
    assert "blank pictures" not in capsys.readouterr().out


def test_a_suite_is_a_list_of_tasks(folder):
    def labels(*words: str, suite: str | None = None) -> list[str]:
        line = Arguments("evaluate", "", "", takes_configs=True).read(["--config", "eval.yaml", *words])
        return list(evaluation_config(line).chosen(None, suite))

    assert labels(suite="looking") == ["vqav2"]
    assert labels(suite="both") == ["micro_image_loss", "vqav2"]
    assert labels(suite="all") == labels() == ["micro_image_loss", "vqav2"]
    assert labels("--tasks.vqav2=null", suite="both") == ["micro_image_loss"]
    assert labels("--suites.default=[vqav2]") == ["vqav2"]
    assert labels("--suites.default=[vqav2]", suite="all") == ["micro_image_loss", "vqav2"]


def test_a_dry_run_shows_what_would_be_asked_and_loads_nothing(folder, capsys, monkeypatch):
    shutil.rmtree("runs/toy/evaluations", ignore_errors=True)
    monkeypatch.setattr("mmi.commands.evaluation_model.load_model", None)
    command = ["evaluate", "--run", "runs/toy", "--config", "eval.yaml", "--dry-run"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "[picture 0.png 32x32]what colour is the thing?" in out
    assert "max_new_tokens 3, min_new_tokens 0, n_beams 1" in out
    assert "answered  0 of 24" in out
    assert not Path("runs/toy/evaluations").exists()
    assert main([*command, "--tasks", "vqav2", "--limit", "5", "--control", "blank", "--processes", "2"]) == 0
    out = capsys.readouterr().out
    assert "5 (LIMITED, of 24)" in out
    assert "[picture 0.png 32x32, grey]" in out


def test_the_tasks_and_suites_of_a_config_are_listed_without_a_run(capsys):
    mine = "--tasks.mine={task: micro_image_loss, captions: x, images: x}"
    assert main(["evaluate", "--list", "--config", "eval.yaml", mine]) == 0
    loss, vqav2, mine, suites = capsys.readouterr().out.splitlines()
    assert vqav2.split() == ["vqav2", "split", "val2014;", "in", "both,", "looking"]
    assert loss.endswith("in both")
    assert mine.split()[:2] == ["mine", "micro_image_loss,"]
    assert suites == "suites: both (2), looking (1), all (3)"


def test_a_folder_that_is_no_run_is_refused_before_the_data_are_read(capsys):
    assert main(["evaluate", "--run", "data", "--config", "eval.yaml", "--tasks.vqav2.questions=none.json"]) == 2
    assert "data is no run folder" in capsys.readouterr().err


def test_a_task_without_samples_is_named_before_a_model_is_loaded(folder, capsys, monkeypatch):
    monkeypatch.setattr(TASKS["vqav2"], "samples", lambda task: [])
    assert main(["evaluate", "--run", "runs/toy", "--config", "eval.yaml", "--tasks", "vqav2"]) == 2
    assert "the task vqav2 has no sample; check the files that tasks.vqav2 names" in capsys.readouterr().err


def test_an_evaluation_that_cannot_be_scored_stops_no_other(evaluated, capsys):
    _, questions = evaluated
    answers = questions.folder / "predictions.jsonl"
    answers.write_text("".join(answers.read_text().splitlines(keepends=True)[:3]))
    assert main(["score", "--run", "runs/toy", "--json"]) == 2
    captured = capsys.readouterr()
    assert [score["task"] for score in json.loads(captured.out)] == ["micro_image_loss"]
    assert captured.err.startswith("not scored: vqav2 (as trained): ")
    assert "1 of 2 evaluations were not scored" in captured.err
    assert main(["score", "--run", "runs/toy", "--tasks", "vqav3"]) == 2
    assert "no such evaluations (vqav3); did you mean vqav2?" in capsys.readouterr().err


def test_a_dry_run_names_the_folder_and_counts_answers(evaluated, capsys):
    capsys.readouterr()
    path = evaluated[1].predictions.path
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:7]))
    assert main(["evaluate", "--run", "runs/toy", "--config", "eval.yaml", "--dry-run", "--tasks", "vqav2"]) == 0
    out = capsys.readouterr().out
    assert str(evaluated[1].folder.relative_to(Path.cwd())) in out
    assert "answered  7 of 24, scored" in out


def test_a_dry_run_says_what_is_missing(folder, capsys):
    command = ["evaluate", "--run", "runs/toy", "--config", "eval.yaml", "--dry-run"]
    gone = ["--tasks.vqav2.questions=none.json", "--tasks.vqav2.annotations=nothing.json"]
    assert main([*command, *gone, "--tasks.micro_image_loss.images=none"]) == 2
    out, err = capsys.readouterr()
    for name in ("none.json", "nothing.json", "none"):
        assert f"missing   {name} does not exist\n" in out
    assert err == "mmi evaluate: 2 of 2 tasks cannot be run here; what they lack stands above as missing.\n"


def test_a_dry_run_names_the_pictures_that_are_not_there(folder, capsys):
    moved = [folder / "data" / "images" / f"{i}.png" for i in (2, 3)]
    try:
        for path in moved:
            path.rename(path.with_suffix(".away"))
        assert main(["evaluate", "--run", "runs/toy", "--config", "eval.yaml", "--dry-run", "--tasks", "vqav2"]) == 2
        out = capsys.readouterr().out
        assert "missing   data/images/2.png\n" in out
        assert "missing   data/images/3.png\n" in out
    finally:
        for path in moved:
            path.with_suffix(".away").rename(path)


def test_a_damaged_record_stops_no_other_evaluation(evaluated, capsys):
    loss, _ = evaluated
    (loss.folder / "evaluation.json").write_text('{"cut')
    capsys.readouterr()
    assert main(["score", "--run", "runs/toy"]) == 2
    out, err = capsys.readouterr()
    assert "vqav2" in out
    assert "evaluation.json is not JSON" in err
    assert "1 of 2 evaluations were not scored" in err
    assert main(["score", "--run", "runs/toy", "--tasks", "vqav2"]) == 2
    shutil.rmtree(loss.folder)
    assert main(["score", "--run", "runs/toy"]) == 0


def test_the_first_failing_sample_stops_where_that_is_asked_for(folder, capsys):
    shutil.rmtree("runs/toy/evaluations", ignore_errors=True)
    picture = folder / "data" / "images" / "3.png"
    whole = picture.read_bytes()
    command = ["evaluate", "--run", "runs/toy", "--config", "eval.yaml", "--tasks", "vqav2"]
    try:
        picture.write_bytes(b"no picture")
        assert main([*command, "--on-error", "stop"]) == 1
        err = capsys.readouterr().err.splitlines()[-1]
        assert "vqav2, sample 30: FormatError" in err
        assert "3.png is no picture that can be read; replace it" in err
        assert main(command) == 0
    finally:
        picture.write_bytes(whole)
    (evaluation,) = find_evaluations("runs/toy")
    assert evaluation.score["counts"]["n_errors"] == 2
    out = capsys.readouterr().out
    assert "failed samples: 2 of 24" in out
    assert "vqav2 (as trained): 2 failed and count as wrong, such as sample 30: FormatError: " in " ".join(out.split())


def test_a_submission_holds_every_question(evaluated, capsys):
    command = ["evaluate", "--run", "runs/toy", "--config", "eval.yaml", "--tasks", "vqav2", "--submission"]
    assert main(command) == 0
    path = evaluated[1].folder / "submission.json"
    assert f"submission for vqav2: {path.relative_to(Path.cwd())}" in capsys.readouterr().out
    rows = json.loads(path.read_text())
    assert sorted(row["question_id"] for row in rows) == sorted(10 * i + k for i in range(N) for k in range(2))
    path.unlink()
    assert main(["score", "--run", "runs/toy", "--tasks", "vqav2", "--submission"]) == 0
    assert json.loads(path.read_text()) == rows


def test_questions_that_only_a_server_can_score_are_submitted(folder, capsys):
    shutil.rmtree("runs/toy/evaluations", ignore_errors=True)
    command = ["evaluate", "--run", "runs/toy", "--config", "eval.yaml", "--tasks", "vqav2", "--submission"]
    assert main([*command, "--tasks.vqav2.annotations=null"]) == 0
    assert "(not scored here: only the server has the answers)" in capsys.readouterr().out
    (evaluation,) = find_evaluations("runs/toy")
    assert len(json.loads((evaluation.folder / "submission.json").read_text())) == 2 * N
    assert not evaluation.is_scored
    shutil.rmtree("runs/toy/evaluations")


def test_score_needs_no_model(evaluated, folder, capsys, monkeypatch):
    before = {e.folder.name: e.score for e in evaluated}
    for evaluation in evaluated:
        (evaluation.folder / "score.json").unlink()
    monkeypatch.setattr("mmi.commands.evaluation_model.load_model", None)
    assert main(["score", "--run", "runs/toy"]) == 0
    assert {e.folder.name: e.score for e in find_evaluations("runs/toy")} == before


def test_score_reads_official_result_files(folder, capsys):
    questions = json.loads((folder / "data" / "questions.json").read_text())["questions"]
    rows = [{"question_id": row["question_id"], "answer": "blue"} for row in questions]
    Path("answers.json").write_text(json.dumps(rows))
    command = ["score", "--config", "eval.yaml", "--task", "vqav2", "--predictions", "answers.json"]
    assert main([*command, "--out", "out/score.json"]) == 0
    score = json.loads(Path("out/score.json").read_text())
    assert score["values"]["accuracy"]["value"] == pytest.approx(0.25)
    assert score["condition_label"] == "answers of answers.json"
    assert "25.0" in capsys.readouterr().out


def test_the_untrained_network_keeps_what_is_never_trained(folder):
    place, _ = find_checkpoint(folder / "runs" / "toy", "last")
    network = load_model(folder / "runs" / "toy", place, Condition(), "cpu").generator.network
    first = next(iter(network.visual_tokenizer.parameters()))
    first.requires_grad_(False)
    fresh = untrained_like(network)
    kept = next(iter(fresh.visual_tokenizer.parameters()))
    assert kept.equal(first)
    changed = [not a.equal(b) for a, b in zip(fresh.parameters(), network.parameters(), strict=True)]
    assert any(changed)


def test_another_tokenizer_or_setting_is_another_model(folder, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(folder / "runs" / "toy", run)
    known = find_checkpoint(run, "last")[1]
    assert known == find_checkpoint(folder / "runs" / "toy", "last")[1]
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("trainer:", "trainer: # longer", 1))
    assert find_checkpoint(run, "last")[1] == known
    next((run / "tokenizer").iterdir()).write_text("{}")
    changed = find_checkpoint(run, "last")[1]
    assert (changed.sha256, changed.around != known.around) == (known.sha256, True)
    tree = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump({**tree, "model": {**tree["model"], "compat": "official"}}))
    assert find_checkpoint(run, "last")[1].around not in (known.around, changed.around)


def test_the_model_has_all_four_abilities(folder):
    place, checkpoint = find_checkpoint(folder / "runs" / "toy", "last")
    assert (checkpoint.name, len(checkpoint.sha256)) == ("last", 64)
    model = load_model(folder / "runs" / "toy", place, Condition(mmfs=False), "cpu")
    prompts = [["a red thing"], ["a blue thing"]]
    assert len(model.generate_text(prompts, TextDecoding(max_new_tokens=2))) == 2
    pictures = model.generate_image(prompts, Drawing(n_steps=2), [1, 2])
    assert [picture.size for picture in pictures] == [(32, 32)] * 2
    assert len(model.image_losses(prompts, pictures, [1, 1])) == 2
    assert len(model.score_continuations(prompts[0], ["a", "b", "c"])) == 3


RUN = ["evaluate", "--run", "runs/toy", "--config", "eval.yaml"]
WRONG = {
    "no run": (["evaluate"], "required: --run"),
    "no such run": (["evaluate", "--run", "nowhere", "--config", "eval.yaml"], "nowhere is no run folder"),
    "no such checkpoint": ([*RUN, "--checkpoint", "lst"], "did you mean last?"),
    "no such task": ([*RUN, "--tasks", "vqav3"], 'no task "vqav3"; did you mean vqav2?'),
    "no tasks": ([*RUN, "--tasks", ","], "--tasks is empty"),
    "unknown task in the config": ([*RUN, "--tasks.okvqa2={}"], 'no task "okvqa2"'),
    "unknown key": ([*RUN, "--tasks.vqav2.promt=x"], "unknown key tasks.vqav2.promt; did you mean prompt?"),
    "unknown root": ([*RUN, "--task.vqav2.n=1"], "unknown key task; did you mean tasks?"),
    "wrong type": ([*RUN, "--tasks.vqav2.n=many"], "expected a whole number"),
    "wrong decoding": ([*RUN, "--tasks.vqav2.decoding.n_beams=0"], "n_beams 0; expected at least 1"),
    "wrong mark": ([*RUN, "--tasks.vqav2.prompt=x {quest}"], "unknown mark {quest}"),
    "missing file": ([*RUN, "--tasks.vqav2.questions=none.json"], "none.json"),
    "missing pictures": ([*RUN, "--tasks.vqav2.images=none"], "none/0.png: no such file or directory"),
    "no such suite": ([*RUN, "--suite", "lokking"], 'no suite "lokking"; did you mean looking?'),
    "suite and tasks": ([*RUN, "--suite", "all", "--tasks", "vqav2"], "--tasks and --suite are both given"),
    "suite of unknown tasks": ([*RUN, "--suites.one=[vqa]"], 'suites.one: no task "vqa"'),
    "suite no list": ([*RUN, "--suites.one=vqav2"], "suites.one is 'vqav2'; expected a list of tasks"),
    "suites no table": ([*RUN, "--suites.one=x", "--suites=3"], "unknown option --suites"),
    "label of no task": ([*RUN, "--tasks.mine={n: 3}"], 'no task "mine"'),
    "label of an unknown task": ([*RUN, "--tasks.mine={task: vqa}"], 'no task "vqa"'),
    "key of a label": ([*RUN, "--tasks.mine={task: vqav2, questionz: x}"], "tasks.mine.questionz; did you mean"),
    "label with a comma": ([*RUN, "--tasks.a,b={task: vqav2}"], 'the label "a,b" is no name'),
    "condition of an unknown label": ([*RUN, "--conditions.x=1"], "conditions"),
    "submission of a part": ([*RUN, "--submission", "--limit", "3"], "--submission needs every sample"),
    "submission of n": ([*RUN, "--tasks.vqav2.n=3", "--submission"], "set --tasks.vqav2.n=null"),
    "submission without a server": (
        [*RUN, "--tasks", "micro_image_loss", "--submission"],
        "none of the tasks micro_image_loss has a test server",
    ),
    "no processes": ([*RUN, "--processes", "0"], "--processes is 0; expected at least 1"),
    "limit of nothing": ([*RUN, "--limit", "0"], "--limit is 0; expected at least 1"),
    "conditions no list": ([*RUN, "--conditions=x"], "ignored explicit argument"),
    "unknown device": ([*RUN, "--device", "tpu9"], "--device tpu9 is unknown"),
    "nothing to score": (["score", "--config", "eval.yaml"], "give either --run DIR, or --task NAME"),
    "training config": ([*RUN, "--config", "demo.yaml"], "is for training; expected an evaluation config"),
    "no evaluations": (["score", "--run", "data"], "data holds no evaluations; run mmi evaluate"),
    "no folder to score": (["score", "--run", "nowhere"], "nowhere does not exist; give a run folder"),
    "no task to score with": (
        ["score", "--task", "vqav3", "--predictions", "x"],
        '--task: no task "vqav3"; did you mean',
    ),
    "no answers": (["score", "--config", "eval.yaml", "--task", "vqav2", "--predictions", "no.json"], "no.json"),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
def test_wrong_input_is_one_sentence(case, capsys):
    command, sentence = case
    assert main(command) == 2
    err = capsys.readouterr().err
    assert sentence in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("file", sorted((packaged_configs() / "eval").glob("*.yaml")), ids=lambda file: file.name)
def test_every_key_of_an_evaluation_config_is_known(file):
    line = Arguments("evaluate", "", "", takes_configs=True).read(["--config", str(file), "--paths.world=somewhere"])
    config = evaluation_config(line)
    assert config.tasks
    assert all(name in config.tasks for condition in config.conditions for name in condition.tasks or ())


def test_the_default_config_holds_every_task():
    line = Arguments("evaluate", "", "", takes_configs=True).read([])
    config = evaluation_config(line)
    assert {task.name for task in config.tasks.values()} == set(TASKS)
    assert {"zero_shot", "sft", "paper_ablation"} <= set(config.suites)
