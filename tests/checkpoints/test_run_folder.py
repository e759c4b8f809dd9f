"""A run folder alone gives the network back, and is not overwritten by mistake."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import batch, tiny_config, wake_up

from mmi.checkpoints import environment
from mmi.checkpoints.environment import record_session
from mmi.checkpoints.run_folder import RunFolder, load_network, read_tracking, write_tracking
from mmi.checkpoints.storage import CheckpointError, write_checkpoint
from mmi.config import ConfigError
from mmi.config_tree import to_tree
from mmi.inference import Generator, generation_settings
from mmi.models.build import build_network
from mmi.models.generation import GenerationSettings
from mmi.tokens import Tokenizer


def word_tokenizer(folder: Path) -> Tokenizer:
    """Write a tokenizer of 259 entries."""
    from tokenizers import Tokenizer as Library
    from tokenizers.models import WordLevel

    folder.mkdir()
    vocabulary = {f"w{i}": i for i in range(255)} | {"[UNK]": 255}
    library = Library(WordLevel(vocabulary, unk_token="[UNK]"))
    library.add_special_tokens(["<s>", "</s>", "<pad>"])
    library.save(str(folder / "tokenizer.json"))
    (folder / "mmi_tokenizer.json").write_text(json.dumps({"bos": 256, "eos": 257, "pad": 258}))
    return Tokenizer.load(folder)


def save(folder: RunFolder, name: str, step: int, value: float = 0.0) -> None:
    write_checkpoint(folder.checkpoints / name, {"x": torch.tensor(value)}, {}, step)


def test_a_run_folder_alone_rebuilds_the_network(tmp_path: Path) -> None:
    tokenizer = word_tokenizer(tmp_path / "tokenizer")
    network = build_network(tiny_config(), "official").eval()
    wake_up(network)
    folder = RunFolder(tmp_path / "runs" / "x")
    folder.start({"model": {"network": to_tree(tiny_config()), "compat": "official"}}, tokenizer)
    write_checkpoint(folder.checkpoints / "last", network.state_dict(), {}, step=5)

    loaded = load_network(folder.path)

    assert not loaded.network.training
    assert loaded.require_tokenizer().special == tokenizer.special
    assert loaded.config["model"]["compat"] == "official"
    assert loaded.network.compat == network.compat
    sample = batch([[("a", 1, "b")]])
    with torch.no_grad():
        assert torch.equal(loaded.network(sample, None).text_loss, network(sample, None).text_loss)


def test_a_run_without_a_tokenizer_loads_until_one_is_needed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "x")
    folder.start({"model": {"network": to_tree(tiny_config())}})
    write_checkpoint(folder.checkpoints / "last", build_network(tiny_config()).state_dict(), {}, step=5)
    assert load_network(folder.path).tokenizer is None
    with pytest.raises(ConfigError, match="the run holds no tokenizer; copy"):
        Generator.load(folder.path)


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "x")
    folder.start({"model": {"network": to_tree(tiny_config(n_tokens=4))}}, word_tokenizer(tmp_path / "tokenizer"))
    write_checkpoint(folder.checkpoints / "last", build_network(tiny_config()).state_dict(), {}, step=5)
    with pytest.raises(CheckpointError, match=r"queries has shape \(1, 3, 32\) there but \(1, 4, 32\)"):
        load_network(folder.path)


def test_a_fresh_run_does_not_mix_with_an_earlier_one(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "demo")
    folder.start({"run": {"name": "demo"}})
    folder.start({"run": {"name": "demo"}})  # nothing was saved yet
    save(folder, "last", step=40)
    with pytest.raises(ConfigError, match="up to step 40; add --ckpt_path last"):
        folder.start({"run": {"name": "demo"}})
    folder.start({"run": {"name": "again"}}, resume=True)
    assert folder.read_config() == {"run": {"name": "again"}}


def test_checkpoints_are_found_by_name_and_by_path(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        folder.find_checkpoint("last")
    for step in (100, 20):
        save(folder, f"step-{step}", step)
    assert folder.find_checkpoint().name == "step-100"
    save(folder, "last", 100)
    assert folder.find_checkpoint().name == "last"
    save(folder, "best", 20)
    assert folder.find_checkpoint().name == "best"
    assert folder.find_checkpoint("step-20") == folder.checkpoints / "step-20"
    assert folder.find_checkpoint(str(folder.checkpoints / "step-20")).name == "step-20"
    with pytest.raises(CheckpointError, match="no checkpoint lst; did you mean last"):
        folder.find_checkpoint("lst")


def test_a_folder_without_a_configuration_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no run folder"):
        load_network(tmp_path)
    (tmp_path / "config.yaml").write_text("schema_version: 99\nmodel: {}\n")
    with pytest.raises(ConfigError, match="schema_version 99"):
        RunFolder(tmp_path).read_config()
    for content in ("schema_version: one\nmodel: {}\n", "model: 3\n"):
        (tmp_path / "config.yaml").write_text(content)
        with pytest.raises(ConfigError, match=r"config.yaml has (schema_version one|no settings below model)"):
            RunFolder(tmp_path).read_config()


def test_the_environment_names_versions_but_neither_host_nor_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("USERPROFILE", "/home/somebody")
    monkeypatch.setenv("A_SECRET", "hunter2")
    file = tmp_path / "environment.json"
    record_session(file, ["mmi", "fit", "--config", "/home/somebody/x.yaml"], seed=3, data={"pairs": "abc"})
    record_session(file, ["mmi", "fit"], seed=3)
    text = file.read_text()
    first, second = json.loads(text)["sessions"]
    assert first["packages"]["torch"] == torch.__version__.split("+")[0] or first["packages"]["torch"]
    assert (first["seed"], first["data"], second["command"]) == (3, {"pairs": "abc"}, ["mmi", "fit"])
    assert first["command"][-1].startswith("~")
    for secret in ("/home/somebody", "hunter2", socket.gethostname()):
        assert secret not in text


@pytest.mark.parametrize(
    ("slow", "code"),
    [
        ((), {"commit": "abc", "changed": True}),
        (("status",), {"commit": "abc", "changed": None}),
        (("status", "rev-parse"), {"commit": None, "changed": None}),
    ],
    ids=["git answers", "changes take too long", "git takes too long"],
)
def test_a_git_that_takes_too_long_is_no_installed_package(
    slow: tuple[str, ...], code: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(line: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        if line[3] in slow:
            raise subprocess.TimeoutExpired(line, 10)
        return subprocess.CompletedProcess(line, 0, {"rev-parse": "abc\n", "status": " M a.py\n"}[line[3]])

    package = tmp_path / "mmi" / "__init__.py"
    monkeypatch.setattr(environment.sys.modules["mmi"], "__file__", str(package))
    monkeypatch.setattr(environment.subprocess, "run", run)
    assert environment._code_state() == {"installed": True}
    (tmp_path / ".git").mkdir()
    assert environment._code_state() == code


def test_tracker_ids_are_kept(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert read_tracking(folder) == {}
    write_tracking(folder, {"wandb": "abc"})
    assert read_tracking(folder) == {"wandb": "abc"}


def test_files_cut_short_are_set_aside_and_begun_anew(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.tracking_file.write_text("")
    folder.environment_file.write_text('{"sessions": [{"seed"')
    assert read_tracking(folder) == {}
    record_session(folder.environment_file, ["mmi", "fit"], seed=3)
    assert [session["seed"] for session in json.loads(folder.environment_file.read_text())["sessions"]] == [3]
    assert (tmp_path / "environment.json.damaged").read_text() == '{"sessions": [{"seed"'


def test_a_crash_while_writing_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path)
    folder.start({"run": {"name": "demo"}})

    def crash(*_: object) -> None:
        raise OSError("power cut")

    monkeypatch.setattr("os.replace", crash)
    with pytest.raises(OSError, match="power cut"):
        folder.start({"run": {"name": "again"}})
    assert folder.read_config() == {"run": {"name": "demo"}}


@pytest.mark.parametrize("harm", ["cut", "emptied", "bit", "manifest", "no manifest"])
def test_in_place_of_a_damaged_last_the_one_before_is_taken_and_told(tmp_path: Path, harm: str) -> None:
    folder = RunFolder(tmp_path)
    for name, step in (("step-2", 2), ("step-4", 4), ("best", 3), ("last", 6)):
        save(folder, name, step)
    damage(folder.checkpoints / "last", harm)
    place, remarks = folder.find_intact("last")
    assert place == folder.checkpoints / "step-4"
    assert len(remarks) == 1
    assert "last is damaged" in remarks[0]
    damage(folder.checkpoints / "step-4", "bit")
    place, remarks = folder.find_intact("last")
    assert (place.name, len(remarks)) == ("best", 2)


def test_in_place_of_a_last_that_is_gone_the_newest_is_taken_and_told(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for name, step in (("step-2", 2), ("step-4", 4)):
        save(folder, name, step)
    assert folder.has_checkpoints
    place, remarks = folder.find_intact("last")
    assert place == folder.checkpoints / "step-4"
    assert remarks == [f"there is no checkpoint {folder.checkpoints / 'last'}."]


def test_a_damaged_checkpoint_that_was_named_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for name, step in (("step-2", 2), ("best", 3)):
        save(folder, name, step)
    assert folder.find_intact("best") == (folder.checkpoints / "best", [])
    damage(folder.checkpoints / "best", "bit")
    with pytest.raises(CheckpointError, match=r"best is damaged: model\.safetensors does not match"):
        folder.find_intact("best")
    damage(folder.checkpoints / "step-2", "cut")
    save(folder, "last", 6)
    damage(folder.checkpoints / "last", "cut")
    with pytest.raises(CheckpointError, match="last is damaged"):
        folder.find_intact("last")


def test_a_run_says_how_it_continues_documents(tmp_path: Path) -> None:
    chosen = {"seed": 5, "min_images": 1, "image": {"n_steps": 8, "sampler": "ddim"}}
    said, silent, wrong = (RunFolder(tmp_path / name) for name in ("said", "silent", "wrong"))
    said.start({"run": {"generation": chosen}})
    silent.start({"run": {"name": "silent"}})
    wrong.start({"run": {"generation": {"seeds": 5}}})
    found = generation_settings(said.path)
    assert (found.seed, found.min_images, found.image.n_steps, found.image.sampler) == (5, 1, 8, "ddim")
    assert generation_settings(silent.path) == GenerationSettings()
    with pytest.raises(ConfigError, match=r"run\.generation\.seeds"):
        generation_settings(wrong.path)
    with pytest.raises(ConfigError, match="is no run folder"):
        generation_settings(tmp_path)


def damage(checkpoint: Path, harm: str) -> None:
    file = checkpoint / ("manifest.json" if "manifest" in harm else "model.safetensors")
    data = bytearray(file.read_bytes())
    file.unlink()  # other names of the same bytes stay whole
    if harm == "no manifest":
        return
    data[len(data) // 2] ^= 1
    file.write_bytes({"cut": data[: len(data) // 2], "emptied": b"", "manifest": b"{"}.get(harm, bytes(data)))


def test_only_changes_of_the_code_are_called_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mmi/__init__.py", "experiments/table.md", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("first", encoding="utf-8")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@example.invalid"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    monkeypatch.setattr(environment.sys.modules["mmi"], "__file__", str(tmp_path / "mmi" / "__init__.py"))
    (tmp_path / "experiments" / "table.md").write_text("second", encoding="utf-8")
    (tmp_path / "README.md").write_text("second", encoding="utf-8")
    assert environment._code_state()["changed"] is False
    (tmp_path / "mmi" / "__init__.py").write_text("second", encoding="utf-8")
    assert environment._code_state()["changed"] is True
