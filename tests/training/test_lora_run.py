"""A run with LoRA: only what should changes, the loss falls, it goes on exactly, and its export is the same network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from factories import tiny_config
from safetensors.torch import load_file
from torch import Tensor
from toy_training import StepLosses, ToyData, run_config, toy_batch, toy_trainer
from transformers import AutoModelForCausalLM

from mmi.checkpoints.hub import export_hub_folder
from mmi.checkpoints.run_folder import RunFolder, load_network
from mmi.checkpoints.storage import CheckpointError
from mmi.checkpoints.verification import verify
from mmi.cli import main
from mmi.config import LoraConfig, LossConfig, NetworkConfig
from mmi.config_tree import to_tree
from mmi.models.language_backbone import library_config
from mmi.models.mm_interleaved import MMInterleaved
from mmi.training.module import MMInterleavedModule
from mmi.training.optimizer import OptimizerConfig
from mmi.training.run import make_callbacks
from mmi.training.start import load_start

STEPS = 16


def config(weights_dtype: str = "float32") -> NetworkConfig:
    lora = LoraConfig(rank=4, alpha=16, dropout=0.1, targets=("q_proj", "v_proj", "o_proj", "up_proj"))
    # The spread of the random head decides how far logits can go while it is frozen.
    language = {"frozen": True, "allow_frozen_random": True, "init_std": 0.3, "weights_dtype": weights_dtype}
    network = tiny_config(language={**language, "lora": lora})
    return replace(network, image_decoder=replace(network.image_decoder, enabled=False))


def lora_module(network: NetworkConfig) -> MMInterleavedModule:
    torch.manual_seed(0)
    optimizer = OptimizerConfig(learning_rate=1e-2, warmup_steps=2, schedule="constant")
    return MMInterleavedModule(network, LossConfig(), optimizer)


def from_folder(network: NetworkConfig, folder: Path) -> NetworkConfig:
    """Write the frozen weights of a language model, which checkpoints may leave out, and start from them."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(library_config(network.language)).save_pretrained(folder)
    return replace(network, language=replace(network.language, weights=str(folder)))


def fit(
    folder: Path,
    steps: int,
    network: NetworkConfig | None = None,
    *,
    checkpoint: str | None = None,
    **run_settings: bool,
) -> tuple[MMInterleavedModule, dict[int, float]]:
    """Train in a run folder; return the module and the loss of every step."""
    settings = run_config(folder, save_every=STEPS // 2, **run_settings)
    run = RunFolder(settings.path)
    module, losses = lora_module(network or config()), StepLosses()
    if checkpoint is None:
        run.start({"model": {"network": to_tree(module.network.config)}})
    callbacks = [losses, *make_callbacks(settings, run, network=module.network)]
    trainer = toy_trainer(callbacks, steps, precision="32-true" if network is None else "bf16-mixed")
    trainer.fit(module, ToyData(n_val=0), ckpt_path=run.find_checkpoint(checkpoint) if checkpoint else None)
    return module, losses.by_step


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, MMInterleavedModule, dict[int, float]]:
    folder = tmp_path_factory.mktemp("whole")
    return folder, *fit(folder, STEPS)


def changed(before: dict[str, Tensor], network: MMInterleaved) -> set[str]:
    return {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}


def texts_loss(network: MMInterleaved) -> Tensor:
    with torch.no_grad():
        return network.eval()(toy_batch(3), None).text_loss


def check_what_changed(network: MMInterleaved) -> None:
    different = changed(lora_module(network.config).network.state_dict(), network)
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    assert different <= trained
    added = {name for name in trained if name.endswith((".lora_down", ".lora_up"))}
    assert len(added) == 2 * 4 * 4
    assert added <= different
    assert any(".mmfs." in name for name in different)
    assert any(name.startswith("visual_tokenizer.resampler") for name in different)


def test_only_lora_and_the_other_trained_parts_change(trained):
    check_what_changed(trained[1].network)


def test_the_loss_falls(trained):
    losses = list(trained[2].values())
    assert sum(losses[-5:]) < 0.85 * sum(losses[:5])


