"""Every stage of the parity table stays within what the golden numbers' README allows."""

from __future__ import annotations

import parity_table
import pytest
from shared_data import shared_path


@pytest.fixture(scope="module")
def stages() -> list[parity_table.Stage]:
    shared_path("golden")
    return parity_table.measure()


def test_no_stage_is_worse_than_allowed(stages: list[parity_table.Stage]) -> None:
    assert [f"{stage.name}: {stage.error:.2g} > {stage.allowed:.2g}" for stage in stages if not stage.holds] == []


def test_labels_masks_and_ids_are_equal_exactly(stages: list[parity_table.Stage]) -> None:
    exact = [stage.name for stage in stages if stage.allowed == 0]
    assert [name.split()[0] for name in exact] == ["labels,", "visibility", "starts"]
    assert {stage.source for stage in stages} == {"A", "B", "C", "D", "formula"}


def test_the_table_is_printed_and_a_missing_folder_is_one_sentence(
    stages: list[parity_table.Stage],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(parity_table, "measure", lambda: stages)
    assert parity_table.main() == 0
    assert len(capsys.readouterr().out.splitlines()) == len(stages) + 1
    monkeypatch.setattr(parity_table, "measure", lambda: [parity_table.Stage("A", "broken", 1.0, 0.1)])
    assert parity_table.main() == 1
    assert "TOO LARGE" in capsys.readouterr().out
    monkeypatch.setenv("MMI_SHARED", "nowhere")
    assert parity_table.main() == 2
    assert capsys.readouterr().err.startswith("no golden numbers in nowhere")
