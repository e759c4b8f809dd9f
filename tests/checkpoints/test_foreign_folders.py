"""Folders of strangers are read as data: the worst they can do is one sentence."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from factories import tiny_config
from official_folders import write_backbones
from safetensors.torch import save_file

from mmi.checkpoints.backbone_numbers import clip_numbers, diffusion_numbers, language_numbers, read_library_config
from mmi.checkpoints.run_folder import RunFolder, load_network
from mmi.checkpoints.storage import CheckpointError
from mmi.checkpoints.weight_files import WeightFiles
from mmi.cli import main
from mmi.config import ConfigError
from mmi.config_tree import to_tree
from mmi.inference import Generator
from mmi.models.mm_interleaved import MMInterleaved


class Bomb:
    """Creates a file when unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return (open, (str(self.file), "w"))


@pytest.fixture
def harmed(tmp_path):
    """A file that exists only if code of the stranger has run."""
    file = tmp_path / "harmed"
    yield file
    assert not file.exists()


def one_sentence(error: BaseException) -> str:
    text = str(error)
    assert "\n" not in text
    assert text.endswith((".", "?"))
    return text


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.pt"])
def test_a_pickle_with_code_is_refused(tmp_path, harmed, name):
    torch.save({"soi_token": Bomb(harmed)}, tmp_path / name)
    with pytest.raises(CheckpointError, match="holds more than tensors") as caught:
        WeightFiles(tmp_path)
    one_sentence(caught.value)
    (tmp_path / name).write_bytes(pickle.dumps(Bomb(harmed), protocol=2))
    with pytest.raises(CheckpointError):
        WeightFiles(tmp_path)


@pytest.mark.parametrize("escape", ["../elsewhere.safetensors", "/etc/passwd", "a/../../x.bin", "..\\x.bin", 7])
def test_an_index_cannot_lead_out_of_its_folder(tmp_path, escape):
    save_file({"a": torch.zeros(1)}, tmp_path / "elsewhere.safetensors")
    folder = tmp_path / "shards"
    folder.mkdir()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": escape}}))
    with pytest.raises(CheckpointError, match="an index may only name files beside it") as caught:
        WeightFiles(folder)
    one_sentence(caught.value)


@pytest.mark.parametrize("content", ["[]", "{", '{"weight_map": []}', "{}"])
def test_a_malformed_index_is_refused(tmp_path, content):
    (tmp_path / "pytorch_model.bin.index.json").write_text(content)
    with pytest.raises(CheckpointError, match="is no index of weights"):
        WeightFiles(tmp_path)


def test_unreadable_weights_are_one_sentence(tmp_path):
    for what, pattern in (("nothing", "does not exist"), ("", "holds no weights")):
        with pytest.raises(CheckpointError, match=pattern):
            WeightFiles(tmp_path / what)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(CheckpointError, match="is no weight file"):
        WeightFiles(tmp_path / "notes.txt")
    for name in ("cut.safetensors", "cut.bin"):
        (tmp_path / name).write_bytes(b"PK\x03\x04")
        with pytest.raises(CheckpointError, match=r"cut\.\w+ (cannot be read|holds more)"):
            WeightFiles(tmp_path / name)
    for content, pattern in (([1], "holds a list"), ({"a": 3}, "holds 'a', a int; expected tensors")):
        torch.save(content, tmp_path / "odd.pt")
        with pytest.raises(CheckpointError, match=pattern):
            WeightFiles(tmp_path / "odd.pt")


def test_what_a_training_program_leaves_beside_the_weights_is_not_read(tmp_path, harmed):
    torch.save({"module": {"x": torch.ones(2)}}, tmp_path / "mp_rank_00_model_states.pt")
    for name in ("zero_pp_rank_0_mp_rank_00_optim_states.pt", "scheduler.pt", "rng_state_0.pth"):
        torch.save({"a": 1}, tmp_path / name)
    assert list(WeightFiles(tmp_path)) == ["x"]
    torch.save({"y": torch.ones(2)}, tmp_path / "pytorch_model.bin")
    torch.save(Bomb(harmed), tmp_path / "training_args.bin")
    assert list(WeightFiles(tmp_path)) == ["y"]


def test_a_text_in_place_of_weights_is_no_pickle(tmp_path):
    (tmp_path / "model.bin").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(CheckpointError, match=r"cannot be read as weights .*; copy it again"):
        WeightFiles(tmp_path)
    torch.save({3: torch.ones(2)}, tmp_path / "model.bin")
    with pytest.raises(CheckpointError, match="holds 3, a Tensor; expected tensors by name"):
        WeightFiles(tmp_path)


