"""Filters: every drop has a reason, reasons are counted, and nothing passes that a rule asks about and can't see."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmi.config import ConfigError
from mmi.config_tree import from_tree
from mmi.data.filters import KeptPictures, PictureRules
from mmi.data.filters_metadata import MetadataFilters
from mmi.data.filters_opt_out import OptOutList
from mmi.data.skips import SkipError, SkipLog
from mmi.data.sources import Source, SourceConfig, open_source
from mmi_eval.formats.pair_lines import LinePair, write_pair_lines
from mmi_eval.formats.pair_tars import TarPair, write_pair_tar
from mmi_eval.formats.parquet_rows import write_parquet_rows


def png() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4)).save(stream, format="PNG")
    return stream.getvalue()


def reason(filters: MetadataFilters, **metadata: Any) -> str | None:
    try:
        filters.check("one", metadata)
    except SkipError as error:
        return error.reason
    return None


@pytest.mark.parametrize(
    ("rule", "good", "bad", "told"),
    [
        ({"min_aesthetic": 5}, {"AESTHETIC_SCORE": 5.0}, {"AESTHETIC_SCORE": 4.9}, "aesthetic score below 5"),
        ({"min_similarity": 0.3}, {"similarity": 0.3}, {"similarity": 0.29}, "similarity of picture and caption below"),
        ({"min_width": 256}, {"WIDTH": 256}, {"WIDTH": 255}, "width in pixels below 256"),
        ({"min_height": 256}, {"original_height": 300, "height": 9}, {"height": 9}, "height in pixels below 256"),
        ({"max_aspect_ratio": 2}, {"width": 2, "height": 1}, {"width": 1, "height": 3}, "aspect ratio above 2"),
        ({"languages": ["en"]}, {"LANGUAGE": "EN"}, {"LANGUAGE": "de"}, "language is not en"),
        ({"max_nsfw": 0.5}, {"punsafe": 0.5}, {"punsafe": 0.51}, "probability of unsafe content above 0.5"),
        ({"nsfw_labels": ["UNLIKELY"]}, {"NSFW": "UNLIKELY"}, {"NSFW": "NSFW"}, "label of unsafe content is not UNLI"),
        ({"max_watermark": 0.8}, {"pwatermark": 0.1}, {"pwatermark": 0.9}, "probability of a watermark above 0.8"),
    ],
)
def test_each_rule_keeps_up_to_its_limit_and_says_why_it_drops(rule, good, bad, told: str) -> None:
    filters = MetadataFilters(**rule)
    assert filters.active == rule
    assert reason(filters, **good) is None
    assert (reason(filters, **bad) or "").startswith(told)
    assert (reason(filters) or "").startswith("the shard does not say the ")
    assert reason(MetadataFilters(**rule, keep_unscored=True)) is None


def test_a_score_that_is_no_number_is_a_reason_of_its_own() -> None:
    assert reason(MetadataFilters(min_width=2), width="wide") == "width in pixels is no number"
    assert reason(MetadataFilters(min_width=2), width=float("nan")) == "width in pixels below 2"
    assert reason(MetadataFilters(min_width=2), width="3") is None


def test_columns_may_have_other_names() -> None:
    filters = MetadataFilters(min_aesthetic=5, columns={"aesthetic": "Pretty"})
    assert reason(filters, pretty=6) is None
    assert reason(filters, aesthetic=6) == "the shard does not say the aesthetic score"


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"min_aestetic": 5}, r"unknown key data\.train\.a\.filters\.min_aestetic; did you mean min_aesthetic"),
        ({"columns": {"beauty": "x"}}, r"data\.train\.a\.filters: columns names beauty; expected one of aesthetic"),
        ({"languages": []}, r"data\.train\.a\.filters: languages is an empty list"),
        ({"max_aspect_ratio": 0.5}, "max_aspect_ratio is 0.5; expected at least 1"),
    ],
)
def test_wrong_filters_are_refused_in_one_sentence(tree, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        from_tree(SourceConfig, {"format": "pair_tars", "path": "p", "filters": tree}, "data.train.a")
    assert "\n" not in str(error.value)


def drops(source: Source) -> Counter[str]:
    log = SkipLog()
    for i in range(len(source)):
        try:
            source.document(i, 0)
        except SkipError as error:
            log.add([error.record(source.name)])
    return Counter({why: n for (_, why), n in log.documents.items()})


def opened(format: str, path: Path, **rules: Any) -> Source:
    return open_source("p", from_tree(SourceConfig, {"format": format, "path": str(path), **rules}, "x"), 0, where="x")


def scores(n: int) -> list[dict[str, Any]]:
    return [
        {"AESTHETIC_SCORE": 4 + i / 5, "punsafe": i / 10, "url": f"http://h{i % 3}.example.com/{i}"} for i in range(n)
    ]


def test_rules_on_a_shard_s_json_are_counted_by_reason(tmp_path: Path) -> None:
    pairs = [(TarPair(f"{i:03d}", f"caption number {i}", "png", row), png()) for i, row in enumerate(scores(10))]
    write_pair_tar(tmp_path / "0.tar", [*pairs, (TarPair("999", "no scores at all", "png"), png())])
    source = opened("pair_tars", tmp_path, filters={"min_aesthetic": 5, "max_nsfw": 0.75})
    assert drops(source) == {
        "aesthetic score below 5": 5,
        "probability of unsafe content above 0.75": 2,
        "the shard does not say the aesthetic score": 1,
    }


def test_scores_in_a_parquet_file_beside_the_shard_are_used(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    write_pair_tar(tmp_path / "0.tar", [(TarPair(f"{i}", f"caption number {i}", "png"), png()) for i in range(4)])
    rows = [{"key": f"{i}", "AESTHETIC_SCORE": float(i), "caption": "x"} for i in range(3)]
    write_parquet_rows(tmp_path / "0.parquet", rows, {"key": "text", "AESTHETIC_SCORE": "number", "caption": "text"})
    source = opened("pair_tars", tmp_path / "0.tar", filters={"min_aesthetic": 2})
    assert drops(source) == {"aesthetic score below 2": 2, "the shard does not say the aesthetic score": 1}


def test_rules_on_lines(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    write_pair_lines(
        tmp_path / "x.jsonl", [LinePair("a.png", (f"caption {i}",), row) for i, row in enumerate(scores(10))]
    )
    assert drops(opened("pair_jsonl", tmp_path / "x.jsonl", filters={"max_nsfw": 0.35})) == {
        "probability of unsafe content above 0.35": 6
    }


@pytest.mark.parametrize(
    ("entry", "hit"),
    [
        ("http://h1.example.com/4", {4}),
        ("https://H1.example.com/4/", {4}),
        ("h1.example.com", {1, 4}),
        ("example.com", set(range(6))),
        ("ample.com", set()),
        ("0/003", {3}),
        ("003", {3}),
        (f"sha256:{hashlib.sha256(b'http://h1.example.com/4').hexdigest()}", {4}),
        (f"md5:{hashlib.md5(b'h1.example.com').hexdigest().upper()}", {1, 4}),
        (f"sha256:{hashlib.sha256(b'003').hexdigest()}", {3}),
        ("# 003", set()),
        ("", set()),
    ],
)
def test_opt_out_entries_name_addresses_ids_domains_and_hashes(entry: str, hit: set[int], tmp_path: Path) -> None:
    pairs = [(TarPair(f"{i:03d}", f"caption number {i}", "png", row), png()) for i, row in enumerate(scores(6))]
    write_pair_tar(tmp_path / "0.tar", pairs)
    (tmp_path / "out.txt").write_text(f"{entry}\n")
    source = opened("pair_tars", tmp_path / "0.tar", opt_out=str(tmp_path / "out.txt"))
    assert drops(source) == ({"on the opt-out list": len(hit)} if hit else {})
    for i in hit:
        with pytest.raises(SkipError, match="on the opt-out list"):
            source.document(i, 0)


def test_opt_out_of_web_documents_takes_pages_and_single_pictures(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.png").write_bytes(png())
    info = [
        {"image_name": f"{n}.png", "matched_text_index": 0, "matched_sim": 0.5, "raw_url": f"http://{n}.net/p"}
        for n in "abc"
    ]
    page = {"text_list": ["One."], "image_info": info, "url": "http://page.org/1"}
    (tmp_path / "x.jsonl").write_text(json.dumps(page) + "\n" + json.dumps(page | {"url": "http://other.org"}) + "\n")
    (tmp_path / "out.txt").write_text("b.net\nhttp://page.org/1\n")
    source = opened("mmc4", tmp_path / "x.jsonl", opt_out=[str(tmp_path / "out.txt")])
    with pytest.raises(SkipError, match="on the opt-out list"):
        source.document(0, 0)
    assert source.document(1, 0).metadata["left_out"] == {"picture on the opt-out list": 1}


def test_wrong_opt_out_lists_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"the opt-out list .*gone\.txt does not exist"):
        OptOutList.load([str(tmp_path / "gone.txt")])
    with pytest.raises(ConfigError, match="has 3 digits; sha256 has 64"):
        OptOutList(["sha256:abc"])
    (tmp_path / "x.txt").write_bytes(b"\xff\n")
    with pytest.raises(ConfigError, match="not UTF-8"):
        OptOutList.load([str(tmp_path / "x.txt")])


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_text_can_be_matched_against_any_entry(entry: str, url: str) -> None:
    try:
        listed = OptOutList([entry])
    except ConfigError:
        return
    listed.match(url, url=url)
    if entry.strip() and not entry.strip().startswith(("#", "sha256:", "md5:")) and "://" not in entry:
        assert listed.match(entry.strip())


@settings(max_examples=100)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.booleans()), max_size=12),
    st.floats(0, 1),
    st.integers(1, 8),
    st.integers(0, 99),
)
def test_pictures_that_stay_and_those_left_out_are_all_of_them(pictures, least: float, most: int, seed: int) -> None:
    rules = PictureRules(least, most, 0.0)

    def choose() -> KeptPictures:
        return rules.choose(
            "d",
            [similarity for similarity, _, _ in pictures],
            Random(seed),
            exists=lambda i: pictures[i][1],
            opted_out=lambda i: pictures[i][2],
            place="here",
        )

    if not any(s >= least and there and not out for s, there, out in pictures):
        missing = any(s >= least and not out for s, _, out in pictures)
        with pytest.raises(SkipError, match="picture without a file" if missing else "no picture left"):
            choose()
        return
    kept = choose()
    assert list(kept.indices) == sorted(set(kept.indices))
    assert 1 <= len(kept.indices) <= most
    assert all(pictures[i][0] >= least and pictures[i][1] and not pictures[i][2] for i in kept.indices)
    assert len(kept.indices) + sum(kept.left_out.values()) == len(pictures)


def test_single_pictures_are_dropped_as_often_as_asked() -> None:
    rules, dropped = PictureRules(0.0, 6, 0.5), 0
    for seed in range(1000):
        try:
            rules.choose("d", [None], Random(seed), exists=lambda i: True, opted_out=lambda i: False, place="")
        except SkipError as error:
            dropped += error.reason == "single picture, dropped with p=0.5"
    assert 430 < dropped < 570
