"""A folder to pass on gives the same network anywhere, and its card says what it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from factories import batch, tiny_config, wake_up
from safetensors.torch import load_file, save_file

from mmi.checkpoints.conversion import RECORD
from mmi.checkpoints.hub import export_hub_folder
from mmi.checkpoints.model_card import base_weights, without_local_paths
from mmi.checkpoints.run_folder import RunFolder
from mmi.checkpoints.storage import CheckpointError, read_manifest, write_checkpoint
from mmi.checkpoints.verification import verify
from mmi.cli import main
from mmi.config import ConfigError
from mmi.config_tree import from_tree, to_tree
from mmi.inference import Generator
from mmi.models.build import build_network
from mmi.models.mm_interleaved import MMInterleaved
from mmi.tokens import Tokenizer

SCORE = {
    "task": "vqav2",
    "version": 2,
    "protocol": "vqa-toolkit",
    "split": "val | x",
    "condition_label": "as trained",
    "limited": True,
    "values": {"accuracy": {"value": 0.25, "low": 0.2, "high": 0.3, "n": 40}},
    "units": {"accuracy": "percent"},
}


def write_run(folder: Path) -> RunFolder:
    """A run with weights named in every way, a data table, and scores of these and of other weights."""
    network = build_network(tiny_config(), "official").eval()
    wake_up(network)
    tree = to_tree(tiny_config())
    tree["language"]["weights"] = "openlm-research/open_llama_3b_v2"
    tree["vision"]["trunk"]["weights"] = str(folder / "private" / "clip-vit-l-14")
    tree["image_decoder"]["unet"]["weights"] = "asset:stable-diffusion-2-1-base"
    run = RunFolder(folder / "story")
    data = {"train": {"pairs": {"format": "pair_tars", "path": str(folder / "private" / "tars"), "weight": 2}}}
    run.start({"model": {"network": tree, "compat": "official"}, "data": data}, _tokenizer(folder))
    write_checkpoint(run.checkpoints / "last", network.state_dict(), {}, step=12)
    sha = read_manifest(run.checkpoints / "last").files["model.safetensors"]
    for name, weights in (("a", sha), ("b", "0" * 64)):
        place = run.path / "evaluations" / "vqav2" / name
        place.mkdir(parents=True)
        (place / "score.json").write_text(json.dumps(SCORE | {"checkpoint": {"sha256": weights}}))
    return run


def _tokenizer(folder: Path) -> Tokenizer:
    from tokenizers import Tokenizer as Library
    from tokenizers.models import WordLevel

    place = folder / "tokenizer"
    place.mkdir()
    library = Library(WordLevel({f"w{i}": i for i in range(255)} | {"[UNK]": 255}, unk_token="[UNK]"))
    library.add_special_tokens(["<s>", "</s>", "<pad>"])
    library.save(str(place / "tokenizer.json"))
    (place / "mmi_tokenizer.json").write_text(json.dumps({"bos": 256, "eos": 257, "pad": 258}))
    return Tokenizer.load(place)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunFolder:
    return write_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def hub(run, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out") / "hub"
    assert main(["checkpoint", "export", "--run", str(run.path), "--to", "safetensors", "--out", str(out)]) == 0
    return out


def test_the_network_comes_back_bit_by_bit_with_its_switches(run, hub):
    network = MMInterleaved.from_pretrained(hub)
    original = load_file(run.checkpoints / "last" / "model.safetensors")
    assert not network.training
    assert network.compat.cross_document_attention == "official"
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, original[name]), name
    sample = batch([[("a", 1, "b")]])
    with torch.no_grad():
        assert torch.isfinite(network(sample, None).text_loss).all()


def test_the_tokenizer_travels_along(hub, run):
    tree = RunFolder(run.path).read_config()
    assert tree["model"]["network"]["language"]["bos_token_id"] == 1  # the tiny network was not made for this tokenizer
    with pytest.raises(ValueError, match="the tokenizer's <s> is 256"):
        Generator.from_pretrained(hub)
    assert Tokenizer.load(hub / "tokenizer").special.bos == 256


def test_no_path_of_this_machine_leaves_it(hub, run):
    for file in ("config.yaml", "README.md", "manifest.json"):
        text = (hub / file).read_text()
        assert "private" not in text, file
        assert str(run.path.parent) not in text, file
    network = yaml.safe_load((hub / "config.yaml").read_text())["model"]["network"]
    assert network["vision"]["trunk"]["weights"] is None
    assert network["language"]["weights"] == "openlm-research/open_llama_3b_v2"


def test_local_paths_are_told_from_hub_ids(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "llm").mkdir(parents=True)
    kept = ["openai/clip-vit-large-patch14", "asset:clip-vit-l-14"]
    gone = ["./llm", "/data/llm", "~/llm", "llm", "models/llm", "a/b/c", "C:\\llm"]
    tree = {"parts": [{"weights": name} for name in [*kept, *gone, None]]}
    assert [part["weights"] for part in without_local_paths(tree)["parts"]] == [*kept, *[None] * len(gone), None]


def test_the_card_names_bases_licences_data_switches_and_scores_with_their_protocol(hub):
    text = (hub / "README.md").read_text()
    head = yaml.safe_load(text.split("---")[1])
    assert head["license"] == "other"
    assert "openlm-research/open_llama_3b_v2" in head["base_model"]
    for line in (
        "| language model | openlm-research/open\\_llama\\_3b\\_v2 | Apache-2.0 |",
        "| vision trunk | clip-vit-l-14 | MIT |",
        "- pairs: format pair\\_tars, weight 2",
        "| `cross_document_attention` | official |",
        "| vqav2 v2 LIMITED | vqa-toolkit | val \\| x | as trained | accuracy | 25 (20 to 30) | 40 |",
        "1 scores of other weights in the run folder are not shown.",
        "12 optimizer steps",
    ):
        assert line in text, line
    for heading in ("Base weights and their licences", "Training data", "Intended use", "Limits"):
        assert f"## {heading}" in text
    assert "Open RAIL++-M" in text


def test_the_card_of_a_converted_model_says_so_and_of_a_fresh_one_that_it_has_no_base(run, tmp_path):
    (run.path / RECORD).write_text(json.dumps({"assumed": {"image_decoder.resampler.n_heads": "4, as wide"}}))
    card = export_hub_folder(run, "last", tmp_path / "out").read_text()
    (run.path / RECORD).unlink()
    assert "Converted from a checkpoint of the official implementation, then trained for 12 steps." in card
    assert "`image_decoder.resampler.n_heads` = 4, as wide" in card
    assert base_weights(tiny_config()) == []


def test_an_exported_folder_can_be_verified_and_damage_is_named(hub, tmp_path):
    (found,) = verify(hub)
    assert (found.step, found.n_files) == (12, 5)
    import shutil

    shutil.copytree(hub, tmp_path / "hub")
    (tmp_path / "hub" / "README.md").write_text("other")
    with pytest.raises(CheckpointError, match=r"README.md does not match its checksum"):
        verify(tmp_path / "hub")


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        (lambda t: t.pop("visual_tokenizer.projection.bias"), "lacks visual_tokenizer.projection.bias"),
        (lambda t: t.update(strange=torch.zeros(1)), "holds, which is no part of this network, strange"),
        (lambda t: t.update({"visual_tokenizer.projection.bias": torch.zeros(3)}), r"bias has shape \(3,\)"),
    ],
    ids=["missing", "unexpected", "misshapen"],
)
def test_a_folder_with_other_tensors_is_refused(hub, tmp_path, change, pattern):
    tensors = load_file(hub / "model.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.yaml").write_bytes((hub / "config.yaml").read_bytes())
    with pytest.raises(ConfigError, match=pattern):
        MMInterleaved.from_pretrained(tmp_path)


def test_a_folder_in_use_is_not_written_to(run, hub):
    with pytest.raises(ConfigError, match="is not empty; give a new folder"):
        export_hub_folder(run, "last", hub)


def test_settings_survive_the_journey(hub, run):
    tree = yaml.safe_load((hub / "config.yaml").read_text())["model"]["network"]
    there = without_local_paths(RunFolder(run.path).read_config()["model"]["network"])
    assert from_tree(type(tiny_config()), tree) == from_tree(type(tiny_config()), there)


def test_a_hub_id_is_downloaded_only_when_asked_for_and_only_our_files(hub, monkeypatch):
    from huggingface_hub.errors import LocalEntryNotFoundError

    asked = []

    def download(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        if name == "owner/gone":
            raise LocalEntryNotFoundError("offline")
        return str(hub)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    MMInterleaved.from_pretrained("owner/story")
    assert asked == [("owner/story", ["config.yaml", "model.safetensors", "README.md", "tokenizer/*", "manifest.json"])]
    with pytest.raises(ConfigError, match="owner/gone is no folder here and cannot be fetched from the hub"):
        MMInterleaved.from_pretrained("owner/gone")
