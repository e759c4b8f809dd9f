"""Every notebook runs from top to bottom and is committed with its results."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from shared_data import PROJECT_ROOT

NOTEBOOKS = sorted((PROJECT_ROOT / "notebooks").glob("*.ipynb"))
DEMO = PROJECT_ROOT / "runs" / "demo" / "checkpoints" / "last"
USING_DEMO = [path for path in NOTEBOOKS if "runs/demo" in path.read_text(encoding="utf-8")]
MOST_BYTES = 400_000
SECONDS = 900
"""After so long a cell hangs; on a quiet machine the slowest takes less than one minute."""
# Of a machine: a place of someone's files, on any system.
PLACES = re.compile(r"(?<![\w.~/])/(?:tmp|home|root|work|Users|var|private)/\S+|[A-Z]:\\\S+")


def notebook_id(path: Path) -> str:
    return path.stem


def execute(path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every cell of a notebook, with a folder as working directory."""
    nbclient = pytest.importorskip("nbclient", reason='notebooks need: pip install "mmi[notebooks]"')
    pytest.importorskip("ipykernel", reason='notebooks need: pip install "mmi[notebooks]"')
    pytest.importorskip("matplotlib", reason='notebooks need: pip install "mmi[notebooks]"')
    nbformat = pytest.importorskip("nbformat")
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": str(folder)}}).execute()


def code_cells(path: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def outputs_of(path: Path) -> list[dict[str, Any]]:
    return [output for cell in code_cells(path) for output in cell["outputs"]]


def words_of(output: dict[str, Any]) -> str:
    """All text of an output; pictures are left out."""
    data = {kind: text for kind, text in output.get("data", {}).items() if kind.startswith("text/")}
    return json.dumps([output.get("text", ""), data, output.get("metadata", {})], ensure_ascii=False)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=notebook_id)
def test_notebook_runs_and_writes_nothing_beside_itself(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(path.parent.iterdir())
    execute(path, path.parent, monkeypatch)
    assert sorted(path.parent.iterdir()) == before


@pytest.mark.parametrize("path", USING_DEMO, ids=notebook_id)
def test_notebook_runs_without_a_trained_model(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not DEMO.is_dir():
        pytest.skip("there is no runs/demo, so the test above has run it without")
    (tmp_path / "experiments").symlink_to(PROJECT_ROOT / "experiments")
    execute(path, tmp_path, monkeypatch)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=notebook_id)
def test_notebook_is_committed_executed_in_order_and_without_errors(path: Path) -> None:
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = outputs_of(path)
    assert outputs
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=notebook_id)
def test_pictures_of_a_notebook_have_a_text(path: Path) -> None:
    pictures = [output for output in outputs_of(path) if "image/png" in output.get("data", {})]
    assert pictures
    for picture in pictures:
        alt = picture["metadata"].get("image/png", {}).get("alt", "")
        assert len(alt.split()) >= 3, "show pictures by IPython.display.Image(..., alt=...)"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=notebook_id)
def test_a_notebook_is_small_and_tells_nothing_of_a_machine(path: Path) -> None:
    assert path.stat().st_size <= MOST_BYTES
    assert [found for output in outputs_of(path) for found in PLACES.findall(words_of(output))] == []
