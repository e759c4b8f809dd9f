"""Sources on files written here: the fine-tuning sets, plain folders, addresses, and settings that are refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmi.config import ConfigError
from mmi.config_tree import from_tree
from mmi.data.document import Document, ImageItem, TextItem
from mmi.data.images import ImageError, ImageViews
from mmi.data.skips import SkipError
from mmi.data.sources import SOURCES, Source, SourceConfig, open_source
from mmi.data.sources.places import local_files
from mmi_eval.formats.caption_folder import write_caption_folder
from mmi_eval.formats.chartqa import write_chartqa
from mmi_eval.formats.coco_captions import CaptionedImage
from mmi_eval.formats.docvqa import write_docvqa, write_infovqa
from mmi_eval.formats.dvqa import write_dvqa
from mmi_eval.formats.estvqa import write_estvqa
from mmi_eval.formats.grounding_rows import GroundingRow, write_grounding_rows
from mmi_eval.formats.obelics import ObelicsDocument, WebImage, write_obelics
from mmi_eval.formats.ocrvqa import write_ocrvqa
from mmi_eval.formats.picture_questions import PictureQuestion
from mmi_eval.formats.stvqa import write_stvqa
from mmi_eval.formats.textcaps import write_textcaps
from mmi_eval.formats.vist import VISTFile, VISTSentence, VISTStory, write_vist


def opened(format: str, path: Path | str, **rules: Any) -> Source:
    config = from_tree(SourceConfig, {"format": format, "path": str(path), **rules}, "data.train.mine")
    return open_source("mine", config, 0, where="data.train.mine")


def draw(path: Path, size: tuple[int, int] = (8, 6)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.linear_gradient("L").resize(size).convert("RGB").save(path)


def texts(document: Document) -> list[str]:
    return [item.text for item in document.items if isinstance(item, TextItem)]


def asked(image: str, number: str = "7", *answers: str, **about: Any) -> list[PictureQuestion]:
    return [PictureQuestion(number, image, "How many?", answers or ("two",), about)]


# Format, where its file lies below the root as released, its writer, and where the picture lies.
RELEASED: dict[str, tuple[str, Any, str, str]] = {
    "chartqa": ("train/train_human.json", lambda p: write_chartqa(p, asked("png/c.png", "0")), "train/png/c.png", "0"),
    "docvqa": (
        "train/train_v1.0.json",
        lambda p: write_docvqa(p, asked("documents/d_1.png", "7", "two", "2", "two"), "train"),
        "train/documents/d_1.png",
        "7",
    ),
    "infovqa": ("train_v1.0.json", lambda p: write_infovqa(p, asked("2.jpeg"), "train"), "images/2.jpeg", "7"),
    "estvqa": (
        "annotations/train.json",
        lambda p: write_estvqa(p, asked("e.jpg", "7", "two", question_id=7)),
        "images/e.jpg",
        "7",
    ),
    "stvqa": (
        "train_task_3.json",
        lambda p: write_stvqa(p, asked("coco-text/s.jpg", "7", file_path="train/coco-text/s.jpg")),
        "coco-text/s.jpg",
        "7",
    ),
    "ocrvqa": (
        "dataset.json",
        lambda p: write_ocrvqa(p, asked("b.gif", "b/0", "two", imageURL="http://e.example/b.gif", split=1)),
        "images/b.gif",
        "b/0",
    ),
    "dvqa": ("qa/train_qa.json", lambda p: write_dvqa(p, asked("bar_train_1.png")), "images/bar_train_1.png", "7"),
}


@pytest.mark.parametrize("name", RELEASED)
def test_fine_tuning_sets_are_read_where_their_release_puts_them(name: str, tmp_path: Path) -> None:
    file, write, picture, document_id = RELEASED[name]
    write(tmp_path / file)
    draw(tmp_path / picture)
    source = opened(name, tmp_path / file)
    assert [source[i].id for i in range(len(source))] == [document_id]
    assert texts(source[0])[-1] == "two"
    image = source[0].items[1]
    assert isinstance(image, ImageItem)
    assert not image.loss
    assert ImageViews(8)(image)[0].float().std() > 1


def test_textcaps_and_llavar_by_name(tmp_path: Path) -> None:
    write_textcaps(tmp_path / "TextCaps_0.1_train.json", [CaptionedImage("0a", "0a.jpg", ("A Sign.", "B"))], "train")
    draw(tmp_path / "images" / "0a.jpg")
    source = opened("textcaps", tmp_path / "TextCaps_0.1_train.json", turn_template="{image}Describe. {answer}")
    assert {texts(source.document(0, e))[-1] for e in range(2)} == {"A Sign.", "B"}
    turns = [{"from": "human", "value": "<image>\nRead it."}, {"from": "gpt", "value": "A Sign."}]
    (tmp_path / "llavar.json").write_text(json.dumps([{"id": "0a", "image": "0a.jpg", "conversations": turns}]))
    assert texts(opened("conversations", tmp_path / "llavar.json")[0])[-1] == "A Sign.."


def test_questions_without_an_answer_are_skipped(tmp_path: Path) -> None:
    rows = [PictureQuestion("1", "a.png", "Why?", ()), PictureQuestion("2", "a.png", " ", ("x",)), *asked("a.png", "3")]
    write_docvqa(tmp_path / "x.json", rows, "test")
    draw(tmp_path / "a.png")
    source = opened("docvqa", tmp_path / "x.json")
    reasons = []
    for i in (0, 1):
        with pytest.raises(SkipError) as error:
            source.document(i, 0)
        reasons.append(error.value.reason)
    assert reasons == ["empty answer", "empty question"]
    assert source[2].n_images == 1


def test_boxes_in_pixels_take_the_picture_s_size_and_empty_ones_are_skipped(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", (40, 20))
    rows = [GroundingRow("a.png", "it", (10, 5, 20, 20)), GroundingRow("a.png", "it", (10, 5, 10, 20))]
    write_grounding_rows(tmp_path / "x.jsonl", rows)
    source = opened("grounding_rows", tmp_path / "x.jsonl", turn_template="{image}Where is {question}? {answer}")
    assert texts(source[0]) == ["Where is it?", "(249,249)(499,999)"]
    with pytest.raises(SkipError, match="empty box"):
        source.document(1, 0)


@pytest.mark.parametrize("listed", ["captions.jsonl", "captions.csv", None])
def test_a_plain_folder_with_captions(listed: Any, tmp_path: Path) -> None:
    images = [CaptionedImage("a", "a.jpg", ("A Cat", "The Cat")), CaptionedImage("b", "in/b.png", ("A Dog",))]
    for image in images:
        draw(tmp_path / image.file_name)
    draw(tmp_path / "no caption.png")
    write_caption_folder(tmp_path, images, listed)
    source = opened("folder", tmp_path)
    assert len(source) == (3 if listed is None else 2)
    assert {texts(source.document(0, e))[0] for e in range(2)} == {"a cat", "the cat"}
    assert source[1].id == "in/b.png"
    if listed is None:
        with pytest.raises(SkipError, match="empty caption"):
            source.document(2, 0)


def test_several_folders_are_told_apart(tmp_path: Path) -> None:
    for name in ("one", "two"):
        draw(tmp_path / name / "a.png")
        (tmp_path / name / "a.txt").write_text(f"from {name}")
    config = SourceConfig("folder", [str(tmp_path / "one"), str(tmp_path / "two")])
    source = open_source("mine", config, 0, where="x")
    assert [source[i].id for i in range(2)] == ["one/a.png", "two/a.png"]
    assert [texts(source[i]) for i in range(2)] == [["from one"], ["from two"]]


@pytest.mark.parametrize(
    "name", ["../secret.png", "/secret.png", "C:/secret.png", "a/../../secret.png", "..\\\\secret.png"]
)
@pytest.mark.parametrize("format", ["coco_captions", "conversations", "pair_jsonl", "docvqa", "grounding_rows", "mmc4"])
def test_a_record_reads_no_file_outside_its_folder(format: str, name: str, tmp_path: Path) -> None:
    draw(tmp_path / "secret.png")
    draw(tmp_path / "in" / "a.png")
    turns = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "b"}]
    info = [{"image_name": name, "matched_text_index": 0, "matched_sim": 0.5}]
    rows: dict[str, Any] = {
        "coco_captions": [{"image": name, "caption": "b"}],
        "conversations": [{"id": "1", "image": name, "conversations": turns}],
        "pair_jsonl": {"image": name, "caption": "b"},
        "docvqa": {"data": [{"questionId": 1, "question": "q", "image": name, "answers": ["b"]}]},
        "grounding_rows": {"image": name, "sent": "b", "bbox": [0, 0, 1, 1]},
        "mmc4": {"text_list": ["b"], "image_info": info},
    }
    file = tmp_path / "in" / ("x.jsonl" if isinstance(rows[format], dict) and format != "docvqa" else "x.json")
    file.write_text(json.dumps(rows[format]))
    source = SOURCES[format](  # type: ignore[index]
        "mine",
        SourceConfig(format, str(file), images=str(tmp_path / "in")),
        0,  # type: ignore[arg-type]
    )
    with pytest.raises(SkipError, match=r"without a file|broken record|no picture left"):
        source.document(0, 0)


def test_obelics_parquet_with_pictures_named_by_their_address(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    urls = [f"https://{host}/p.jpg" for host in ("a.example", "b.example", "gone.example", "c.example")]
    pages = [
        ObelicsDocument(
            ("One.", WebImage(urls[0]), WebImage(urls[1]), "Two.", WebImage(urls[2])), {"url": "http://x.y/1"}
        ),
        ObelicsDocument((WebImage(urls[3]), "Three."), {"url": "http://x.y/2"}),
        ObelicsDocument(("Alone.",), {}),
    ]
    write_obelics(tmp_path / "train-00000.parquet", pages)
    for url in (urls[0], urls[1], urls[3]):
        draw(tmp_path / "images" / "x.png")
        (tmp_path / "images" / "x.png").rename(tmp_path / "images" / WebImage(url).file_name)
    (tmp_path / "out.txt").write_text("b.example\n")
    rules = {"images": str(tmp_path / "images"), "drop_single_image_probability": 0.0}
    source = opened("obelics", tmp_path, **rules, opt_out=str(tmp_path / "out.txt"))
    assert len(source) == 3
    shape = [item.text if isinstance(item, TextItem) else Path(item.uri).name for item in source[0].items]
    assert shape == ["One.", WebImage(urls[0]).file_name, "Two."]
    assert source[0].metadata["left_out"] == {"picture on the opt-out list": 1, "picture without a file": 1}
    assert source[1].id == "train-00000/2"
    with pytest.raises(SkipError, match="no picture left: the record has none"):
        source.document(2, 0)
    every = [source.document(1, epoch) for epoch in range(3)]
    assert all(document.n_images == 1 for document in every)


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An address space of fsspec in memory, and an empty cache."""
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setenv("MMI_DATA_CACHE", str(tmp_path / "cache"))
    files = fsspec.filesystem("memory")
    yield files
    files.rm("/", recursive=True)


