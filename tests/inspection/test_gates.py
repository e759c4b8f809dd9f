"""Gates through training, from a log to a chart."""

from __future__ import annotations

import re

import pytest
from html_page import Page, is_usable, is_whole, needs_nothing

from mmi.config import ConfigError
from mmi.inspection.gates import gate_charts, gates_page, read_gates

LAYERS = [f"language_model.layers.{n}.mmfs" for n in (0, 4, 8)]
MODULES = [f"image_decoder.unet.mmfs.{n}" for n in range(8)]


@pytest.fixture
def log(tmp_path):
    names = [*LAYERS, *MODULES]
    rows = ["step,train/loss," + ",".join(f"gate/{name}" for name in names)]
    for step in (10, 20, 30):
        rows.append(f"{step},1.5," + ",".join(str(step / 100 * (-1) ** n) for n in range(len(names))))
    rows.append("40,1.2," + "," * (len(names) - 1))  # a step at which nothing about gates was logged
    (tmp_path / "metrics.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "metrics.csv"


def test_gates_are_read_by_module_and_step(log):
    gates = read_gates(log)
    assert list(gates) == [*LAYERS, *MODULES]
    assert gates[LAYERS[1]] == [(10, -0.1), (20, -0.2), (30, -0.3)]


def test_every_module_is_drawn_six_to_a_chart(log):
    charts = gate_charts(read_gates(log))
    assert len(charts) == 1 + 2
    drawn = [len(re.findall(r"<polyline", chart.text)) for _, chart in charts]
    assert drawn == [3, 6, 2]
    assert "module 6 to module 7" in charts[2][0]


def test_the_page_stands_alone(log):
    text = gates_page(read_gates(log), "a < b", "mmi 1")
    page = Page(text)
    is_whole(page)
    needs_nothing(page)
    is_usable(page)
    assert page.headings[0] == (1, "Gates of a < b through training")
    assert [words for level, words in page.headings if level == 2] == ["Language model", "U-Net", "In numbers"]
    assert all(name in page.text for name in (*LAYERS, *MODULES))


def test_a_log_without_gates_says_so(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,train/loss\n10,1.0\n")
    with pytest.raises(ConfigError, match="holds no gate/ column"):
        read_gates(tmp_path / "metrics.csv")
