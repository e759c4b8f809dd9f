"""The tiny official checkpoint becomes a run folder and comes back bit by bit; a wrong tensor is named."""

from __future__ import annotations

import functools
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from official_folders import official_facts, official_state, write_backbones
from safetensors.torch import load_file, save_file
from shared_data import shared_path

from mmi.checkpoints.conversion import (
    EXTRAS,
    RECORD,
    Backbones,
    Conversion,
    convert_official,
    export_official,
    find_network_numbers,
)
from mmi.checkpoints.layout import LayoutError, compare_layout
from mmi.checkpoints.official import convert_tensors, official_layout
from mmi.checkpoints.official_numbers import numbers_from_shapes
from mmi.checkpoints.run_folder import RunFolder, load_network
from mmi.checkpoints.storage import CheckpointError, write_checkpoint
from mmi.checkpoints.weight_files import WeightFiles
from mmi.cli import main
from mmi.config import ConfigError, NetworkConfig
from mmi.models.mm_interleaved import MMInterleaved


@pytest.fixture(scope="module")
def backbones(tmp_path_factory) -> Backbones:
    return write_backbones(tmp_path_factory.mktemp("backbones"))


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return official_state()


@pytest.fixture(scope="module")
def converted(tmp_path_factory, backbones, state) -> Conversion:
    folder = tmp_path_factory.mktemp("official")
    torch.save(state, folder / "pytorch_model.bin")
    return convert_official(folder / "pytorch_model.bin", backbones, folder / "run", {})


def assert_same_bits(found, expected) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
        assert torch.equal(found[name], tensor), name


def convert_changed(tmp_path: Path, backbones: Backbones, state, given=None) -> Conversion:
    save_file(state, tmp_path / "model.safetensors")
    return convert_official(tmp_path / "model.safetensors", backbones, tmp_path / "run", given or {})


def test_every_official_tensor_is_used_or_set_aside_with_its_reason(converted, state):
    assert converted.n_official == len(state) == 1911
    config = load_network(converted.folder).network.config
    parts = convert_tensors(state, config)
    assert len(parts.parameters) == converted.n_parameters
    whole = {name for name in parts.extras if parts.extras[name].shape == state[name].shape}
    assert all(parts.reasons().values())
    # The trained half of the head, 4 constants and 13 tables leave no tensor of their own; all others have one.
    assert len(whole) == 2 + 4 + 13
    record = json.loads((converted.folder / RECORD).read_text())
    assert record["set_aside"].keys() == parts.extras.keys()
    assert str(converted.folder.parent) not in json.dumps(record)


def test_a_converted_network_gives_the_official_logits(converted, backbones):
    golden = load_file(shared_path("golden/d_multimodal_llm.safetensors"))
    network = load_network(converted.folder).network
    assert isinstance(network, MMInterleaved)
    with torch.no_grad():
        logits = network.language_model.head(golden["last_hidden_state"])
        tokens = network.visual_tokenizer(golden["images_u8"]).tokens
    real = golden["attention_mask"].bool()
    torch.testing.assert_close(logits[real], golden["logits"][real], rtol=0, atol=1e-4)
    torch.testing.assert_close(tokens.flatten(0, -2), golden["vis_embed_in_order"].flatten(0, -2), rtol=0, atol=2e-5)


def test_an_untrained_conversion_is_exported_bit_by_bit(converted, state, tmp_path):
    files = export_official(RunFolder(converted.folder), "last", tmp_path / "back")
    assert [file.name for file in files] == ["pytorch_model.bin"]
    assert_same_bits(torch.load(files[0], weights_only=True), state)


def test_shards_hold_the_same_and_can_be_converted_again(converted, state, backbones, tmp_path):
    files = export_official(RunFolder(converted.folder), "last", tmp_path / "back", shard_bytes=2_000_000)
    assert len(files) > 2
    assert all(file.stat().st_size < 4_000_000 for file in files)  # many small tensors, each with its own entry
    assert_same_bits(WeightFiles(tmp_path / "back"), state)
    (tmp_path / "back" / "pytorch_model.bin.index.json").unlink()
    assert_same_bits(WeightFiles(tmp_path / "back"), state)