@pytest.mark.parametrize("weights_dtype", [pytest.param("bfloat16", marks=pytest.mark.slow), "nf4"])
def test_weights_of_a_lower_type_train_are_left_out_and_found_again(tmp_path, weights_dtype):
    """The whole way of a run on one device: mixed precision, checkpoints of what is trained, going on, export."""
    network = from_folder(config(weights_dtype), tmp_path / "language")
    module, losses = fit(tmp_path / "whole", STEPS, network, trainable_only=True)
    check_what_changed(module.network)
    values = list(losses.values())
    assert sum(values[-5:]) < 0.85 * sum(values[:5])

    run = RunFolder(tmp_path / "whole" / "toy")
    stored = load_file(run.checkpoints / "last" / "model.safetensors")
    language = {name.rpartition(".")[2] for name in stored if ".layer." in name}
    assert language == {"lora_down", "lora_up"}
    loaded = load_network(run.path, "last").network
    assert changed(module.network.state_dict(), loaded) == set()
    assert all(one.n_tensors == len(stored) for one in verify(run.path))

    _, first = fit(tmp_path / "parts", STEPS // 2, network, trainable_only=True)
    again, second = fit(tmp_path / "parts", STEPS, network, checkpoint="last", trainable_only=True)
    assert {**first, **second} == losses
    assert changed(module.network.state_dict(), again.network) == set()

    export_hub_folder(run, "last", tmp_path / "out")
    plain = MMInterleaved.from_pretrained(tmp_path / "out")
    assert plain.config.language.weights_dtype == "float32"
    torch.testing.assert_close(texts_loss(plain), texts_loss(loaded), rtol=0.05, atol=0.05)


def test_a_run_goes_on_bit_by_bit(trained, tmp_path):
    _, first = fit(tmp_path, STEPS // 2)
    module, second = fit(tmp_path, STEPS, checkpoint="last")
    assert {**first, **second} == trained[2]
    assert changed(trained[1].network.state_dict(), module.network) == set()


def test_the_export_is_the_same_network_without_lora(trained, tmp_path):
    run = RunFolder(trained[0] / "toy")
    network = load_network(run.path, "last").network
    export_hub_folder(run, "last", tmp_path / "out")
    plain = MMInterleaved.from_pretrained(tmp_path / "out")
    assert plain.config.language.lora is None
    torch.testing.assert_close(texts_loss(plain), texts_loss(network), rtol=1e-5, atol=1e-5)
    assert not torch.equal(texts_loss(network), texts_loss(lora_module(config()).network))


def test_a_4_bit_run_can_save_its_packed_weights(tmp_path):
    module, _ = fit(tmp_path / "run", 2, config("nf4"))
    run = RunFolder(tmp_path / "run" / "toy")
    assert len(verify(run.path)) > 0
    loaded = load_network(run.path, "last").network
    assert changed(module.network.state_dict(), loaded) == set()
    again = lora_module(config("nf4")).network
    load_start(again, str(run.path))
    assert changed(module.network.state_dict(), again) == set()
    with pytest.raises(CheckpointError, match=r"q_proj\.weight has shape"):
        load_network(run.path, "last", weights_dtype="float32")


@pytest.mark.parametrize(("weights_dtype", "most"), [("bfloat16", 0.03), ("nf4", 0.3)])
def test_a_trained_run_is_read_in_another_form(trained, weights_dtype, most):
    run = trained[0] / "toy"
    loaded = load_network(run, "last", weights_dtype=weights_dtype).network
    held = loaded.language_model.blocks[0].layer.mlp.gate_proj.weight
    assert held.dtype == (torch.uint8 if weights_dtype == "nf4" else torch.bfloat16)
    expected = texts_loss(load_network(run, "last").network)
    assert float((texts_loss(loaded) - expected).norm() / expected.norm()) < most


def test_generate_takes_the_form(trained, capsys):
    run = str(trained[0] / "toy")
    assert main(["generate", "--run", run, "--text", "a", "--weights-dtype", "int3"]) == 2
    assert "bfloat16" in capsys.readouterr().err
