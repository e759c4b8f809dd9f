"""How far a method is from the same numbers computed in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from mmfs.benchmark.formulations import FORMULATIONS
from mmfs.benchmark.inputs import Inputs
from mmfs.benchmark.methods import Call, Method


def errors_against_float64(method: Method, inputs: Inputs) -> dict[str, float]:
    """Return the relative error of the output and of every gradient.

    Both sides start from the same predictions and from values as they are rounded to the method's type, so the error
    is that of the computation; for a formulation also that of making locations and weights.

    Args:
        method: What to run, on the inputs as they are.
        inputs: Few queries, no point at a kink (:func:`mmfs.benchmark.inputs.away_from_kinks`).

    Returns:
        Norm of the difference by norm of the truth, for ``output`` and each input with a gradient.
    """
    call = Call(method, inputs)
    names = ["output", *call.leaves]
    truth = "reference" if method.is_backend else next(iter(FORMULATIONS))
    exact = Call(Method(truth, torch.float64), inputs.changed(Tensor.double))
    pairs = zip(names, call.forward_backward(), exact.forward_backward(), strict=True)
    return {name: relative_error(actual, expected) for name, actual, expected in pairs}


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference, by the norm of what is expected.

    Example:
        >>> relative_error(torch.tensor([3.0, 4.5]), torch.tensor([3.0, 4.0]))
        0.1
    """
    expected = expected.double()
    return ((actual.double() - expected).norm() / expected.norm()).item()
