"""The paper's number beside a row of ours is the one printed for that row, table and way of asking."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from mmi.ablation.design import Experiment, Row
from mmi.ablation.experiment import find_experiments, read_experiment, read_outline
from mmi.ablation.grids import paper_value
from mmi.ablation.measured import Measured

ROOT = Path(__file__).parents[2] / "experiments"

# Read off the paper by eye: arXiv 2401.10208, tables 5 to 10.
PRINTED = [
    ("5a", "tokens", "full", {"tokens": "few", "mmfs": "off"}, {"cider": 107.0, "fid": 32.2, "textvqa": 22.5}),
    ("5a", "tokens", "small", {"tokens": "many", "mmfs": "on"}, {"cider": 110.9, "okvqa": 29.6, "textvqa": 27.8}),
    ("5b", "resolution", "full", {"resolution": "high", "mmfs": "off"}, {"cider": 110.5, "fid": 30.3, "okvqa": 29.9}),
    ("5b", "resolution", "small", {"resolution": "high", "mmfs": "on"}, {"cider": 115.2, "textvqa": 30.8}),
    ("5b", "resolution", "small", {"resolution": "low", "mmfs": "on"}, {"cider": None, "okvqa": None}),
    ("5c", "segmentation", "full", {"mmfs": "off"}, {"miou": 5.3}),
    ("5c", "segmentation", "small", {"mmfs": "on"}, {"miou": 35.9, "pixel_accuracy": None}),
    ("6", "attention_type", "small", {"attention": "deformable"}, {"cider": 110.6, "okvqa": 29.8}),
    ("6", "attention_type", "small", {"attention": "dense"}, {"cider": 108.5, "textvqa": 23.6}),
    ("6", "attention_type", "small", {"attention": "resampled"}, {"cider": 107.2, "okvqa": 28.9}),
    ("7", "loss_weights", "full", {"loss": "image_100"}, {"cider": 106.2, "fid": 31.1}),
    ("7", "loss_weights", "small", {"loss": "text_only"}, {"okvqa": 29.9, "textvqa": 27.6, "fid": None}),
    ("7", "loss_weights", "small", {"loss": "image_only"}, {"fid": 34.2, "okvqa": None}),
    ("8", "resampler", "small", {"resampler": "off", "mmfs": "on"}, {"cider": 102.7, "okvqa": 27.3, "textvqa": 22.0}),
    ("8", "resampler", "small", {"resampler": "on", "mmfs": "off"}, {"cider": 107.0, "okvqa": 28.7}),
    ("9", "multi_image", "small", {"resolution": "low", "mmfs": "images"}, {"cider": 111.2, "okvqa": 31.1}),
    ("9", "multi_image", "full", {"resolution": "high", "mmfs": "scales"}, {"fid": 30.1, "textvqa": 31.3}),
    ("10", "two_shot", "small", {"resolution": "low", "mmfs": "single"}, {"okvqa_2shot": 36.5, "textvqa_2shot": 30.7}),
    ("10", "two_shot", "full", {"resolution": "high", "mmfs": "images"}, {"okvqa_2shot": 39.1, "textvqa_2shot": 37.9}),
]


@cache
def experiment(name: str, scale: str) -> Experiment:
    return read_experiment(ROOT / name, scale)


def empty(of: Experiment) -> Measured:
    return Measured(of, (), 0, 0, 0)


@pytest.mark.parametrize(
    ("table", "name", "scale", "values", "printed"),
    PRINTED,
    ids=[f"{t} {s} {n}" for n, (t, _, s, *_) in enumerate(PRINTED)],
)
def test_known_numbers_of_every_table_stand_beside_their_rows(
    table: str, name: str, scale: str, values: dict[str, str], printed: dict[str, float | None]
) -> None:
    of = experiment(name, scale)
    assert of.paper_table == table
    (row,) = (row for row in of.rows if dict(row.values) == values)
    columns = {column.name: column for column in of.columns}
    assert {name: paper_value(empty(of), row, columns[name]) for name in printed} == printed


def test_a_number_of_two_shots_is_not_set_beside_a_question_without_examples_nor_the_other_way() -> None:
    two_shot, plain = experiment("two_shot", "small"), experiment("multi_image", "small")
    columns = two_shot.recipe.columns
    assert (columns["okvqa"].paper, columns["okvqa_2shot"].paper) == ("okvqa_acc", "okvqa_acc")
    assert (columns["okvqa"].shots, columns["okvqa_2shot"].shots) == (0, 2)
    for of, fitting, other in ((two_shot, "okvqa_2shot", "okvqa"), (plain, "okvqa", "okvqa_2shot")):
        assert paper_value(empty(of), of.rows[0], columns[fitting]) is not None
        assert paper_value(empty(of), of.rows[0], columns[other]) is None


def test_a_question_without_its_picture_has_no_number_in_the_paper() -> None:
    of = experiment("tokens", "small")
    blank = replace(of.recipe.columns["okvqa"], condition="blank")
    assert paper_value(empty(of), of.rows[0], blank) is None


NAMED = [folder.name for folder in find_experiments(ROOT) if read_outline(folder).paper_table]


@pytest.mark.parametrize("name", NAMED)
def test_the_numbers_in_the_committed_table_are_those_of_the_paper(name: str) -> None:
    of = experiment(name, "small")
    rows = {row.label: row for row in of.rows}
    theirs = [column for column in of.columns if any(paper_value(empty(of), row, column) for row in of.rows)]
    text = (ROOT / name / "results/small.md").read_text(encoding="utf-8")
    shown = _paper_cells(text, rows)
    assert shown or f"0 of {of.seeds * len(rows)} cells" in text, "a table without a cell may be left out"
    for row, cells in shown:
        expected = [paper_value(empty(of), row, column) for column in theirs]
        assert [None if cell == "-" else float(cell) for cell in cells] == expected, row.label


def _paper_cells(text: str, rows: dict[str, Row]) -> list[tuple[Row, list[str]]]:
    """Return the cells of the paper's columns for each row of the table that has some."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    start = next((i for i, line in enumerate(lines) if any(cell.startswith("paper (") for cell in line)), None)
    if start is None:
        return []
    places = [i for i, cell in enumerate(lines[start]) if cell.startswith("paper (")]
    table = lines[start + 2 : start + 2 + len(rows)]
    return [(rows[line[0]], [line[place] for place in places]) for line in table]
