"""What the backward passes of all backends return."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class AttentionGradients(NamedTuple):
    """Gradients of :func:`mmfs.mmfs_attention`, each like its input, ``None`` where not wanted.

    ``offset_scale`` is geometry and has none.
    """

    value: Tensor | None
    offsets_query: Tensor | None
    offsets_index: Tensor | None
    logits_query: Tensor | None
    logits_index: Tensor | None
    reference_points: Tensor | None
    null_value: Tensor | None


class SamplingGradients(NamedTuple):
    """Gradients of :func:`mmfs.deformable_sampling`, each like its input, ``None`` where not wanted."""

    value: Tensor | None
    locations: Tensor | None
    weights: Tensor | None
