"""``mmi bench train``: how fast a training step is, where its time goes, and what each saving is worth."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmi.commands.arguments import Arguments
from mmi.errors import DONE, FAILED, UsageError

if TYPE_CHECKING:
    import torch

    from mmi.commands.step_timing import Step
    from mmi.compose import Override

SIZES = {"demo": ["demo.yaml"], "demo x4": ["demo.yaml", "model/micro_4x.yaml"]}
AGREEMENT = 1e-6
_DESCRIPTION = f"""\
Time whole training steps (forward, backward, update) on drawn rows of two kinds: captions (many documents of one
picture, half of which open with it and so have no image loss) and mmc4 (four documents with several pictures each).
Each step runs with all savings of model.savings, with none, and with each one off, in turns in one process; what runs
instead are the plain functions kept for this. Prints tokens and pictures a second, the share of the device's peak (real
operations of the step with all savings), peak memory, time by part, and the ratio of every way to all savings on; then
checks that losses agree to {AGREEMENT:g} (in float32) and ends with 1 where they do not.

Without --config two sizes are measured: the demo's network and one four times as large. Weights are random, with the
gates of MMFS open, and the learning rate is zero. Times are CPU seconds over all threads, or GPU time between events:
medians of the repeats."""
_EXAMPLE = """\
mmi bench train
mmi bench train --config configs/demo.yaml --packs captions --repeats 3
mmi bench train --no-reference --rows 8 --json runs/bench_train.json
mmi bench train --config model/mid.yaml --device cuda --rows 4 --tokens 1024 --no-reference"""


def bench_train(argv: Sequence[str]) -> int:
    """Measure, print the tables and perhaps write them down."""
    parser = Arguments("bench train", _DESCRIPTION, _EXAMPLE, takes_configs=True)
    add = parser.add_argument
    add("--packs", default="captions,mmc4", metavar="LIST", help="captions, mmc4 or both (both)")
    add("--repeats", type=int, default=5, metavar="N", help="timed steps of every way (5)")
    add("--rows", type=int, default=4, metavar="N", help="rows of a batch (4)")
    add("--tokens", type=int, metavar="N", help="tokens of a row (data.seq_length, else 2048)")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="where to measure (cpu)")
    add("--threads", type=int, default=1, metavar="N", help="threads of torch on a CPU (1)")
    add("--precision", choices=("float32", "bfloat16"), help="bfloat16 is mixed (float32 on a CPU, bfloat16 on a GPU)")
    add("--no-reference", dest="reference", action="store_false", help="time all savings on only")
    add("--json", metavar="OUT", help="write the numbers to a file")
    line = parser.read(argv)
    options = line.options
    _check(options)
    packs = _packs(options.packs)

    report = _report(options, line.overrides, packs)
    report["command"] = shlex.join(["mmi", "bench", "train", *argv])
    print(as_text(report))
    if options.json:
        out = Path(options.json)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        print(f"\nlook at {out}")
    return DONE if report["agree"] is not False else FAILED


def _check(options: argparse.Namespace) -> None:
    for name in ("repeats", "rows", "threads", "tokens"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name} is {value}; expected at least 1.")


def _packs(words: str) -> list[str]:
    from mmi.commands.bench_packs import PACKS
    from mmi.config_tree import did_you_mean

    found = [word.strip() for word in words.split(",")]
    for word in found:
        if word not in PACKS:
            raise UsageError(f'--packs: no "{word}"; {did_you_mean(word, PACKS, "packs")}')
    return list(dict.fromkeys(found))


def _report(options: argparse.Namespace, overrides: Sequence[Override], packs: Sequence[str]) -> dict[str, Any]:
    import torch

    from mmfs.benchmark.machine import describe_machine
    from mmi.commands.generate import choose_device
    from mmi.commands.step_timing import peak_rate

    torch.set_num_threads(options.threads)
    device = torch.device(choose_device(options.device))
    precision = options.precision or ("float32" if device.type == "cpu" else "bfloat16")
    rate, source = peak_rate(device, getattr(torch, precision))
    sizes = {"config": options.config} if options.config else SIZES
    began = time.monotonic()
    measured = []
    for size, configs in sizes.items():
        for pack in packs:
            print(f"{time.monotonic() - began:6.0f} s  {size}, {pack}", file=sys.stderr, flush=True)
            found = _measure(size, configs, overrides, pack, options, device, precision, rate)
            measured.append(found)
    differences = [way["loss_difference"] for one in measured for way in one["ways"]]
    judged = options.reference and precision == "float32"
    return {
        "schema_version": 1,
        "date": time.strftime("%Y-%m-%d"),
        "machine": describe_machine(device),
        "settings": {"device": device.type, "precision": precision, "threads": options.threads},
        "peak": {"operations_per_second": rate, "source": source},
        "measured": measured,
        "largest_loss_difference": max(differences),
        "agree": max(differences) <= AGREEMENT if judged else None,
    }


def _measure(
    size: str,
    configs: Sequence[str],
    overrides: Sequence[Override],
    pack: str,
    options: argparse.Namespace,
    device: torch.device,
    precision: str,
    rate: float,
) -> dict[str, Any]:
    from mmi.commands.step_timing import ALL, NONE, time_parts, time_variants, variants

    step, operations = _build(configs, overrides, pack, options, device, precision)
    chosen = variants(reference=options.reference)
    timed = time_variants(step, chosen, options.repeats)
    parts = {name: time_parts(step, chosen[name], options.repeats) for name in (ALL, NONE) if name in chosen}
    ways = [
        {
            "name": way.name,
            "seconds": way.summary(),
            "ratio": way.ratio,
            "loss": way.loss,
            "loss_difference": way.loss_difference,
            "gradient_difference": way.gradient_difference,
            "peak_bytes": way.peak,
        }
        for way in timed
    ]
    seconds, batch = timed[0].summary()["median"], step.batch
    total = sum(part["forward"] + part["backward"] for part in operations.values())
    return {
        "size": size,
        "pack": pack,
        "configs": list(configs),
        "parameters": sum(p.numel() for p in step.network.parameters()),
        "rows": len(batch.text_ids),
        "row_length": batch.text_ids.shape[1],
        "tokens": int(batch.attention_mask.sum()),
        "images": batch.n_images,
        "labels": int((batch.labels[:, 1:] >= 0).sum()),
        "operations": operations,
        "tokens_per_second": int(batch.attention_mask.sum()) / seconds,
        "images_per_second": batch.n_images / seconds,
        "utilisation": total / seconds / rate,
        "ways": ways,
        "parts": parts,
    }


def _build(
    configs: Sequence[str],
    overrides: Sequence[Override],
    pack: str,
    options: argparse.Namespace,
    device: torch.device,
    precision: str,
) -> tuple[Step, dict[str, dict[str, int]]]:
    import torch

    from mmi.commands.bench_packs import draw_pack
    from mmi.commands.plan import with_checkpointing
    from mmi.commands.settings import network_settings, section
    from mmi.commands.step_timing import Step, count_operations, open_mmfs
    from mmi.compose import compose
    from mmi.config import LossConfig
    from mmi.config_tree import from_tree
    from mmi.models.build import build_network
    from mmi.models.noise import DiffusionDraws
    from mmi.planning import without_values
    from mmi.training.optimizer import OptimizerConfig, build_optimizer, group_parameters

    tree = compose(list(configs), list(overrides))
    config, compat = network_settings(tree)
    model = section(tree, "model")
    settings = from_tree(OptimizerConfig, model.get("optimizer") or {}, "model.optimizer")
    length = options.tokens or section(tree, "data").get("seq_length") or 2048
    batch = draw_pack(pack, config, options.rows, length)
    torch.manual_seed(0)
    network = build_network(config, compat, load_weights=False).to(device).train()
    open_mmfs(network)
    draws, decoder = None, network.image_decoder
    if decoder is not None:
        n_timesteps, dropout = decoder.config.diffusion.n_timesteps, decoder.config.condition_dropout
        draws = DiffusionDraws.create(0, 0, 0, batch.n_images, decoder.latent_shape, n_timesteps, dropout)

    with without_values():
        outline = build_network(with_checkpointing(config, False), compat, load_weights=False).train()
    operations = count_operations(outline, _on_meta(batch), None if draws is None else _draws_on_meta(draws))

    optimizer = build_optimizer(group_parameters(network, settings), settings, fused=precision == "float32")
    weights = from_tree(LossConfig, model.get("loss") or {}, "model.loss")
    lower = None if precision == "float32" else getattr(torch, precision)
    batch, draws = batch.to(device), None if draws is None else draws.to(device)
    return Step(network, optimizer, batch, draws, weights, lower), operations


def _on_meta(batch: Any) -> Any:
    """Take the pixels away; ids and places stay, because how much is computed depends on them."""
    from dataclasses import replace

    targets = batch.target_images
    return replace(batch, images=batch.images.to("meta"), target_images=None if targets is None else targets.to("meta"))


def _draws_on_meta(draws: Any) -> Any:
    from dataclasses import replace

    return replace(draws.to("meta"), priority=draws.priority)


def as_text(report: dict[str, Any]) -> str:
    """Return the tables of a report as text."""
    peak, settings = report["peak"], report["settings"]
    where = report["machine"].get("gpu") or f"{report['machine']['processor']}, {settings['threads']} thread(s)"
    lines = [
        f"{where}, {settings['precision']}; peak {peak['operations_per_second'] / 1e9:,.0f} GFLOP/s ({peak['source']})"
    ]
    for one in report["measured"]:
        lines += ["", *_of_pack(one)]
    worst = report["largest_loss_difference"]
    said = {True: f"at most {AGREEMENT:g}: they agree", False: f"more than {AGREEMENT:g}", None: "not judged"}
    lines += [
        "",
        f"largest relative difference of a loss from all savings: {worst:.1e}, {said[report['agree']]}",
    ]
    return "\n".join(lines)


def _of_pack(one: dict[str, Any]) -> list[str]:
    total = sum(part["forward"] + part["backward"] for part in one["operations"].values())
    lines = [
        f"{one['size']}, {one['parameters'] / 1e6:.1f} M parameters, {one['pack']}: {one['rows']} rows of "
        f"{one['row_length']} tokens, {one['images']} pictures, {one['labels']} labels",
        f"{one['tokens_per_second']:,.0f} tokens/s, {one['images_per_second']:,.1f} pictures/s, "
        f"{100 * one['utilisation']:.1f}% of the peak ({total / 1e9:,.1f} GFLOP a step)",
        f"{'way':<30} {'ms a step':>10} {'ratio':>7} {'peak MB':>9} {'loss differs':>13} {'gradient':>9}",
    ]
    for way in one["ways"]:
        lines.append(
            f"{way['name']:<30} {1e3 * way['seconds']['median']:>10,.1f} {way['ratio']:>7.2f} "
            f"{way['peak_bytes'] / 1e6:>9,.1f} {way['loss_difference']:>13.1e} {way['gradient_difference']:>9.1e}"
        )
    names = list(one["parts"])
    lines.append(f"{'part, ms forward and backward':<30} " + " ".join(f"{name:>10}" for name in names))
    known = list(dict.fromkeys(part for name in names for part in one["parts"][name]))
    for part in known:
        cells = " ".join(f"{1e3 * one['parts'][name].get(part, 0.0):>10,.1f}" for name in names)
        lines.append(f"{part:<30} {cells}")
    return lines
