"""Records of cells survive the disk, belong to one configuration, and hold nothing private."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from ablation.toy_ablation import write_toy_ablation

from mmi.ablation.experiment import read_experiment
from mmi.ablation.matrix import cells_of
from mmi.ablation.records import CellRecord, Cost, Samples, ScoreValue, Store, WarmStart, hash_ids, read_record
from mmi.config import ConfigError


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """The two cells of one row."""
    root = write_toy_ablation(tmp_path_factory.mktemp("toy"))
    return cells_of(read_experiment(root / "tokens", "small"))[0][1]


@pytest.fixture
def place(tmp_path, cells):
    """An empty store, and the cells."""
    return Store(tmp_path / "experiments", tmp_path / "runs" / "ablation"), cells


def record_of(cell, **changes):
    values = Samples(hash_ids(["a", "b", "c"]), (1.0, 0.0, 1 / 3))
    record = CellRecord(
        cell=cell.id,
        recipe=cell.recipe.name,
        settings=cell.settings,
        seed=cell.seed,
        config_hash=cell.config_hash,
        warm_start=WarmStart("a" * 64, "b" * 64, 4),
        environment={"versions": {"torch": "2.0"}, "threads": 1, "device": "cpu", "commit": "c0ffee", "dirty": False},
        commands=("mmi fit --config cell.yaml",),
        finished_at="2026-01-31T12:00:00Z",
        cost=Cost(steps=4, train_seconds=1.5, step_seconds=0.25),
        gates={"language.layers.0.mmfs": 0.125},
        scores={"micro_quiz": {"trained": {"accuracy": ScoreValue(0.5, 0.25, 0.75, 3)}, "blank": {}}},
        samples={"micro_quiz": {"trained": {"accuracy": values}}},
    )
    return replace(record, **changes)


def test_a_record_is_read_back_equal(place):
    store, (cell, other) = place
    assert store.find(cell) is None
    written = record_of(cell)
    file = store.save(written)
    assert file == store.path(cell) == store.root / "cells" / "toy" / f"{cell.id}.json"
    assert store.find(cell) == written == read_record(file)
    assert store.find(other) is None
    assert json.loads(file.read_text())["schema_version"] == 1
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_scores_are_found_by_task_name_and_condition(place):
    _, (cell, _) = place
    record = record_of(cell)
    assert record.is_finished
    assert record.score("micro_quiz", "accuracy") == ScoreValue(0.5, 0.25, 0.75, 3)
    assert record.score("micro_quiz", "accuracy", "blank") is None
    assert record.score("coco_caption", "cider") is None
    values = record.of_samples("micro_quiz", "accuracy")
    assert values is not None
    assert values.values == (1.0, 0.0, 0.3333)
    assert record.of_samples("micro_quiz", "accuracy", "blank") is None


def test_many_samples_are_one_line(place):
    store, (cell, _) = place
    text = store.save(record_of(cell, commands=("mmi fit --a=[1, 2]", "b"))).read_text()
    assert '"values": [1,0,0.3333]' in text
    assert json.loads(text)["commands"] == ["mmi fit --a=[1, 2]", "b"]


def test_a_failure_is_kept_beside_the_run_until_the_cell_finishes(place):
    store, (cell, _) = place
    failed = record_of(cell, status="failed", error="out of memory", scores={}, samples={}, cost=Cost())
    file = store.save(failed)
    assert file.is_relative_to(store.runs)
    assert not store.path(cell).exists()
    assert store.find(cell) == failed
    assert store.of("toy") == []
    store.save(record_of(cell))
    found = store.find(cell)
    assert found is not None
    assert found.is_finished
    assert not file.exists()


def test_a_record_of_another_configuration_is_none(place):
    store, (cell, _) = place
    store.save(record_of(cell))
    assert store.find(replace(cell, config_hash="0" * 64)) is None


def test_records_that_nobody_asks_for_any_more_are_stale(place):
    store, (cell, other) = place
    one, two = record_of(cell), record_of(other)
    store.save(one)
    store.save(two)
    assert {record.cell for record in store.of("toy")} == {cell.id, other.id}
    assert store.stale("toy", [cell, other]) == []
    assert store.stale("toy", [cell]) == [two]
    assert store.of("elsewhere") == []


def test_numbers_that_are_none_become_null(place):
    store, (cell, _) = place
    nothing = ScoreValue(float("nan"), None, float("inf"), 0)
    store.save(record_of(cell, scores={"micro_quiz": {"trained": {"accuracy": nothing}}}, gates={"g": float("nan")}))
    found = store.find(cell)
    assert found is not None
    assert found.score("micro_quiz", "accuracy") == ScoreValue(None, None, None, 0)
    assert found.gates == {"g": None}


def test_the_home_folder_is_in_no_record(place, monkeypatch):
    store, (cell, _) = place
    monkeypatch.setattr(Path, "home", lambda: Path("/home/somebody"))
    commands = ("mmi fit --config /home/somebody/x.yaml",)
    assert "somebody" not in store.save(record_of(cell, commands=commands)).read_text()
    found = store.find(cell)
    assert found is not None
    assert found.commands == ("mmi fit --config ~/x.yaml",)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('"schema_version": 1', '"schema_version": 2', "schema_version is 2; this version reads 1."),
        ('"schema_version": 1,', "", "has no schema_version; expected the record of a cell"),
        ('"seed": 0', '"seed": "0"', 'seed is the text "0"; expected a whole number.'),
        ('"gates"', '"gate"', "unknown key gate; did you mean gates?"),
        ('"status": "finished"', '"status": "done"', "expected one of finished, failed"),
        ("{", "", "cannot be read as JSON"),
    ],
    ids=["newer", "no version", "wrong type", "misspelt", "unknown status", "torn"],
)
def test_a_damaged_record_is_one_sentence_with_its_file(place, old, new, sentence):
    store, (cell, _) = place
    file = store.save(record_of(cell))
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        store.find(cell)
    assert sentence in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_failure_that_another_command_mends_meanwhile_is_found_finished(place, monkeypatch):
    store, (cell, _) = place
    failed = store.save(record_of(cell, status="failed", error="out of memory", scores={}, samples={}))
    is_file = Path.is_file

    def mended_after_a_look(path):
        there = is_file(path)
        if there and path == failed:
            store.save(record_of(cell))
        return there

    monkeypatch.setattr(Path, "is_file", mended_after_a_look)
    found = store.find(cell)
    assert found is not None
    assert found.is_finished


def test_a_torn_record_names_the_run_folder_that_would_be_found_again(place):
    store, (cell, _) = place
    store.save(record_of(cell)).write_text("{")
    for read in (lambda: store.find(cell), lambda: store.of("toy")):
        with pytest.raises(ConfigError) as caught:
            read()
        assert f"write it anew from its run folder {store.runs / 'toy' / cell.id}" in str(caught.value)


def test_a_write_that_fails_leaves_the_record_that_was_there(place, monkeypatch):
    store, (cell, _) = place
    before = record_of(cell)
    file = store.save(before)

    def full(*_):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="no space"):
            store.save(record_of(cell, seed=0, finished_at="2027-01-01T00:00:00Z"))
    assert store.find(cell) == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_the_hash_of_ids_sees_their_order():
    assert hash_ids(["a", "b"]) == hash_ids(iter(["a", "b"])) != hash_ids(["b", "a"])
    assert len(hash_ids([])) == 16
