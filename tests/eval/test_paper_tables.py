"""The paper's tables with ours in them: every number in its own cell, everything else said below."""

from __future__ import annotations

import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, cast

import pytest
from scored_run import scored_run, write_evaluation
from shared_data import PROJECT_ROOT, shared_path

from mmi_eval.formats.errors import FormatError
from mmi_eval.networks.inception_inputs import PROTOCOLS
from mmi_eval.report.deviations import ledger_page, read_ledger
from mmi_eval.report.filled import FilledTable, fill
from mmi_eval.report.grid import Grid, plain_text
from mmi_eval.report.grid_text import escape_latex, escape_markdown, latex_page, markdown_page
from mmi_eval.report.paper import read_paper
from mmi_eval.report.paper_grids import scores_part
from mmi_eval.report.paper_protocol import prompt_of, worded
from mmi_eval.report.paper_rows import DEFAULT_FACTORS, PAPER_ROWS, Reading, metrics_of_task, unlike
from mmi_eval.report.setting_grids import own_world_part, settings_part
from mmi_eval.results import Condition
from mmi_eval.sample import Sample
from mmi_eval.tasks import TASKS
from mmi_eval.tasks.ade20k import STRETCHED

PAPER, LEDGER = read_paper(), read_ledger()
FILE = Path("not there")
VQA = {"question": "q", "type": "t", "answer_type": "other", "answer": "red"}
BOX = {"box": [0, 0, 5, 5], "size": [10, 10], "expression": "it"}


def tables(*runs) -> dict[str, FilledTable]:
    return {filled.table.id: filled for filled in fill(PAPER, runs)}


def grids(filled: FilledTable) -> list[Grid]:
    return list(scores_part(filled, PAPER, LEDGER).grids)


def lines(grid: Grid) -> list[dict[str, str]]:
    names = [column.name for column in grid.columns]
    return [dict(zip(names, map(plain_text, row), strict=True)) for row in grid.rows]


def gaps(filled: FilledTable) -> dict[tuple[str, str], dict[str, str]]:
    """The lines of the second table by paper row and start of the column's name."""
    return {(line["the paper's row"], line["number"]): line for line in lines(grids(filled)[1])}


def line_of(filled: FilledTable, row: str, number: str) -> dict[str, str]:
    return next(line for (name, what), line in gaps(filled).items() if name == row and what.startswith(number))


def test_the_tables_are_those_of_the_shared_transcription():
    ours = PROJECT_ROOT / "evaluation/mmi_eval/report/paper_tables.yaml"
    assert ours.read_bytes() == shared_path("paper_tables.yaml").read_bytes()


def test_every_number_to_reach_stands_in_a_target_row():
    for target in PAPER.targets:
        row = PAPER.tables[target["table"]].rows[target["row"]]
        assert row.is_target
        assert row.values[target["column"]] == target["value"]
    numbers = sum(v is not None for t in PAPER.tables.values() for row in t.targets for v in row.values.values())
    assert numbers == len(PAPER.targets)


def test_every_column_has_a_source_and_every_source_a_task():
    assert set(PAPER_ROWS) == set(PAPER.metrics)
    assert {source.task for source in PAPER_ROWS.values()} <= set(TASKS)


@pytest.mark.parametrize(
    ("task", "files", "meta", "references", "answer"),
    [
        ("vqav2", 3, VQA, ("red",) * 10, "red"),
        ("okvqa", 3, VQA, ("red",) * 10, "red"),
        ("textvqa", 3, VQA, ("red",) * 10, "red"),
        ("vizwiz", 2, VQA, ("red",) * 10, "red"),
        ("refcoco", 3, BOX, (), "(000,000)(500,500)"),
        ("coco_caption", 2, {}, ("a red thing", "it is red"), "red"),
        ("flickr30k", 2, {}, ("a red thing", "it is red"), "red"),
    ],
)
def test_tasks_score_what_the_columns_read(task, files, meta, references, answer):
    settings = {"tokens": "java-free"} if references and "a red thing" in references else {}
    scored = cast(Any, TASKS[task])(*[FILE] * files, **settings).score([Sample("1", (), references, meta)], [answer])
    for metric in metrics_of_task(task):
        source = PAPER_ROWS[metric]
        for reading in (source.standard, source.official or source.standard):
            assert reading.name_in(scored.values), (metric, reading.value)


