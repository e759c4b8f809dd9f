"""Streamed sources: shards dealt to ranks, exact resume, another number of ranks, broken shards."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import torch
from factories import image_item
from hypothesis import given, settings
from hypothesis import strategies as st

from mmi.batch import InterleavedBatch
from mmi.config import ConfigError
from mmi.data.datamodule import InterleavedDataModule
from mmi.data.document import Document, TextItem
from mmi.data.pack import RowCut
from mmi.data.sources import SourceConfig
from mmi.data.streaming import ShardReader
from mmi_eval.formats.mmc4 import MMC4Document, MMC4Image, write_mmc4
from mmi_eval.formats.pair_tars import TarPair, write_pair_tar

WORDS = ["one", "two", "three", "four", "five", "six", "seven"]
SIZES = (9, 3, 7, 5, 8, 1, 6)


def png(seed: int) -> bytes:
    return image_item(seed).open().read()


class Numbers:
    """A shard of documents named by shard and number."""

    name = "numbers"
    row_cut: RowCut = "sample"
    pairs = False

    def __init__(self, shard: int, size: int) -> None:
        self.shard, self.size = shard, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Document:
        return self.document(index, 0)

    def document(self, index: int, epoch: int) -> Document:
        return Document(f"{self.shard}/{index}", self.name, (TextItem("a"),), {"epoch": epoch})


class Shards:
    name = "numbers"
    fingerprint = "same"
    n_documents = None

    def __init__(self, sizes: tuple[int, ...]) -> None:
        self.sizes, self.n_opened = sizes, 0

    def __len__(self) -> int:
        return len(self.sizes)

    def shard_name(self, shard: int) -> str:
        return str(shard)

    def open(self, shard: int) -> Numbers:
        self.n_opened += 1
        return Numbers(shard, self.sizes[shard])


def reader(sizes: tuple[int, ...], rank: int = 0, n_ranks: int = 1, seed: int = 0) -> ShardReader:
    return ShardReader(Shards(sizes), seed=seed, rank=rank, n_ranks=n_ranks, shuffled=True, n_open=3)


def take(one: ShardReader, count: int | None = None) -> list[tuple[int, str]]:
    """Read so many documents, going on with the next epoch, or up to the end of the epoch: epoch and name of each."""
    taken: list[tuple[int, str]] = []
    n_ended = 0
    while count is None or len(taken) < count:
        reading = one.read()
        if reading is None:
            n_ended += 1
            if count is None or n_ended > 3:  # a rank may have nothing to read
                break
            one.next_epoch()
            continue
        assert isinstance(reading.document, Document)
        taken.append((int(str(reading.document.metadata["epoch"])), reading.document.id))
    return taken


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 5, 16])
@pytest.mark.parametrize("sizes", [SIZES, (6, 4), (11,)], ids=["7-shards", "2-shards", "1-shard"])
def test_every_document_is_read_by_exactly_one_rank_in_every_epoch(sizes: tuple[int, ...], n_ranks: int) -> None:
    readers = [reader(sizes, rank, n_ranks) for rank in range(n_ranks)]
    orders = []
    for epoch in range(3):
        read = [document for one in readers for document in take(one)]
        assert Counter(read) == Counter({(epoch, f"{s}/{i}"): 1 for s, size in enumerate(sizes) for i in range(size)})
        orders.append([name for _, name in read])
        for one in readers:
            one.next_epoch()
    assert len(sizes) == 1 or orders[0] != orders[1]


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=8).map(tuple),
    ranks=st.lists(st.integers(1, 6), min_size=2, max_size=4),
    data=st.data(),
)
def test_after_the_number_of_ranks_changed_nothing_is_lost_or_read_twice(
    sizes: tuple[int, ...], ranks: list[int], data: st.DataObject
) -> None:
    read: list[tuple[int, str]] = []
    left_over = None
    states: list[dict] = []
    for n_ranks in ranks:
        readers = [reader(sizes, rank, n_ranks) for rank in range(n_ranks)]
        if states:
            judge = reader(sizes, 0, n_ranks)
            judge.inherit(left_over)
            left_over = json.loads(json.dumps(judge.left_over(states)))
            begun = judge.resumed(states, n_ranks)
            for one, state in zip(readers, begun, strict=True):
                one.inherit(left_over)
                assert one.restore(state)
        for one in readers:
            read += take(one, data.draw(st.integers(0, 2 * sum(sizes))) if sum(sizes) else 0)
        states = [{**one.state(), "pending": [], "ready": []} for one in readers]
    last = max(state["epoch"] for state in states)
    for one, state in zip(readers, states, strict=True):
        for _ in range(last - state["epoch"]):
            read += take(one)
            one.next_epoch()
        read += take(one)
    documents = [f"{s}/{i}" for s, size in enumerate(sizes) for i in range(size)]
    assert Counter(read) == Counter({(epoch, name): 1 for epoch in range(last + 1) for name in documents})


def test_going_on_opens_only_the_shards_that_were_being_read() -> None:
    sizes = (20,) * 50
    opened = []
    for share in (0.01, 0.9):
        first = reader(sizes)
        take(first, int(share * sum(sizes)))
        shards = Shards(sizes)
        second = ShardReader(shards, seed=0, rank=0, n_ranks=1, shuffled=True, n_open=3)
        second.restore(json.loads(json.dumps(first.state())))
        assert take(second, 20) == take(first, 20)
        opened.append(shards.n_opened)
    assert max(opened) <= 3 + 3


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``tars``: 7 shards of pairs; ``web``: 3 of MMC4 documents, two with the same name."""
    folder = tmp_path_factory.mktemp("streams")
    number = 0
    for shard, size in enumerate(SIZES):
        pairs = []
        for i in range(size):
            number += 1
            pairs.append((TarPair(f"{i:03d}", f"{' '.join(WORDS[: 1 + i % 7])} {shard} {i}", "png"), png(number)))
        write_pair_tar(folder / "tars" / f"{shard}.tar", pairs)
    (folder / "web" / "images").mkdir(parents=True)
    for i in range(4):
        (folder / "web" / "images" / f"{i}.png").write_bytes(png(500 + i))
    for shard, name in enumerate(("a/0.jsonl", "b/0.jsonl.zip", "b/1.jsonl")):
        documents = [
            MMC4Document((f"Shard {shard}.", f"Document {i}."), (MMC4Image(f"{i % 4}.png", i % 2, 0.3),))
            for i in range(5 + shard)
        ]
        write_mmc4(folder / "web" / name, documents)
    return folder


