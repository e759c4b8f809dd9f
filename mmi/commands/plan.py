"""``mmi plan``: what a run needs (parameters, operations, memory, hours) before anyone starts it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from mmi.commands.arguments import Arguments
from mmi.commands.collector import without_collector
from mmi.errors import DONE, UsageError

if TYPE_CHECKING:
    import argparse

    from torch import nn

    from mmi.config import NetworkConfig
    from mmi.planning import Memory, OptimizerBytes, Schedule, StepCost, Workload
    from mmi.training.optimizer import OptimizerConfig

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true")
_DESCRIPTION = """\
Say what a training run will need, before anyone starts it: parameters, operations of a sequence, memory of a device
under the usual strategies, tokens visited and device hours.

A step of the network is rehearsed without values: shapes only, nothing is allocated, no weights are read. Rows, tokens
and steps come from data.batch_size, data.seq_length and trainer.max_steps; what the config leaves open is an option.
By default rows are as heavy as the data allows: full of pictures, all in one document."""
_EXAMPLE = """\
mmi plan --config stages/pretrain_13b.yaml --devices 128
mmi plan --config model/mm_interleaved_13b.yaml --images 23 --documents 23 --precision bf16-true
mmi plan --config model/mid.yaml --gpu rtx4090-24gb --steps 100000 --json
mmi plan --config model/tiny.yaml --measure"""


@dataclass(frozen=True)
class Count:
    """Numbers of parameters."""

    total: int
    trained: int


@dataclass(frozen=True)
class Rehearsal:
    """A step in one precision.

    Args:
        precision: One of ``PRECISIONS``.
        recomputing: With activation checkpointing, where the config says so or, if it nowhere does, wherever it can be.
        keeping: With all activations kept.
        configured: The one of the two that the config asks for.
        optimizer: Its bytes.
        largest_unit: Bytes of the largest layer.
        counts: Parameters of the three large parts and ``total``.
    """

    precision: str
    recomputing: StepCost
    keeping: StepCost
    configured: StepCost
    optimizer: OptimizerBytes
    largest_unit: int
    counts: dict[str, Count]


def run(command: str, argv: Sequence[str]) -> int:
    """Print the plan."""
    options, line = _read(command, argv)
    with without_collector():
        from mmi.commands.settings import network_settings, section, settings_from_command_line
        from mmi.config_tree import from_tree
        from mmi.planning import DEVICES, Schedule
        from mmi.training.optimizer import OptimizerConfig

    tree = settings_from_command_line(line, run=options.run)
    network, compat = network_settings(tree)
    trainer, data = section(tree, "trainer"), section(tree, "data")
    settings = from_tree(OptimizerConfig, section(tree, "model").get("optimizer") or {}, "model.optimizer")
    if options.gpu not in DEVICES:
        raise UsageError(f'no device "{options.gpu}"; known devices: {", ".join(DEVICES)}.')
    load = workload(options, data, network)
    load.check(network)
    schedule = Schedule(
        steps=_positive(options.steps or trainer.get("max_steps") or 0),
        devices=options.devices or _number_of_devices(trainer),
        accumulate=int(trainer.get("accumulate_grad_batches") or 1),
    )
    # What is wrong with the assumptions is said before the work.
    schedule.device_hours(0, DEVICES[options.gpu], half=True, utilisation=options.utilisation)
    precisions = options.precision or [_precision(trainer)]
    rehearsals = [rehearse(network, compat, settings, load, precision) for precision in precisions]
    plan = {
        "parameters": {part: asdict(count) for part, count in rehearsals[0].counts.items()},
        "workload": asdict(load),
        "flops_per_sequence": _flops(rehearsals[0], load),
        "memory": [_memory(r, schedule) for r in rehearsals],
        "schedule": _hours(rehearsals[0], load, schedule, options),
    }
    if options.measure:
        from mmi.commands.plan_measure import measure_peak, predict_peak

        plan["measured"] = {
            "predicted": predict_peak(network, compat, settings, load),
            "measured": measure_peak(network, compat, settings, load),
        }
    if options.json:
        print(json.dumps(plan, indent=1))
        return DONE
    from mmi.commands.plan_table import plan_table

    print(plan_table(plan))
    return DONE


def _read(command: str, argv: Sequence[str]) -> tuple[argparse.Namespace, Any]:
    parser = Arguments(command, _DESCRIPTION, _EXAMPLE, takes_configs=True)
    parser.add_argument("--run", metavar="DIR", help="take the config of a run folder")
    parser.add_argument("--rows", type=int, metavar="N", help="rows of a batch on one device; default data.batch_size")
    parser.add_argument("--tokens", type=int, metavar="N", help="tokens of a row; default data.seq_length")
    parser.add_argument("--images", type=int, metavar="N", help="pictures of a row; default as many as fit")
    parser.add_argument("--documents", type=int, default=1, metavar="N", help="documents of a row; default 1")
    parser.add_argument("--steps", type=int, metavar="N", help="optimizer steps; default trainer.max_steps")
    parser.add_argument("--devices", type=int, metavar="N", help="devices; default trainer.devices if it is a number")
    parser.add_argument("--gpu", default="a100-80gb", metavar="NAME", help="kind of device; default a100-80gb")
    parser.add_argument(
        "--utilisation", type=float, default=0.4, metavar="X", help="share of its stated peak reached; default 0.4"
    )
    parser.add_argument(
        "--precision",
        action="append",
        choices=PRECISIONS,
        help="repeat it to compare several; default trainer.precision",
    )
    parser.add_argument("--measure", action="store_true", help="also run a real step on this CPU, in float32 (slow)")
    parser.add_argument("--json", action="store_true", help="print JSON, in bytes and operations")
    line = parser.read(argv)
    return line.options, line


def workload(options: argparse.Namespace, data: Mapping[str, Any], network: NetworkConfig) -> Workload:
    """Take the shape of a batch from options, then the data's settings; fill rows with pictures where nothing says."""
    from mmi.planning import CAPTION, Workload

    length = options.tokens or int(data.get("seq_length") or min(2048, network.language.max_positions))
    limits = [s["max_images_per_row"] for s in (data.get("train") or {}).values() if s and "max_images_per_row" in s]
    most = min(limits, default=int(data.get("max_images_per_row") or 30))
    room = (length - 2) // (network.tokens_per_image + 1 + min(CAPTION, network.tokens_per_image))
    images = options.images if options.images is not None else max(min(most, room), 1)
    return Workload(options.rows or int(data.get("batch_size") or 1), length, images, options.documents)


