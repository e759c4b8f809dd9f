"""Records to documents: the rules of SPEC 3.2."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from shared_data import shared_path

from mmi.config import ConfigError
from mmi.data.document import Document, ImageItem, TextItem
from mmi.data.images import ImageViews
from mmi.data.skips import SkipError
from mmi.data.sources import Source, SourceConfig, open_source
from mmi_eval.formats.coco_captions import CaptionedImage, write_coco_captions
from mmi_eval.formats.mmc4 import MMC4Document, MMC4Image, write_mmc4


def source(format: str, path: Path | list[str], **rules: object) -> Source:
    config = SourceConfig(format, str(path) if isinstance(path, Path) else path, **rules)  # type: ignore[arg-type]
    return open_source("mine", config, 0, where="data.train.mine")


def shape(document: Document) -> str:
    """Text as it is, pictures as the stem of their name in brackets."""
    return " ".join(item.text if isinstance(item, TextItem) else f"[{Path(item.uri).stem}]" for item in document.items)


def mmc4(folder: Path, *documents: MMC4Document, missing: tuple[str, ...] = (), **rules: object) -> Source:
    write_mmc4(folder / "shard.jsonl", documents)
    (folder / "images").mkdir(exist_ok=True)
    for document in documents:
        for image in document.images:
            if image.image_name not in missing:
                Image.new("RGB", (4, 4)).save(folder / "images" / image.image_name)
    return source("mmc4", folder / "shard.jsonl", **rules)


def web(*images: tuple[str, int, float]) -> MMC4Document:
    return MMC4Document(("One.", "Two.", "Three."), tuple(MMC4Image(f"{n}.png", at, sim) for n, at, sim in images))


def test_mmc4_places_pictures_beside_their_sentences_in_order(tmp_path: Path) -> None:
    document = web(("c", 2, 0.3), ("a", 0, 0.3), ("b", 0, 0.3))
    before = mmc4(tmp_path, document, image_first_probability=1.0)[0]
    after = mmc4(tmp_path, document, image_first_probability=0.0)[0]
    assert shape(before) == "[a] [b] One. Two. [c] Three."
    assert shape(after) == "One. [a] [b] Two. Three. [c]"


def test_mmc4_leaves_out_weak_and_missing_pictures_and_says_so(tmp_path: Path) -> None:
    document = web(("a", 0, 0.23), ("b", 1, 0.24), ("c", 2, 0.5), ("d", 2, 0.5))
    read = mmc4(tmp_path, document, missing=("c.png",), image_first_probability=0.0)[0]
    assert shape(read) == "One. Two. [b] Three. [d]"
    assert read.metadata["left_out"] == {
        "picture less similar to its sentence than 0.24": 1,
        "picture without a file": 1,
    }


def test_mmc4_keeps_a_random_choice_of_at_most_six_in_order(tmp_path: Path) -> None:
    many = mmc4(tmp_path, web(*((f"p{i}", i % 3, 0.3) for i in range(9))), image_first_probability=0.0)
    kept = {shape(many.document(0, epoch)) for epoch in range(30)}
    assert len(kept) > 10
    for text in kept:
        assert text.count("[") == 6
        positions = [text.index(word) for word in ("One.", "Two.", "Three.")]
        assert positions == sorted(positions)
    assert set("".join(kept)) >= set("012345678")


def test_mmc4_drops_documents_without_pictures_and_half_of_those_with_one(tmp_path: Path) -> None:
    web_source = mmc4(tmp_path, web(("a", 0, 0.1)), web(("b", 0, 0.3)))
    with pytest.raises(SkipError, match=r"no picture left.*1 x picture less similar"):
        web_source.document(0, 0)
    dropped = 0
    for epoch in range(400):
        try:
            web_source.document(1, epoch)
        except SkipError as error:
            dropped += "single picture" in error.reason
    assert 160 < dropped < 240
    assert mmc4(tmp_path, web(("b", 0, 0.3)), drop_single_image_probability=0.0)[0].n_images == 1


def test_pairs_open_with_the_picture_half_of_the_time_and_are_lower_cased(world: Path) -> None:
    write = world / "upper.jsonl"
    write.write_text(json.dumps({"image": "photos/0.png", "caption": ["A Cat ", "Sleeps"]}) + "\n")
    pairs = source("pair_jsonl", write)
    shapes = [shape(pairs.document(0, epoch)) for epoch in range(400)]
    assert set(shapes) == {"[0] a cat  sleeps", "a cat  sleeps [0]"}
    assert 160 < shapes.count("[0] a cat  sleeps") < 240
    assert shape(source("pair_jsonl", write, lowercase=False, image_first_probability=1.0)[0]) == "[0] A Cat  Sleeps"


def test_choices_depend_on_seed_epoch_source_and_document_only(world: Path) -> None:
    config = SourceConfig("pair_tars", str(world / "pairs.tar"))

    def all_shapes(name: str, seed: int, epoch: int) -> list[str]:
        opened = open_source(name, config, seed, where="x")
        order = reversed(range(len(opened))) if epoch % 2 else range(len(opened))
        return [text for _, text in sorted((i, shape(opened.document(i, epoch))) for i in order)]

    assert all_shapes("a", 0, 1) == all_shapes("a", 0, 1)
    variants = {tuple(all_shapes(*key)) for key in (("a", 0, 0), ("a", 0, 1), ("a", 1, 0), ("b", 0, 0))}
    assert len(variants) == 4


def test_short_and_empty_captions_are_left_out(world: Path) -> None:
    lines = [{"image": "photos/0.png", "caption": text} for text in ("short", "  ", "long enough it is")]
    (world / "short.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    pairs = source("pair_jsonl", world / "short.jsonl", min_caption_chars=10)
    reasons = []
    for i in range(3):
        try:
            pairs.document(i, 0)
        except SkipError as error:
            reasons.append(error.reason)
    assert reasons == ["caption shorter than 10 characters", "empty caption"]


def test_coco_gives_one_document_per_picture_and_every_caption_in_turn(world: Path) -> None:
    captions = source("coco_captions", world / "captions.json", images=str(world / "photos"), image_first_probability=1)
    assert len(captions) == 9
    shapes = [shape(captions.document(4, epoch)) for epoch in range(6)]
    assert set(shapes) == {"[4] a 4", "[4] b 4", "[4] c 4"}
    assert shapes[:3] == shapes[3:]


@pytest.mark.parametrize("layout", ["flat", "split", "karpathy", "split-of-the-file"])
def test_coco_pictures_are_found_in_the_usual_places(layout: str, tmp_path: Path) -> None:
    name = "000000000009.jpg" if layout == "split-of-the-file" else "COCO_val2014_000000000009.jpg"
    folder = {"split": "val2014", "karpathy": "val2014", "split-of-the-file": "train2017"}.get(layout, "")
    (tmp_path / "images" / folder).mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "images" / folder / name)
    record = CaptionedImage(9, f"val2014/{name}" if layout == "karpathy" else name, ("a", "b"))
    annotations = tmp_path / "annotations" / "captions_train2017.json"
    write_coco_captions(annotations, [record], "karpathy_blip" if layout == "karpathy" else "official")
    for images in (None, str(tmp_path / "images"), str(tmp_path / "images" / folder)):
        assert source("coco_captions", annotations, images=images)[0].n_images == 1


def test_rows_of_the_same_picture_are_one_document(world: Path) -> None:
    rows = [{"image": "0.png", "caption": "a"}, {"image": "1.png", "caption": "b"}, {"image": "0.png", "caption": "c"}]
    (world / "rows.json").write_text(json.dumps(rows))
    captions = source("coco_captions", world / "rows.json", images=str(world / "photos"))
    assert len(captions) == 2
    texts = {shape(captions.document(0, epoch)).replace("[0]", "").strip() for epoch in range(4)}
    assert texts == {"a", "c"}


def test_pictures_named_alike_in_two_files_are_two_documents(tmp_path: Path) -> None:
    files = []
    for folder, names in (("one", ("0.png", "1.png")), ("two", ("0.png",))):
        for name in names:
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.new("RGB", (4, 4)).save(tmp_path / folder / name)
        files.append(tmp_path / folder / "captions.json")
        write_coco_captions(files[-1], [CaptionedImage(i, name, ("a",)) for i, name in enumerate(names)], "plain")
    captions = source("coco_captions", [str(file) for file in files])
    assert [captions[i].id for i in range(3)] == ["one/captions/0.png", "1.png", "two/captions/0.png"]


def test_missing_pictures_and_broken_lines_are_named(world: Path) -> None:
    lines = [
        '{"image": "photos/0.png", "caption": "a b"}',
        '{"image": "gone.png", "caption": "a"}',
        "{",
        '{"image": 3}',
    ]
    (world / "broken.jsonl").write_text("\n".join(lines))
    pairs = source("pair_jsonl", world / "broken.jsonl")
    assert pairs[0].n_images == 1
    with pytest.raises(SkipError, match=r"broken/2: picture without a file: .*gone\.png"):
        pairs.document(1, 0)
    for i in (2, 3):
        with pytest.raises(SkipError, match=rf"broken/{i + 1}: broken record: .*broken\.jsonl, row {i + 1}"):
            pairs.document(i, 0)


@pytest.mark.parametrize("pattern", ["part-{0..1}.jsonl", "part-*.jsonl", "list"])
def test_shards_are_named_by_braces_stars_or_a_list(pattern: str, world: Path, tmp_path: Path) -> None:
    for i in range(2):
        shutil.copy(world / "mmc4.jsonl", tmp_path / f"part-{i}.jsonl")
    parts = [str(tmp_path / f"part-{i}.jsonl") for i in range(2)]
    path = parts if pattern == "list" else tmp_path / pattern
    opened = source("mmc4", path, images=str(world / "images"))
    assert len(opened) == 30
    assert [opened.document(i, 0).id for i in (0, 29)] == ["part-0/1", "part-1/15"]
    assert len(source("mmc4", path, images=str(world / "images"), limit=7)) == 7


def test_a_wrong_picture_folder_is_noticed_at_once(world: Path, tmp_path: Path) -> None:
    for format, path in (("coco_captions", "captions.json"), ("mmc4", "mmc4.jsonl")):
        with pytest.raises(
            FileNotFoundError, match=r"data\.train\.mine: none of the first .* set data\.train\.mine\.images"
        ):
            source(format, world / path, images=str(tmp_path))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"format": "mmc3"}, "expected one of mmc4"),
        ({"path": ""}, "empty path"),
        ({"weight": -1}, "weight of source p is -1"),
        ({"image_first_probability": 2}, "image_first_probability of source p is 2"),
        ({"max_images": 0}, "max_images of source p is 0"),
    ],
)
def test_wrong_settings_are_refused_in_one_sentence(wrong: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        replace(SourceConfig("mmc4", "p"), **wrong)
    assert "\n" not in str(error.value)


REAL = {
    "photographs": ("coco_captions", "evaldata/photos/coco_captions.json", "evaldata/photos/coco", 6),
    "karpathy": ("coco_captions", "evaldata/formats/coco_karpathy_blip_layout.json", "evaldata/photos/coco", None),
    "tar": ("pair_tars", "evaldata/formats/webdataset_sample_00000.tar", None, 4),
}


@pytest.mark.parametrize("name", REAL)
def test_real_samples_are_read_without_a_skip(name: str) -> None:
    format, path, images, count = REAL[name]
    opened = source(format, shared_path(path), images=str(shared_path(images)) if images else None)
    assert len(opened) == count or (count is None and len(opened) > 0)
    for i in range(len(opened)):
        document = opened[i]
        assert document.n_images == 1
        for item in document.items:
            if isinstance(item, ImageItem):
                assert ImageViews(28)(item)[0].float().std() > 5
            else:
                assert item.text == item.text.lower().strip()


def test_real_mmc4_lines_become_documents(tmp_path: Path) -> None:
    """The sample has no pictures of its own, so each name gets a real photograph."""
    photos = sorted(shared_path("evaldata/photos/coco").glob("*.jpg"))
    lines = shared_path("evaldata/formats/mmc4_docs_sample.jsonl")
    names = [image["image_name"] for line in lines.read_text().splitlines() for image in json.loads(line)["image_info"]]
    for i, name in enumerate(names):
        shutil.copy(photos[i % len(photos)], tmp_path / name)
    opened = source(
        "mmc4", lines, images=str(tmp_path), min_similarity=0.0, drop_single_image_probability=0.0, max_images=99
    )
    documents = [opened[i] for i in range(len(opened))]
    assert sum(document.n_images for document in documents) == len(names)
    assert all(ImageViews(28)(item) for d in documents for item in d.items if isinstance(item, ImageItem))
