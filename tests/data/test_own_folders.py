"""A folder of one's own pictures: one broken caption is one record left out, nothing usable is one sentence."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from mmi.cli import main
from mmi.config import ConfigError
from mmi.data.checking.layouts import guess_sources
from mmi.data.checking.records import check_source
from mmi.data.datamodule import InterleavedDataModule
from mmi.data.sources import SourceConfig


def photo(path: Path, caption: bytes | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = io.BytesIO()
    Image.new("RGB", (20, 20), (len(path.stem) * 9 % 256, 90, 60)).save(stream, "PNG")
    path.write_bytes(stream.getvalue())
    if caption is not None:
        path.with_suffix(".txt").write_bytes(caption)


def module(tokenizer: str, *folders: Path, table: str = "val") -> InterleavedDataModule:
    source = {"mine": SourceConfig("folder", [str(folder) for folder in folders])}
    sources = {"train": {}, "val": {}, table: source}
    return InterleavedDataModule(
        tokenizer, **sources, seq_length=64, batch_size=2, image_size=8, target_size=None, tokens_per_image=3
    )


def seen(data: InterleavedDataModule) -> set[str]:
    loader = data.val_dataloader()
    assert not isinstance(loader, list)
    return {span.document_id for batch in loader for span in batch.provenance}


def test_a_caption_that_is_not_utf8_is_one_record_left_out_and_named(tmp_path: Path, tokenizer_folder: str) -> None:
    for name, caption in {"a": b"one", "b": b"caf\xe9", "c": "caf\xe9".encode(), "d": None}.items():
        photo(tmp_path / f"{name}.png", caption)
    data = module(tokenizer_folder, tmp_path)
    assert seen(data) == {"a.png", "c.png"}
    assert data.skips.documents == {("mine", "broken record"): 1, ("mine", "empty caption"): 1}
    found = check_source("mine", SourceConfig("folder", str(tmp_path)))
    named = {(fault.id, fault.reason) for fault in found.faults}
    assert named == {("b.png", "broken record"), ("d.png", "empty caption")}
    assert next(fault.detail for fault in found.faults if fault.id == "b.png").endswith("convert the file to UTF-8.")
    assert main(["data", "check", str(tmp_path)]) == 1


@pytest.mark.parametrize(
    ("name", "content", "broken"),
    [
        ("captions.jsonl", '{"image": "a.png", "caption": "one"}\n{"image": 3, "caption": "x"}\n{"im', ["2", "3"]),
        ("metadata.csv", "file_name,text\na.png,one\nb.png\n", ["3"]),
    ],
)
def test_broken_rows_of_a_list_are_left_out_and_named(
    tmp_path: Path, tokenizer_folder: str, name: str, content: str, broken: list[str]
) -> None:
    photo(tmp_path / "a.png", None)
    (tmp_path / name).write_text(content)
    data = module(tokenizer_folder, tmp_path)
    assert seen(data) == {"a.png"}
    found = check_source("mine", SourceConfig("folder", str(tmp_path)))
    assert [fault.id for fault in found.faults] == [f"{name}/{row}" for row in broken]


def test_broken_captions_of_several_folders_carry_their_folder(tmp_path: Path, tokenizer_folder: str) -> None:
    for folder in ("one", "two"):
        photo(tmp_path / folder / "a.png", b"\xff")
        photo(tmp_path / folder / "b.png", b"fine")
    data = module(tokenizer_folder, tmp_path / "one", tmp_path / "two")
    assert seen(data) == {"one/b.png", "two/b.png"}
    found = check_source("mine", SourceConfig("folder", [str(tmp_path / "one"), str(tmp_path / "two")]))
    assert [fault.id for fault in found.faults] == ["one/a.png", "two/a.png"]


@pytest.mark.parametrize("table", ["train", "val"])
def test_nothing_usable_is_one_sentence_with_source_reason_and_advice(
    tmp_path: Path, tokenizer_folder: str, table: str
) -> None:
    photo(tmp_path / "broken.png", b"\xff")
    with pytest.raises(ConfigError, match=rf"data\.{table}\.mine\.path holds no records.*broken\.txt is not UTF-8"):
        module(tokenizer_folder, tmp_path, table=table).setup()
    photo(tmp_path / "silent.png", None)
    with pytest.raises(ConfigError) as caught:
        module(tokenizer_folder, tmp_path, table=table).setup()
    assert str(caught.value).startswith(f"data.{table}.mine: none of 2 records can be used (")
    assert "1 x empty caption" in str(caught.value)
    assert "1 x broken record" in str(caught.value)
    assert str(caught.value).endswith("loosen the rules of the source, or leave it out.")


def test_a_permission_is_told_like_any_other_fault(tmp_path: Path, tokenizer_folder: str, monkeypatch) -> None:
    photo(tmp_path / "a.png", b"one")
    photo(tmp_path / "b.png", b"two")
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == "b.txt":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    data = module(tokenizer_folder, tmp_path)
    assert seen(data) == {"a.png"}
    assert data.skips.documents == {("mine", "broken record"): 1}


def test_the_log_counts_one_document_as_one(tmp_path: Path, tokenizer_folder: str) -> None:
    for name, caption in {"a": b"one", "b": b"\xff"}.items():
        photo(tmp_path / f"{name}.png", caption)
    data = module(tokenizer_folder, tmp_path)
    data.setup("validate")
    seen(data)
    assert "mine: 1 document: broken record" in data.skips.summary()


def test_records_of_a_json_beside_are_read_as_prepare_reads_them(tmp_path: Path, tokenizer_folder: str) -> None:
    photo(tmp_path / "a.png", None)
    (tmp_path / "a.json").write_text(json.dumps({"caption": "one two"}))
    photo(tmp_path / "b.png", None)
    (tmp_path / "b.json").write_text("{")
    data = module(tokenizer_folder, tmp_path)
    assert seen(data) == {"a.png"}


@pytest.mark.parametrize(
    ("name", "beside", "format"),
    [
        ("a.b.png", {"a.b.txt": "one"}, "folder"),
        ("a.png", {"a.json": '{"caption": "one"}'}, "folder"),
        ("a.png", {"a.json": '{"width": 20}'}, None),
        ("a.png", {"a.txt": ""}, "folder"),
        ("in/a.png", {"in/a.json": "{"}, "folder"),
        ("a.png", {}, None),
    ],
)
def test_a_folder_with_captions_is_known_without_a_config(
    tmp_path: Path, name: str, beside: dict[str, str], format: str | None
) -> None:
    photo(tmp_path / name, None)
    for file, text in beside.items():
        (tmp_path / file).write_text(text)
    assert [config.format for config in guess_sources(tmp_path).values()] == ([format] if format else [])
