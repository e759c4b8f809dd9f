"""Shares of the sources, mixing by row or by batch, and what ends an epoch."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from mmi.batch import InterleavedBatch
from mmi.data.datamodule import InterleavedDataModule
from mmi.data.sources import SourceConfig


def data(world: Path, tokenizer: str, *, rank: int = 0, n_ranks: int = 1, **settings: object) -> InterleavedDataModule:
    train = {
        "pairs": SourceConfig("pair_tars", str(world / "pairs.tar")),
        "photos": SourceConfig("coco_captions", str(world / "captions.json"), images=str(world / "photos")),
        "web": SourceConfig("mmc4", str(world / "mmc4.jsonl"), drop_single_image_probability=0.0, weight=2),
    }
    defaults: dict = {"seq_length": 96, "batch_size": 3, "image_size": 8, "target_size": None, "tokens_per_image": 3}
    module = InterleavedDataModule(tokenizer, train, train, **(defaults | {"buffer": 5} | settings))
    module._place = lambda: (rank, n_ranks)  # pyright: ignore[reportAttributeAccessIssue]
    return module


def first(module: InterleavedDataModule, count: int) -> list[InterleavedBatch]:
    return list(islice(module.train_dataloader(), count))


def rows(batch: InterleavedBatch) -> list[str]:
    """Source of each row."""
    return [next((s.source for s in batch.provenance if s.row == r), "-") for r in range(len(batch.text_ids))]


def test_by_batch_each_rank_s_step_is_of_one_source_and_ranks_draw_for_themselves(
    world: Path, tokenizer_folder: str
) -> None:
    ranks = [first(data(world, tokenizer_folder, rank=r, n_ranks=2, mixing="batch"), 60) for r in range(2)]
    drawn = [[rows(batch)[0] for batch in batches] for batches in ranks]
    assert all(len(set(rows(batch))) == 1 for batches in ranks for batch in batches)
    assert drawn[0] != drawn[1]
    shares = Counter(drawn[0] + drawn[1])
    assert shares["web"] / 120 == pytest.approx(0.5, abs=0.12)
    together = first(data(world, tokenizer_folder, mixing="batch"), 12)
    dealt = [rows(batch) for pair in zip(*ranks, strict=True) for batch in pair][:12]
    assert [rows(batch) for batch in together] == dealt


def test_by_sequence_a_step_holds_several_sources(world: Path, tokenizer_folder: str) -> None:
    assert max(len(set(rows(batch))) for batch in first(data(world, tokenizer_folder), 6)) > 1


@pytest.mark.parametrize("mixing", ["sequence", "batch"])
def test_shares_are_told_as_requested_and_as_consumed(world: Path, tokenizer_folder: str, mixing: str) -> None:
    module = data(world, tokenizer_folder, mixing=mixing)
    assert [share.measured for share in module.source_shares] == [0, 0, 0]
    given: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    for batch in first(module, 50):
        module.note_consumed(batch)
        given.update(rows(batch))
        for span in batch.provenance:
            tokens[span.source] += span.stop - span.start
    shares = {share.source: share for share in module.source_shares}
    assert {name: share.rows for name, share in shares.items()} == given
    assert {name: share.tokens for name, share in shares.items()} == tokens
    assert [share.requested for share in shares.values()] == [0.25, 0.25, 0.5]
    assert sum(share.measured for share in shares.values()) == pytest.approx(1)
    resumed = data(world, tokenizer_folder, mixing=mixing)
    resumed.load_state_dict(json.loads(json.dumps(module.state_dict())))
    for batch in first(resumed, 1):
        resumed.note_consumed(batch)
    assert sum(share.rows for share in resumed.source_shares) == 153


def test_shares_are_told_at_the_end_of_a_fit(
    world: Path, tokenizer_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr("mmi.data.datamodule.rank_zero_info", told.append)
    module = data(world, tokenizer_folder)
    for batch in first(module, 4):
        module.note_consumed(batch)
    module.teardown("fit")
    assert any("web: " in line and "(50.0% requested)" in line for line in told)


def seen(batches: list[InterleavedBatch]) -> Counter[tuple[str, str]]:
    return Counter((span.source, span.document_id) for batch in batches for span in batch.provenance)


@pytest.mark.parametrize("mixing", ["sequence", "batch"])
@pytest.mark.parametrize(
    ("n_ranks", "workers"), [(1, 0), (2, 0), (3, 0), (5, 0), (1, 1), (2, 1), (3, 1), (5, 1), (1, 4), (3, 4)]
)
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_sum_shows_every_document_once_on_any_number_of_ranks_and_workers(
    world: Path, tokenizer_folder: str, n_ranks: int, workers: int, mixing: str
) -> None:
    shown: Counter[tuple[str, str]] = Counter()
    lengths = set()
    for rank in range(n_ranks):
        module = data(
            world, tokenizer_folder, rank=rank, n_ranks=n_ranks, stop="sum", mixing=mixing, num_workers=workers
        )
        batches = first(module, 1000)
        lengths.add(len(batches))
        shown += seen(batches)
        for batch in batches:
            assert batch.row_weight is not None
            empty = [row not in {span.row for span in batch.provenance} for row in range(3)]
            assert [float(weight) == 0 for weight in batch.row_weight] == empty
    assert len(lengths) == 1, "every rank takes the same number of steps"
    assert set(shown.values()) == {1}
    assert Counter(source for source, _ in shown) == {"pairs": 20, "photos": 9, "web": 15}


@pytest.mark.parametrize(("n_ranks", "workers"), [(1, 0), (2, 0), (3, 0), (5, 0), (2, 1), (5, 1), (3, 4)])
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_evaluation_shows_every_document_once_on_any_number_of_ranks_and_workers(
    world: Path, tokenizer_folder: str, n_ranks: int, workers: int
) -> None:
    shown: Counter[tuple[str, str]] = Counter()
    lengths = set()
    for rank in range(n_ranks):
        loader = data(world, tokenizer_folder, rank=rank, n_ranks=n_ranks, num_workers=workers).val_dataloader()
        assert not isinstance(loader, list)
        batches = list(loader)
        lengths.add(len(batches))
        shown += seen(batches)
    assert len(lengths) == 1
    assert set(shown.values()) == {1}
    assert len(shown) == 44


def test_shortest_ends_with_the_first_source_and_longest_with_the_last(world: Path, tokenizer_folder: str) -> None:
    shortest, longest = (
        seen(first(data(world, tokenizer_folder, stop=stop), 1000)) for stop in ("shortest", "longest")
    )
    sizes = {"pairs": 20, "photos": 9, "web": 15}
    whole = [name for name, size in sizes.items() if sum(1 for source, _ in shortest if source == name) == size]
    assert len(whole) == 1
    assert max(shortest.values()) == 1
    assert len(longest) == 44
    assert max(longest.values()) >= 2


def test_the_next_pass_goes_on_with_the_next_epoch_and_a_stopped_one_where_it_was(
    world: Path, tokenizer_folder: str
) -> None:
    module = data(world, tokenizer_folder, stop="sum")
    passes = []
    for _ in range(2):
        batches = first(module, 1000)
        for batch in batches:
            module.note_consumed(batch)
        passes.append([batch.text_ids.tolist() for batch in batches])
    assert passes[0] != passes[1]
    both = passes[0] + passes[1]
    for stop in (2, len(passes[0]) - 1, len(passes[0]), len(passes[0]) + 1):
        stopped, left = data(world, tokenizer_folder, stop="sum"), stop
        while left:
            for batch in islice(stopped.train_dataloader(), left):
                stopped.note_consumed(batch)
                left -= 1
        resumed = data(world, tokenizer_folder, stop="sum")
        resumed.load_state_dict(json.loads(json.dumps(stopped.state_dict())))
        following = [batch.text_ids.tolist() for batch in first(resumed, 1000)]
        end = len(passes[0]) if stop < len(passes[0]) else len(both)
        assert following == both[stop:end]
