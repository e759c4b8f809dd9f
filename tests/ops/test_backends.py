"""Every machine gets a backend with a reason, and asking for one that cannot run says why."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmfs import active_backend, deformable_sampling
from mmfs.backends import choose_backend

LOOK = """
value = torch.zeros(1, 4, 1, 1)
args = (value, [(2, 2)], torch.full((1, 3, 1, 1, 1, 2), 0.5), torch.ones(1, 3, 1, 1, 1))
deformable_sampling(*args)
deformable_sampling(*args)
"""


def elsewhere(tmp_path: Path, *lines: str, **modules: str) -> str:
    """Run lines of Python in a process of its own in which some packages are others; return what it prints."""
    for name, source in modules.items():
        (tmp_path / f"{name}.py").write_text(source)
    start = f"""
import logging, sys
sys.path.insert(0, {str(tmp_path)!r})
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(levelname)s %(message)s")
import torch
from mmfs import active_backend, deformable_sampling
from mmfs.backends import choose_backend
"""
    # The interpreter of Triton, which other tests turn on, is not part of the questions here.
    clean = {name: text for name, text in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", start + "\n".join(lines)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=clean)
    assert done.returncode == 0, done.stderr
    return done.stdout


ASK_BY_NAME = """
for name in ("cpu", "triton"):
    try:
        choose_backend(name, torch.device("cpu"), torch.float32)
    except ValueError as error:
        print(error)
print(*active_backend("cuda"), sep=": ")
"""


def test_without_numba_and_triton_every_device_has_a_named_fallback_that_is_logged_once(tmp_path: Path) -> None:
    blocked = "sys.modules['numba'] = sys.modules['triton'] = None; torch.cuda.is_available = lambda: True"
    assert elsewhere(tmp_path, blocked, LOOK, ASK_BY_NAME).splitlines() == [
        "WARNING MMFS on cpu tensors runs on the backend eager: plain PyTorch in a form for CPUs, because Numba is not "
        "installed (pip install numba).",
        'the operator backend "cpu" cannot run here: Numba is not installed (pip install numba).',
        'the operator backend "triton" cannot run here: it runs on CUDA and ROCm tensors and these are on cpu (to test '
        "it there, set TRITON_INTERPRET=1).",
        "reference: plain PyTorch, because Triton is not installed (PyTorch for CUDA brings it on Linux)",
    ]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("RuntimeError('cannot cache: no locator\\nmore')", "Numba cannot be imported (cannot cache: no locator)"),
        ("ModuleNotFoundError('No module named llvmlite')", "Numba cannot be imported (No module named llvmlite)"),
    ],
    ids=["broken", "incomplete"],
)
def test_a_broken_numba_is_told_from_a_missing_one(tmp_path: Path, error: str, reason: str) -> None:
    printed = elsewhere(tmp_path, "print(*active_backend('cpu'), sep=': ')", numba=f"raise {error}")
    assert printed.strip() == f"eager: plain PyTorch in a form for CPUs, because {reason}"


GPUS = """
torch.cuda.is_available = lambda: True
torch.cuda.get_device_capability = lambda index: [(9, 0), (7, 5), (6, 1)][index]
for index in range(3):
    for dtype in (torch.float32, torch.bfloat16):
        print(*active_backend(f"cuda:{index}", dtype), sep=": ")
torch.version.hip = "6.4"
print(*active_backend("cuda:3"), sep=": ")
"""


def test_gpus_of_every_age_are_named(tmp_path: Path) -> None:
    # A stand-in for Triton: the choice must not depend on whether this machine has it.
    assert elsewhere(tmp_path, GPUS, triton="").splitlines() == [
        "triton: fused Triton kernels for CUDA",
        "triton: fused Triton kernels for CUDA",
        "triton: fused Triton kernels for CUDA",
        "reference: plain PyTorch, because this GPU has compute capability 7.5, which has no bfloat16; float16 or "
        "float32 would run fused",
        "reference: plain PyTorch, because this GPU has compute capability 6.1 and Triton needs 7.0",
        "reference: plain PyTorch, because this GPU has compute capability 6.1 and Triton needs 7.0",
        "triton: fused Triton kernels for ROCm",
    ]


@pytest.mark.parametrize("kind", ["mps", "xpu"])
def test_other_devices_run_the_definition(kind: str) -> None:
    name, reason = active_backend(kind)
    assert name == "reference"
    assert reason == f"plain PyTorch, because the fused kernels run on CPUs, CUDA and ROCm, not on {kind}"
    for fused in ("cpu", "triton", "eager"):
        with pytest.raises(ValueError, match=f'the operator backend "{fused}" cannot run here: .* on {kind}'):
            choose_backend(fused, torch.device(kind), torch.float32)


def test_an_unknown_backend_is_refused_by_name() -> None:
    with pytest.raises(
        ValueError, match=r'no operator backend "cuda"\. Known backends: auto, reference, eager, cpu, triton\.'
    ):
        deformable_sampling(
            torch.zeros(1, 4, 1, 1),
            [(2, 2)],
            torch.zeros(1, 1, 1, 1, 1, 2),
            torch.zeros(1, 1, 1, 1, 1),
            backend="cuda",
        )


def test_importing_the_package_loads_no_backend_and_no_compiler(tmp_path: Path) -> None:
    names = ("numba", "triton", "torch._dynamo", "mmfs.reference", "mmfs.eager", "mmfs.cpu", "mmfs.triton")
    assert elsewhere(tmp_path, f"print([name for name in {names} if name in sys.modules])").strip() == "[]"


def test_the_chosen_backend_is_logged_once(tmp_path: Path) -> None:
    name, reason = active_backend("cpu")
    level = "INFO" if name == "cpu" else "WARNING"
    assert elsewhere(tmp_path, LOOK).splitlines() == [
        f"{level} MMFS on cpu tensors runs on the backend {name}: {reason}."
    ]
