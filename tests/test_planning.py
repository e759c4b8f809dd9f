"""A plan says beforehand what a step then computes and keeps."""

from __future__ import annotations

import json
from argparse import Namespace
from collections import Counter
from dataclasses import replace
from functools import cache

import pytest
import torch
from factories import tiny_config
from recorded_calls import RecordedCalls
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmfs import mmfs_attention
from mmi.cli import main
from mmi.commands.plan import optimizer_bytes, rehearse, with_checkpointing, workload
from mmi.commands.plan_measure import measure_peak, predict_peak
from mmi.commands.plan_table import plan_table
from mmi.config import ConfigError, LoraConfig, MMFSConfig
from mmi.models.build import build_network
from mmi.planning import OptimizerBytes, Schedule, StepCost, Workload, peak_memory, run_step, without_values
from mmi.planning.operations import perform
from mmi.planning.schedule import Device
from mmi.planning.step import LANGUAGE, LANGUAGE_MMFS, TEXT_HEAD, UNET, UNET_MMFS
from mmi.training.optimizer import OptimizerConfig

aten = torch.ops.aten
LOAD = Workload(rows=2, length=96, images=3, documents=2)


@cache
def planned(config, load=LOAD, weights=torch.float32, **options):
    with torch.device("meta"):
        network = build_network(config, load_weights=False).to(weights).train()
    return run_step(network, load.batch(config, "meta"), load.draws(config, "meta"), **options)


def real(config, load=LOAD, **options):
    network = build_network(config, load_weights=False).train()
    return run_step(network, load.batch(config, "cpu"), load.draws(config, "cpu"), **options)


@pytest.mark.parametrize("recompute", [False, True], ids=["activations kept", "activations recomputed"])
def test_a_step_without_values_counts_what_a_real_step_counts(recompute):
    config = with_checkpointing(tiny_config(), recompute)
    ours, theirs = planned(config, fused_dropout=False), real(config)
    assert ours.flops == theirs.flops
    assert (ours.parameters, ours.gradients) == (theirs.parameters, theirs.gradients)
    for name in ("peak", "activations", "buffers"):
        assert getattr(ours, name) == pytest.approx(getattr(theirs, name), rel=0.05), name


@pytest.mark.parametrize("dtype", ["bfloat16", "nf4"])
def test_a_step_with_lora_beside_lower_weights_is_planned_in_their_bytes(dtype):
    lora = LoraConfig(rank=2, dropout=0.0)
    language = {"frozen": True, "allow_frozen_random": True, "weights_dtype": dtype, "lora": lora}
    config = tiny_config(language=language)
    with without_values():
        network = build_network(config, load_weights=False).train()
    ours = run_step(network, LOAD.batch(config, "meta"), LOAD.draws(config, "meta"), fused_dropout=False)
    theirs = real(config)
    assert (ours.flops, ours.parameters, ours.gradients) == (theirs.flops, theirs.parameters, theirs.gradients)
    # What is needed to unpack 4 bits in plain torch is not planned: kernels do without.
    assert ours.activations == pytest.approx(theirs.activations, rel=0.05)
    frozen = [p for n, p in network.language_model.layers.named_parameters() if ".layer." in n and "proj.weight" in n]
    n, size = 4 * 32 * (32 + 16 + 16 + 32 + 3 * 48), sum(p.numel() * p.element_size() for p in frozen)
    assert size == (2 * n if dtype == "bfloat16" else n * 0.5625)


def test_a_network_built_from_memory_is_the_one_that_is_built():
    def tensors(network):
        named = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        return {n: (t.shape, t.stride(), t.dtype, t.device.type, t.requires_grad) for n, t in named.items()}

    with torch.device("meta"):
        plain = tensors(build_network(tiny_config(), load_weights=False))
    for _ in range(2):
        with without_values():
            assert tensors(build_network(tiny_config(), load_weights=False)) == plain


def test_a_step_costs_the_same_when_every_operation_is_known():
    config = with_checkpointing(tiny_config(), True)
    assert planned.__wrapped__(config) == planned.__wrapped__(config)


