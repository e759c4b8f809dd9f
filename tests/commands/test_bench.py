"""What ``mmi bench ops`` prints and writes."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from mmi.cli import main
from mmi.commands.bench_chart import draw_chart


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A quick run on the tiny shapes and the tiny layer: its folder and what it reports."""
    out = tmp_path_factory.mktemp("bench")
    words = "bench ops --shapes tiny,tiny-module --quick --dtype float32,bfloat16 --backends reference,embedding-bag"
    code = main([*words.split(), "--out", str(out)])
    assert code == 0
    return out, json.loads((out / "results.json").read_text())


def test_every_method_has_times_errors_and_a_ratio(bench):
    _, report = bench
    methods = {(row["shape"], row["method"], row["dtype"]) for row in report["results"]}
    for shape in ("tiny_M3_packed", "tiny_grid"):
        assert {(shape, m, "float32") for m in ("grid-sample", "embedding-bag", "reference")} <= methods
        assert (shape, "reference", "bfloat16") in methods
    for row in report["results"]:
        for passed in ("forward", "forward_backward"):
            taken = row[passed]["seconds"]
            assert 0 < taken["min"] <= taken["p10"] <= taken["median"] <= taken["p90"]
            assert row[passed]["first_call"] > 0
            assert row["ratio"][passed] > 0
        assert max(row["errors"].values()) < (1e-5 if row["dtype"] == "float32" else 2e-2)


def test_the_layer_is_set_against_its_unfactored_form(bench):
    _, report = bench
    assert {row["method"] for row in report["layer"]} == {"unfactored", "layer", "layer, values kept"}
    assert all(row["ratio"]["forward"] == 1.0 for row in report["layer"] if row["method"] == "unfactored")


def test_report_names_the_machine_but_no_host_and_no_path(bench):
    out, report = bench
    assert {"processor", "torch", "python", "cores"} <= set(report["machine"])
    text = (out / "results.json").read_text()
    import socket

    assert socket.gethostname() not in text or len(socket.gethostname()) < 4
    assert str(out.parent) not in json.dumps(report | {"command": ""})


def test_what_was_scaled_and_what_was_not_measured_is_said(bench):
    out, report = bench
    text = (out / "results.md").read_text()
    assert "tiny_M3_packed: 8 of 16" in text
    assert "QUICK" in text
    assert report["left_out"]["cuda-kernel"] in text


def test_chart_is_a_picture_with_a_line_per_shape(bench):
    out, report = bench
    with Image.open(out / "chart.png") as picture:
        assert picture.width > 1000
    fewer = report | {"results": [row for row in report["results"] if row["shape"] == "tiny_grid"]}
    assert draw_chart(fewer).height < draw_chart(report).height


def test_a_method_that_cannot_run_here_is_refused_with_its_reason(capsys):
    assert main(["bench", "ops", "--shapes", "tiny", "--backends", "cuda-kernel"]) == 2
    assert "cuda-kernel cannot be measured on cpu: it runs on NVIDIA GPUs only." in capsys.readouterr().err


def test_another_word_after_bench_says_what_exists(capsys):
    assert main(["bench"]) == 0
    assert "mmi bench ops" in capsys.readouterr().out
    assert main(["bench", "sampling"]) == 2
    assert "ops" in capsys.readouterr().err