def test_distances_are_named_as_the_columns_read_them():
    names = {r.value for s in PAPER_ROWS.values() if s.whole_only for r in (s.standard, s.official) if r is not None}
    assert names == {"clean-fid", "official-64px"}
    assert names <= set(PROTOCOLS)
    assert PAPER_ROWS["ade20k_miou"].official == Reading(STRETCHED, instead="mIoU")


@pytest.mark.parametrize("metric", PAPER_ROWS)
def test_a_task_as_it_comes_asks_as_the_paper_does(metric):
    source = PAPER_ROWS[metric]
    defaults: dict[str, Any] = {}
    for item in fields(cast(Any, TASKS[source.task])):
        defaults[item.name] = item.default if item.default_factory is MISSING else item.default_factory()
    split = defaults["split"]
    of_columns = [PAPER_ROWS[name] for name in metrics_of_task(source.task)]
    assert any(s.holds(split) or s.why_not(split, "x") != "another split than the paper's" for s in of_columns)
    key = prompt_of(source.task)
    if key not in (None, "visdial"):
        assert worded(defaults["prompt"]) == worded(PAPER.prompts["zero_shot"][key])
    if "drawing" in defaults:
        assert (defaults["drawing"].n_steps, defaults["drawing"].guidance_scale) == (250, 3.5)


def test_a_table_of_nothing_run_says_so_in_every_cell():
    filled = tables()
    for table in filled.values():
        ours = lines(grids(table)[1])
        assert ours
        assert {line["ours"] for line in ours} == {"not run"}
        assert {line["ours \u2212 paper"] for line in ours} == {"not run"}
    assert len(lines(grids(filled["1"])[1])) == 9 + 10


def test_the_suspected_misprints_are_never_shown_as_numbers():
    row = next(line for line in lines(grids(tables()["1"])[0]) if line["model"].startswith("MetaLM"))
    assert row["VizWiz VQA accuracy % \u2191"] == row["TextVQA VQA accuracy % \u2191"] == "suspect"
    assert row["VisDial 1.0 NDCG x100 \u2191"] == "?"
    assert row["VQAv2 VQA accuracy % \u2191"] == "41.1"


def test_the_official_value_is_set_against_the_paper_with_the_standard_one_beside_it(tmp_path):
    values = {"cider": 1.25, "cider, first sentence": 1.30}
    one = write_evaluation(tmp_path, "coco_caption", values, split="karpathy test", protocol="ptb", n=5000)
    line = line_of(tables(scored_run(tmp_path, [one]))["1"], "MM-Interleaved", "COCO")
    assert line["ours"] == "130.0 [129.0, 131.0]"
    assert line["ours \u2212 paper"] == "+1.0 [+0.0, +2.0]"
    assert line["benchmark's own scorer"] == "125.0 [124.0, 126.0]"
    assert line["n"] == "5,000"
    assert "S1" in line["known reasons"]
    assert line["split, protocol"] == "karpathy test, ptb"


def test_a_score_without_the_official_value_has_no_gap(tmp_path):
    one = write_evaluation(tmp_path, "okvqa", {"accuracy": 0.4}, n=5046)
    line = line_of(tables(scored_run(tmp_path, [one]))["1"], "MM-Interleaved", "OK-VQA")
    assert (line["ours"], line["ours \u2212 paper"]) == ("not run; see below", "official value not scored")
    assert line["benchmark's own scorer"].startswith("40.0")


@pytest.mark.parametrize(
    ("task", "values", "fields", "why"),
    [
        ("vqav2", {"accuracy": 0.5}, {"split": "val2014"}, "only a test server has"),
        ("nocaps", {"cider": 0.5}, {"split": "val", "protocol": "ptb"}, "only a test server has"),
        ("flickr30k", {"cider": 0.5}, {"split": "test", "protocol": "java-free"}, "its protocol is java-free"),
        ("flickr30k", {"cider": 0.5}, {"split": "train", "protocol": "ptb"}, "another split"),
        ("okvqa", {"accuracy": 0.5}, {"settings": {"few_shot": {"n": 2}}}, "asked with 2 examples"),
        ("textvqa", {"score": 0.5}, {}, "holds no value"),
        ("coco_image", {"official-64px": 9.0}, {"split": "val-30k", "n": 100}, "fewer pictures is another metric"),
        ("vist", {"CLIP similarity": 0.5}, {"settings": {"context": "text_only"}}, "asked with other settings"),
    ],
)
def test_what_is_another_metric_stays_outside_and_is_said_with_why(tmp_path, task, values, fields, why):
    run = scored_run(tmp_path, [write_evaluation(tmp_path, task, values, **fields)])
    for filled in tables(run).values():
        assert not any(cell.is_run for row in filled.ours for cell in row.cells.values())
    said = [left.why for filled in tables(run).values() for left in filled.left_out]
    assert any(why in text for text in said)
    text = markdown_page("x", [scores_part(filled, PAPER, LEDGER) for filled in tables(run).values()])
    assert escape_markdown(said[0]) in text