@without_collector()
def rehearse(
    network: NetworkConfig,
    compat: Any,
    settings: OptimizerConfig,
    load: Workload,
    precision: str,
    *,
    on_cpu: bool = False,
) -> Rehearsal:
    """Rehearse a step without values.

    Args:
        network: Every number.
        compat: Defects followed or corrected.
        settings: Of the optimizer.
        load: The batch.
        precision: One of ``PRECISIONS``.
        on_cpu: Expect what a CPU does, whose fused attention drops no weights.
    """
    import torch

    from mmi.models.build import build_network
    from mmi.planning import largest_unit, run_step, without_values

    name, _, kind = precision.partition("-")
    dtype = {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}[name]
    configured = recomputes(network)
    costs = {}
    for recompute in (True, False):
        numbers = network if recompute and configured else with_checkpointing(network, recompute)
        with without_values():
            built = build_network(numbers, compat, load_weights=False)
        built = built.to(dtype) if kind == "true" else built
        costs[recompute] = run_step(
            built.train(),
            load.batch(network, "meta"),
            load.draws(network, "meta"),
            lower=dtype if kind == "mixed" else None,
            fused_dropout=not on_cpu,
            by_part=not recompute,
        )
        optimizer, unit = optimizer_bytes(built, settings, fused=kind != "mixed"), largest_unit(built)
    counts = {name: _count(part) for name, part in built.named_children()} | {"total": _count(built)}
    return Rehearsal(precision, costs[True], costs[False], costs[configured], optimizer, unit, counts)


def _count(part: nn.Module) -> Count:
    from mmi.models.quantised import count_numbers

    numbers = count_numbers(part)
    sizes = [(numbers[name], p.requires_grad) for name, p in part.named_parameters()]
    return Count(sum(n for n, _ in sizes), sum(n for n, trained in sizes if trained))


def recomputes(network: NetworkConfig) -> bool:
    """Say whether any part recomputes its activations."""
    parts = (network.vision.trunk, network.vision.adapter, network.language, network.image_decoder.unet)
    return any(part.activation_checkpointing for part in parts)


