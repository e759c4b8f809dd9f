"""``mmi report --tables`` and ``--compare``: files, folders, wrong command lines, Weights & Biases."""

from __future__ import annotations

import inspect
import json
import re
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from evaluated_run import make_run
from html_page import Page, is_usable, is_whole, needs_nothing
from scored_run import write_evaluation

from mmi.cli import main
from mmi.commands.paper_runs import ablation_factors, read_evaluated_run, training_settings
from mmi.commands.run_reading import read_run
from mmi.compose import compose
from mmi.config import CompatConfig, NetworkConfig
from mmi.config.attention import MMFSConfig
from mmi.data.augment import AugmentConfig
from mmi.data.datamodule import InterleavedDataModule
from mmi.data.sources.config import SourceConfig
from mmi.training.optimizer import OptimizerConfig
from mmi_eval.report.deviations import read_ledger
from mmi_eval.report.paper import read_paper
from mmi_eval.report.paper_rows import unlike
from mmi_eval.report.summary import task_sentence
from mmi_eval.results import Condition, Evaluation
from mmi_eval.tasks import TASKS

LEDGER = read_ledger()
REPLACED = "a different answer"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """An evaluated run whose scores of real data are written by hand."""
    run = make_run(tmp_path_factory.mktemp("tables"))
    values = {"accuracy": 0.42, "accuracy, official extraction": 0.41}
    write_evaluation(run, "okvqa", values, n=5046)
    write_evaluation(run, "coco_image", {"clean-fid": 9.0, "official-64px": 8.0}, split="val-30k", n=30000)
    return run