@pytest.mark.parametrize(
    ("operation", "arguments", "named"),
    [
        (aten.add.Tensor, lambda a, b: (a, b), {"alpha": 2}),
        (aten.add_.Tensor, lambda a, b: (a, b), {}),
        (aten.add.Tensor, lambda a, b: (a, torch.tensor(1.0)), {}),
        (aten.mul.Tensor, lambda a, b: (a.int(), 2), {}),
        (aten.mul.Tensor, lambda a, b: (a.int(), 2.0), {}),
        (aten.mm.default, lambda a, b: (a, b.t()), {}),
        (aten.cat.default, lambda a, b: ([a, b], 1), {}),
        (aten.transpose.int, lambda a, b: (a, 0, 1), {}),
        (aten.transpose_.default, lambda a, b: (a, 0, 1), {}),
        (aten.max.dim, lambda a, b: (a, 1), {}),
        (aten._to_copy.default, lambda a, b: (a,), {"dtype": torch.bfloat16}),
        (aten.set_.source_Tensor, lambda a, b: (a, b), {}),
    ],
    ids=[
        *("sum", "sum in place", "sum with a real number", "whole product", "broken product", "matrices", "list"),
        *("view", "view in place", "two results", "another type", "memory exchanged"),
    ],
)
def test_an_operation_answered_from_memory_is_the_operation(operation, arguments, named):
    def forms(result):
        return [
            (t.shape, t.stride(), t.dtype, t.device.type) for t in (result if isinstance(result, tuple) else (result,))
        ]

    def fresh():
        return arguments(torch.empty(2, 3, device="meta"), torch.empty(2, 3, device="meta"))

    def reached(args, result):
        """Which of the arguments the first result shares its memory with."""
        own = (result[0] if isinstance(result, tuple) else result).untyped_storage()._cdata
        return [isinstance(a, torch.Tensor) and a.untyped_storage()._cdata == own for a in args]

    without_memory = [a.to("meta") if isinstance(a, torch.Tensor) else a for a in fresh()]
    expected = operation(*without_memory, **named)
    for _ in range(2):
        args = fresh()
        result, operations = perform(operation, args, named)
        assert forms(result) == forms(expected)
        assert reached(args, result) == reached(without_memory, expected)
        assert operations == (2 * 2 * 3 * 2 if operation is aten.mm.default else 0)


def test_products_are_counted_as_torch_counts_them():
    config = tiny_config()
    network = build_network(config, load_weights=False).train()
    with FlopCounterMode(display=False) as counter:
        output = network(LOAD.batch(config, "cpu"), LOAD.draws(config, "cpu"))
        (output.text_loss.sum() + output.image_loss.sum()).backward()
    cost = planned(config)
    # Ours has the samples of MMFS on top, which are no products.
    assert counter.get_total_flops() <= cost.flops <= 1.1 * counter.get_total_flops()


def test_samples_are_counted_for_visible_images_only():
    """A sample is 8 operations per channel forward, 20 backward; here 3 of 4 pairs, 2 heads, 6 points."""

    def meta(*shape):
        return torch.empty(*shape, device="meta").requires_grad_()

    table, index = torch.tensor([[0, 1]]), torch.tensor([[[2, 1], [0, 1]]])
    offsets, logits = (meta(1, 2, 2, 3, 2), meta(4, 2, 3, 2)), (meta(1, 2, 2, 2, 3), meta(4, 2, 2, 3))
    rest = (*offsets, *logits, meta(2, 2), torch.full((2, 2), 0.5), meta(2, 5))

    def count(index):
        with RecordedCalls() as calls:
            mmfs_attention(meta(2, 20, 2, 5), [(4, 4), (2, 2)], table, index, *rest).sum().backward()
        forward, backward = (getattr(torch.ops.mmfs, name).default for name in ("attention", "attention_backward"))
        ((given,), (upstream,)) = (calls.arguments[name] for name in ("mmfs::attention", "mmfs::attention_backward"))
        return perform(forward, given, {})[1], perform(backward, upstream, {})[1]

    assert count(index) == (8 * 5 * 3 * 2 * 6, 20 * 5 * 3 * 2 * 6)
    assert count(index.to("meta")) == (8 * 5 * 4 * 2 * 6, 20 * 5 * 4 * 2 * 6)


def test_parts_add_up_and_go_away_when_they_are_switched_off():
    whole = planned(tiny_config())
    off = MMFSConfig(enabled=False)
    plain = planned(tiny_config(language_mmfs=off, decoder_mmfs=off))
    for part in (LANGUAGE_MMFS, UNET_MMFS):
        assert whole.forward[part] > 0
        assert plain.forward[part] + plain.backward[part] == 0
    for part in (LANGUAGE, TEXT_HEAD, UNET):
        assert plain.forward[part] == whole.forward[part], part


