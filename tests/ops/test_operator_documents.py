"""The operator's README runs as written, and measurements get into RESULTS.md."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from mmi.cli import main

OPS = Path(__file__).resolve().parents[2] / "ops"


def script(name: str):
    """Import a script of ops/benchmarks."""
    spec = importlib.util.spec_from_file_location(name, OPS / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readmes_example_runs():
    (example,) = re.findall(r"```python\n(.*?)```", (OPS / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    names: dict = {}
    exec(compile(example, "README.md", "exec"), names)
    assert names["output"].shape == (1, 3, 64)


def test_every_file_the_readme_links_to_is_there():
    text = (OPS / "README.md").read_text(encoding="utf-8")
    for place in re.findall(r"\]\(([^)#:]+)\)|src=\"([^\"]+)\"", text):
        assert (OPS / "".join(place)).exists(), place
    for name in re.findall(r"`(mmfs/[a-z_]+\.py)`", text):
        assert (OPS / name).exists(), name


def test_the_figure_is_what_its_script_draws(tmp_path):
    script("draw_figure").main([str(tmp_path / "figure.png")])
    with Image.open(tmp_path / "figure.png") as drawn, Image.open(OPS / "operator.png") as kept:
        assert drawn.size == kept.size


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """One folder with rows of the operator and one with rows of the layer."""
    folders = [tmp_path_factory.mktemp(name) for name in ("tiny", "tiny-module")]
    for folder, shapes in zip(folders, ("tiny", "tiny-module"), strict=True):
        words = ["bench", "ops", "--shapes", shapes, "--budget", "0.1", "--no-memory", "--backends", "reference"]
        assert main([*words, "--out", str(folder)]) == 0
    return folders


def test_results_are_filled_in_between_their_marks_and_can_be_again(measured, tmp_path):
    document = tmp_path / "RESULTS.md"
    document.write_text("before\n<!-- cpu -->\nold\n<!-- end of cpu -->\nafter\n")
    for _ in range(2):
        script("fill_results").main([*map(str, measured), "--name", "cpu", "--document", str(document)])
        text = document.read_text()
        assert text.startswith("before\n<!-- cpu -->")
        assert text.endswith("<!-- end of cpu -->\nafter\n")
        assert "old" not in text
        assert text.count("### Relative error against float64") == 1
        assert "### The whole layer" in text
    kept = json.loads((tmp_path / "results" / "cpu.json").read_text())
    assert kept["results"]
    assert kept["layer"]
    assert (tmp_path / "results" / "cpu.png").exists()


def test_numbers_of_two_machines_are_not_joined(measured):
    one, two = (json.loads((folder / "results.json").read_text()) for folder in measured)
    two["machine"]["processor"] = "another"
    with pytest.raises(ValueError, match="differ in machine"):
        script("fill_results").join([one, two])


def test_a_document_without_marks_is_left_alone(measured, tmp_path):
    document = tmp_path / "RESULTS.md"
    document.write_text("nothing here\n")
    with pytest.raises(ValueError, match="has no <!-- cpu -->"):
        script("fill_results").main([str(measured[0]), "--name", "cpu", "--document", str(document)])
    assert document.read_text() == "nothing here\n"
