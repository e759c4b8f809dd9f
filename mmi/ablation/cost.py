"""What a cell took: time, memory, work."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """What a cell took; ``None`` where it was not measured.

    Args:
        steps: Optimizer steps.
        train_seconds: Wall time of training, all sessions.
        evaluate_seconds: Wall time of evaluation.
        step_seconds: Median over the optimizer steps.
        peak_memory_bytes: The most that training held.
        parameters: Of the network.
        trained_parameters: Those with gradients.
        flops_per_step: Of one optimizer step, forward and backward.
        first_token_seconds: From a prompt to the first token of its answer, median.
        image_seconds: For one drawn picture, median.
    """

    steps: int | None = None
    train_seconds: float | None = None
    evaluate_seconds: float | None = None
    step_seconds: float | None = None
    peak_memory_bytes: int | None = None
    parameters: int | None = None
    trained_parameters: int | None = None
    flops_per_step: float | None = None
    first_token_seconds: float | None = None
    image_seconds: float | None = None
