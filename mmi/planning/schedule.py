"""What a whole run costs: tokens, images, operations and hours on stated devices."""

from __future__ import annotations

from dataclasses import dataclass

from mmi.config import ConfigError
from mmi.planning.workload import Workload


@dataclass(frozen=True)
class Device:
    """An accelerator as its maker states it, dense (without sparsity).

    Args:
        memory: Bytes.
        half: Operations per second in bfloat16 and float16 with float32 sums.
        single: Operations per second in float32.
    """

    memory: float
    half: float
    single: float


DEVICES = {
    "a100-40gb": Device(40e9, 312e12, 19.5e12),
    "a100-80gb": Device(80e9, 312e12, 19.5e12),
    "h100-80gb": Device(80e9, 989e12, 67e12),
    "h200-141gb": Device(141e9, 989e12, 67e12),
    "l40s-48gb": Device(48e9, 362e12, 91.6e12),
    "rtx4090-24gb": Device(24e9, 165e12, 82.6e12),
}


@dataclass(frozen=True)
class Schedule:
    """A run of many steps.

    Args:
        steps: Optimizer steps.
        devices: Devices at work.
        accumulate: Batches whose gradients are added up before a step.
    """

    steps: int
    devices: int = 1
    accumulate: int = 1

    def rows(self, workload: Workload) -> int:
        """Return the rows visited."""
        return self.steps * self.devices * self.accumulate * workload.rows

    def device_hours(self, flops: int, device: Device, *, half: bool, utilisation: float) -> float:
        """Return the hours of all devices together.

        Args:
            flops: Operations of one batch on one device, recomputation included.
            device: What runs.
            half: Whether products are in a half type.
            utilisation: Share of the stated peak that is reached; 0.3 to 0.5 is usual for training.

        Raises:
            ConfigError: If the share is not within 0 to 1.
        """
        if not 0 < utilisation <= 1:
            raise ConfigError(f"the assumed utilisation is {utilisation}; expected more than 0 and at most 1.")
        per_second = (device.half if half else device.single) * utilisation
        return self.steps * self.accumulate * flops / per_second * self.devices / 3600
