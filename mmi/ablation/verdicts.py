"""Claims judged: does the ordering that the paper or we claim hold in our cells, is it contradicted, or undecided?

A claim holds where the 95 % interval of the paired difference lies on its side of 0, and is contradicted where it lies
on the other; everything else is undecided, never more. Two rows whose own intervals do not overlap prove nothing here:
only differences paired by seed and sample count. Every table tests several orderings, so each verdict also says
whether it would stand after Holm's correction over all of the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mmi.ablation.experiment import Claim
from mmi.ablation.measured import Measured
from mmi.ablation.recipe import Column
from mmi.ablation.statistics import LEVEL, Estimate, holm

Verdict = Literal["holds", "contradicted", "undecided", "not run"]
VERDICTS: tuple[Verdict, ...] = ("holds", "contradicted", "undecided", "not run")


@dataclass(frozen=True)
class Judged:
    """A claim in one column.

    Args:
        claim: What is claimed.
        column: Where it is judged.
        difference: Better minus than, in the unit of the column and with its sign: below 0 where the row that is
            claimed to be better scored lower, which is good news in a column where lower is better.
        p_holm: Holm-corrected over all claims and columns of the table; ``None`` without an interval.
        verdict: ``not run`` where no seed has finished for both rows.
        caution: What else the two rows differ in than the claim says; empty where nothing is known.
    """

    claim: Claim
    column: Column
    difference: Estimate
    p_holm: float | None
    verdict: Verdict
    caution: str = ""

    @property
    def stands_corrected(self) -> bool | None:
        """Whether the difference is still significant after Holm's correction; ``None`` without an interval."""
        return None if self.p_holm is None else self.p_holm < 1 - LEVEL

    @property
    def words(self) -> str:
        """The verdict, marked where one seed is behind it."""
        return f"{self.verdict} (preliminary: one seed)" if self.difference.is_preliminary else self.verdict


def judge(measured: Measured) -> list[Judged]:
    """Judge every claim of an experiment in each of its columns, in order."""
    pairs = [(claim, column) for claim in measured.experiment.claims for column in claim.columns]
    differences = [measured.difference(claim.better, claim.than, column) for claim, column in pairs]
    corrected = holm([difference.p for difference in differences])
    return [
        Judged(
            claim,
            column,
            difference,
            p,
            verdict_of(difference, lower_is_better=column.lower_is_better),
            measured.starts_apart(claim.better, claim.than),
        )
        for (claim, column), difference, p in zip(pairs, differences, corrected, strict=True)
    ]


def verdict_of(difference: Estimate, *, lower_is_better: bool) -> Verdict:
    """Say what a difference of the row claimed to be better, minus the other, means for the claim.

    Example:
        >>> verdict_of(Estimate(2.0, 0.5, 3.5, n_seeds=3), lower_is_better=False)
        'holds'
        >>> verdict_of(Estimate(2.0, 0.5, 3.5, n_seeds=3), lower_is_better=True)
        'contradicted'
        >>> verdict_of(Estimate(2.0, -0.5, 4.5, n_seeds=3), lower_is_better=False)
        'undecided'
    """
    if difference.value is None:
        return "not run"
    if difference.low is None or difference.high is None or difference.low <= 0 <= difference.high:
        return "undecided"
    return "holds" if (difference.low > 0) != lower_is_better else "contradicted"


def counts(judged: Sequence[Judged]) -> dict[str, int]:
    """Return how often each verdict was reached, every one of them named."""
    return {verdict: sum(one.verdict == verdict for one in judged) for verdict in VERDICTS}


def in_short(judged: Sequence[Judged]) -> str:
    """Return the verdicts in one sentence; empty where nothing is claimed.

    Example:
        >>> in_short([])
        ''
    """
    if not judged:
        return ""
    said = ", ".join(f"{n} {verdict}" for verdict, n in counts(judged).items() if n)
    return f"Claims, each in each of its columns: {said}."