def test_half_precision_and_old_names_come_back_while_the_autoencoder_is_kept_in_float32(backbones, state, tmp_path):
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    half = {}
    for name, tensor in state.items():
        if ".vae." in name:
            for new, before in old.items():
                name = name.replace(f".attentions.0.{new}.", f".attentions.0.{before}.")
        half[name] = tensor.half() if tensor.is_floating_point() else tensor
    assert len(half.keys() - state.keys()) == 16
    done = convert_changed(tmp_path, backbones, half)
    stored = load_file(done.folder / "checkpoints" / "last" / "model.safetensors")
    assert {t.dtype for name, t in stored.items() if ".vae." in name} == {torch.float32}
    assert stored["language_model.layers.0.layer.mlp.up_proj.weight"].dtype == torch.float16
    bias = half["text_decoder.head.bias"][-2:].float() + half["text_decoder.head_new.bias"].float()
    assert torch.equal(stored["language_model.text_head.new_bias"], bias)
    export_official(RunFolder(done.folder), "last", tmp_path / "back")
    assert_same_bits(WeightFiles(tmp_path / "back"), half)


def test_trained_tensors_are_exported_with_their_values_and_untouched_ones_bit_by_bit(converted, state, tmp_path):
    run = RunFolder(tmp_path / "run")
    run.start(RunFolder(converted.folder).read_config())
    (run.path / EXTRAS).write_bytes((converted.folder / EXTRAS).read_bytes())
    network = load_network(converted.folder).network.float()
    trained = {"language_model.text_head.new_bias", "visual_tokenizer.projection.weight"}
    with torch.no_grad():
        for name in trained:
            network.get_parameter(name).add_(0.125)
    write_checkpoint(run.checkpoints / "last", network.state_dict(), {}, step=7)
    export_official(run, "last", tmp_path / "back")
    back = WeightFiles(tmp_path / "back")
    changed = {name for name in state if not torch.equal(back[name], state[name])}
    assert changed == {"text_decoder.head_new.bias", "visual_tokenizer.proj.weight"}
    total = back["text_decoder.head.bias"][-2:] + back["text_decoder.head_new.bias"]
    torch.testing.assert_close(total, network.language_model.text_head.new_bias.detach(), rtol=0, atol=1e-5)


layout_of = functools.cache(official_layout)


def check_changed(backbones: Backbones, state) -> None:
    """What a conversion does before it writes anything."""
    config, _ = find_network_numbers(state, backbones, {})
    compare_layout("it", {name: tuple(tensor.shape) for name, tensor in state.items()}, layout_of(config))


KEYS = [
    "soi_token",
    "mm_decoder.layers.3.mlp.up_proj.weight",
    "mm_decoder.layers.4.llama_cross_attn.attn.sampling_offsets.weight",
    "mm_decoder.layers.4.llama_cross_attn.attn.query_relpos.weight",
    "text_decoder.head_new.bias",
    "visual_tokenizer.encoder.vision_model.adapter_spm.stem.0.weight",
    "visual_tokenizer.perceiver_resampler.blip2qformer.encoder.layer.1.intermediate_query.dense.bias",
    "image_decoder.perceiver_resampler.queries",
    "image_decoder.decoder.mmfs_module.mmfs_mid_block.pos_embed",
    "image_decoder.decoder.unet.conv_in.weight",
    "image_decoder.decoder.vae.encoder.conv_in.weight",
]


@pytest.mark.parametrize("key", KEYS)
def test_a_deleted_a_renamed_and_a_reshaped_tensor_are_named(key, backbones, state):
    tensor = state[key]
    grown = torch.cat([tensor, tensor[:1]]) if tensor.dim() == 1 else tensor[:, :-1].contiguous()
    without = {name: value for name, value in state.items() if name != key}
    for what, changed in {"missing": without, "unexpected": without | {f"{key}_": tensor}}.items():
        with pytest.raises(LayoutError, match=f"{what}: {key}") as caught:
            check_changed(backbones, changed)
        assert key in caught.value.table
    with pytest.raises(LayoutError) as caught:
        check_changed(backbones, without | {key: grown})
    assert key in {m.name for m in caught.value.mismatches if m.problem == "misshapen"}
    assert str(list(grown.shape)) in caught.value.table
    assert str(list(tensor.shape)) in caught.value.table


def test_numbers_the_user_gives_win_and_are_checked(backbones, state, tmp_path):
    given = {"vision": {"resampler": {"n_tokens": 9}}}
    with pytest.raises(LayoutError, match=r"misshapen: visual_tokenizer.*queries \(\[1, 8, 48\] there, \[1, 9, 48\]"):
        convert_changed(tmp_path, backbones, state, given)
    with pytest.raises(ConfigError, match=r"unknown key model.network.vision.resmapler"):
        convert_changed(tmp_path, backbones, state, {"vision": {"resmapler": {}}})