def test_scores_of_the_own_world_fill_no_cell_but_their_own_table(tmp_path):
    seen = {"in_house": True, "images": False, "annotations": False}
    fields = {"split": "karpathy test", "protocol": "ptb", "n": 5000}
    own = write_evaluation(tmp_path, "coco_caption", {"cider": 2.0, "cider, first sentence": 2.0}, seen=seen, **fields)
    judged = write_evaluation(tmp_path, "ade20k", {"micro-mIoU": 0.5}, split="validation")
    run = scored_run(tmp_path, [own, judged])
    assert not any(filled.ours or filled.left_out for filled in tables(run).values())
    part = own_world_part([run])
    assert part is not None
    assert {(line["task"], line["in the place of"]) for line in lines(part.grids[0])} == {
        ("COCO captions", "coco_cider"),
        ("ADE20K", "ade20k_miou"),
    }
    assert {line[tmp_path.name] for line in lines(part.grids[0]) if line["value"] == "micro-mIoU"} == {
        "50.0 [49.0, 51.0], n = 100"
    }
    assert own_world_part([scored_run(tmp_path, [])]) is None


def test_controls_fill_no_cell(tmp_path):
    blank = write_evaluation(tmp_path, "gqa", {"accuracy": 0.5}, split="testdev balanced", condition=Condition("blank"))
    assert not any(filled.ours for filled in tables(scored_run(tmp_path, [blank])).values())


def test_scores_of_fewer_samples_are_marked(tmp_path):
    fields = {"split": "testdev balanced", "seen": {"in_house": False, "images": True, "annotations": True}}
    one = write_evaluation(tmp_path, "gqa", {"accuracy": 0.5}, n=500, limit=500, **fields)
    line = line_of(tables(scored_run(tmp_path, [one]))["1"], "MM-Interleaved-SFT", "GQA")
    assert line["ours"].endswith("LIMITED: 500 of 12,578")
    assert line["ours \u2212 paper"].endswith("LIMITED")
    whole = write_evaluation(tmp_path, "gqa", {"accuracy": 0.6}, n=12578, **fields)
    line = line_of(tables(scored_run(tmp_path, [one, whole]))["1"], "MM-Interleaved-SFT", "GQA")
    assert line["ours"] == "60.0 [59.0, 61.0]"


@pytest.mark.parametrize(
    ("annotations", "rows"),
    [(False, ["MM-Interleaved"]), (True, ["MM-Interleaved-SFT"]), (None, ["MM-Interleaved", "MM-Interleaved-SFT"])],
)
def test_what_was_trained_on_decides_the_row_to_reach(tmp_path, annotations, rows):
    seen = {"in_house": False, "images": annotations, "annotations": annotations}
    one = write_evaluation(tmp_path, "visdial", {"NDCG": 0.5}, settings={"history": "official"}, seen=seen, n=2064)
    (ours,) = tables(scored_run(tmp_path, [one]))["1"].ours
    assert [row.name for row in ours.targets] == rows


def test_the_two_histories_of_a_dialog_are_two_numbers(tmp_path):
    both = [
        write_evaluation(tmp_path, "visdial", {"NDCG": value}, settings={"history": history}, n=2064)
        for history, value in (("full", 0.52), ("official", 0.49))
    ]
    filled = tables(scored_run(tmp_path, both))["1"]
    line = line_of(filled, "MM-Interleaved", "VisDial")
    assert (line["ours"][:4], line["benchmark's own scorer"][:4]) == ("49.0", "52.0")
    assert not filled.left_out


