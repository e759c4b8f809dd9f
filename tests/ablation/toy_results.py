"""Experiments with invented scores, for tests of what is made of them. Import it as ``ablation.toy_results``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mmi.ablation.design import Axis, Claim, Experiment, PlotSpec, Row, Value
from mmi.ablation.measured import Measured, MeasuredRow, measured_row
from mmi.ablation.recipe import Column, Recipe
from mmi.ablation.records import CellRecord, Cost, Samples, ScoreValue, WarmStart

ACCURACY = Column("print", "small print", "micro_quiz", "tag/print small", paper="textvqa_acc", scale=100.0)
CIDER = Column("cider", "CIDEr", "coco_caption", "cider", paper="coco_karpathy_cider", scale=100.0)
LOSS = Column("loss", "image loss", "micro_image_loss", "loss", lower_is_better=True)
COLUMNS = (ACCURACY, CIDER, LOSS)
N_ITEMS = 60


def recipe(columns: Sequence[Column] = COLUMNS) -> Recipe:
    by_name = {column.name: column for column in columns}
    folder = Path("experiments/recipes/toy")
    text = "one thread of a CPU"
    return Recipe("toy", folder, "Toy cells", text, (), None, folder / "cell.yaml", None, None, by_name)


def experiment(
    tokens: Mapping[str, int | None] | None = None,
    *,
    scale: str = "small",
    seeds: int = 3,
    columns: Sequence[Column] = COLUMNS,
    plots: Sequence[PlotSpec] = (),
    folder: Path = Path("experiments/tokens"),
) -> Experiment:
    """Tokens by MMFS; ``tokens`` gives the label of each value and the paper's number of tokens."""
    tokens = {"4": 32, "16": 256} if tokens is None else tokens
    counts = tuple(
        Value(f"t{label}", label, None if n is None else {"num_tokens": n}, {"n_tokens": label})
        for label, n in tokens.items()
    )
    mmfs = (Value("off", "without MMFS", {"mmfs": False}, {}), Value("on", "with MMFS", {"mmfs": True}, {}))
    axes = (Axis("tokens", "visual tokens", counts), Axis("mmfs", "MMFS", mmfs))
    rows = tuple(
        Row(
            f"{count.label}, {switch.label}",
            {"tokens": count.name, "mmfs": switch.name},
            {},
            None if count.paper is None else {**count.paper, **(switch.paper or {})},
        )
        for count in counts
        for switch in mmfs
    )
    few_off, few_on, *_ = rows
    claims = (Claim(few_on, few_off, tuple(columns), "Table 5a: MMFS helps at few tokens"),)
    return Experiment(
        "tokens",
        folder,
        scale,
        "Visual tokens with and without MMFS",
        "Can MMFS replace visual tokens?",
        "5a",
        recipe(columns),
        seeds,
        axes,
        rows,
        tuple(columns),
        ("fid",),
        claims,
        tuple(plots) or (PlotSpec("Token efficiency", "tokens", "mmfs", tuple(columns)),),
    )


def record(cell: str, seed: int, means: Mapping[str, float], columns: Sequence[Column] = COLUMNS) -> CellRecord:
    """A finished cell whose samples have about these means, in the unit of the records."""
    scores: dict = {}
    samples: dict = {}
    for number, column in enumerate(columns):
        draws = np.random.default_rng([seed, number, *cell.encode()])
        values = _values(draws, means[column.name], is_share=column.scale == 100 and column.name != "cider")
        found = ScoreValue(float(np.mean(values)), float(np.mean(values)) - 0.1, float(np.mean(values)) + 0.1, N_ITEMS)
        scores.setdefault(column.task, {}).setdefault(column.condition, {})[column.score] = found
        kept = Samples(f"ids of {column.task}", tuple(values))
        samples.setdefault(column.task, {}).setdefault(column.condition, {})[column.score] = kept
    return CellRecord(
        cell=cell,
        recipe="toy",
        settings={},
        seed=seed,
        config_hash="0" * 64,
        warm_start=WarmStart("a" * 64, "b" * 64, 200),
        environment={
            "versions": {"torch": "2.15.0"},
            "processor": "a CPU",
            "threads": 1,
            "device": "cpu",
            "commit": "c" * 40,
            "dirty": False,
        },
        commands=("mmi fit --config cell.yaml",),
        finished_at=f"2026-01-0{1 + seed}T12:00:00Z",
        cost=Cost(300, 100.0 + seed, 20.0, 0.25, 2**30, 2_000_000, 500_000, 3e9, 0.02, None),
        gates={"language_model.layers.0.mmfs": 0.25, "language_model.layers.2.mmfs": -0.5, "image_decoder.0": None},
        scores=scores,
        samples=samples,
    )


def measured(of: Experiment, means: Mapping[str, Mapping[str, float]], *, seeds: Sequence[int] = (0, 1, 2)) -> Measured:
    """An experiment whose rows, by label, have scores with about these means; other rows were not run."""
    rows: list[MeasuredRow] = []
    for row in of.rows:
        there = means.get(row.label)
        cells = {} if there is None else {s: record(f"{row.label} {s}", s, there, of.columns) for s in seeds}
        rows.append(measured_row(of, row, range(of.seeds), cells))
    n_planned = of.seeds * len(rows)
    return Measured(of, tuple(rows), n_planned, sum(len(row.finished) for row in rows), 0)


def _values(draws: np.random.Generator, mean: float, *, is_share: bool) -> list[float]:
    if is_share:
        return [float(value) for value in draws.random(N_ITEMS) < mean]
    return [round(float(value), 4) for value in np.abs(draws.normal(mean, mean / 4, N_ITEMS))]