def test_what_little_or_nothing_shows_is_listed_unless_the_user_says_it(backbones, state):
    _, found = find_network_numbers(state, backbones, {})
    assert found.assumed == {
        "vision.adapter.n_heads": "4, as many as the vision trunk has; no shape shows it",
        "vision.resampler.n_tokens": "8; a single tensor shows it",
        "image_decoder.resampler.n_heads": "4, as wide as the visual resampler's heads; no shape shows it",
    }
    given = {"vision": {"resampler": {"n_tokens": 8}, "adapter": {"n_heads": 4}}}
    _, found = find_network_numbers(state, backbones, given)
    assert found.assumed.keys() == {"image_decoder.resampler.n_heads"}


def test_without_a_scheduler_what_the_unet_predicts_is_an_assumption(backbones, state, tmp_path):
    shutil.copytree(backbones.diffusion, tmp_path / "sd")
    shutil.rmtree(tmp_path / "sd" / "scheduler")
    alone = Backbones(backbones.llm, backbones.clip, tmp_path / "sd")
    _, found = find_network_numbers(state, alone, {})
    assert "epsilon" in found.assumed["image_decoder.diffusion.prediction"]
    given = {"image_decoder": {"diffusion": {"prediction": "v_prediction"}}}
    config, found = find_network_numbers(state, alone, given)
    assert config.image_decoder.diffusion.prediction == "v_prediction"
    assert "image_decoder.diffusion.prediction" not in found.assumed


def test_changed_tables_and_constants_are_refused(backbones, state):
    config, _ = find_network_numbers(state, backbones, {})
    for key in ("visual_tokenizer.pos_embed", "visual_tokenizer.clip_mean"):
        with pytest.raises(ConfigError, match=f"{key} differs"):
            convert_tensors(state | {key: state[key] + 0.1}, config)
    key = "visual_tokenizer.encoder.vision_model.embeddings.position_ids"
    with pytest.raises(ConfigError, match=f"{key} does not count"):
        convert_tensors(state | {key: state[key] + 1}, config)


def test_a_used_folder_a_wrong_tokenizer_and_a_full_folder_are_refused(converted, backbones, state, tmp_path):
    with pytest.raises(CheckpointError, match="already holds checkpoints; give another --out"):
        convert_official(converted.folder.parent, backbones, converted.folder, {})
    wide = {k: torch.cat([v, v[:1]]) if v.shape[:1] == (98,) else v for k, v in state.items()}
    with pytest.raises(ConfigError, match=r"has 96 entries but its config.json says vocab_size 97"):
        convert_changed(tmp_path, backbones, wide, {"language": {"vocab_size": 97}})
    with pytest.raises(ConfigError, match="is not empty; give a new folder with --out"):
        export_official(RunFolder(converted.folder), "last", tmp_path)
    with pytest.raises(ConfigError, match="is not empty; give a new folder with --out"):
        export_official(RunFolder(converted.folder), "last", tmp_path / "model.safetensors")


def test_a_tensor_under_its_old_and_its_new_name_is_refused(backbones, state, tmp_path):
    new = next(name for name in state if name.endswith("attentions.0.to_q.weight") and ".vae." in name)
    old = new.replace("to_q", "query")
    with pytest.raises(CheckpointError, match="which are one tensor; remove one") as caught:
        convert_changed(tmp_path, backbones, state | {old: state[new] + 1})
    assert old in str(caught.value)
    assert new in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        {"vision": 3},
        {"vision": {"trunk": None}},
        {"vision": {"trunk": {"n_heads": "four"}}},
        {"language": {"mmfs": {"levels": 3}}},
        {"language": 3},
        {"image_decoder": {"mmfs": {"levels": 3}}},
    ],
)
def test_settings_of_a_wrong_type_are_one_sentence(given, backbones, state):
    with pytest.raises(ConfigError, match=r"model.network\.[\w.]+ is (3|null|the text .four.)"):
        find_network_numbers(state, backbones, given)


def test_numbers_of_a_wrong_type_in_a_folder_are_one_sentence(backbones, state, tmp_path):
    tree = json.loads((backbones.llm / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(tree | {"hidden_size": "64"}))
    with pytest.raises(ConfigError, match=r"config.json cannot be used \(.*'hidden_size' expected int"):
        find_network_numbers(state, Backbones(tmp_path, backbones.clip, backbones.diffusion), {})


def test_damaged_extras_are_one_sentence(converted, tmp_path):
    run = RunFolder(tmp_path / "run")
    shutil.copytree(converted.folder, run.path)
    (run.path / EXTRAS).write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=f"{EXTRAS} cannot be read .*; copy it again"):
        export_official(run, "last", tmp_path / "back")


def test_networks_without_an_official_layout_are_not_exported(tmp_path):
    from factories import tiny_config

    with pytest.raises(ConfigError, match=r"codec.kind is pixel_unshuffle, for which the official layout has no place"):
        official_layout(tiny_config())