def with_checkpointing(network: NetworkConfig, recompute: bool) -> NetworkConfig:
    """Switch the recomputation of activations on or off in every part that has it."""
    vision, decoder = network.vision, network.image_decoder
    trunk, adapter = (replace(part, activation_checkpointing=recompute) for part in (vision.trunk, vision.adapter))
    return replace(
        network,
        vision=replace(vision, trunk=trunk, adapter=adapter),
        language=replace(network.language, activation_checkpointing=recompute),
        image_decoder=replace(decoder, unet=replace(decoder.unet, activation_checkpointing=recompute)),
    )


def optimizer_bytes(network: nn.Module, settings: OptimizerConfig, *, fused: bool) -> OptimizerBytes:
    """Count the moments the optimizer keeps: two numbers for each trained one, one where Muon updates it.

    Args:
        network: The network, built.
        settings: Of the optimizer.
        fused: Whether one kernel does the whole update; otherwise it needs a second copy of what it updates.
    """
    from mmi.planning import OptimizerBytes
    from mmi.training.optimizer import group_parameters

    fused = settings.fused if settings.fused is not None else fused
    states = update = 0
    for group in group_parameters(network, settings):
        size = sum(p.numel() * p.element_size() for p in group.parameters.values())
        states += size * (1 if group.matrices else 2)
        update += 0 if fused else size
    return OptimizerBytes(states, update)


def _flops(rehearsal: Rehearsal, load: Workload) -> dict[str, Any]:
    """Return operations of one row, each part apart; what is recomputed on top is one number."""
    from mmi.planning import PARTS

    cost = rehearsal.keeping
    parts = {
        part: {"forward": cost.forward[part] // load.rows, "backward": cost.backward[part] // load.rows}
        for part in PARTS
        if cost.forward[part] or cost.backward[part]
    }
    recomputed = (rehearsal.configured.flops - cost.flops) // load.rows
    return {"parts": parts, "recomputed": recomputed, "total": rehearsal.configured.flops // load.rows}


def _memory(rehearsal: Rehearsal, schedule: Schedule) -> dict[str, Any]:
    """Return the peak on one device for each strategy, with activations kept and recomputed."""
    from mmi.planning import STRATEGIES, peak_memory

    def rows(cost: StepCost) -> list[dict[str, Any]]:
        estimates: list[Memory] = [
            peak_memory(strategy, cost, rehearsal.optimizer, schedule.devices, rehearsal.largest_unit)
            for strategy in (STRATEGIES if schedule.devices > 1 else STRATEGIES[:1])
        ]
        return [{**asdict(estimate), "total": estimate.total} for estimate in estimates]

    return {
        "precision": rehearsal.precision,
        "devices": schedule.devices,
        "recomputing": rows(rehearsal.recomputing),
        "keeping": rows(rehearsal.keeping),
        "configured": "recomputing" if rehearsal.configured is rehearsal.recomputing else "keeping",
    }


def _hours(rehearsal: Rehearsal, load: Workload, schedule: Schedule, options: argparse.Namespace) -> dict[str, Any]:
    from mmi.planning import DEVICES

    device, half = DEVICES[options.gpu], rehearsal.precision != "32-true"
    rows = schedule.rows(load)
    hours = schedule.device_hours(rehearsal.configured.flops, device, half=half, utilisation=options.utilisation)
    return {
        **asdict(schedule),
        "rows": rows,
        "tokens": rows * load.length,
        "images": rows * load.images,
        "device": options.gpu,
        "device_memory": device.memory,
        "peak_flops_per_second": device.half if half else device.single,
        "utilisation": options.utilisation,
        "device_hours": hours,
        "hours": hours / schedule.devices,
    }


def _precision(trainer: Mapping[str, Any]) -> str:
    """Return the Trainer's precision in its present spelling.

    Raises:
        UsageError: If it is none that is planned.
    """
    found = str(trainer.get("precision") or "32-true")
    name = {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}.get(found, found)
    if name not in PRECISIONS:
        raise UsageError(f"trainer.precision {found} cannot be planned; give --precision {' or '.join(PRECISIONS)}.")
    return name


def _number_of_devices(trainer: Mapping[str, Any]) -> int:
    devices, nodes = trainer.get("devices"), int(trainer.get("num_nodes") or 1)
    if isinstance(devices, list):
        return max(len(devices), 1) * nodes
    count = int(str(devices)) if str(devices).isdigit() else 1
    return max(count, 1) * nodes


def _positive(steps: Any) -> int:
    """Return a number of steps; an endless run is planned as none."""
    return max(int(steps), 0)
