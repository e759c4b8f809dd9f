"""The Triton kernels compile for a Hopper GPU, on machines without one too: the interpreter takes more than it does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "triton_hopper.py"
KERNELS = {
    "attention_forward_kernel",
    "attention_query_gradients_kernel",
    "attention_value_dense_kernel",
    "attention_value_scatter_kernel",
    "join_splits_kernel",
    "sampling_forward_kernel",
    "sampling_gradients_kernel",
    "sampling_value_dense_kernel",
    "sampling_value_scatter_kernel",
    "visible_range_kernel",
}


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.parametrize(
    "dtype", ["bfloat16", *(pytest.param(d, marks=pytest.mark.slow) for d in ("float16", "float32", "float64"))]
)
def test_every_kernel_compiles_for_hopper(dtype: str, tmp_path: Path) -> None:
    environment = {name: text for name, text in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    finished = subprocess.run(
        [sys.executable, PROGRAM, dtype], env=environment, capture_output=True, text=True, timeout=600
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr[-3000:]
    shared_memory = json.loads(finished.stdout.splitlines()[-1])
    assert shared_memory.keys() == KERNELS
    assert max(shared_memory.values()) <= 227 * 1024
