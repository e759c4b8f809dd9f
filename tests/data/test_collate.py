"""Planned rows to batches."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from factories import byte_tokenizer, document, image_item
from hypothesis import given, settings
from hypothesis import strategies as st

from mmi.data.collate import Collator
from mmi.data.document import Document, ImageItem, TextItem
from mmi.data.encode import EncodedDocument, EncodingRules, encode_document
from mmi.data.images import ImageViews
from mmi.data.plan import BatchPlan
from mmi.data.rows import Row
from mmi.data.skips import SkipLog, SkipRecord

TOKENIZER = byte_tokenizer()
S = TOKENIZER.special
N = 3


def encode(*items: str | int | ImageItem | TextItem, name: str = "doc") -> EncodedDocument:
    made = tuple(item if isinstance(item, ImageItem | TextItem) else document(item).items[0] for item in items)
    return encode_document(Document(name, "test", made), TOKENIZER, EncodingRules(N))


def collate(*rows: list[EncodedDocument] | Row, target: int | None = 12):
    planned = tuple(row if isinstance(row, Row) else Row(tuple(row)) for row in rows)
    return Collator(S, N, ImageViews(8, target))(BatchPlan(planned, cursor={"rows": 3}))


def test_documents_of_a_row_are_numbered_and_positions_restart() -> None:
    batch, skipped = collate([encode("ab"), encode(0, "c")], [encode("d")])
    assert skipped == ()
    assert batch.document_ids.tolist() == [[0] * 4 + [1] * 7, [0] * 3 + [-1] * 8]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6], [0, 1, 2] + [0] * 8]
    assert batch.attention_mask.tolist() == [[True] * 11, [True] * 3 + [False] * 8]
    assert batch.text_ids[1, 3:].tolist() == [S.pad] * 8
    assert batch.labels[1, 3:].tolist() == [-100] * 8
    assert [(s.row, s.start, s.stop, s.document_id, s.source) for s in batch.provenance] == [
        (0, 0, 4, "doc", "test"),
        (0, 4, 11, "doc", "test"),
        (1, 0, 3, "doc", "test"),
    ]
    assert batch.cursor == {"rows": 3}
    assert batch.row_weight is not None
    assert batch.row_weight.tolist() == [1, 1]


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(
        st.lists(st.lists(st.one_of(st.text("ab", max_size=4), st.integers(0, 9)), max_size=5), max_size=3),
        min_size=1,
        max_size=3,
    )
)
def test_pictures_stay_with_their_places_in_reading_order(rows: list[list[list[str | int]]]) -> None:
    batch, _ = collate(*[[encode(*items) for items in row] for row in rows], target=8)
    seeds = [item for row in rows for items in row for item in items if isinstance(item, int)]
    assert batch.n_images == len(seeds)
    alone = {seed: ImageViews(8)(image_item(seed))[0] for seed in set(seeds)}
    assert all(torch.equal(batch.images[m], alone[seed]) for m, seed in enumerate(seeds))
    assert (batch.text_ids[batch.image_row, batch.image_start] == S.image_start).all()
    assert (batch.text_ids == S.image_start).sum() == len(seeds)
    for offset in range(1, N + 1):
        assert (batch.text_ids[batch.image_row, batch.image_start + offset] == S.image).all()
    assert (batch.labels[batch.text_ids == S.image] == -100).all()


def test_both_views_are_made_and_targets_only_on_demand() -> None:
    batch, _ = collate([encode(0, "a", 1)])
    assert batch.target_images is not None
    assert (batch.images.shape, batch.target_images.shape) == ((2, 3, 8, 8), (2, 3, 12, 12))
    assert batch.images.dtype == batch.target_images.dtype == torch.uint8
    assert collate([encode(0)], target=None)[0].target_images is None


def test_a_batch_without_pictures_has_empty_pixels() -> None:
    batch, _ = collate([encode("a")], [encode("bcd")])
    assert batch.target_images is not None
    assert (batch.images.shape, batch.target_images.shape) == ((0, 3, 8, 8), (0, 3, 12, 12))
    assert batch.image_row.dtype == batch.image_start.dtype == torch.int64
    assert batch.image_loss.dtype == torch.bool


def test_pictures_that_are_not_learned_are_marked() -> None:
    batch, _ = collate([encode(replace(image_item(0), loss=False), "a", 1)])
    assert batch.image_loss.tolist() == [False, True]


def broken(path: Path) -> ImageItem:
    return ImageItem(open=partial(open, path, "rb"), uri=str(path))


@pytest.mark.parametrize("content", [None, b"no picture"], ids=["missing", "damaged"])
def test_a_document_with_an_unreadable_picture_is_removed_and_named(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "bad.png"
    if content is not None:
        path.write_bytes(content)
    bad = encode("bad", broken(path), name="bad/7")
    batch, skipped = collate([encode("a", 0), bad, encode(1, "c")], [encode("d")])
    kept, _ = collate([encode("a", 0), encode(1, "c")], [encode("d")])
    for name in ("text_ids", "labels", "document_ids", "position_ids", "images", "image_row", "image_start"):
        assert torch.equal(getattr(batch, name), getattr(kept, name)), name
    assert [(r.document_id, r.reason, r.whole) for r in skipped] == [("bad/7", "unreadable picture", True)]
    assert str(path) in skipped[0].detail


def test_an_emptied_row_and_a_filling_row_have_no_labels_and_no_weight(tmp_path: Path) -> None:
    batch, _ = collate([encode(broken(tmp_path / "gone.png"))], Row((), weight=0.0), [encode("abc")])
    assert batch.row_weight is not None
    assert batch.row_weight.tolist() == [0, 0, 1]
    for row in (0, 1):
        assert batch.text_ids[row, :3].tolist() == [S.bos, S.eos, S.pad]
        assert batch.attention_mask[row].tolist() == [True, True, False, False, False]
        assert (batch.labels[row] == -100).all()
    assert {span.row for span in batch.provenance} == {2}


def test_skips_are_counted_once_written_as_lines_and_summed_up(tmp_path: Path) -> None:
    log = SkipLog()
    assert "Nothing was skipped" in log.summary()
    gone = SkipRecord("photos", "7", "unreadable picture", "7.png does not exist")
    log.add([gone, gone, SkipRecord("photos", "8", "unreadable picture")])
    log.write_to(tmp_path / "run" / "skipped.jsonl")
    log.add([gone, SkipRecord("web", "1", "picture without a file", whole=False, count=3)])
    lines = (tmp_path / "run" / "skipped.jsonl").read_text().splitlines()
    assert len(lines) == 3
    assert '"document_id": "7"' in lines[0]
    assert "photos: 2 documents: unreadable picture" in log.summary()
    assert "web: 3 x picture without a file (the rest of the document was used)" in log.summary()
    for i in range(300):
        log.add([SkipRecord("web", f"d{i}", "weak", whole=False)])
    assert len((tmp_path / "run" / "skipped.jsonl").read_text().splitlines()) == 103
    assert log.parts["web", "weak"] == 300


@pytest.mark.parametrize("most_pictures", [5, 2, 0])
def test_pixels_of_workers_are_copied_out_before_their_memory_is_used_again(tmp_path: Path, most_pictures: int) -> None:
    """Batches of different sizes, more than the workers have turns of memory, are kept and compared at the end.

    With room for fewer pictures than some batches have, those are sent as bytes and are the same.
    """
    from mmi.data.loader import BatchLoader

    counts = [(7 * i) % 5 + i % 2 for i in range(40)]
    files = [tmp_path / f"{i}.png" for i in range(20)]
    for i, file in enumerate(files):
        file.write_bytes(image_item(i).open().read())
    rows = [
        Row(tuple(encode(ImageItem(partial(open, files[(3 * i + k) % 20], "rb"), "p"), "a") for k in range(count)))
        for i, count in enumerate(counts)
    ]
    collator = Collator(S, N, ImageViews(8, 12))

    def batches(workers: int) -> list:
        plans = [BatchPlan((row,)) for row in rows]
        loader = BatchLoader(lambda: iter(plans), collator, workers, SkipLog(), most_pictures=most_pictures)
        return [batch for _ in range(2) for batch in loader]

    alone, helped = batches(0), batches(2)
    assert len(alone) == len(helped) == 80
    for one, other in zip(alone, helped, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.target_images, other.target_images)
        assert torch.equal(one.text_ids, other.text_ids)
