"""A checkpoint folder comes back as it was written, or is refused; it is never half there."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mmi.checkpoints.storage import (
    CheckpointError,
    check_tensors,
    copy_checkpoint,
    locate,
    read_manifest,
    read_state,
    read_tensors,
    tidy_up,
    verify_checkpoint,
    write_checkpoint,
)

STATE = {"optimizer": {"step": 3, "rates": [1e-4, (2, None)], "moments": {0: torch.arange(3.0)}}, "random": {"a": True}}


def tensors(value: float = 1.0) -> dict[str, torch.Tensor]:
    return {
        "weight": torch.full((2, 3), value),
        "half": torch.tensor([0.1, 1e30], dtype=torch.bfloat16),
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 4),
    }


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "last", tensors(), STATE, step=3)
    return tmp_path / "last"


def test_what_is_written_is_read_back(checkpoint: Path) -> None:
    found = read_tensors(checkpoint)
    assert found.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    state = read_state(checkpoint)
    assert torch.equal(state["optimizer"].pop("moments")[0], torch.arange(3.0))
    assert state == {"optimizer": {"step": 3, "rates": [1e-4, (2, None)]}, "random": {"a": True}}
    assert verify_checkpoint(checkpoint).step == 3


def test_state_files_hold_nothing_that_could_run_code(checkpoint: Path) -> None:
    for file in (checkpoint / "state").iterdir():
        torch.load(file, weights_only=True)


def test_state_that_could_not_be_read_back_safely_is_refused_when_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"trainer\.seen holds a set"):
        write_checkpoint(tmp_path / "last", tensors(), {"trainer": {"seen": {1}}}, step=0)
    assert list(tmp_path.iterdir()) == []


def test_numpy_scalars_become_plain_numbers(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "last", tensors(), {"trainer": {"best": np.float64(0.5)}}, step=0)
    assert read_state(tmp_path / "last") == {"trainer": {"best": 0.5}}


def test_tied_tensors_are_stored_once_and_come_back_under_both_names(tmp_path: Path) -> None:
    shared = torch.randn(4, 4)
    write_checkpoint(tmp_path / "last", {"embed": shared, "head": shared, "row": shared[1]}, {}, step=0)
    assert read_manifest(tmp_path / "last").tied == {"head": "embed"}
    found = read_tensors(tmp_path / "last")
    assert torch.equal(found["head"], shared)
    assert torch.equal(found["row"], shared[1])


def damage_truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def damage_remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [damage_truncate, damage_empty, damage_flip_a_bit, damage_remove])
@pytest.mark.parametrize("name", ["model.safetensors", "state/optimizer.pt", "manifest.json"])
def test_damage_is_refused_in_one_sentence_that_names_the_file(checkpoint: Path, name: str, damage) -> None:
    damage(checkpoint / name)
    with pytest.raises(CheckpointError) as caught:
        read_tensors(checkpoint)
    message = str(caught.value)
    assert name in message
    assert "\n" not in message
    assert message.endswith((".", "?"))


def test_a_checkpoint_of_a_newer_schema_is_refused(checkpoint: Path) -> None:
    import hashlib

    tree = json.loads((checkpoint / "manifest.json").read_text())
    del tree["sha256"]
    tree["schema_version"] = 99
    tree["sha256"] = hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()
    (checkpoint / "manifest.json").write_text(json.dumps(tree))
    with pytest.raises(CheckpointError, match="schema_version 99"):
        read_manifest(checkpoint)


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
@pytest.mark.parametrize("deadly_rename", [1, 2], ids=["before-the-old-one-moves", "before-the-new-one-moves"])
def test_a_process_killed_while_saving_leaves_the_earlier_checkpoint(checkpoint: Path, deadly_rename: int) -> None:
    child = os.fork()
    if child == 0:
        n_renames = 0
        rename = Path.rename

        def die(self: Path, target: Path) -> Path:
            nonlocal n_renames
            n_renames += 1
            if n_renames == deadly_rename:
                os._exit(9)
            return rename(self, target)

        Path.rename = die
        write_checkpoint(checkpoint, tensors(2.0), STATE, step=4)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    place = locate(checkpoint)
    assert place is not None
    assert verify_checkpoint(place).step == 3
    tidy_up(checkpoint.parent)
    assert verify_checkpoint(checkpoint).step == 3
    assert [path.name for path in checkpoint.parent.iterdir()] == ["last"]


def test_a_failed_save_leaves_nothing_behind(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        write_checkpoint(checkpoint, tensors(2.0), STATE, step=4)
    assert verify_checkpoint(checkpoint).step == 3
    assert [path.name for path in checkpoint.parent.iterdir()] == ["last"]


def test_a_copy_notes_its_scores_and_outlives_the_original(checkpoint: Path) -> None:
    best = checkpoint.with_name("best")
    copy_checkpoint(checkpoint, best, {"val/loss": 0.5})
    write_checkpoint(checkpoint, tensors(2.0), STATE, step=4)
    assert verify_checkpoint(best).metrics == {"val/loss": 0.5}
    assert float(read_tensors(best)["weight"][0, 0]) == 1.0
    assert float(read_tensors(checkpoint)["weight"][0, 0]) == 2.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("weight"), "weight is not in it"),
        (lambda t: t.update(extra=torch.zeros(1)), "extra has no place in the network"),
        (lambda t: t.update(weight=torch.zeros(3, 2)), r"weight has shape \(3, 2\) there but \(2, 3\)"),
    ],
    ids=["missing", "unknown", "shape"],
)
def test_a_checkpoint_of_another_network_is_refused(change, message: str) -> None:
    found = tensors()
    change(found)
    with pytest.raises(CheckpointError, match=message):
        check_tensors(tensors(), found, "runs/x/checkpoints/last")
    check_tensors(tensors(), tensors(), "runs/x/checkpoints/last")