def test_a_model_is_asked_with_the_prompt_of_its_stage(tmp_path):
    values, fields = (
        {"cider": 1.2, "cider, first sentence": 1.3},
        {"split": "karpathy test", "protocol": "ptb", "n": 5000},
    )
    prompts = [PAPER.prompts[stage]["caption_short"] for stage in ("zero_shot", "sft")]
    for tuned in (False, True):
        run = tmp_path / str(tuned)
        seen = {"in_house": False, "images": tuned, "annotations": tuned}
        found = [
            write_evaluation(run, "coco_caption", values, settings={"prompt": prompt}, seen=seen, **fields)
            for prompt in prompts
        ]
        filled = tables(scored_run(run, found))["1"]
        cell = filled.ours[0].cells["coco_cider"]
        assert cell.official is not None
        assert cell.official.result.record["settings"]["prompt"] == prompts[tuned]
        assert {left.why for left in filled.left_out} == {
            "asked with the prompt of the other stage of training (Table 17)"
        }


def test_a_few_pictures_that_could_not_be_drawn_do_not_empty_the_cell(tmp_path):
    one = write_evaluation(tmp_path, "coco_image", {"official-64px": 8.0}, split="val2014", n=29998)
    line = line_of(tables(scored_run(tmp_path, [one]))["3"], "MM-Interleaved-13B", "MS-COCO")
    assert line["ours"] == "8.00 [7.99, 8.01] LIMITED: 29,998 of 30,000"
    assert "best of 1 (paper: best of 8)" in line["split, protocol"]


def test_boxes_go_to_the_column_of_their_data_set_and_split(tmp_path):
    found = []
    for data_set, split, value in (("refcoco", "testA", 0.91), ("refcoco+", "testA", 0.81)):
        values = {"accuracy": value + 0.001, "accuracy, quantised truth": value}
        found.append(write_evaluation(tmp_path, "refcoco", values, split=split, settings={"dataset": data_set}, n=9999))
    filled = tables(scored_run(tmp_path, found))["2"]
    assert line_of(filled, "MM-Interleaved", "RefCOCO testA")["ours"].startswith("91.00")
    assert line_of(filled, "MM-Interleaved", "RefCOCO+ testA")["benchmark's own scorer"].startswith("81.10")
    assert line_of(filled, "MM-Interleaved", "RefCOCO testB")["ours"] == "not run"
    assert not filled.left_out


def test_shares_and_distances_are_printed_as_their_table_prints_them(tmp_path):
    values = {"mIoU": 0.41, "mIoU, official stretch": 0.40}
    one = write_evaluation(tmp_path, "ade20k", values, split="validation", n=2000)
    factors = dict(DEFAULT_FACTORS, attn_input="16x16")
    filled = tables(scored_run(tmp_path, [one], factors=factors))
    assert line_of(filled["4a"], "MM-Interleaved", "ADE20K")["ours"] == "0.40 [0.39, 0.41]"
    line = line_of(filled["5c"], "mmfs yes", "ADE20K")
    assert (line["ours"], line["ours \u2212 paper"]) == ("40.0 [39.0, 41.0]", "+4.1 [+3.1, +5.1]")
    fid = write_evaluation(
        tmp_path, "coco_image", {"clean-fid": 11.5, "official-64px": 8.0}, split="val-30k", n=30000, raw=["clean-fid"]
    )
    line = line_of(tables(scored_run(tmp_path, [fid]))["3"], "MM-Interleaved-13B", "MS-COCO")
    assert (line["ours"], line["ours \u2212 paper"]) == ("8.00 [7.99, 8.01]", "+0.10 [+0.09, +0.11]")
    assert line["benchmark's own scorer"] == "11.50 [11.49, 11.51]"
    assert "D3" in line["known reasons"]


def test_square_scenes_have_one_number_for_both_comparisons(tmp_path):
    one = write_evaluation(tmp_path, "ade20k", {"mIoU": 0.41}, split="validation", n=2000)
    line = line_of(tables(scored_run(tmp_path, [one]))["4a"], "MM-Interleaved", "ADE20K")
    assert line["ours"] == line["benchmark's own scorer"] == "0.41 [0.40, 0.42]"


