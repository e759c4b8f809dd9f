"""``mmi bench data``: what it measures and how it is told what to measure."""

from __future__ import annotations

import json

import pytest

from mmi.commands.bench_data import bench_data, most_workers
from mmi.errors import UsageError

QUICK = ["--seconds", "0.2", "--pictures", "24", "--size", "64"]


def test_rates_and_ratio_come_as_a_table_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_data([*QUICK, "--workers", "0,1"]) == 0
    table = capsys.readouterr().out.splitlines()
    header = next(i for i, line in enumerate(table) if line.startswith("workers"))
    assert [line.split()[0] for line in table[header + 1 : header + 3]] == ["0", "1"]
    assert bench_data([*QUICK, "--workers", "0", "--json"]) == 0
    told = capsys.readouterr().out
    (record,) = json.loads(told[told.index("[\n") :])
    assert record["images"] == record["documents"] > 0
    assert record["tokens"] > 65 * record["images"]
    assert 0 < record["ratio"] < 2
    assert record["images_per_second_per_worker"] == pytest.approx(record["images"] / record["seconds"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "two"], "--workers is two; expected whole numbers"),
        (["--workers", "-1"], "--workers is -1; expected 0 or more"),
        (["--seconds", "0"], r"--seconds is 0\.0; expected at least 0\.1"),
        (["--data.batch_size=2"], r"--data\.batch_size overrides a config, and none is given"),
    ],
)
def test_wrong_use_is_one_sentence(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        bench_data(arguments)


@pytest.mark.slow
def test_making_batches_costs_little_beside_decoding_their_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_data(["--seconds", "20", "--json"]) == 0
    told = capsys.readouterr().out
    records = json.loads(told[told.index("[\n") :])
    assert [record["workers"] for record in records] == [0, most_workers()]
    assert all(record["ratio"] >= 0.85 for record in records), records
