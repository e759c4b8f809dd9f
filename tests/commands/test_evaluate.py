"""``mmi evaluate`` and ``mmi score`` on a tiny network with random weights, and what is said about wrong input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from factories import tiny_config, wake_up
from toy_benchmarks import N, write_benchmarks

from mmi.checkpoints.run_folder import RunFolder
from mmi.checkpoints.storage import write_checkpoint
from mmi.cli import main
from mmi.commands.arguments import Arguments
from mmi.commands.evaluation_model import find_checkpoint, load_model, untrained_like
from mmi.commands.evaluation_tasks import evaluation_config
from mmi.compose import packaged_configs
from mmi.config_tree import to_tree
from mmi.data.microworld.tokenizer import write_tokenizer
from mmi.models.build import build_network
from mmi.tokens import Tokenizer
from mmi_eval.model import Drawing, TextDecoding
from mmi_eval.results import Condition, find_evaluations

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
    "conditions": [{"control": "blank", "tasks": ["vqav2"]}, {"mmfs": False, "tasks": ["vqav2"]}],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory with a run folder of a random network, toy benchmarks and an evaluation config."""
    folder = tmp_path_factory.mktemp("evaluate")
    write_benchmarks(folder / "data")
    write_tokenizer(folder / "tokenizer", 259)
    tokenizer = Tokenizer.load(folder / "tokenizer")
    special = tokenizer.special
    ids = {"bos_token_id": special.bos, "eos_token_id": special.eos, "pad_token_id": special.pad}
    config = tiny_config(language={**ids, "max_positions": 512}, decoder={"n_context_positions": 512})
    network = build_network(config)
    wake_up(network)
    run = RunFolder(folder / "runs" / "toy")
    run.start({"model": {"network": to_tree(config), "compat": "corrected"}}, tokenizer)
    write_checkpoint(run.checkpoints / "last", network.state_dict(), {}, step=5)
    (folder / "eval.yaml").write_text(yaml.safe_dump(CONFIG))
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


def test_a_control_without_pictures_is_left_out_aloud(capsys):
    command = ["evaluate", "--run", "runs/toy", "--config", "eval.yaml", "--control", "blank"]
    assert main(command) == 0
    assert "micro_image_loss: left out under blank pictures" in capsys.readouterr().out
    assert main([*command, "--tasks", "micro_image_loss"]) == 2
    assert "nothing is left to evaluate" in capsys.readouterr().err


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
    "limit of nothing": ([*RUN, "--limit", "0"], "--limit is 0; expected at least 1"),
    "conditions no list": ([*RUN, "--conditions=x"], "ignored explicit argument"),
    "unknown device": ([*RUN, "--device", "tpu9"], "--device tpu9 is unknown"),
    "nothing to score": (["score", "--config", "eval.yaml"], "give either --run DIR, or --task NAME"),
    "no evaluations": (["score", "--run", "data"], "holds no such evaluations; run mmi evaluate"),
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


def test_the_default_config_holds_the_tasks_of_the_micro_world():
    line = Arguments("evaluate", "", "", takes_configs=True).read([])
    names = {"coco_caption", "vqav2", "refcoco", "micro_quiz", "micro_drawing", "micro_image_loss"}
    assert set(evaluation_config(line).tasks) == names
