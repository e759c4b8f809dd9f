"""Damage, foreign shapes and numbers that are not finite are found and named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from factories import tiny_config

from mmi.checkpoints.layout import LayoutError, Mismatch
from mmi.checkpoints.run_folder import RunFolder
from mmi.checkpoints.storage import CheckpointError, write_checkpoint
from mmi.checkpoints.tensor_file import write_tensors
from mmi.checkpoints.verification import verify
from mmi.cli import main
from mmi.config_tree import to_tree
from mmi.models.build import build_network


@pytest.fixture
def run(tmp_path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.start({"model": {"network": to_tree(tiny_config())}})
    state = build_network(tiny_config()).state_dict()
    write_checkpoint(folder.checkpoints / "last", state, {"trainer": {"step": 3}}, step=3)
    write_checkpoint(folder.checkpoints / "step-2", state, {}, step=2)
    return folder


def rewrite(run: RunFolder, name: str, tensor: torch.Tensor | None) -> None:
    state = build_network(tiny_config()).state_dict()
    del state[name]
    write_checkpoint(run.checkpoints / "last", state | ({} if tensor is None else {name: tensor}), {}, step=3)


def test_every_checkpoint_of_a_run_is_checked(run):
    assert [(one.folder.name, one.step) for one in verify(run.path)] == [("last", 3), ("step-2", 2)]
    (one,) = verify(run.checkpoints / "last")
    assert one.n_tensors == len(build_network(tiny_config()).state_dict())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_numbers_that_are_not_finite_are_found(run, value, dtype):
    bias = torch.zeros(32, dtype=dtype)
    bias[7] = value
    rewrite(run, "visual_tokenizer.projection.bias", bias)
    with pytest.raises(CheckpointError, match=r"projection.bias holds 1 of 32 numbers that are not finite"):
        verify(run.path)


def test_tensors_of_another_network_are_found(run, capsys):
    rewrite(run, "visual_tokenizer.projection.bias", torch.zeros(31))
    assert main(["checkpoint", "verify", str(run.path)]) == 2
    error = capsys.readouterr().err
    assert "misshapen  visual_tokenizer.projection.bias  [31]   [32]" in error
    assert "misshapen: visual_tokenizer.projection.bias ([31] there, [32] needed)" in error


def test_a_changed_byte_is_found(run):
    file = run.checkpoints / "step-2" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match=r"model.safetensors does not match its checksum"):
        verify(run.path)


def test_a_folder_that_is_none_is_one_sentence(tmp_path):
    with pytest.raises(CheckpointError, match="is neither a run folder with checkpoints nor a checkpoint"):
        verify(tmp_path)


def test_a_long_table_is_cut_and_the_sentence_counts():
    error = LayoutError("x", [Mismatch(f"t{i}", None, (1,)) for i in range(100)])
    assert "missing: t0 and 99 more" in str(error)
    assert len(error.table.splitlines()) == 42
    assert error.table.endswith("... and 60 more")


def test_tensor_files_are_read_back_by_the_library_whatever_they_hold(tmp_path: Path):
    from safetensors.torch import load_file

    tensors = {
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 4),
        "half": torch.arange(3, dtype=torch.bfloat16),
        "double": torch.tensor([1 / 3], dtype=torch.float64),
        "flags": torch.tensor([True, False, True]),
        "view": torch.arange(12.0).reshape(3, 4).T,
        "bytes": torch.arange(5, dtype=torch.uint8),
    }
    told = []
    write_tensors(tmp_path / "x.safetensors", tensors, {"a": "b"}, lambda done, total: told.append((done, total)))
    found = load_file(tmp_path / "x.safetensors")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    assert told[-1][0] == told[-1][1] == sum(t.numel() * t.element_size() for t in tensors.values())
    with pytest.raises(TypeError, match=r"z is of type torch.complex64"):
        write_tensors(tmp_path / "y.safetensors", {"z": torch.zeros(1, dtype=torch.complex64)}, {})


def test_larger_tensors_than_a_piece_are_written_whole(tmp_path, monkeypatch):
    from safetensors.torch import load_file

    monkeypatch.setattr("mmi.checkpoints.tensor_file._CHUNK", 16)
    write_tensors(tmp_path / "x.safetensors", {"a": torch.arange(100.0)}, {})
    assert torch.equal(load_file(tmp_path / "x.safetensors")["a"], torch.arange(100.0))