def sources(folder: Path, *names: str, **more: object) -> dict[str, SourceConfig]:
    web = [str(folder / "web" / name) for name in ("a", "b")]
    known: dict[str, dict] = {
        "tars": {"format": "pair_tars", "path": str(folder / "tars"), "streaming": True, **more},
        "web": {
            "format": "mmc4", "path": web, "images": str(folder / "web" / "images"), "streaming": True,
            "drop_single_image_probability": 0.0,
        },
        "known": {"format": "pair_tars", "path": str(folder / "tars" / "{0..2}.tar")},
    }  # fmt: skip
    return {name: SourceConfig(**known[name]) for name in names or ("tars", "web", "known")}


def data(
    folder: Path,
    tokenizer: str,
    train: dict[str, SourceConfig] | None = None,
    *,
    place: tuple[int, int] = (0, 1),
    **more,
) -> InterleavedDataModule:
    defaults: dict = {"seq_length": 96, "batch_size": 2, "image_size": 8, "target_size": None, "tokens_per_image": 3}
    train = sources(folder) if train is None else train
    module = InterleavedDataModule(tokenizer, train, **(defaults | {"buffer": 7} | more))
    module._place = lambda: place  # pyright: ignore[reportAttributeAccessIssue]
    return module


def content(batch: InterleavedBatch) -> tuple:
    tensors = [batch.text_ids, batch.labels, batch.document_ids, batch.images, batch.image_row, batch.image_start]
    return (*(t.tolist() for t in tensors), [tuple(span) for span in batch.provenance])


def first(module: InterleavedDataModule, count: int) -> list[InterleavedBatch]:
    return list(islice(module.train_dataloader(), count))


def state_of(modules: list[InterleavedDataModule], monkeypatch: pytest.MonkeyPatch) -> dict:
    """What a checkpoint holds when all ranks save together."""

    def gather(into: list, _: object) -> None:
        into[:] = [module._cursor for module in modules]

    monkeypatch.setattr("torch.distributed.all_gather_object", gather)
    states = [json.loads(json.dumps(module.state_dict())) for module in modules]
    assert all(state == states[0] for state in states)
    return states[0]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("more", [{}, {"packing": "official", "mixing": "batch"}], ids=["best_fit", "official"])
