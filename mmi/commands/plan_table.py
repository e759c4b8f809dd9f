"""The plan as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def plan_table(plan: Mapping[str, Any]) -> str:
    """Return the plan that ``mmi plan --json`` prints, for readers."""
    blocks = [_parameters(plan), _flops(plan)]
    blocks += [_memory(memory, plan["schedule"]["device_memory"]) for memory in plan["memory"]]
    blocks.append(_schedule(plan["schedule"]))
    if "measured" in plan:
        predicted, measured = plan["measured"]["predicted"], plan["measured"]["measured"]
        blocks.append(
            f"measured on this CPU in float32: peak of {_gb(measured)} GB in tensors; planned {_gb(predicted)} GB "
            f"({100 * (predicted / measured - 1):+.1f}%)"
        )
    return "\n\n".join(blocks)


def _parameters(plan: Mapping[str, Any]) -> str:
    counts, load = plan["parameters"], plan["workload"]
    rows = [("parameters", "all", "trained", "share")]
    for part, count in counts.items():
        share = 100 * count["trained"] / max(count["total"], 1)
        rows.append((part, f"{count['total']:,}", f"{count['trained']:,}", f"{share:.1f}%"))
    return (
        f"{_columns(rows)}\n\nbatch of one device: {load['rows']} row(s) of {load['length']} tokens with "
        f"{load['images']} picture(s) in {load['documents']} document(s)"
    )


def _flops(plan: Mapping[str, Any]) -> str:
    flops = plan["flops_per_sequence"]
    rows = [("TFLOPs of a row", "forward", "backward")]
    rows += [(part, _tera(c["forward"]), _tera(c["backward"])) for part, c in flops["parts"].items()]
    if flops["recomputed"]:
        rows.append(("recomputed", "", _tera(flops["recomputed"])))
    rows.append(("together", "", _tera(flops["total"])))
    return _columns(rows)


def _memory(memory: Mapping[str, Any], limit: float) -> str:
    rows: list[tuple[str, ...]] = [("", "weights", "gradients", "optimizer", "activations", "fixed", "GB")]
    for name in ("keeping", "recomputing"):
        label = "activations kept" if name == "keeping" else "activations recomputed"
        rows.append((label + (" (config)" if memory["configured"] == name else ""), *[""] * 6))
        for estimate in memory[name]:
            numbers = [
                _gb(estimate[key]) for key in ("parameters", "gradients", "optimizer", "activations", "fixed", "total")
            ]
            numbers[-1] += " " if estimate["total"] <= limit else "!"
            rows.append((f"  {estimate['strategy']}", *numbers))
    devices = memory["devices"]
    head = (
        f"peak memory of tensors on one of {devices} device(s) in GB, {memory['precision']}; it needs some room "
        "of its own besides (! = more than it has)"
    )
    return f"{head}\n{_columns(rows)}"


def _schedule(schedule: Mapping[str, Any]) -> str:
    if not schedule["steps"]:
        return "schedule    no number of steps: set trainer.max_steps or give --steps"
    return (
        f"schedule    {schedule['steps']:,} steps on {schedule['devices']} x {schedule['device']}: "
        f"{schedule['rows']:,} rows, {schedule['tokens'] / 1e9:.3g} G tokens, {schedule['images']:,} pictures\n"
        f"            {schedule['device_hours']:,.0f} device hours ({schedule['hours']:,.1f} h) at "
        f"{100 * schedule['utilisation']:.0f}% of {schedule['peak_flops_per_second'] / 1e12:.0f} TFLOP/s"
    )


def _columns(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _tera(flops: int) -> str:
    return f"{flops / 1e12:.3g}"


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f}"
