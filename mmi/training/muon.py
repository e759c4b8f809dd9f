"""Muon for the matrices of hidden layers beside AdamW for all else, as one optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import optim

MATRICES = "matrices"
"""Key of a group that says whether Muon updates it."""


class MuonAndAdamW(optim.Optimizer):
    """Update groups marked ``matrices`` with Muon (Jordan et al. 2024) and the others with AdamW.

    Muon makes the update of a matrix orthogonal, so that all its directions learn alike; small networks from scratch
    need about a third of the steps. Rates, decay and state belong to this optimizer; the two inside only step.

    Args:
        groups: Parameter groups with ``lr``, ``weight_decay`` and ``matrices``; matrices have two dimensions.
        betas: Of AdamW.
        eps: Of AdamW.
        fused: Of AdamW.
    """

    def __init__(
        self, groups: list[dict[str, Any]], *, betas: tuple[float, float], eps: float, fused: bool | None
    ) -> None:
        marked = [dict(group) for group in groups if group[MATRICES]]
        others = [dict(group) for group in groups if not group[MATRICES]]
        self._muon = optim.Muon(marked, ns_steps=4)
        self._adamw = optim.AdamW(others, betas=betas, eps=eps, fused=fused)
        by_name = {group["name"]: group for group in [*self._muon.param_groups, *self._adamw.param_groups]}
        super().__init__([by_name[group["name"]] for group in groups], {})
        self._share()

    def _share(self) -> None:
        """Let the two inside see these groups and this state."""
        for inner, matrices in ((self._muon, True), (self._adamw, False)):
            inner.param_groups = [group for group in self.param_groups if group[MATRICES] is matrices]
            inner.state = self.state

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take a step; returns what the closure returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._muon.step()
        self._adamw.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over groups and state."""
        super().load_state_dict(state_dict)
        self._share()