def test_a_run_stands_in_the_rows_of_the_ablation_it_is(tmp_path):
    values = {"accuracy": 0.25, "accuracy, vqa-toolkit, official extraction": 0.24}
    one = write_evaluation(tmp_path, "textvqa", values, n=5000)
    without = scored_run(tmp_path, [one], factors=dict(DEFAULT_FACTORS, mmfs=False))
    filled = tables(without)
    assert line_of(filled["5a"], "num tokens 32, mmfs no", "TextVQA")["ours"].startswith("24.0")
    assert line_of(filled["5a"], "num tokens 32, mmfs yes (default)", "TextVQA")["ours"] == "not run"
    assert line_of(filled["8"], "resampler yes, mmfs no", "TextVQA")["ours"].startswith("24.0")
    assert not filled["7"].ours
    assert "mmfs is False, expected True" in filled["7"].strangers[tmp_path.name]
    small = scored_run(tmp_path, [one], factors=dict(DEFAULT_FACTORS, paper_network=False))
    assert not any(tables(small)[table].ours for table in ("5a", "6", "9"))


def test_each_row_of_an_ablation_is_another_run():
    for table in PAPER.tables.values():
        if table.kind == "ablation":
            for row in table.targets:
                factors = {**DEFAULT_FACTORS, "attn_input": "16x16", **row.factors}
                factors["multi_scale"] = factors["multi_scale"] and factors["mmfs"]
                assert [other for other in table.targets if not unlike(factors, other.factors)] == [row]


def test_examples_before_a_question_belong_to_table_10(tmp_path):
    values = {"accuracy": 0.4, "accuracy, official extraction": 0.375}
    one = write_evaluation(tmp_path, "okvqa", values, n=5046, settings={"few_shot": {"n": 2}})
    filled = tables(scored_run(tmp_path, [one], factors=dict(DEFAULT_FACTORS)))
    (line,) = [line for line in lines(grids(filled["10"])[1]) if line["ours"] != "not run"]
    assert (line["ours"][:4], line["ours \u2212 paper"][:4]) == ("37.5", "+1.0")
    assert line_of(filled["5a"], "num tokens 32, mmfs yes (default)", "OK-VQA")["ours"] == "not run; see below"


def test_several_runs_are_several_rows(tmp_path):
    runs = []
    for name, value in (("one", 0.6), ("two", 0.7)):
        fields = {"split": "testdev balanced", "n": 12578}
        runs.append(
            scored_run(tmp_path / name, [write_evaluation(tmp_path / name, "gqa", {"accuracy": value}, **fields)])
        )
    rows = lines(grids(tables(*runs)["1"])[0])
    assert [row["model"] for row in rows if row["GQA accuracy % \u2191"][:4] in ("60.0", "70.0")] == [
        "one",
        "one, benchmarks' own scorers",
        "two",
        "two, benchmarks' own scorers",
    ]


def test_prompts_and_samplers_that_are_not_the_papers_are_said(tmp_path):
    seen = {"in_house": False, "images": True, "annotations": True}
    fields = {"split": "test-dev", "n": 12578, "seen": seen}
    prompt = PAPER.prompts["zero_shot"]["vqa"].replace("{image}", " {image} ")
    for number, (asked, is_odd) in enumerate(((prompt, False), ("{image} {question}", True))):
        run = tmp_path / str(number)
        one = write_evaluation(run, "gqa", {"accuracy": 0.5}, settings={"prompt": asked}, **fields)
        line = line_of(tables(scored_run(run, [one]))["1"], "MM-Interleaved-SFT", "GQA")
        assert ("is none of Table 17" in line["split, protocol"]) is is_odd
    drawing = {"drawing": {"n_steps": 25, "guidance_scale": 2.5}}
    drawn = write_evaluation(tmp_path, "pororo", {"official-64px": 20.0}, split="test", settings=drawing)
    line = line_of(tables(scored_run(tmp_path, [drawn]))["4c"], "MM-Interleaved", "PororoSV")
    assert "drawn with 25 steps and guidance 2.5" in line["split, protocol"]


def test_settings_of_the_paper_stand_beside_those_of_a_run(tmp_path):
    run = scored_run(tmp_path, [], training={"eps": 1e-6, "betas": [0.9, 0.995]})
    settings, benchmarks, prompts = settings_part(PAPER, [run]).grids
    eps = next(line for line in lines(settings) if line["setting"] == "eps")
    assert (eps["Table 11: pre-training"], eps["Table 14: ADE20K"], eps[tmp_path.name]) == ("1e-06", "1e-05", "1e-06")
    assert len(benchmarks.rows) == 19
    assert {line[tmp_path.name] for line in lines(benchmarks)} == {"not run"}
    assert any("one word" in line["zero-shot"] for line in lines(prompts))


