"""Opt-out lists and pictures are loaded once per source, however many shards it has, and tars one at a time."""

from __future__ import annotations

import io
import tarfile
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from factories import image_item

from mmi.data import filters_opt_out
from mmi.data.datamodule import InterleavedDataModule
from mmi.data.sources import SourceConfig, open_source
from mmi_eval.formats.image_tars import ImageTars
from mmi_eval.formats.mmc4 import MMC4Document, MMC4Image, write_mmc4
from mmi_eval.formats.pair_tars import TarPair, write_pair_tar

PNG = image_item().open().read()
N_SHARDS, N_SOURCES = 6, 6


def picture_tar(path: Path, names: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(PNG)
            archive.addfile(member, io.BytesIO(PNG))


def web(root: Path, *, tars: str = "{shard}.tar") -> Path:
    """Shards of four pages with a picture each, the pictures in tars."""
    held: dict[str, list[str]] = {}
    for shard in range(N_SHARDS):
        images = [MMC4Image(f"{shard}-{i}.png", 0, 0.5) for i in range(4)]
        documents = [MMC4Document(("A page.",), (image, image)) for image in images]
        write_mmc4(root / "shards" / f"{shard}.jsonl", documents)
        held.setdefault(tars.format(shard=shard), []).extend(image.image_name for image in images)
    for name, names in held.items():
        picture_tar(root / "images" / name, names)
    return root


def counted(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[str]:
    calls: list[str] = []
    real = getattr(owner, name)

    def called(*arguments: Any) -> Any:
        calls.append(str(arguments[-1]))
        return real(*arguments)

    monkeypatch.setattr(owner, name, called)
    return calls


def streamed(tokenizer: str, sources: dict[str, SourceConfig]) -> InterleavedDataModule:
    return InterleavedDataModule(
        tokenizer, sources, seq_length=32, batch_size=4, image_size=8, target_size=None, tokens_per_image=3
    )


def test_opt_out_lists_are_read_once_per_source(tmp_path: Path, tokenizer_folder: str, monkeypatch) -> None:
    sources = {}
    for number in range(N_SOURCES):
        (tmp_path / f"{number}.txt").write_text("example.com\n")
        for shard in range(N_SHARDS):
            pairs = [(TarPair(f"{i}", f"caption {i}", "png"), PNG) for i in range(4)]
            write_pair_tar(tmp_path / f"pairs{number}" / f"{shard}.tar", pairs)
        sources[f"s{number}"] = SourceConfig(
            "pair_tars", str(tmp_path / f"pairs{number}"), opt_out=str(tmp_path / f"{number}.txt"), streaming=True
        )
    reads = counted(monkeypatch, filters_opt_out, "_lines")
    for _ in islice(streamed(tokenizer_folder, sources).training_plans(), 150):
        pass
    assert sorted(reads) == [str(tmp_path / f"{number}.txt") for number in range(N_SOURCES)]


def test_tars_of_all_shards_are_indexed_once(tmp_path: Path, tokenizer_folder: str, monkeypatch) -> None:
    root = web(tmp_path, tars="pictures-{shard}.tar")
    source = SourceConfig("mmc4", str(root / "shards"), str(root / "images"), streaming=True)
    opened = counted(monkeypatch, ImageTars, "_add")
    for _ in islice(streamed(tokenizer_folder, {"web": source}).training_plans(), 60):
        pass
    assert len(opened) == N_SHARDS


@pytest.mark.parametrize("images", ["images", "images/*.tar"])
def test_a_streamed_source_indexes_only_the_tar_of_the_shard(tmp_path: Path, images: str, monkeypatch) -> None:
    root = web(tmp_path)
    opened = counted(monkeypatch, ImageTars, "_add")
    for shard in range(2):
        path = str(root / "shards" / f"{shard}.jsonl")
        source = open_source("web", SourceConfig("mmc4", path, str(root / images)), 0, where="web")
        assert [source.document(i, 0).n_images for i in range(4)] == [2] * 4
    assert opened == [str(root / "images" / f"{shard}.tar") for shard in range(2)]


def test_a_damaged_tar_costs_a_streamed_source_one_shard(tmp_path: Path, tokenizer_folder: str) -> None:
    root = web(tmp_path)
    (root / "images" / "3.tar").write_bytes(b"<html>404</html>" * 100)
    source = SourceConfig("mmc4", str(root / "shards"), str(root / "images"), streaming=True)
    module = streamed(tokenizer_folder, {"web": source})
    seen: set[str] = set()
    broken: list[str] = []
    for plan in islice(module.training_plans(), 60):
        seen |= {document.id.split("/")[0] for row in plan.rows for document in row.documents}
        broken += [skip.document_id for skip in plan.skipped if skip.reason == "broken shard"]
    assert seen == {str(shard) for shard in range(N_SHARDS) if shard != 3}
    assert broken == [str(root / "shards" / "3.jsonl")]
