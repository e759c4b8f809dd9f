"""Ranks with other settings are named before the first step."""

from __future__ import annotations

import torch
from torch import multiprocessing

from mmi.config import ConfigError
from mmi.training.agreement import disagreement, leaves, refuse_disagreement


def test_what_differs_first_is_named_and_the_rest_counted() -> None:
    facts = {"trainer.max_steps": "5", "data.train.pairs": "sha256:1"}
    other = {"trainer.max_steps": "5", "data.train.pairs": "sha256:2", "model.x": "1"}
    said = disagreement([facts, facts, other])
    assert said is not None
    assert said.startswith(
        "rank 2 has data.train.pairs sha256:2 where rank 0 has sha256:1 (1 more differ); start every"
    )
    assert disagreement([facts] * 3) is None
    assert disagreement([other, facts]) is not None


def test_settings_are_compared_leaf_by_leaf() -> None:
    tree = {"trainer": {"max_steps": 5, "callbacks": {}}, "data": {"train": {"a": {"path": ["x", "y"]}}}}
    assert dict(leaves(tree)) == {
        "trainer.max_steps": "5",
        "trainer.callbacks": "{}",
        "data.train.a.path": "['x', 'y']",
    }


def test_one_rank_agrees_with_itself() -> None:
    refuse_disagreement({"a": "1"}, 1)


def _rank(rank: int, rendezvous: str, answers: multiprocessing.SimpleQueue) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    refuse_disagreement({"a": "1"}, 2)
    try:
        refuse_disagreement({"a": str(rank)}, 2)
    except ConfigError as error:
        answers.put(str(error))


def test_every_rank_is_told(tmp_path) -> None:
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    processes = [context.Process(target=_rank, args=(rank, str(tmp_path / "meet"), answers)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert {answers.get(), answers.get()} == {
        "rank 1 has a 1 where rank 0 has 0; start every rank with the same command on the same files."
    }