def test_two_files_with_the_same_tensor_are_refused(tmp_path):
    for name in ("a", "b"):
        save_file({"x": torch.zeros(1)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(CheckpointError, match=r"holds x twice, in a.safetensors and b.safetensors"):
        WeightFiles(tmp_path)


def test_wrapped_state_dicts_are_unwrapped(tmp_path):
    torch.save({"state_dict": {"module.x": torch.ones(2)}}, tmp_path / "a.pt")
    assert {name: tensor.tolist() for name, tensor in WeightFiles(tmp_path / "a.pt").items()} == {"x": [1.0, 1.0]}
    save_file({"module.x": torch.ones(2)}, tmp_path / "a.safetensors")
    assert {name: tensor.tolist() for name, tensor in WeightFiles(tmp_path / "a.safetensors").items()} == {"x": [1, 1]}
    torch.save({"x": torch.ones(2)}, tmp_path / "b.pt", _use_new_zipfile_serialization=False)
    assert WeightFiles(tmp_path / "b.pt")["x"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("key", ["auto_map", "trust_remote_code"])
def test_a_config_that_asks_for_its_own_code_is_refused(tmp_path, harmed, key):
    folder = tmp_path / "llm"
    folder.mkdir()
    (folder / "modeling.py").write_text(f"open({str(harmed)!r}, 'w')")
    asked = {"auto_map": {"AutoConfig": "modeling.Config"}, "trust_remote_code": True}[key]
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", key: asked}))
    for read in (language_numbers, clip_numbers):
        with pytest.raises(ConfigError, match=f"has {key}, which asks for code of its own") as caught:
            read(folder)
        one_sentence(caught.value)


def test_backbones_of_another_kind_are_named(tmp_path):
    backbones = write_backbones(tmp_path)
    file = backbones.llm / "config.json"
    llama = json.loads(file.read_text())
    for change, pattern in (
        ({"model_type": "gpt2"}, "is of type 'gpt2'; official checkpoints hold a llama"),
        ({"attention_bias": True}, "says attention_bias True; official checkpoints have False"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "stretches positions by 'yarn'"),
    ):
        file.write_text(json.dumps(llama | change))
        with pytest.raises(ConfigError, match=pattern):
            language_numbers(backbones.llm)
    file.write_text(json.dumps(llama | {"rope_scaling": {"type": "linear", "factor": 2.0}}))
    assert language_numbers(backbones.llm)["rope_scaling"] == {"kind": "linear", "factor": 2.0}
    with pytest.raises(ConfigError, match="is of type 'llama'; give a CLIPModel"):
        clip_numbers(backbones.llm)
    with pytest.raises(ConfigError, match=r"unet/config.json is missing"):
        diffusion_numbers(backbones.clip)
    for content, pattern in (("{", "cannot be read as JSON"), ("[]", "holds no settings")):
        file.write_text(content)
        with pytest.raises(ConfigError, match=pattern):
            read_library_config(file)


TAGS = ["!!python/object/apply:os.system [touch FILE]", "!!python/name:os.system", "!!python/object/new:open [FILE, w]"]


@pytest.mark.parametrize("tag", TAGS)
def test_yaml_that_names_objects_is_refused_in_run_folders_and_hub_folders(tmp_path, harmed, tag):
    (tmp_path / "config.yaml").write_text(f"model: {{network: {tag.replace('FILE', str(harmed))}}}")
    for read in (RunFolder(tmp_path).read_config, lambda: MMInterleaved.from_pretrained(tmp_path)):
        with pytest.raises(ConfigError, match=r"config.yaml .*YAML") as caught:
            read()
        one_sentence(caught.value)


def test_classes_named_in_a_folders_config_are_unknown_keys(tmp_path, harmed):
    for tree in (
        {"network": {"class_path": "os.system"}},
        {"network": {"language": {"class_path": "os.system", "init_args": {}}}},
        {"network": {}, "compat": {"class_path": "os.system"}},
    ):
        (tmp_path / "config.yaml").write_text(json.dumps({"model": tree}))
        with pytest.raises(ConfigError, match=r"unknown key model\S*class_path") as caught:
            MMInterleaved.from_pretrained(tmp_path)
        one_sentence(caught.value)
        with pytest.raises(ConfigError, match=r"unknown key model\S*class_path|holds no checkpoint"):
            load_network(tmp_path)


def test_a_hub_folder_that_is_none_is_one_sentence(tmp_path):
    for source, pattern in (
        (tmp_path / "nowhere", "is no folder; give one that mmi checkpoint export"),
        ("./owner/name", "is no folder"),
        (tmp_path, "has no config.yaml"),
    ):
        with pytest.raises(ConfigError, match=pattern) as caught:
            MMInterleaved.from_pretrained(source)
        one_sentence(caught.value)
    for text, pattern in (
        ("model: 3", "has no model"),
        ("schema_version: 99\nmodel: {}", "schema_version 99; this version of mmi reads up to 1"),
        ("model: {}\ndata: {}", "unknown key data"),
        ("model: {optimiser: {}}", "unknown key optimiser"),
        ("model: {compat: {preset: offical}}", "offical"),
    ):
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(ConfigError, match=pattern) as caught:
            MMInterleaved.from_pretrained(tmp_path)
        one_sentence(caught.value)


def test_a_pickle_in_place_of_safetensors_is_refused(tmp_path, harmed):
    (tmp_path / "config.yaml").write_text(json.dumps({"model": {"network": to_tree(tiny_config())}}))
    with pytest.raises(ConfigError, match="cannot be read"):
        MMInterleaved.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(pickle.dumps(Bomb(harmed)))
    with pytest.raises(ConfigError, match="cannot be read"):
        MMInterleaved.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="tokenizer"):
        Generator.from_pretrained(tmp_path)


def test_a_malicious_checkpoint_gives_the_command_one_line_and_exit_code_2(tmp_path, harmed, capsys):
    backbones = write_backbones(tmp_path)
    torch.save({"soi_token": Bomb(harmed)}, tmp_path / "pytorch_model.bin")
    folders = ["--llm", str(backbones.llm), "--clip", str(backbones.clip), "--diffusion", str(backbones.diffusion)]
    convert = ["checkpoint", "convert", "--from", "official", "--checkpoint", str(tmp_path / "pytorch_model.bin")]
    assert main([*convert, *folders, "--out", str(tmp_path / "run")]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert "holds more than tensors" in line