def test_markdown_and_latex_hold_every_table_whole(tmp_path):
    one = write_evaluation(tmp_path / "a_b & {c}|$%#", "gqa", {"accuracy": 0.5}, split="test-dev", n=12578)
    run = scored_run(tmp_path / "a_b & {c}|$%#", [one])
    parts = [scores_part(filled, PAPER, LEDGER) for filled in tables(run).values()]
    markdown, latex = markdown_page("x", parts), latex_page("x", parts)
    all_grids = [grid for part in parts for grid in part.grids]
    assert len(re.findall(r"^\|[-:|]+\|$", markdown, re.M)) == len(all_grids)
    for row in (line for line in markdown.splitlines() if line.startswith("|")):
        assert len(re.findall(r"(?<!\\)\|", row)) - 1 in {len(grid.columns) for grid in all_grids}
    assert latex.count(r"\begin{longtable}") == latex.count(r"\end{longtable}") == len(all_grids)
    bare = re.sub(r"\\[{}]", "", latex)
    assert bare.count("{") == bare.count("}")
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert latex.count(rule) == len(all_grids)
    assert r"a\_b \& \{c\}\textbar{}\$\%\#" in latex


def test_what_latex_has_no_sign_for_becomes_a_question_mark():
    assert escape_latex("\u4e2d\u0001 \u2191 caf\u00e9 \\x^~") == (
        r"?? $\uparrow$ caf" + "\u00e9" + r" \textbackslash{}x\textasciicircum{}\textasciitilde{}"
    )


def test_the_ledger_and_its_page_agree():
    page = (PROJECT_ROOT / "docs" / "deviations.md").read_text(encoding="utf-8")
    assert page == ledger_page(LEDGER), "run: python -m mmi_eval.report.deviations docs/deviations.md"


def test_the_ledger_holds_every_known_defect_and_row():
    ids = {entry.id for entry in LEDGER.entries}
    assert {f"D{n}" for n in range(1, 24)} <= ids
    sources = " ".join(source for entry in LEDGER.entries for source in entry.sources)
    named = {int(n) for found in re.findall(r"SPEC 8 rows? (\d+(?: (?:and|to) \d+)?)", sources) for n in _range(found)}
    assert named == set(range(1, 31)), sorted(set(range(1, 31)) - named)
    for metric in PAPER_ROWS:
        assert LEDGER.reasons(metric)


def _range(words: str) -> list[str]:
    first, _, last = words.replace(" and ", " to ").partition(" to ")
    return [str(n) for n in range(int(first), int(last or first) + 1)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{groups: {}, chapters: {A: [{id: X, what: w, ours: o, metrics: [nonsense], sources: []}]}}", '"nonsense"'),
        ("{groups: {}, chapters: {A: [{id: X, what: w, metrics: [all], sources: []}]}}", '"ours"'),
        ("{groups: {g: [odd]}, chapters: {A: [{id: X, what: w, ours: o, metrics: [g], sources: []}]}}", '"odd"'),
        (
            "{groups: {}, chapters: {A: [{id: X, what: w, ours: o, metrics: [], sources: []}, "
            "{id: X, what: w, ours: o, metrics: [], sources: []}]}}",
            "there twice",
        ),
        ("{groups: {", "no YAML"),
    ],
)
def test_a_wrong_ledger_is_one_sentence(tmp_path: Path, text: str, said: str):
    path = tmp_path / "ledger.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(FormatError, match=said) as caught:
        read_ledger(path)
    assert "ledger.yaml" in str(caught.value)


def test_a_paper_with_a_cell_of_no_column_is_one_sentence(tmp_path):
    text = (PROJECT_ROOT / "evaluation/mmi_eval/report/paper_tables.yaml").read_text(encoding="utf-8")
    path = tmp_path / "paper.yaml"
    path.write_text(text.replace("{vist_clip_sim: 0.64, vist_fid: null}", "{vist_clip_sim: 0.64}"), encoding="utf-8")
    with pytest.raises(FormatError, match=r"table 4b, row 0.*vist_fid"):
        read_paper(path)