@pytest.fixture(scope="module")
def out(run, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    assert main(["report", "--tables", str(run), "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def other(run, tmp_path) -> Path:
    """The same run under another name, worse at one question."""
    copy = Path(shutil.copytree(run, tmp_path / "other"))
    config = yaml.safe_load((copy / "config.yaml").read_text(encoding="utf-8"))
    config["run"]["name"] = "other"
    (copy / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    for record in (copy / "evaluations" / "vqav2").glob("*/evaluation.json"):
        evaluation = Evaluation(record.parent)
        if evaluation.plan.condition != Condition() or evaluation.plan.limit is not None:
            continue
        table, groups = evaluation.outcomes()
        right = next(i for i, score in table["accuracy"].items() if score == 1.0)
        for column in table.values():
            column.update({right: 0.0} if right in column else {})
        evaluation.write_outcomes(table, groups)
        lines = [json.loads(line) for line in evaluation.predictions.path.read_text(encoding="utf-8").splitlines()]
        changed = [line | {"output": REPLACED} if line["id"] == right else line for line in lines]
        evaluation.predictions.path.write_text("".join(json.dumps(line) + "\n" for line in changed), encoding="utf-8")
    return copy


def test_all_formats_are_written_and_hold_our_numbers(out):
    for name in ("paper_tables.md", "paper_tables.tex", "paper_tables.html"):
        text = (out / name).read_text(encoding="utf-8")
        assert "41.0" in text
        assert "MM-Interleaved-SFT" in text
        assert "not run" in text


def test_the_page_is_whole_and_usable(out):
    page = Page((out / "paper_tables.html").read_text(encoding="utf-8"))
    is_whole(page)
    needs_nothing(page)
    is_usable(page)
    titles = [words for level, words in page.headings if level == 2]
    assert [title for title in titles if title.startswith("Table ")][:3] == [
        "Table 1: Multi-modal comprehension",
        "Table 2: Referring expression comprehension after SFT",
        "Table 3: Zero-shot text-to-image, FID",
    ]
    assert {"Runs", "Known reasons", "Tables 11 to 17: settings", "Answers of made"} <= set(titles)
    assert page.all("svg"), "a table with a number of ours has a plot"
    words = " ".join(page.text.split())
    assert "OK-VQA VQA accuracy % \u2191, made: 41.0 [40.0, 42.0], the paper 40.0." in words
    assert {"#reason-D3", "#reason-D6"} <= {link["href"] for link in page.all("a")}
    assert "D3: Frechet distances of pictures of 64 px" in words


def test_without_a_run_the_tables_are_the_papers_alone(tmp_path):
    assert main(["report", "--tables", "--out", str(tmp_path / "x.md")]) == 0
    text = (tmp_path / "x.md").read_text(encoding="utf-8")
    assert "mmi report --tables RUN" in text
    assert "**ours** |   |   | *not run*" in text


def test_one_run_has_its_tables_in_its_folder(run):
    assert main(["report", "--tables", str(run), "--format", "md"]) == 0
    assert (run / "paper_tables.md").is_file()
    assert not (run / "paper_tables.tex").exists()


def test_runs_of_one_name_are_told_apart_by_their_folders(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    assert main(["report", "--tables", str(run), str(copy), "--out", str(tmp_path / "x.md")]) == 0
    text = (tmp_path / "x.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| **/") and "benchmarks' own scorers" in line]
    assert len({line.split("|")[1] for line in rows}) == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "score.json is not JSON"),
        ("{}", "holds no value"),
        ('{"values": {"a": {"value": 1, "low": 0, "high": 1, "n": 1}}, "settings": [1]}', "score.json, settings holds"),
    ],
)
def test_a_damaged_evaluation_costs_its_own_score_only(run, tmp_path, capsys, content, said):
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    for path in copy.glob("evaluations/okvqa/*/score.json"):
        path.write_text(content, encoding="utf-8")
    assert main(["report", "--tables", str(copy), "--out", str(tmp_path / "x.md")]) == 0
    assert said in capsys.readouterr().out
    assert "8.00" in (tmp_path / "x.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ([], "name a run folder"),
        (["a", "b"], "2 run folders are named"),
        (["--tables", "nowhere"], "nowhere is no run folder"),
        (["--tables", "--compare", "a", "b"], "two reports"),
        (["--tables", "--choose", "first"], "--choose is for --compare"),
        (["a", "--wandb"], "--wandb is for --tables"),
        (["--tables", "--wandb-project", "x"], "need --wandb"),
        (["--compare", "a", "a"], "names a twice"),
        (["--compare", "a", "b", "c"], 'leave "c" out'),
        (["--compare", "a", "b", "--n", "-1"], "--n is -1"),
        (["--tables", "--format", "md", "--out", "x.html"], "is no md file"),
        (["--tables", "--out", "x.txt"], "x.txt is a file; expected a folder, or a file that ends in .md"),
        (["a", "--out", "."], "--out . is a folder; expected a file such as report.html"),
        (["--compare", "a", "b", "--out", "."], "--out . is a folder; expected a file such as compare.html"),
        (["--compare", "a", "b"], "a is no run folder"),
        (["--tables", "--formta", "md"], "did you mean --format"),
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_is_one_sentence(capsys, line, said):
    assert main(["report", *line]) == 2
    sentence = capsys.readouterr().err
    assert said in sentence
    assert sentence.count("\n") == 1


def test_two_runs_stand_side_by_side(run, other, tmp_path):
    page_file = tmp_path / "compare.html"
    arguments = ["--choose", "most-worsened", "--n", "3", "--out", str(page_file)]
    assert main(["report", "--compare", str(run), str(other), *arguments]) == 0
    page = Page(page_file.read_text(encoding="utf-8"))
    is_whole(page)
    needs_nothing(page)
    is_usable(page)
    titles = [words for level, words in page.headings if level == 2]
    assert {"Headlines", "VQA v2", "RefCOCO", "COCO captions", "The runs"} <= set(titles)
    words = " ".join(page.text.split())
    assert f"other: {REPLACED}" in words
    assert "1 of 1 samples that worsened" in words
    assert "There is no such sample." in words


def test_a_run_is_compared_with_itself_without_mmfs(run, tmp_path):
    page_file = tmp_path / "compare.html"
    arguments = ["--compare", str(run), str(run), "--first-without-mmfs", "--out", str(page_file)]
    assert main(["report", *arguments]) == 0
    assert "made, without MMFS" in Page(page_file.read_text(encoding="utf-8")).text


def test_runs_with_nothing_in_common_are_one_sentence(run, tmp_path, capsys):
    (tmp_path / "config.yaml").write_text("schema_version: 1\nrun: {name: bare}\n", encoding="utf-8")
    assert main(["report", "--compare", str(run), str(tmp_path)]) == 2
    assert f"{tmp_path} has no scored evaluation; run mmi evaluate" in capsys.readouterr().err


def test_tables_and_files_go_to_weights_and_biases_offline(run, tmp_path, monkeypatch, capsys):
    pytest.importorskip("wandb", reason='needs pip install "mmi[tracking]"')
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staging"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    assert main(["report", "--tables", str(run), "--format", "md", "--out", "out", "--wandb"]) == 0
    (session,) = (tmp_path / "wandb").glob("offline-run-*")
    assert f"wandb sync {session}" in capsys.readouterr().out
    logged = {path.name.partition("_")[0] for path in (session / "files" / "media" / "table" / "tables").iterdir()}
    assert {"table-1-rows", "table-1-gaps", "prompts"} <= logged


def test_the_configs_of_the_ablation_model_are_its_default_row():
    config = compose(["model/ablation_3b.yaml"])
    paper = read_paper()
    for table in paper.tables.values():
        if table.kind == "ablation":
            defaults = [row for row in table.targets if row.is_default]
            assert all(unlike(ablation_factors(config), row.factors) == [] for row in defaults)
    big = compose(["model/mm_interleaved_13b.yaml"])
    assert "paper_network is False, expected True" in unlike(ablation_factors(big), {})


def test_the_schedule_of_pre_training_is_told_by_the_papers_names():
    found = training_settings(compose(["stages/pretrain_13b.yaml"]))
    paper = read_paper().hyperparameters["11_pretraining"]
    for name in ("input_resolution", "output_resolution", "lambda_nip", "llm_multi_scale_levels", "iterations"):
        assert found[name] == paper[name], name


def test_every_switch_of_the_ledger_is_a_setting():
    roots = {
        "model.network.": NetworkConfig(),
        "model.compat.": CompatConfig(),
        "model.optimizer.": OptimizerConfig(),
        "mmfs.": MMFSConfig(),
        "data.train.NAME.": SourceConfig,
        "data.train.ade20k.": SourceConfig,
    }
    checked = 0
    for entry in LEDGER.entries:
        for path in re.findall(r"(?:model|data|mmfs|tasks)\.[A-Za-z0-9_.]+[a-z]", entry.switch):
            root = next((root for root in roots if path.startswith(root)), "")
            if root:
                assert has_setting(roots[root], path.removeprefix(root).split(".")), (entry.id, path)
            elif path.startswith("tasks."):
                _, task, name, *_ = path.split(".")
                tasks = ["coco_image", "coco_caption"] if task == "NAME" else [task]
                assert any(has_setting(TASKS[task], [name]) for task in tasks), (entry.id, path)
            else:
                assert path.removeprefix("data.") in inspect.signature(InterleavedDataModule).parameters, (
                    entry.id,
                    path,
                )
            checked += 1
    assert checked > 20


def has_setting(owner: Any, names: list[str]) -> bool:
    if names[0] not in {item.name for item in fields(owner)}:
        return False
    if len(names) == 1:
        return True
    inner = getattr(owner, names[0])
    # Of what is not there by default.
    return has_setting(AugmentConfig() if names[0] == "augment" else inner, names[1:])


def test_a_folder_of_scores_alone_is_a_run(tmp_path):
    write_evaluation(tmp_path, "gqa", {"accuracy": 0.5})
    run = read_evaluated_run(tmp_path)
    assert [result.task for result in run.results] == ["gqa"]
    assert not run.factors
    assert "not known" in run.remarks[0]


def test_splits_of_one_benchmark_stand_together_and_are_named(tmp_path):
    (tmp_path / "config.yaml").write_text("schema_version: 1\nrun: {name: bare}\n", encoding="utf-8")
    for label, split in (("refcoco_val", "val"), ("refcoco_plus_val", "val"), ("refcoco", "testB")):
        named = {"dataset": label}
        write_evaluation(tmp_path, "refcoco", {"accuracy": 0.5}, split=split, settings=named, label=label)
    said = [task_sentence(result) for result in read_run(tmp_path).evaluations]
    assert [str(getattr(one, "text", one)).partition(",")[0] for one in said] == [
        "RefCOCO testB",
        "RefCOCO+ val",
        "RefCOCO val",
    ]
