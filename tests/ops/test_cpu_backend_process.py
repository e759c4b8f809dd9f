"""The CPU backend among threads and processes: same bits, no hang, and a read-only installation."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

pytest.importorskip("numba")

import mmfs
from mmfs import cpu
from mmfs.cpu import threads
from mmfs.cpu.threads import run_items

SHAPES = [(6, 5), (3, 2)]
N_POSITIONS = 36
ALL = (True,) * 7


def draw(*, rows: int = 2, shared: bool = False, seed: int = 0) -> list:
    """Draw arguments with enough rows, heads and queries to be split among threads."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    table = torch.arange(rows * 3).view(rows, 3)
    return [
        normal(rows * 3, N_POSITIONS, 3, 64),
        SHAPES,
        table % 4 if shared else table,
        torch.randint(0, 5, (rows, 200, 3), generator=generator),
        normal(rows, 200, 3, 4, 2),
        normal(5, 3, 4, 2),
        normal(rows, 200, 3, 2, 4),
        normal(5, 3, 2, 4),
        torch.rand(200, 2, generator=generator),
        torch.full((2, 2), 0.2),
        normal(3, 64),
    ]


def everything(arguments: list) -> list[Tensor]:
    """Run forward and backward."""
    output, log_total = cpu.attention_forward(*arguments)
    gradients = cpu.attention_backward(output.cos(), output, log_total, *arguments, ALL)
    sampled = cpu.sampling_forward(*_sampling(arguments))
    more = cpu.sampling_backward(sampled.cos(), *_sampling(arguments), (True, True, True))
    return [t for t in (output, log_total, *gradients, sampled, *more) if t is not None]


def _sampling(arguments: list) -> tuple[Tensor, list, Tensor, Tensor]:
    rows = arguments[4].shape[0]
    locations = arguments[4][:, :, :, None].expand(-1, -1, -1, 2, -1, -1)
    return arguments[0][:rows], SHAPES, locations * 0.3 + 0.5, arguments[6]


@pytest.fixture
def set_threads() -> Iterator[None]:
    """Put torch's thread count back afterwards."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("set_threads")
@pytest.mark.parametrize("shared", [False, True], ids=["own_images", "shared_images"])
@pytest.mark.parametrize("rows", [1, 2])
def test_results_are_the_same_bits_for_any_number_of_threads(rows: int, shared: bool) -> None:
    arguments = draw(rows=rows, shared=shared)
    torch.set_num_threads(1)
    alone = everything(arguments)
    for n_threads in (2, 3, 8):
        torch.set_num_threads(n_threads)
        for _ in range(3):
            for mine, theirs in zip(everything(arguments), alone, strict=True):
                assert torch.equal(mine, theirs)


@pytest.mark.usefixtures("set_threads")
def test_several_threads_may_call_at_once() -> None:
    torch.set_num_threads(2)
    cases = [draw(seed=seed) for seed in range(4)]
    alone = [everything(case) for case in cases]
    with ThreadPoolExecutor(4) as callers:
        for _ in range(5):
            for found, true in zip(callers.map(everything, cases), alone, strict=True):
                assert all(torch.equal(mine, theirs) for mine, theirs in zip(found, true, strict=True))


@pytest.mark.usefixtures("set_threads")
def test_every_item_is_computed_once_and_errors_come_back() -> None:
    torch.set_num_threads(3)
    seen: list[int] = []
    run_items(lambda first, end: seen.extend(range(first, end)), 100)
    assert sorted(seen) == list(range(100))

    def fail(first: int, end: int) -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        run_items(fail, 10)
    run_items(fail, 0)


@pytest.mark.usefixtures("set_threads")
def test_a_call_that_needs_more_threads_leaves_those_of_a_call_under_way_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The larger call comes from another thread, just before the smaller one hands out its work."""
    torch.set_num_threads(8)
    monkeypatch.setattr(threads, "_pool", threads._Pool())
    others: list[threading.Thread] = []
    submit = ThreadPoolExecutor.submit

    def interrupted(executor: ThreadPoolExecutor, work: Callable[[], object]) -> object:
        if not others:
            others.append(threading.Thread(target=run_items, args=(lambda first, end: None, 8)))
            others[0].start()
            others[0].join(0.3)
        return submit(executor, work)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", interrupted)
    seen: list[int] = []
    run_items(lambda first, end: seen.extend(range(first, end)), 2)
    others[0].join()
    assert sorted(seen) == [0, 1]


def _in_child(arguments: list, expected: list[Tensor]) -> None:
    torch.set_num_threads(1)  # as a DataLoader does: OpenMP's threads, behind torch's own operators, do not survive
    torch.get_num_threads = lambda: 2
    same = all(torch.equal(mine, theirs) for mine, theirs in zip(everything(arguments), expected, strict=True))
    os._exit(0 if same else 1)


@pytest.mark.usefixtures("set_threads")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_computes_too() -> None:
    torch.set_num_threads(2)
    arguments = draw()
    expected = everything(arguments)  # the parent's threads exist, the child's do not
    child = multiprocessing.get_context("fork").Process(target=_in_child, args=(arguments, expected))
    child.start()
    child.join(60)
    hangs = child.is_alive()
    if hangs:
        child.kill()
    assert not hangs
    assert child.exitcode == 0


_SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
import mmfs.cpu
value, locations, weights = torch.randn(1, 4, 1, 16), torch.rand(1, 1, 1, 1, 1, 2), torch.ones(1, 1, 1, 1, 1)
assert mmfs.cpu.sampling_forward(value, [(2, 2)], locations, weights).shape == (1, 1, 1, 16)
"""


def run_script(tmp_path: Path, **environment: str) -> None:
    """Compile and run one kernel in a new process."""
    source = Path(mmfs.__file__).parents[1]
    variables = {**os.environ, "HOME": str(tmp_path / "nobody"), **environment}
    subprocess.run([sys.executable, "-c", _SCRIPT, str(source)], env=variables, check=True, timeout=300)


def test_compiled_kernels_are_kept_where_numba_is_told(tmp_path: Path) -> None:
    run_script(tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "kept"))
    assert list((tmp_path / "kept").rglob("*.nbi"))


def test_nothing_writable_means_nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    from mmfs.cpu import compile as cpu_compile

    def refuse(*_, cache: bool = False, **options: object):
        if cache:
            raise RuntimeError("cannot cache function 'twice': no locator available for file 'twice.py'")
        return lambda function: function

    monkeypatch.setattr(cpu_compile.numba, "njit", refuse)

    def twice(x: int) -> int:
        return 2 * x

    assert cpu_compile.kept(twice)(2) == 4