def test_frozen_weights_get_no_gradient_but_let_gradients_through():
    config = tiny_config()
    frozen = replace(config, language=replace(config.language, frozen=True))
    trained, kept = planned(config), planned(frozen)
    assert kept.forward == trained.forward
    network = build_network(config, load_weights=False)
    linear = [m for block in network.language_model.blocks for m in block.layer.modules() if isinstance(m, nn.Linear)]
    products = 2 * LOAD.rows * LOAD.length * sum(m.weight.numel() for m in linear)
    assert trained.backward[LANGUAGE] - kept.backward[LANGUAGE] == products
    assert kept.gradients < trained.gradients


def test_recomputation_adds_operations_and_saves_memory():
    kept, recomputed = (planned(with_checkpointing(tiny_config(), on), by_part=False) for on in (False, True))
    assert recomputed.forward.total() == kept.forward.total()
    assert recomputed.backward.total() > kept.backward.total()
    assert recomputed.peak < kept.peak


def test_half_types_need_less_and_mixed_precision_keeps_float32_weights():
    single, mixed = planned(tiny_config()), planned(tiny_config(), lower=torch.bfloat16)
    half = planned(tiny_config(), weights=torch.bfloat16)
    assert mixed.parameters == single.parameters == 2 * half.parameters
    assert mixed.gradients == single.gradients == 2 * half.gradients
    assert half.activations < mixed.activations < single.activations
    assert half.flops == mixed.flops == single.flops


def test_a_rehearsal_knows_what_the_config_asks_for():
    made = rehearse(with_checkpointing(tiny_config(), True), "corrected", OptimizerConfig(), LOAD, "bf16-true")
    assert made.configured is made.recomputing
    assert made.recomputing.peak < made.keeping.peak
    assert made.optimizer == OptimizerBytes(2 * made.keeping.gradients)
    assert made.counts["total"].total == sum(count.total for name, count in made.counts.items() if name != "total")


def test_mixed_precision_is_planned_as_it_happens():
    config = tiny_config()
    ours = planned(config, lower=torch.bfloat16, fused_dropout=False)
    with torch.autocast("cpu", torch.bfloat16):
        theirs = real(config)
    assert ours.flops == theirs.flops
    # Planned as a GPU does it, where norms give float32; a CPU leaves them in the half type.
    assert ours.peak == pytest.approx(theirs.peak, rel=0.1)


def test_a_network_without_images_or_image_decoder_can_be_planned():
    config = tiny_config(decoder={"enabled": False})
    assert planned(config, Workload(1, 64, 0)).flops < planned(config, Workload(1, 64, 2)).flops


def test_muon_keeps_one_number_for_a_matrix():
    network = build_network(tiny_config(), load_weights=False)
    trained = sum(4 * p.numel() for p in network.parameters() if p.requires_grad)
    assert optimizer_bytes(network, OptimizerConfig(), fused=True) == OptimizerBytes(2 * trained, 0)
    assert optimizer_bytes(network, OptimizerConfig(), fused=False).update == trained
    assert trained < optimizer_bytes(network, OptimizerConfig(matrices="muon"), fused=True).states < 2 * trained


COST = StepCost(Counter(), Counter(), parameters=800, buffers=10, gradients=400, peak=1000, activations=900)


def test_strategies_share_what_they_say():
    def totals(n):
        estimates = [peak_memory(s, COST, OptimizerBytes(800), n, 50) for s in ("single", "ddp", "zero2", "fsdp")]
        return [(m.parameters, m.gradients, m.optimizer, m.activations, m.total) for m in estimates]

    assert totals(4) == [
        (800, 400, 800, 600, 2610),
        (800, 800, 800, 600, 3010),
        (800, 100, 200, 900, 2010),
        (300, 100, 200, 900, 1510),
    ]
    assert peak_memory("single", COST, OptimizerBytes(800, update=700), 1, 50).total == 800 + 10 + 800 + 400 + 700
    with pytest.raises(ValueError, match=r'no strategy "zero9". Known strategies: single, ddp, zero2, fsdp'):
        peak_memory("zero9", COST, OptimizerBytes(0), 1, 0)


def test_hours_of_a_schedule():
    schedule = Schedule(steps=100, devices=8, accumulate=2)
    assert schedule.rows(LOAD) == 100 * 8 * 2 * 2
    device = Device(memory=0, half=1e12, single=1e11)
    hours = schedule.device_hours(int(3.6e12), device, half=True, utilisation=0.5)
    assert hours == pytest.approx(100 * 8 * 2 * 7.2 / 3600)
    assert schedule.device_hours(int(3.6e12), device, half=False, utilisation=0.5) == pytest.approx(10 * hours)
    with pytest.raises(ConfigError, match=r"utilisation is 40; expected more than 0 and at most 1"):
        schedule.device_hours(1, device, half=True, utilisation=40)