def test_a_stopped_stream_goes_on_with_exactly_the_next_batch_on_every_rank(
    streams: Path, tokenizer_folder: str, more: dict, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = sources(streams, "tars", "web", "known", merge_probability=0.3, merge_pairs=(2, 3))
    places = [(0, 2), (1, 2)]
    whole = [[content(b) for b in first(data(streams, tokenizer_folder, train, place=p, **more), 16)] for p in places]
    assert whole[0] != whole[1]
    for stop in (1, 7) if workers else (1, 2, 5, 11):
        modules = [data(streams, tokenizer_folder, train, place=p, num_workers=workers, **more) for p in places]
        for module in modules:
            for batch in first(module, stop):
                module.note_consumed(batch)
        saved = state_of(modules, monkeypatch)
        for rank, place in enumerate(places):
            resumed = data(streams, tokenizer_folder, train, place=place, num_workers=workers, **more)
            resumed.load_state_dict(saved)
            assert [content(batch) for batch in first(resumed, 16 - stop)] == whole[rank][stop:]


@pytest.mark.parametrize("after", [1, 3, 5])
def test_with_other_ranks_what_waited_and_what_was_not_read_is_dealt_anew(
    streams: Path, tokenizer_folder: str, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = sources(streams, "tars")
    modules = [data(streams, tokenizer_folder, train, place=(rank, 2), batch_size=1) for rank in range(2)]
    seen: Counter[str] = Counter()
    for module in modules:
        for batch in first(module, 1):
            module.note_consumed(batch)
            seen.update(span.document_id for span in batch.provenance)
    saved = state_of(modules, monkeypatch)
    assert set(seen.values()) == {1}, "still the first epoch"
    resumed = [data(streams, tokenizer_folder, train, place=(rank, after), batch_size=1) for rank in range(after)]
    ever = set(seen)
    for module in resumed:
        module.load_state_dict(saved)
        with pytest.warns(UserWarning, match=rf"written by 2 ranks and {after} go on"):
            batches = first(module, 24)
        ever |= {span.document_id for batch in batches for span in batch.provenance}
        for batch in batches:
            assert batch.cursor is not None
            if batch.cursor["sources"]["tars"]["epoch"] > 0:
                break
            seen.update(span.document_id for span in batch.provenance)
    assert max(seen.values()) == 1
    assert len(ever) == sum(SIZES)
    # Saving after the change and going on with the new number of ranks is exact again.
    for module in resumed:
        batches = first(module, 3)
        for batch in batches[:2]:
            module.note_consumed(batch)
    again = state_of(resumed, monkeypatch)
    for rank, module in enumerate(resumed):
        continued = data(streams, tokenizer_folder, train, place=(rank, after), batch_size=1)
        continued.load_state_dict(again)
        assert content(first(continued, 1)[0]) == content(next(iter(module.train_dataloader())))


def test_documents_are_named_as_if_all_shards_were_indexed(streams: Path, tokenizer_folder: str) -> None:
    from dataclasses import replace

    config = sources(streams, "web")["web"]
    named = []
    for one in (config, replace(config, streaming=False)):
        module = data(streams, tokenizer_folder, {}, val={"web": one})
        loader = module.val_dataloader()
        assert not isinstance(loader, list)
        named.append([span.document_id for batch in loader for span in batch.provenance])
    assert sorted(named[0]) == sorted(named[1])
    assert len(set(named[0])) == 18


def test_parquet_is_streamed_row_for_row(streams: Path, tokenizer_folder: str, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from mmi_eval.formats.obelics import ObelicsDocument, WebImage, write_obelics

    for shard in range(3):
        pages = [ObelicsDocument((f"Page {shard} {i}.", WebImage(f"{i % 4}.png"), "More.")) for i in range(3 + shard)]
        write_obelics(tmp_path / f"{shard}.parquet", pages)
    source = SourceConfig(
        "obelics", str(tmp_path), images=str(streams / "web" / "images"), drop_single_image_probability=0.0,
        streaming=True,
    )  # fmt: skip
    module = data(tmp_path, tokenizer_folder, {"pages": source}, val={"pages": source})
    loader = module.val_dataloader()
    assert not isinstance(loader, list)
    expected = {f"{shard}/{row + 1}" for shard in range(3) for row in range(3 + shard)}
    assert {span.document_id for batch in loader for span in batch.provenance} == expected
    assert {span.document_id for batch in first(module, 8) for span in batch.provenance} == expected


def test_shards_are_not_indexed_before_their_turn(
    streams: Path, tokenizer_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmi_eval.formats import pair_tars

    opened: list[str] = []
    original = pair_tars._TarIndex.__init__

    def noted(self: object, path: Path, *rest: object) -> None:
        opened.append(path.name)
        original(self, path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(pair_tars._TarIndex, "__init__", noted)
    module = data(streams, tokenizer_folder, sources(streams, "tars"), buffer=2)
    module.setup("fit")
    assert opened == ["0.tar"], "the first one is tried"
    first(module, 1)
    assert len(set(opened)) < len(SIZES)


def test_a_shard_that_cannot_be_opened_is_told_once_and_left_out(tmp_path: Path, tokenizer_folder: str) -> None:
    for shard in range(3):
        pairs = [(TarPair(str(i), f"caption {shard} {i}", "png"), png(i)) for i in range(4)]
        write_pair_tar(tmp_path / f"{shard}.tar", pairs)
    (tmp_path / "0.tar").write_bytes(b"no tar at all" * 100)
    train = {"tars": SourceConfig("pair_tars", str(tmp_path), streaming=True)}
    module = data(tmp_path, tokenizer_folder, train)
    names = {span.document_id for batch in first(module, 8) for span in batch.provenance}
    assert names == {f"{shard}/{i}" for shard in (1, 2) for i in range(4)}
    assert module.skips.documents == {("tars", "broken shard"): 1}


def test_wrong_uses_of_streaming_are_refused(streams: Path, tokenizer_folder: str) -> None:
    with pytest.raises(ConfigError, match="has streaming and limit"):
        SourceConfig("pair_tars", "x", streaming=True, limit=3)
    captions = SourceConfig("coco_captions", str(streams), streaming=True)
    with pytest.raises((ConfigError, FileNotFoundError), match="coco_captions files are read whole"):
        data(streams, tokenizer_folder, {"captions": captions}).setup("fit")
    module = data(streams, tokenizer_folder, sources(streams, "tars"), place=(0, 2), stop="sum")
    with pytest.raises(ConfigError, match=r'data\.stop is "sum" with streamed sources on 2 ranks'):
        first(module, 1)


def test_processes_that_train_together_share_shards_and_save_every_position(
    streams: Path, tokenizer_folder: str, tmp_path: Path
) -> None:
    command = [sys.executable, __file__, str(streams), tokenizer_folder, str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "2"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent.parent), environment.get("PYTHONPATH", "")])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        environment["MASTER_PORT"] = str(free.getsockname()[1])
    children = [subprocess.Popen(command, env={**environment, "RANK": str(rank)}) for rank in range(2)]
    assert [child.wait(timeout=120) for child in children] == [0, 0]
    told = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert told[0]["state"] == told[1]["state"]
    assert not set(told[0]["seen"]) & set(told[1]["seen"])
    assert len(told[0]["state"]["ranks"]) == 2
    for rank in range(2):
        resumed = data(streams, tokenizer_folder, sources(streams, "tars"), place=(rank, 2), batch_size=1)
        resumed.load_state_dict(told[rank]["state"])
        assert [list(span) for span in first(resumed, 1)[0].provenance] == told[rank]["next"]


def _train_together(folder: Path, tokenizer: str, out: Path) -> None:
    """What one of two processes does: train a little, save together with the other, tell what came next."""
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    module = data(folder, tokenizer, sources(folder, "tars"), place=(rank, 2), batch_size=1)
    batches = first(module, 3)
    for batch in batches[:2]:
        module.note_consumed(batch)
    seen = [span.document_id for batch in batches[:1] for span in batch.provenance]
    told = {"state": module.state_dict(), "seen": seen, "next": batches[2].provenance}
    (out / f"{rank}.json").write_text(json.dumps(told))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    _train_together(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