def test_the_full_size_layout_is_the_official_one_name_by_name_and_shape_by_shape():
    keys = json.loads(shared_path("golden/official_full_size_keys.json").read_text())["keys"]
    layout = official_layout(NetworkConfig())
    assert {name: tuple(shape) for name, shape in layout.items()} == {k: tuple(v[0]) for k, v in keys.items()}


@pytest.mark.parametrize("levels", [1, 2, 3, 4])
@pytest.mark.parametrize(("heads", "points"), [(16, 8), (4, 4), (8, 8), (12, 4)])
def test_heads_points_and_levels_are_found_in_the_rows_of_offsets_and_weights(levels, heads, points):
    before = "mm_decoder.layers.0.llama_cross_attn.attn."
    rows = {"sampling_offsets": 2 * heads * points, "attention_weights": heads * levels * (points + 1)}
    shapes = {f"{before}{name}.weight": (n, 64) for name, n in rows.items()}
    found = numbers_from_shapes(shapes, clip_heads=4, d_vision=32, n_levels=levels)
    assert found.tree["language"]["mmfs"] == {"n_heads": heads, "n_points": points}


def test_another_number_of_levels_must_be_said(backbones, state, tmp_path):
    rows = {f"{p}.attn.attention_weights.{leaf}" for p in _branches() for leaf in ("weight", "bias")}
    two = {
        k: v.unflatten(0, (16, 3, 9))[:, :2].flatten(0, 2).contiguous() if k in rows else v for k, v in state.items()
    }
    with pytest.raises(ConfigError, match="language part looks at 2 pyramid levels, the configuration at 3; say which"):
        convert_changed(tmp_path, backbones, two)
    done = convert_changed(tmp_path, backbones, two, {"language": {"mmfs": {"levels": [1, 2]}}})
    assert load_network(done.folder).network.config.language.mmfs.levels == (1, 2)


def test_another_number_of_levels_of_the_image_decoder_must_be_said(backbones, state):
    rows = {k for k in state if re.search(r"mmfs_(mid_block|down_blocks.\d+)\.mmfs\.attention_weights", k)}
    two = {k: v.unflatten(0, (16, 4, 9))[:, :2].flatten(0, 2) if k in rows else v for k, v in state.items()}
    with pytest.raises(ConfigError, match="decoder part looks at 2 pyramid levels, the configuration at 4; say which"):
        check_changed(backbones, two)
    config, _ = find_network_numbers(two, backbones, {"image_decoder": {"mmfs": {"levels": [1, 2]}}})
    compare_layout("it", {name: tuple(tensor.shape) for name, tensor in two.items()}, official_layout(config))


def test_a_single_layer_with_mmfs_is_the_first_of_all():
    names = [f"mm_decoder.layers.{i}.self_attn.q_proj.weight" for i in range(6)]
    shapes = dict.fromkeys([*names, "mm_decoder.layers.0.llama_cross_attn.gate"], (1,))
    assert numbers_from_shapes(shapes, clip_heads=4, d_vision=32).tree["language"]["mmfs_every"] == 6


def _branches() -> list[str]:
    return [f"mm_decoder.layers.{i}.llama_cross_attn" for i in official_facts()["config"]["llm_mmfs"]["layers"]]


def test_the_commands_convert_export_and_verify(backbones, state, tmp_path, capsys):
    save_file(state, tmp_path / "model.safetensors")
    run = str(tmp_path / "run")
    folders = ["--llm", str(backbones.llm), "--clip", str(backbones.clip), "--diffusion", str(backbones.diffusion)]
    convert = ["checkpoint", "convert", "--from", "official", *folders]
    assert main([*convert, "--checkpoint", str(tmp_path / "model.safetensors"), "--out", run]) == 0
    assert "1911 official tensors, 0 unmatched" in capsys.readouterr().out
    assert main(["checkpoint", "verify", run]) == 0
    assert "finite numbers" in capsys.readouterr().out
    assert main(["checkpoint", "export", "--run", run, "--to", "official", "--out", str(tmp_path / "back")]) == 0
    assert_same_bits(WeightFiles(tmp_path / "back" / "pytorch_model.bin"), state)
    save_file({name: tensor for name, tensor in state.items() if name != "soi_token"}, tmp_path / "less.safetensors")
    capsys.readouterr()
    assert main([*convert, "--checkpoint", str(tmp_path / "less.safetensors"), "--out", str(tmp_path / "two")]) == 2
    error = capsys.readouterr().err
    assert "missing  soi_token" in error
    assert not (tmp_path / "two" / "checkpoints").exists()
    assert error.strip().splitlines()[-1].startswith("mmi checkpoint: ")
