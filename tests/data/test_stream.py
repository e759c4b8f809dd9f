"""Order, mixture, ranks and resume of the training stream; evaluation covers everything once."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from mmi.batch import InterleavedBatch
from mmi.data.datamodule import InterleavedDataModule
from mmi.data.sources import SourceConfig


def sources(world: Path, **weights: float) -> dict[str, SourceConfig]:
    weights = weights or {"pairs": 1, "photos": 1, "web": 2}
    known = {
        "pairs": {"format": "pair_tars", "path": str(world / "pairs.tar"), "ignore_caption_before_image": True},
        "photos": {"format": "coco_captions", "path": str(world / "captions.json"), "images": str(world / "photos")},
        "web": {"format": "mmc4", "path": str(world / "mmc4.jsonl"), "drop_single_image_probability": 0.0},
    }
    return {name: SourceConfig(**known[name], weight=weight) for name, weight in weights.items()}


def data(world: Path, tokenizer: str, train: dict[str, SourceConfig] | None = None, **settings: object):
    defaults: dict = {"seq_length": 96, "batch_size": 2, "image_size": 8, "target_size": 10, "tokens_per_image": 3}
    return InterleavedDataModule(
        tokenizer, sources(world) if train is None else train, **(defaults | {"buffer": 7} | settings)
    )


def content(batch: InterleavedBatch) -> tuple:
    """Everything of a batch that must not change."""
    tensors = [batch.text_ids, batch.labels, batch.document_ids, batch.images, batch.image_row, batch.image_start]
    return (
        *(t.tolist() for t in tensors),
        [(s.row, s.start, s.stop, s.source, s.document_id) for s in batch.provenance],
    )


def first(module: InterleavedDataModule, count: int) -> list[InterleavedBatch]:
    return list(islice(module.train_dataloader(), count))


@pytest.mark.parametrize("packing", ["best_fit", "official"])
def test_batches_do_not_depend_on_the_number_of_workers(world: Path, tokenizer_folder: str, packing: str) -> None:
    alone, helped = (
        [content(b) for b in first(data(world, tokenizer_folder, packing=packing, num_workers=n), 12)] for n in (0, 2)
    )
    assert alone == helped
    assert len({str(batch) for batch in alone}) == 12


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("packing", ["best_fit", "official"])
def test_a_restored_stream_goes_on_with_exactly_the_next_batch(
    world: Path, tokenizer_folder: str, packing: str, workers: int
) -> None:
    whole = [content(batch) for batch in first(data(world, tokenizer_folder, packing=packing), 14)]
    for stop in (1, 6) if workers else (1, 2, 3, 5, 9):
        stopped = data(world, tokenizer_folder, packing=packing, num_workers=workers)
        for batch in first(stopped, stop):
            stopped.note_consumed(batch)
        saved = json.loads(json.dumps(stopped.state_dict()))  # plain types only
        resumed = data(world, tokenizer_folder, packing=packing, num_workers=workers)
        resumed.load_state_dict(saved)
        assert [content(batch) for batch in first(resumed, 14 - stop)] == whole[stop:]


def test_prefetched_batches_that_were_not_used_come_again(world: Path, tokenizer_folder: str) -> None:
    module = data(world, tokenizer_folder, num_workers=2)
    batches = first(module, 6)
    module.note_consumed(batches[2])
    assert content(next(iter(module.train_dataloader()))) == content(batches[3])
    resumed = data(world, tokenizer_folder)
    resumed.load_state_dict(module.state_dict())
    assert content(next(iter(resumed.train_dataloader()))) != content(batches[4])


def test_resuming_reads_only_the_documents_that_waited(
    world: Path, tokenizer_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmi.data.sources.pairs import PairTarSource

    read: list[int] = []
    original = PairTarSource.document

    def counted(self: PairTarSource, index: int, epoch: int):
        read.append(index)
        return original(self, index, epoch)

    monkeypatch.setattr(PairTarSource, "document", counted)
    costs = []
    for stop in (3, 60):
        module = data(world, tokenizer_folder, sources(world, pairs=1))
        for batch in first(module, stop):
            module.note_consumed(batch)
        resumed = data(world, tokenizer_folder, sources(world, pairs=1))
        resumed.load_state_dict(module.state_dict())
        resumed.setup("fit")
        read.clear()
        first(resumed, 1)
        costs.append(len(read))
    assert costs[1] <= costs[0] + 5


def test_each_epoch_uses_every_document_once_in_another_order(world: Path, tokenizer_folder: str) -> None:
    module = data(world, tokenizer_folder, sources(world, pairs=1), buffer=1)
    names = [span.document_id for batch in first(module, 40) for span in batch.provenance]
    epochs = [names[i : i + 20] for i in range(0, 60, 20)]
    # With a buffer of one, packing reorders only inside a row.
    assert [len(set(epoch)) for epoch in epochs] >= [17, 17, 17]
    counts = Counter(names[:200])
    assert len(counts) == 20
    assert max(counts.values()) - min(counts.values()) <= 1
    assert epochs[0] != epochs[1]


def test_sources_get_their_share_of_rows(world: Path, tokenizer_folder: str) -> None:
    module = data(world, tokenizer_folder, batch_size=50)
    rows = Counter()
    for batch in first(module, 8):
        row_sources = {span.row: span.source for span in batch.provenance}
        assert all(row_sources[span.row] == span.source for span in batch.provenance), "one source a row"
        rows.update(row_sources.values())
    assert sum(rows.values()) == 400
    assert rows["web"] / 400 == pytest.approx(0.5, abs=0.07)
    assert rows["pairs"] / 400 == pytest.approx(0.25, abs=0.07)


def test_another_seed_gives_other_batches_and_weight_zero_leaves_out(world: Path, tokenizer_folder: str) -> None:
    one, two = (content(first(data(world, tokenizer_folder, seed=seed), 1)[0]) for seed in (0, 1))
    assert one != two
    module = data(world, tokenizer_folder, sources(world, pairs=1, web=0))
    assert {span.source for batch in first(module, 5) for span in batch.provenance} == {"pairs"}


@pytest.mark.parametrize("split", ["train", "val"])
def test_ranks_share_the_rows_of_one_process(
    split: str, world: Path, tokenizer_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows(rank: int, n_ranks: int, batch_size: int) -> list[list]:
        module = data(world, tokenizer_folder, val=sources(world), batch_size=batch_size)
        monkeypatch.setattr(module, "_place", lambda: (rank, n_ranks))
        loader = module.train_dataloader() if split == "train" else module.val_dataloader()
        batches = list(islice(loader, 5))
        return [
            [[s.document_id for s in batch.provenance if s.row == row] for row in range(batch_size)]
            for batch in batches
        ]

    together = rows(0, 1, 6)
    shares = [rows(rank, 3, 2) for rank in range(3)]
    assert len({len(share) for share in shares}) == 1, "every rank takes the same number of steps"
    assert [[row for share in shares for row in share[step]] for step in range(len(together))] == together


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_sees_every_document_once_and_fills_up_with_weight_zero(
    world: Path, tokenizer_folder: str, workers: int
) -> None:
    module = data(world, tokenizer_folder, val=sources(world), batch_size=7, num_workers=workers)
    loader = module.val_dataloader()
    assert not isinstance(loader, list)
    for _ in range(2):  # a second run gives the same
        batches = list(loader)
        names = Counter((span.source, span.document_id) for batch in batches for span in batch.provenance)
        assert Counter(source for source, _ in names) == {"pairs": 20, "photos": 9, "web": 15}
        assert set(names.values()) == {1}
        assert all(batch.text_ids.shape[0] == 7 for batch in batches)
        assert all(batch.cursor is None for batch in batches)
        weights = [float(w) for batch in batches if batch.row_weight is not None for w in batch.row_weight]
        n_filled = weights.count(0.0)
        assert weights == [1.0] * (len(weights) - n_filled) + [0.0] * n_filled
        last = batches[-1]
        assert (last.labels[7 - n_filled :] == -100).all()
        assert last.attention_mask[:, 0].all()


def test_a_source_that_changed_begins_its_next_epoch(world: Path, tokenizer_folder: str) -> None:
    module = data(world, tokenizer_folder, sources(world, pairs=1))
    for batch in first(module, 2):
        module.note_consumed(batch)
    state = module.state_dict()
    state["cursor"]["sources"]["pairs"]["size"] = 19
    state["cursor"]["sources"]["gone"] = state["cursor"]["sources"]["pairs"]
    resumed = data(world, tokenizer_folder, sources(world, pairs=1, web=1))
    resumed.load_state_dict(state)
    cursor = first(resumed, 1)[0].cursor
    assert cursor is not None
    assert cursor["sources"]["pairs"]["epoch"] >= 1
    assert set(cursor["sources"]) == {"pairs", "web"}


def test_changed_settings_and_versions_are_told(world: Path, tokenizer_folder: str) -> None:
    module = data(world, tokenizer_folder)
    for batch in first(module, 3):
        module.note_consumed(batch)
    changed = data(world, tokenizer_folder, seq_length=80)
    changed.load_state_dict(module.state_dict())
    with pytest.warns(UserWarning, match=r"data settings changed since the checkpoint \(seq_length\)"):
        first(changed, 2)
    newer = json.loads(json.dumps(module.state_dict()))
    newer["cursor"]["schema_version"] = 99
    changed.load_state_dict(newer)
    with pytest.raises(ValueError, match="has version 99"):
        first(changed, 1)
