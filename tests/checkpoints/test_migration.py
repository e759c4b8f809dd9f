"""Run folders of every schema version can be read or brought up to date."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch

from mmi.checkpoints.migration import BACKUP, Upgrade, migrate
from mmi.checkpoints.run_folder import RunFolder, load_network
from mmi.checkpoints.storage import SCHEMA_VERSION, CheckpointError, copy_checkpoint, read_manifest, read_state
from mmi.checkpoints.verification import verify
from mmi.cli import main
from mmi.config import ConfigError

ARTEFACTS = Path(__file__).parent / "artefacts"
NAME = "visual_tokenizer.projection.weight"
LOGITS = (-0.02493875, -0.0598535, -0.03775138, -0.09500747)
"""Of the artefacts' network, from the code that wrote them."""


def with_version(run: Path, version: int) -> None:
    """Change the version that is written in a run folder."""
    config = run / "config.yaml"
    config.write_text(config.read_text().replace(f"schema_version: {SCHEMA_VERSION}", f"schema_version: {version}"))
    for file in run.glob("checkpoints/*/manifest.json"):
        tree = json.loads(file.read_text()) | {"schema_version": version}
        del tree["sha256"]
        digest = hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()
        file.write_text(json.dumps(tree | {"sha256": digest}))


@pytest.fixture
def run(tmp_path) -> Path:
    return Path(shutil.copytree(ARTEFACTS / "schema_1", tmp_path / "run"))


def test_there_is_an_artefact_of_every_version():
    assert [path.name for path in sorted(ARTEFACTS.iterdir())] == [f"schema_{i}" for i in range(1, SCHEMA_VERSION + 1)]


@pytest.mark.parametrize("artefact", sorted(ARTEFACTS.iterdir()), ids=lambda path: path.name)
def test_a_run_folder_of_each_version_is_brought_up_to_date_and_gives_the_numbers_it_gave(artefact, tmp_path):
    run = Path(shutil.copytree(artefact, tmp_path / "run"))
    migrate(run)
    assert verify(run)
    loaded = load_network(run)
    model = loaded.network.language_model
    ids = torch.tensor([[13, 1, 2, 3, 4]])
    with torch.no_grad():
        hidden = model(model.embed_text(ids), attention_mask=torch.ones(1, 5, dtype=torch.bool))
        logits = model.head(hidden)[0, -1, :4]
    torch.testing.assert_close(logits, torch.tensor(LOGITS), rtol=0, atol=1e-5)
    assert loaded.tokenizer.special.bos == 13


def test_a_folder_that_is_up_to_date_is_left_alone(run, capsys):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert main(["checkpoint", "migrate", str(run)]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_newer_version_is_one_sentence(run, capsys):
    with_version(run, SCHEMA_VERSION + 1)
    assert main(["checkpoint", "migrate", str(run)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"schema_version {SCHEMA_VERSION + 1}" in line


def test_an_older_version_without_a_step_is_one_sentence(run):
    with_version(run, 0)
    with pytest.raises(CheckpointError, match="there is no step from 0 to 1; versions begin with 1"):
        migrate(run)


def test_a_folder_that_is_no_run_is_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match="is no run folder"):
        migrate(tmp_path)


def test_steps_rename_tensors_and_settings_and_keep_the_rest(run):
    last = run / "checkpoints" / "last"
    copy_checkpoint(last, run / "checkpoints" / "best", {"val/loss": 0.5})
    expected = load_network(run).network.state_dict()[NAME]
    with_version(run, 0)

    def config(tree: dict) -> dict:
        return tree | {"run": {"name": "new"}}

    def tensors(old: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: tensor + 1 if name == NAME else tensor for name, tensor in old.items()}

    upgrades = [Upgrade(0, config, tensors)]
    assert migrate(run, upgrades) == ["best", "last", "config.yaml"]
    assert migrate(run, upgrades) == []
    torch.testing.assert_close(load_network(run).network.state_dict()[NAME], expected + 1, rtol=0, atol=2e-3)
    assert RunFolder(run).read_config()["run"] == {"name": "new"}
    assert "schema_1" in (run / BACKUP).read_text()
    assert read_manifest(run / "checkpoints" / "best").metrics == {"val/loss": 0.5}
    assert read_state(last) == {"trainer": {"step": 3}}
    assert verify(run)
