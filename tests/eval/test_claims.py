"""Claims of a run's page are about the entry that bears the task's own name."""

from __future__ import annotations

from pathlib import Path

import pytest
from scored_run import write_evaluation

from mmi_eval.report.claims import check_claims
from mmi_eval.report.evaluated import read_result


@pytest.mark.parametrize("others_first", [True, False])
def test_of_several_entries_of_a_task_the_one_with_its_name_counts(tmp_path: Path, others_first: bool) -> None:
    entries = [("micro_drawing_coloured", 0.1), ("micro_drawing", 0.95)]
    written = [
        write_evaluation(tmp_path, "micro_drawing", {"background": value}, label=label, settings={"n": len(label)})
        for label, value in (entries if others_first else reversed(entries))
    ]
    claims = check_claims([read_result(evaluation) for evaluation in written])
    (claim,) = [claim for claim in claims if "requested background" in claim.text]
    assert claim.holds