def test_files_at_addresses_are_fetched_once_and_pictures_when_needed(remote, tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    lines = [json.dumps({"image": "a.png", "caption": f"caption {i}"}) + "\n" for i in range(2)]
    for i, line in enumerate(lines):
        remote.pipe(f"/set/part-{i}.jsonl", line.encode())
    remote.pipe("/set/pictures/a.png", (tmp_path / "a.png").read_bytes())
    for pattern in ("memory://set/part-{0..1}.jsonl", "memory://set/part-*.jsonl"):
        source = opened("pair_jsonl", pattern, images="memory://set/pictures")
        assert [texts(source[i]) for i in range(2)] == [["caption 0"], ["caption 1"]]
        assert [source[i].id for i in range(2)] == ["part-0/1", "part-1/1"]
        image = next(item for item in source[0].items if isinstance(item, ImageItem))
        assert ImageViews(8)(image)[0].shape == (3, 8, 8)
    copies = sorted(path.name for path in (tmp_path / "cache").rglob("*") if path.is_file())
    assert copies == ["part-0.jsonl", "part-1.jsonl"]
    stamp = next((tmp_path / "cache").rglob("part-0.jsonl")).stat().st_mtime_ns
    local_files(["memory://set/part-0.jsonl"], "x")
    assert next((tmp_path / "cache").rglob("part-0.jsonl")).stat().st_mtime_ns == stamp


def test_a_picture_that_is_not_at_its_address_is_named_when_it_is_opened(remote) -> None:
    remote.pipe("/set/x.jsonl", b'{"image": "gone.png", "caption": "a"}\n')
    source = opened("pair_jsonl", "memory://set/x.jsonl", images="memory://set/pictures")
    image = next(item for item in source[0].items if isinstance(item, ImageItem))
    with pytest.raises(ImageError, match=r"memory://set/pictures/gone\.png does not exist"):
        ImageViews(8)(image)


@pytest.mark.parametrize(
    ("place", "error", "message"),
    [
        (
            "memory://set/gone.jsonl",
            FileNotFoundError,
            r"data\.train\.mine\.path: there is nothing at memory://set/gone",
        ),
        ("memory://set", ConfigError, r"data\.train\.mine\.path is the folder memory://set; name its files"),
        ("teleport://a/b.jsonl", ConfigError, r"fsspec can't read teleport://a/b\.jsonl"),
    ],
)
def test_wrong_addresses_are_refused_in_one_sentence(place: str, error: type, message: str, remote) -> None:
    remote.pipe("/set/x.jsonl", b"")
    with pytest.raises(error, match=message) as caught:
        opened("pair_jsonl", place)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"format": "mmc4", "path": "s3://b/x.jsonl", "streaming": True}, "has streaming and an address"),
        ({"format": "mmc4", "split": "train"}, "split of source p is set, but mmc4 has no use for it"),
        ({"format": "pair_tars", "annotations": "x"}, "annotations of source p is set, but pair_tars has no use"),
        ({"format": "mmc4", "turn_template": "{answer}"}, "turn_template of source p is set, but mmc4 has no use"),
        ({"format": "obelics", "image_first_probability": 0.5}, "image_first_probability of source p is set, but obel"),
        ({"format": "vqa", "lowercase": True}, "lowercase of source p is set, but vqa has no use"),
        ({"format": "vqa", "learn_text": False}, "learn_text of source p is set, but vqa has no use"),
        ({"format": "folder", "images": "x"}, "images of source p is set, but folder has no use"),
        ({"format": "pair_tars", "images": "x"}, "images of source p is set, but pair_tars has no use"),
        ({"format": "obelics", "min_similarity": 0.3}, "min_similarity of source p is set, but obelics has no use"),
        ({"format": "folder", "max_images": 3}, "max_images of source p is set, but folder has no use"),
        ({"format": "vist", "drop_single_image_probability": 0.0}, "drop_single_image_probability of source p is set"),
        ({"format": "vqa", "min_caption_chars": 10}, "min_caption_chars of source p is set, but vqa has no use"),
        ({"format": "mmc4", "filters": {"min_width": 3}}, "asks for min_width, but mmc4 has no such columns"),
        (
            {"format": "vqa", "turn_template": "{question}"},
            r"expected \{question\} and then \{answer\}, once each",
        ),
        ({"format": "vqa", "turn_template": "{question}{answer}{image}"}, r"expected \{image\} before \{answer\}"),
        ({"format": "coco_captions", "turn_template": "{question}{answer}"}, r"expected \{answer\}, once each"),
        ({"format": "conversations", "turn_template": "{image}{question}{answer}"}, r"expected \{question\} and then"),
        ({"format": "chart_qa"}, r"data\.train\.mine\.format is the text .chart_qa.; .*did you mean chartqa"),
    ],
)
def test_settings_a_format_has_no_use_for_are_refused_in_one_sentence(tree: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        from_tree(SourceConfig, {"path": "p", **tree}, "data.train.mine")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (SourceConfig("ade20k", "training.json", images="s3://b/ade"), "ade20k needs a folder of this machine"),
        (SourceConfig("vqa", "q.json"), r"source q\.json has no annotations"),
        (SourceConfig("vqa", ["a.json", "b.json"], annotations="c.json"), "2 question files for one annotations file"),
    ],
)
def test_settings_a_format_needs_are_asked_for(config: SourceConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_source("mine", config, 0, where="x")


@pytest.mark.parametrize("name", ["karpathy", "pororo", "flintstones"])
def test_an_unknown_split_is_refused(name: str, microworld: Path) -> None:
    path = microworld / ("coco/karpathy/dataset_coco.json" if name == "karpathy" else name)
    config = SourceConfig(name, str(path), split="dev", images=None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r'split of source .* is "dev"; expected one of train'):
        open_source("mine", config, 0, where="x")
    assert len(open_source("mine", replace(config, split="test", images=_images(name, microworld)), 0, where="x")) == 3


def _images(name: str, world: Path) -> str | None:
    return str(world / "coco" / "images") if name == "karpathy" else None


def test_missing_clips_label_maps_and_instances_are_named(microworld: Path, tmp_path: Path) -> None:
    world = shutil.copytree(microworld / "ade20k", tmp_path / "ade20k")
    labels = sorted((world / "annotations" / "training").glob("*.png"))
    labels[0].unlink()
    with pytest.raises(SkipError, match=rf"picture without a file: .*{labels[0].name}"):
        opened("ade20k", world / "training.json").document(0, 0)
    clips = shutil.copytree(microworld / "pororo", tmp_path / "pororo")
    first = next(item for item in opened("pororo", clips)[0].items if isinstance(item, ImageItem))
    Path(first.uri).unlink()
    with pytest.raises(SkipError, match="picture without a file"):
        opened("pororo", clips).document(0, 0)
    with pytest.raises(FileNotFoundError, match=r"instances\.json does not exist"):
        opened("refcoco", shutil.copy(microworld / "refcoco" / "refcoco" / "refs(unc).p", tmp_path))


@pytest.mark.parametrize("folder", ["images/train_images", "images/train", "images"])
@pytest.mark.parametrize("ending", ["png", "jpg", "gif"])
def test_photos_of_vist_are_found_where_archives_put_them(folder: str, ending: str, tmp_path: Path) -> None:
    sentences = tuple(VISTSentence(str(i), f"Sentence {i}.", i) for i in range(5))
    path = tmp_path / "annotations" / "train.story-in-sequence.json"
    path.parent.mkdir()
    write_vist(path, VISTFile((VISTStory("7", sentences),)))
    for i in range(5):
        draw(tmp_path / folder / f"{i}.{ending}")
    source = opened("vist", path, images=str(tmp_path / "images"))
    assert source[0].n_images == 5
