"""``mmi report``: one page from a run folder, whole or in pieces, that no text in the folder can change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from evaluated_run import make_run
from html_page import Page, is_usable, is_whole, needs_nothing

from mmi.cli import main
from mmi.commands.run_reading import read_run
from mmi_eval.report.claims import check_claims


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(run) -> Page:
    assert main(["report", str(run)]) == 0
    return Page((run / "report.html").read_text(encoding="utf-8"))


@pytest.fixture
def copy(run, tmp_path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "copy"))


def report(run: Path) -> Page:
    assert main(["report", str(run)]) == 0
    return Page((run / "report.html").read_text(encoding="utf-8"))


def test_the_page_is_whole_html(page):
    is_whole(page)


def test_the_page_needs_nothing_beside_it(page):
    needs_nothing(page)


def test_the_page_can_be_used_without_seeing_or_a_mouse(page):
    is_usable(page)


def test_the_page_works_in_the_dark_and_on_paper(run, page):
    source = (run / "report.html").read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in source
    assert "@media print" in source


def test_no_text_of_the_data_becomes_markup(run, page):
    assert "<script" not in (run / "report.html").read_text(encoding="utf-8")
    assert '<script>alert("x")</script><img src=http://evil.example/a.png onerror=alert(1)>' in page.text


def test_an_answer_cannot_show_a_file_from_elsewhere(page):
    assert "names a file outside the folder" in page.text


@pytest.mark.parametrize(
    "words",
    [
        "VQA v2, accuracy: 66.7 [46.7, 82.0] against 50.0 for the majority answer",
        "trained for 40 steps on stories on cpu with seed 7",
        "text loss 0.150",
        "training: 8.00 at step 1, 0.200 at step 40",
        "layer 2: 0.462.",
        "held-out accuracy of the judges: colour 98.7%",
        "mmi fit --config 'a b.yaml'",
        "unreadable picture",
        "2 records in skipped.jsonl",
        "real pictures",
        "human leave one out",
        "constant box",
        "vqa-toolkit, extraction none",
        "loss, shuffled words - loss",
        "without MMFS",
        "LIMITED",
        "COCO captions: lowest CIDEr",
        "seed_everything",
    ],
)
def test_the_page_says(page, words):
    assert words in " ".join(page.text.split())


def test_sections_stand_in_the_order_of_reading(page):
    titles = [words for level, words in page.headings if level == 2]
    assert titles[0] == "Summary"
    assert {"Losses", "Scores", "Controls", "Environment", "Configuration", "Skipped records"} <= set(titles)


def test_the_same_folder_gives_the_same_page(run, tmp_path):
    for name in ("a.html", "b.html"):
        assert main(["report", str(run), "--out", str(tmp_path / name)]) == 0
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_claims_hold_or_not_by_the_numbers(run):
    holds = {claim.text: claim.holds for claim in check_claims(read_run(run).evaluations)}
    assert holds["grounding is above the best constant box"] is False
    assert holds["with blank pictures VQA accuracy falls to within 5 points of the majority answer"] is True
    assert holds["with swapped pictures VQA accuracy falls to within 5 points of the majority answer"] is False
    assert holds["the image loss of a captioned picture is worse with the words of another sample"] is True
    assert holds["the judge finds the requested background in at least 80 % of drawn pictures"] is True
    without = next(text for text in holds if text.startswith("with MMFS switched off"))
    assert holds[without] is False


def test_a_run_without_anything_says_what_to_run(tmp_path):
    (tmp_path / "config.yaml").write_text("schema_version: 1\nrun: {name: bare}\n", encoding="utf-8")
    text = " ".join(report(tmp_path).text.split())
    assert f"mmi evaluate --run {tmp_path.as_posix()}" in text
    for said in ("no checkpoint", "no environment.json", "No prompt panel", "No record was skipped"):
        assert said in text


def test_limited_scores_are_labelled_wherever_they_stand(copy):
    for record in (copy / "evaluations").glob("*/*/evaluation.json"):
        if '"limit": 4' not in record.read_text(encoding="utf-8"):
            shutil.rmtree(record.parent)
    page = report(copy)
    labels = [a for _, a in page.elements if a.get("class") == "limited"]
    assert len(labels) >= 4
    assert "only the first 4 samples were asked" in page.text


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("metrics.csv", "step,train/loss_text\nx,y\n", "metrics.csv"),
        ("environment.json", "{", "environment.json"),
        ("skipped.jsonl", "{}\n[]\n", "skipped.jsonl: 2 lines"),
        ("samples/step-20/answers.json", "[", "answers.json"),
        ("checkpoints/last/model.safetensors", "cut", "weights of checkpoint last"),
        ("evaluations/vqav2/*/score.json", "{}", "holds no value"),
        ("evaluations/vqav2/*/score.json", '{"values": {"accuracy": 3}}', "expected value, low, high and n"),
        ("evaluations/vqav2/*/score.json", '{"values": {}, "baselines": 3}', "holds no value"),
        ("evaluations/vqav2/*/evaluation.json", "{", "is not JSON"),
        ("evaluations/refcoco/*/outcomes.jsonl", "[]\n", "outcomes.jsonl, line 1"),
        ("evaluations/refcoco/*/predictions.jsonl", "{}\n{}\n", "predictions.jsonl, line 1"),
    ],
    ids=lambda value: value if isinstance(value, str) and "/" in value else "",
)
def test_a_damaged_file_costs_its_own_part_only(copy, capsys, file, content, said):
    for path in copy.glob(file):
        path.write_text(content, encoding="utf-8")
    text = report(copy).text
    assert said in text
    assert "COCO captions, CIDEr: " in text


def test_scores_are_shown_when_the_data_are_gone(run, copy, tmp_path):
    data = run.parents[1] / "data"
    away = data.rename(tmp_path / "away")
    try:
        text = report(copy).text
    finally:
        away.rename(data)
    assert "VQA v2, accuracy: 66.7" in text
    assert "The questions of vqav2 cannot be shown" in text


def test_a_folder_that_is_no_run_is_one_sentence(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert "is no run folder" in capsys.readouterr().err
