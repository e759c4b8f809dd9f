"""One poisoned data set with every kind of fault: the run goes on, counts are right, every good document arrives."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zlib
from collections import Counter
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from factories import image_item
from PIL import Image

from mmi.data.datamodule import InterleavedDataModule
from mmi.data.document import ImageItem
from mmi.data.images import decode
from mmi.data.skips import TooManyFaultsError
from mmi.data.sources import SourceConfig
from mmi_eval.formats.mmc4 import MMC4Document, MMC4Image, write_mmc4
from mmi_eval.formats.pair_tars import TarPair, write_pair_tar


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=form, **options)  # pyright: ignore[reportArgumentType]
    return stream.getvalue()


def rgb(size: tuple[int, int] = (20, 12)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(rgb(), "JPEG", exif=exif)


def bomb() -> bytes:
    """A PNG of a few bytes that says it has 900 million pixels."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 64)), (b"IEND", b"")]
    packed = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


UNUSUAL = {
    "turned": ("jpg", turned()),
    "cmyk": ("jpg", saved(rgb().convert("CMYK"), "JPEG")),
    "deep": ("png", saved(Image.fromarray(np.full((9, 9), 40_000, dtype=np.uint16)), "PNG")),
    "alpha": ("png", saved(rgb().convert("RGBA"), "PNG")),
    "palette": ("png", saved(rgb().convert("P"), "PNG", transparency=0)),
    "misnamed": ("png", saved(rgb(), "JPEG")),
}
JPEG = saved(rgb((64, 64)), "JPEG")


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``tars`` (4 shards), ``lines`` and ``web`` (2 shards): 14 + 3 + 4 good documents and every kind of fault."""
    folder = tmp_path_factory.mktemp("poisoned")
    (folder / "tars").mkdir()
    good = [(f"good{i}", "png", image_item(i).open().read()) for i in range(4)]
    with tarfile.open(folder / "tars" / "0.tar", "w") as archive:
        for key, suffix, data in (*good, *((key, *picture) for key, picture in UNUSUAL.items())):
            add(archive, f"{key}.{suffix}", data)
            add(archive, f"{key}.txt", f"a picture of {key}".encode())
        add(archive, "long.png", good[0][2])
        add(archive, "long.txt", b"very " * 400)
        for key, data in (("truncated.jpg", JPEG[:-200]), ("zero.png", b""), ("bomb.png", bomb())):
            add(archive, key, data)
            add(archive, f"{key.partition('.')[0]}.txt", b"a broken picture")
        add(archive, "nopicture.txt", b"no picture")
        add(archive, "nocaption.png", good[0][2])
        add(archive, "empty.png", good[0][2])
        add(archive, "empty.txt", b"  ")
        add(archive, "latin.png", good[0][2])
        add(archive, "latin.txt", b"caf\xe9")
        add(archive, "good0.png", good[1][2])  # there twice: the first stays
        add(archive, "good0.txt", b"another caption of the same key")
        add(archive, "../escape.png", good[0][2])
        add(archive, "../escape.txt", b"leads out")
    write_pair_tar(folder / "tars" / "1.tar", [(TarPair(f"{i}", "whole", "png"), good[i][2]) for i in range(2)])
    whole = [(TarPair(f"{i}", "cut", "png"), good[i][2]) for i in range(3)]
    write_pair_tar(folder / "tars" / "2.tar", whole)
    packed = (folder / "tars" / "2.tar").read_bytes()
    with tarfile.open(folder / "tars" / "2.tar") as archive:
        last = archive.getmember("2.png")
    (folder / "tars" / "2.tar").write_bytes(packed[: last.offset_data + last.size // 2])
    (folder / "tars" / "3.tar").write_bytes(b"this is no tar" * 99)

    (folder / "photos").mkdir()
    for i in range(2):
        (folder / "photos" / f"{i}.png").write_bytes(good[i][2])
    lines = [
        b'{"image": "0.png", "caption": "first"}',
        b"{'image': '1.png', 'caption': ['second', 'in python']}",
        b'{"image": "1.png", "caption": "third"}',
        b'{"image": "0.png", "caption": "caf\xe9"}',
        b'["a", "list"]',
        b'{"image": 7, "caption": "wrong type"}',
        b'{"image": "0.png", "cap',
        b'{"image": "gone.png", "caption": "no file"}',
        b'{"image": "../../etc/passwd", "caption": "leads out"}',
        b'{"image": "0.png", "caption": " "}',
    ]
    (folder / "lines.jsonl").write_bytes(b"\n".join(lines) + b"\n")

    (folder / "web").mkdir()
    near = MMC4Image("0.png", 0, 0.3)
    documents = [MMC4Document((f"page {i}.",), (near,)) for i in range(3)]
    documents.append(MMC4Document(("two hundred.",), tuple(MMC4Image("1.png", 0, 0.5) for _ in range(200))))
    documents.append(MMC4Document(("gone.",), (MMC4Image("gone.png", 0, 0.5),)))
    write_mmc4(folder / "web" / "0.jsonl.zip", documents)
    (folder / "web" / "1.jsonl.zip").write_bytes((folder / "web" / "0.jsonl.zip").read_bytes()[:150])
    return folder


GOOD = {
    "tars": {f"0/{key}" for key in (*(f"good{i}" for i in range(4)), *UNUSUAL, "long")} | {"1/0", "1/1", "2/0", "2/1"},
    "lines": {"lines/1", "lines/2", "lines/3"},
    "web": {"0/1", "0/2", "0/3", "0/4"},
}
FAULTS = {
    ("tars", "unreadable picture"): {"0/truncated", "0/zero", "0/bomb"},
    ("tars", "empty caption"): {"0/empty"},
    ("tars", "broken record"): {"0/nopicture", "0/nocaption", "0/latin", "0/good0", "0/../escape", "2/2"},
    ("tars", "broken shard"): {"3.tar"},
    ("lines", "broken record"): {f"lines/{i}" for i in (4, 5, 6, 7, 9)},
    ("lines", "picture without a file"): {"lines/8"},
    ("lines", "empty caption"): {"lines/10"},
    ("web", "picture without a file"): {"0/5"},
    ("web", "broken shard"): {"1.jsonl.zip"},
}


def data(folder: Path, tokenizer: str, streaming: bool, **settings: object) -> InterleavedDataModule:
    sources = {
        "tars": SourceConfig("pair_tars", str(folder / "tars"), streaming=streaming),
        "lines": SourceConfig(
            "pair_jsonl", str(folder / "lines.jsonl"), images=str(folder / "photos"), streaming=streaming
        ),
        "web": SourceConfig(
            "mmc4", str(folder / "web"), images=str(folder / "photos"), drop_single_image_probability=0.0,
            streaming=streaming,
        ),
    }  # fmt: skip
    defaults: dict = {"seq_length": 96, "batch_size": 3, "image_size": 8, "target_size": None, "tokens_per_image": 3}
    return InterleavedDataModule(tokenizer, sources, sources, **(defaults | {"buffer": 5} | settings))


def test_an_opaque_palette_is_usual_and_one_with_transparency_is_told() -> None:
    opaque, holed = saved(rgb().convert("P"), "PNG"), saved(rgb().convert("P"), "PNG", transparency=0)
    told = [decode(ImageItem(partial(io.BytesIO, data), "a.png")).conversions for data in (opaque, holed)]
    assert told == [(), ("picture with a transparent colour laid over white",)]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("streaming", [False, True], ids=["indexed", "streaming"])
@pytest.mark.parametrize("split", ["evaluation", "training"])
def test_every_good_document_arrives_and_every_fault_is_counted_and_named(
    poisoned: Path, tokenizer_folder: str, tmp_path: Path, streaming: bool, split: str, workers: int
) -> None:
    log = tmp_path / "skipped.jsonl"
    module = data(poisoned, tokenizer_folder, streaming, num_workers=workers, skip_log=str(log))
    loader = module.val_dataloader() if split == "evaluation" else islice(module.train_dataloader(), 30)
    assert not isinstance(loader, list)
    batches = list(loader)
    seen = Counter((span.source, span.document_id) for batch in batches for span in batch.provenance)
    assert set(seen) == {(source, name) for source, names in GOOD.items() for name in names}
    if split == "evaluation":
        assert set(seen.values()) == {1}, "nothing stands in for another"
    named: dict[tuple[str, str], set[str]] = {}
    for line in map(json.loads, log.read_text(encoding="utf-8").splitlines()):
        if line["whole"]:
            name = Path(line["document_id"]).name if "shard" in line["reason"] else line["document_id"]
            named.setdefault((line["source"], line["reason"]), set()).add(name)
            assert line["detail"]
    assert named == FAULTS
    assert module.skips.documents == {kind: len(names) for kind, names in FAULTS.items()}
    parts = {reason for _, reason in module.skips.parts}
    assert parts == {
        "token cut off because the pair is longer than a row",
        "picture beyond the first 6 drawn at random",
    }
    assert {reason for _, reason in module.skips.used} == {
        "picture turned as its EXIF data say",
        "picture converted from mode CMYK",
        "picture converted from mode I;16",
        "picture converted from mode RGBA",
        "picture with a transparent colour laid over white",
        "picture whose name has another format's ending",
    }
    told = module.skips.summary()
    assert "tars: 6 documents: broken record" in told
    assert "Unusual, but used:" in told


def test_a_run_stops_only_past_the_share_and_says_why(tmp_path: Path, tokenizer_folder: str) -> None:
    pairs = [(TarPair(f"{i:04d}", f"caption {i}", "png"), b"" if i % 5 == 0 else PNG) for i in range(1200)]
    write_pair_tar(tmp_path / "fifth.tar", pairs)
    source = {"fifth": SourceConfig("pair_tars", str(tmp_path / "fifth.tar"))}

    def run(share: float) -> int:
        module = InterleavedDataModule(
            tokenizer_folder, {}, source, seq_length=96, batch_size=8, image_size=8, target_size=None,
            tokens_per_image=3, max_skipped_share=share, skip_log=str(tmp_path / "skipped.jsonl"),
        )  # fmt: skip
        loader = module.val_dataloader()
        assert not isinstance(loader, list)
        return sum(len(batch.provenance) for batch in loader)

    assert run(0.25) == 960
    with pytest.raises(TooManyFaultsError) as caught:
        run(0.1)
    message = str(caught.value)
    assert "x unreadable picture in fifth" in message
    assert "data.max_skipped_share=0.1" in message
    assert str(tmp_path / "skipped.jsonl") in message
    assert "\n" not in message


PNG = saved(rgb((8, 8)), "PNG")
