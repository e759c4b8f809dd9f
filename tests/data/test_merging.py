"""Few-shot documents made of pairs (D1): what they are, and that they survive a restart."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest
from factories import byte_tokenizer, document

from mmi.config import ConfigError
from mmi.data.datamodule import InterleavedDataModule
from mmi.data.encode import EncodingRules, encode_document
from mmi.data.merging import Merging
from mmi.data.sources import SourceConfig

TOKENIZER = byte_tokenizer()
S = TOKENIZER.special
PAIRS = [document("ab", 0, name="x"), document(1, "cd", name="y"), document("ef", 2, name="z")]


def merged(rules: EncodingRules, max_images: int = 30):
    return Merging(1.0, (2, 8), max_images, (0,)).merged(PAIRS, TOKENIZER, rules)


def test_pairs_become_one_document_with_one_opening_and_one_end() -> None:
    whole = merged(EncodingRules(2))
    assert whole is not None
    alone = [encode_document(pair, TOKENIZER, EncodingRules(2)).ids.tolist() for pair in PAIRS]
    # Texts that meet are written as one, with a space.
    assert whole.ids.tolist() == alone[0][:-1] + alone[1][1:-1] + [TOKENIZER.encode(" ")[0]] + alone[2][1:]
    assert whole.n_images == 3
    assert whole.id == "x+y+z"


def test_a_later_picture_is_learned_and_so_is_text_behind_the_first() -> None:
    alone = encode_document(PAIRS[1], TOKENIZER, EncodingRules(2))
    assert alone.labels[1] == -100, "a picture that opens its document"
    whole = merged(EncodingRules(2, ignore_caption_before_image=True))
    assert whole is not None
    assert all(whole.labels[start] == S.image_start for start in whole.image_starts)
    first, last = whole.image_starts[0], whole.image_starts[2]
    assert (whole.labels[:first] == -100).all(), "label rule 2 holds for the whole document"
    assert (whole.labels[whole.image_ends[1] : last] != -100).all()


def test_a_group_that_fits_no_row_is_not_merged() -> None:
    assert merged(EncodingRules(2, max_length=12)) is None
    assert merged(EncodingRules(2), max_images=2) is None


def test_sizes_are_drawn_evenly_and_as_often_as_asked() -> None:
    merging = Merging(0.25, (2, 8), 30, (7, "pairs"))
    sizes = [merging.size((0, position)) for position in range(4000)]
    assert sum(size > 1 for size in sizes) / 4000 == pytest.approx(0.25, abs=0.02)
    counts = [sizes.count(size) for size in range(2, 9)]
    assert min(counts) > 100
    assert max(sizes) == 8
    assert sizes == [merging.size((0, position)) for position in range(4000)]


def data(world: Path, tokenizer: str, **settings: float) -> InterleavedDataModule:
    source = SourceConfig("pair_tars", str(world / "pairs.tar"), merge_pairs=(2, 3), **settings)  # pyright: ignore
    return InterleavedDataModule(
        tokenizer, {"pairs": source}, {"pairs": source}, seq_length=160, batch_size=2, image_size=8, target_size=None,
        tokens_per_image=3, buffer=6,
    )  # fmt: skip


def names(module: InterleavedDataModule, count: int) -> list[list[str]]:
    return [[span.document_id for span in batch.provenance] for batch in islice(module.train_dataloader(), count)]


def test_training_merges_and_every_pair_comes_once_an_epoch(world: Path, tokenizer_folder: str) -> None:
    read = [name for batch in names(data(world, tokenizer_folder, merge_probability=0.5), 40) for name in batch]
    assert any("+" in name for name in read)
    pairs = [pair for name in read for pair in name.split("+")]
    counts = [pairs.count(pair) for pair in set(pairs)]
    assert len(counts) == 20
    # What waits in the buffer is at most a few groups.
    assert max(counts) - min(counts) <= 2
    untouched = [name for batch in names(data(world, tokenizer_folder), 10) for name in batch]
    assert not any("+" in name for name in untouched)


def test_merged_documents_come_again_after_a_restart(world: Path, tokenizer_folder: str) -> None:
    whole = names(data(world, tokenizer_folder, merge_probability=0.7), 14)
    for stop in (1, 4, 9):
        module = data(world, tokenizer_folder, merge_probability=0.7)
        for batch in islice(module.train_dataloader(), stop):
            module.note_consumed(batch)
        resumed = data(world, tokenizer_folder, merge_probability=0.7)
        resumed.load_state_dict(json.loads(json.dumps(module.state_dict())))
        assert names(resumed, 14 - stop) == whole[stop:]


def test_evaluation_never_merges(world: Path, tokenizer_folder: str) -> None:
    loader = data(world, tokenizer_folder, merge_probability=1.0).val_dataloader()
    assert not isinstance(loader, list)
    read = [span.document_id for batch in loader for span in batch.provenance]
    assert len(read) == 20
    assert not any("+" in name for name in read)


def test_only_pairs_are_merged(world: Path, tokenizer_folder: str) -> None:
    web = SourceConfig("mmc4", str(world / "mmc4.jsonl"), merge_probability=0.5)
    module = InterleavedDataModule(tokenizer_folder, {"web": web}, seq_length=96, tokens_per_image=3)
    with pytest.raises(ConfigError, match=r"data\.train\.web\.merge_probability is set, but mmc4 holds no pairs"):
        module.setup("fit")
    with pytest.raises(ConfigError, match=r"merge_pairs of source x is \[1, 3\]"):
        SourceConfig("pair_tars", "x", merge_pairs=(1, 3))