@pytest.mark.parametrize(
    ("load", "sentence"),
    [
        (Workload(1, 0, 1), "must be at least 1"),
        (Workload(1, 64, 1, 2), "2 documents share 1 pictures"),
        (Workload(1, 32, 8, 1), "8 pictures of 3 tokens, with text, take 50 tokens but a document has 32"),
    ],
    ids=["no tokens", "documents without pictures", "too many pictures"],
)
def test_impossible_rows_are_refused(load, sentence):
    with pytest.raises(ConfigError, match=sentence):
        load.check(tiny_config())


@pytest.mark.parametrize("load", [LOAD, Workload(1, 96, 7, 3), Workload(3, 64, 0, 1)], ids=str)
def test_rows_hold_what_was_asked_for_and_every_picture_can_be_learned(load):
    config = tiny_config()
    load.check(config)
    batch = load.batch(config, "cpu")
    ids, special = batch.text_ids, config.language
    assert ids.shape == (load.rows, load.length)
    assert int((ids == special.bos_token_id).sum()) == load.rows * load.documents
    assert int((ids == special.image_start_token_id).sum()) == load.rows * load.images == batch.n_images
    assert int((ids == special.image_token_id).sum()) == batch.n_images * config.tokens_per_image
    assert bool((ids[batch.image_row, batch.image_start] == special.image_start_token_id).all())
    network = build_network(config, load_weights=False)
    assert len(network(batch, load.draws(config, "cpu")).image_loss) == batch.n_images


def test_rows_are_filled_from_the_data_settings():
    options = Namespace(rows=None, tokens=None, images=None, documents=1)
    data = {"seq_length": 200, "batch_size": 4, "train": {"a": {"max_images_per_row": 5}, "b": {}}}
    assert workload(options, data, tiny_config()) == Workload(4, 200, 5, 1)
    assert workload(options, {}, tiny_config()) == Workload(1, 256, 30, 1)
    options.images = 0
    assert workload(options, data, tiny_config()).images == 0


def test_the_command_prints_json_and_a_table_of_it(capsys):
    line = ["plan", "--config", "model/tiny.yaml", "--tokens", "64", "--images", "2", "--steps", "10", "--devices", "2"]
    assert main([*line, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    parts = plan["flops_per_sequence"]["parts"].values()
    assert plan["flops_per_sequence"]["total"] == sum(p["forward"] + p["backward"] for p in parts)
    assert plan["schedule"]["tokens"] == 10 * 2 * 64
    assert {row["strategy"] for row in plan["memory"][0]["keeping"]} == {"single", "ddp", "zero2", "fsdp"}
    text = plan_table(plan | {"measured": {"predicted": 11, "measured": 10}})
    for word in ("visual_tokenizer", "MMFS in the U-Net", "fsdp", "device hours", "1 row(s) of 64 tokens", "(+10.0%)"):
        assert word in text
    assert "give --steps" in plan_table(plan | {"schedule": plan["schedule"] | {"steps": 0}})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--gpu", "abacus"], 'no device "abacus"; known devices: a100-40gb'),
        (["--images", "900"], "plan fewer pictures or longer rows"),
        (["--trainer.precision", "64-true"], "trainer.precision 64-true cannot be planned; give --precision 32-true"),
        (["--utilisation", "3", "--tokens", "32", "--images", "1"], "utilisation is 3.0; expected more than 0"),
    ],
    ids=["device", "rows", "precision", "utilisation"],
)
def test_wrong_wishes_are_one_sentence(capsys, options, sentence):
    assert main(["plan", "--config", "model/tiny.yaml", *options]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def sized(length, images, rows, *, d_model, recompute):
    """A network and rows that need more than a gigabyte, of weights or of activations."""
    config = with_checkpointing(tiny_config(), recompute)
    language = replace(config.language, d_model=d_model, d_head=d_model // 4, d_mlp=3 * d_model, max_positions=length)
    decoder = replace(config.image_decoder, n_context_positions=length)
    return replace(config, language=language, image_decoder=decoder), Workload(rows, length, images)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "load"),
    [sized(256, 4, 2, d_model=1280, recompute=True), sized(512, 24, 24, d_model=64, recompute=False)],
    ids=["weights", "activations"],
)
def test_the_planned_peak_is_the_measured_one_above_a_gigabyte(config, load):
    settings = OptimizerConfig()
    predicted = predict_peak(config, "corrected", settings, load)
    assert predicted > 1e9
    assert measure_peak(config, "corrected", settings, load) == pytest.approx(predicted, rel=0.15)
