"""Addresses to shards: nothing is fetched unasked, nothing private or opted out is, failures are named."""

from __future__ import annotations

import io
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from mmi.data.preparing import download
from mmi.data.preparing.download import Fetcher, FetchError, refuse_address
from mmi.data.preparing.jobs import prepare
from mmi.data.preparing.pair_inputs import open_pairs
from mmi.data.preparing.pairs import PairWork


def picture(number: int) -> bytes:
    stream = io.BytesIO()
    Image.linear_gradient("L").resize((40, 30)).point(lambda v: (v * (number + 2)) % 256).save(stream, "JPEG")
    return stream.getvalue()


def folder_of_pairs(root: Path, n: int) -> Path:
    for number in range(n):
        file = root / "00000" / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(number))
        file.with_suffix(".txt").write_text("a caption", encoding="utf-8")
        file.with_suffix(".json").write_text('{"url": "https://x/1.jpg"}', encoding="utf-8")
    return root


def fake_web(pages: dict[str, bytes], headers: dict[str, str] | None = None):
    """A fetcher whose addresses are a dictionary; every request is noted."""
    asked = []

    @contextmanager
    def opened(address, request_headers, timeout):
        asked.append((address, dict(request_headers)))
        if address not in pages:
            raise ConnectionRefusedError("nobody there")
        stream = io.BytesIO(pages[address])
        yield SimpleNamespace(headers=headers or {}, read=stream.read)

    return Fetcher(open=opened, check=lambda address: None, max_bytes=5000), asked


def address_list(path: Path) -> Path:
    rows = [(f"https://photos.example/{number}.jpg", f"caption {number}") for number in range(4)]
    path.write_text("".join(f"{url}\t{text}\n" for url, text in rows), encoding="utf-8")
    return path


def test_addresses_are_fetched_into_shards_and_failures_are_named(tmp_path):
    pages = {f"https://photos.example/{number}.jpg": picture(number) for number in (0, 2)}
    fetcher, asked = fake_web({**pages, "https://photos.example/3.jpg": b"x" * 6000})
    work = PairWork(open_pairs(address_list(tmp_path / "cc12m.tsv")), fetcher=fetcher)
    done = prepare(work, tmp_path / "out", name="cc12m")
    assert done.records == 2
    assert dict(done.left_out) == {"no connection": 1, "larger than the limit": 1}
    assert all("mmi" in headers["User-Agent"] for _, headers in asked)
    n_asked = len(asked)
    assert prepare(work, tmp_path / "out", name="cc12m").kept == 1
    assert len(asked) == n_asked, "a finished shard is not fetched again"


def test_a_folder_of_lists_is_one_input(tmp_path):
    address_list(tmp_path / "part-1.tsv")
    address_list(tmp_path / "part-0.tsv")
    pairs = open_pairs(tmp_path)
    assert len(pairs) == 8
    assert [pairs.name(i) for i in (0, 4)] == ["part-0.tsv/1", "part-1.tsv/1"]
    assert pairs.entry(5).place == "https://photos.example/1.jpg"


def test_lists_beside_pictures_are_not_taken_for_the_input(tmp_path):
    """img2dataset leaves its table of addresses beside the folders it has filled."""
    address_list(folder_of_pairs(tmp_path, 2) / "00000.tsv")
    assert len(open_pairs(tmp_path)) == 2


def test_nothing_is_fetched_without_being_asked(tmp_path):
    done = prepare(PairWork(open_pairs(address_list(tmp_path / "list.tsv"))), tmp_path / "out", name="cc12m")
    assert dict(done.left_out) == {"not fetched": 4}


def test_what_is_on_an_opt_out_list_is_not_even_asked_for(tmp_path):
    fetcher, asked = fake_web({f"https://photos.example/{number}.jpg": picture(number) for number in range(4)})
    (tmp_path / "opt-out.txt").write_text("https://photos.example/2.jpg\n", encoding="utf-8")
    pairs = open_pairs(address_list(tmp_path / "list.tsv"))
    lists = (str(tmp_path / "opt-out.txt"),)
    done = prepare(PairWork(pairs, fetcher=fetcher, opt_out=lists), tmp_path / "out", name="cc12m")
    assert dict(done.left_out) == {"on the opt-out list": 1}
    assert "https://photos.example/2.jpg" not in {address for address, _ in asked}
    root = folder_of_pairs(tmp_path / "raw", 2)
    (tmp_path / "domains.txt").write_text("x\n", encoding="utf-8")
    work = PairWork(open_pairs(root), opt_out=(str(tmp_path / "domains.txt"),))
    assert prepare(work, tmp_path / "out2", name="own").records == 0


def test_publishers_that_opt_out_are_left_out(tmp_path):
    fetcher, _ = fake_web({"https://a.example/1.jpg": picture(1)}, {"X-Robots-Tag": "otherbot: all, noai"})
    with pytest.raises(FetchError, match="publisher opts out"):
        fetcher.fetch("https://a.example/1.jpg")


@pytest.mark.parametrize(
    "address",
    [
        "http://example.com/1.jpg",
        "file:///etc/passwd",
        "ftp://example.com/1.jpg",
        "https://127.0.0.1/1.jpg",
        "https://[::1]/1.jpg",
        "https://10.0.0.7/1.jpg",
        "https://169.254.169.254/latest",
        "https://",
        "nonsense",
        "https://[broken",
    ],
)
def test_addresses_that_are_no_public_https_are_refused(address):
    with pytest.raises(FetchError, match="address refused"):
        refuse_address(address)


def test_redirects_are_checked_too(monkeypatch):
    handler = download._CheckedRedirects()
    with pytest.raises(FetchError, match="is not https"):
        handler.redirect_request(None, None, 302, "", {}, "http://example.com/1.jpg")


def test_a_picture_that_takes_too_long_is_given_up(monkeypatch):
    fetcher, _ = fake_web({"https://a.example/1.jpg": picture(1)})
    clock = iter([0.0, 100.0, 200.0])
    monkeypatch.setattr("mmi.data.preparing.download.time.monotonic", lambda: next(clock))
    with pytest.raises(FetchError, match="timed out"):
        fetcher.fetch("https://a.example/1.jpg")
