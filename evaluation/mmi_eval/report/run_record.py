"""What a page about a run is made of: plain typed values, gathered from a run folder by whoever knows its layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmi_eval.metrics.intervals import Score

from .charts import Point
from .evaluated import Result


@dataclass(frozen=True)
class Panel:
    """The prompt panel as it was continued at one step of training.

    Args:
        step: Optimizer step.
        file: A picture of prompts, targets and answers side by side.
        rows: Prompt, target and answer of each, as texts with ``<image>`` for pictures.
    """

    step: int
    file: Path
    rows: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Branch:
    """How much one MMFS module adds, as its weights say.

    Args:
        name: Where it is, such as ``layer 2`` or ``module 0``.
        opening: |tanh(gate)| in the language model, the norm of the zero-initialised convolution in the U-Net.
        per_weight: Root mean square of the convolution's weights, which does not depend on its size; None for a gate.
    """

    name: str
    opening: float
    per_weight: float | None = None


@dataclass(frozen=True)
class Network:
    """What a checkpoint says about the network.

    Args:
        checkpoint: Its name, such as ``best``.
        step: Optimizer steps done when it was written.
        n_parameters: Numbers in all stored tensors.
        gates: Branches of the language model, first layer first.
        convolutions: Branches of the U-Net, in the order of its forward pass.
    """

    checkpoint: str
    step: int
    n_parameters: int
    gates: Sequence[Branch] = ()
    convolutions: Sequence[Branch] = ()


@dataclass(frozen=True)
class AskedScore:
    """A score of the network as it was at one step of training.

    Args:
        step: Optimizer step.
        score: With its interval and n.
        percent: It is a fraction that is written times 100.
        limit: Only so many first samples were asked; ``None`` for all.
        headline: It stands for its task.
    """

    step: int
    score: Score
    percent: bool = True
    limit: int | None = None
    headline: bool = True


@dataclass(frozen=True)
class RunRecord:
    """A training run with its evaluations.

    Args:
        name: Of the run.
        folder: The run folder, as commands name it.
        config: The merged configuration as plain types.
        config_text: The same as it is in the file.
        sessions: Entries of ``environment.json``.
        log: Columns of ``metrics.csv``: step and value, in order.
        asked: Scores of benchmarks asked while training, by ``TASK/SCORE``, first step first.
        panels: Through training, first step first.
        network: From the checkpoint; None where the run has none.
        skipped: Records not used in training, by source and reason.
        evaluations: Everything evaluated, from ``evaluations/``.
        remarks: What in the folder could not be read, one sentence each.
    """

    name: str
    folder: str
    config: Mapping[str, Any] = field(default_factory=dict)
    config_text: str = ""
    sessions: Sequence[Mapping[str, Any]] = ()
    log: Mapping[str, Sequence[Point]] = field(default_factory=dict)
    asked: Mapping[str, Sequence[AskedScore]] = field(default_factory=dict)
    panels: Sequence[Panel] = ()
    network: Network | None = None
    skipped: Mapping[tuple[str, str], int] = field(default_factory=dict)
    evaluations: Sequence[Result] = ()
    remarks: Sequence[str] = ()
