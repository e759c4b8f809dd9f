"""Parameters, operations, memory and hours of a run before anyone starts it; nothing is allocated."""

from mmi.planning.memory import STRATEGIES, Memory, OptimizerBytes, largest_unit, peak_memory
from mmi.planning.operations import without_values
from mmi.planning.part_times import OPTIMIZER, PartClock
from mmi.planning.rehearsal import Ledger
from mmi.planning.schedule import DEVICES, Device, Schedule
from mmi.planning.step import PARTS, StepCost, run_step
from mmi.planning.workload import CAPTION, Workload

__all__ = [
    "CAPTION",
    "DEVICES",
    "OPTIMIZER",
    "PARTS",
    "STRATEGIES",
    "Device",
    "Ledger",
    "Memory",
    "OptimizerBytes",
    "PartClock",
    "Schedule",
    "StepCost",
    "Workload",
    "largest_unit",
    "peak_memory",
    "run_step",
    "without_values",
]
