"""Every source for which there is a real sample reads it: counts and first items."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from shared_data import shared_path

from mmi.data.document import Document, ImageItem, TextItem
from mmi.data.images import ImageViews
from mmi.data.reading import problems_of
from mmi.data.sources import Source, SourceConfig, open_source
from mmi_eval.formats.plain_pickle import write_pickle

REAL = "evaldata"


def opened(format: str, path: Path, images: Path | None = None, **rules: Any) -> Source:
    place = None if images is None else str(images)
    return open_source("real", SourceConfig(format, str(path), place, **rules), 0, where="x")  # type: ignore[arg-type]


def texts(document: Document) -> list[str]:
    return [item.text for item in document.items if isinstance(item, TextItem)]


def decode(source: Source) -> None:
    for i in range(len(source)):
        for item in source[i].items:
            if isinstance(item, ImageItem):
                assert ImageViews(28)(item)[0].float().std() > 5


def photographs(folder: Path, names: list[str]) -> Path:
    """Real photographs under the names a sample without pictures gives."""
    photos = sorted(shared_path(f"{REAL}/photos/coco").glob("*.jpg"))
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photos[i % len(photos)], folder / name)
    return folder


def test_vqav2_questions_and_answers() -> None:
    folder = shared_path(f"{REAL}/vqa")
    source = opened(
        "vqa",
        folder / "vqav2_sample_questions.json",
        shared_path(f"{REAL}/photos/vqav2"),
        annotations=str(folder / "vqav2_sample_annotations.json"),
        split="train2014",
    )
    assert len(source) == 3
    assert texts(source[0])[:2] == [
        "Based on the image, please answer the question.",
        "What is this photo taken looking through?. The answer is:",
    ]
    assert texts(source[0])[2] == "net"
    decode(source)


def test_vqav2_without_a_split_says_what_to_set() -> None:
    folder = shared_path(f"{REAL}/vqa")
    with pytest.raises(ValueError, match="set split, such as train2014"):
        opened(
            "vqa",
            folder / "vqav2_sample_questions.json",
            shared_path(f"{REAL}/photos/vqav2"),
            annotations=str(folder / "vqav2_sample_annotations.json"),
        )


def test_textvqa_in_the_vqa_layout(tmp_path: Path) -> None:
    folder = shared_path(f"{REAL}/vqa")
    questions = json.loads((folder / "textvqa_val60_questions.json").read_text())["questions"]
    photographs(tmp_path, sorted({f"{row['image_id']}.jpg" for row in questions}))
    source = opened(
        "vqa",
        folder / "textvqa_val60_questions.json",
        tmp_path,
        annotations=str(folder / "textvqa_val60_annotations.json"),
    )
    assert len(source) == len(questions) == 60
    assert questions[0]["question"] in texts(source[0])[1]
    assert all(source[i].n_images == 1 for i in range(60))


def test_vizwiz(tmp_path: Path) -> None:
    path = shared_path(f"{REAL}/vqa/vizwiz_val_official_layout.json")
    rows = json.loads(path.read_text())
    photographs(tmp_path, [row["image"] for row in rows])
    source = opened("vizwiz", path, tmp_path)
    assert len(source) == 300
    assert texts(source[0])[-1] == "unanswerable"
    assert source[0].id == "VizWiz_val_00000000.jpg"


def test_gqa() -> None:
    source = opened("gqa", shared_path(f"{REAL}/vqa/gqa_sample_questions.json"), shared_path(f"{REAL}/photos/gqa"))
    first = json.loads(shared_path(f"{REAL}/vqa/gqa_sample_questions.json").read_text())[source[0].id]
    assert len(source) == 2
    assert texts(source[0])[-1] == first["answer"]
    decode(source)


def test_llava_conversation(tmp_path: Path) -> None:
    path = shared_path(f"{REAL}/formats/llava_conversation_sample.json")
    (row,) = json.loads(path.read_text())
    photographs(tmp_path, [row["image"]])
    source = opened("conversations", path, tmp_path, turn_template="{question} {answer}")
    assert len(source) == 1
    assert source[0].id == row["id"]
    assert problems_of(source) == []
    picture, asked, answered = source[0].items
    assert isinstance(picture, ImageItem)
    assert isinstance(asked, TextItem)
    assert isinstance(answered, TextItem)
    assert (asked.text, asked.loss) == ("Write a prompt for Stable Diffusion to generate this image.", False)
    assert answered.text.startswith("a beautiful painting of chernobyl")
    assert answered.loss
    decode(source)


def test_conversations_without_a_picture_are_used_and_counted(tmp_path: Path) -> None:
    (row,) = json.loads(shared_path(f"{REAL}/formats/llava_conversation_sample.json").read_text())
    alone = {"id": "alone", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}
    (tmp_path / "talk.json").write_text(json.dumps([row, alone]))
    photographs(tmp_path, [row["image"]])
    source = opened("conversations", tmp_path / "talk.json", tmp_path)
    (told,) = problems_of(source)
    assert (told.reason, told.count, told.whole) == ("conversation without a picture, used as text", 1, False)
    assert source[1].n_images == 0


def test_official_pair_lines_with_python_s_quotes(tmp_path: Path) -> None:
    path = shared_path(f"{REAL}/formats/laion_pairs_pythonliteral_sample.txt")
    import ast

    rows = [ast.literal_eval(line) for line in path.read_text().splitlines() if line.strip()]
    photographs(tmp_path, [row["image"] for row in rows])
    source = opened("pair_jsonl", path, tmp_path, image_first_probability=1.0, min_caption_chars=10)
    assert len(source) == len(rows)
    assert texts(source[0]) == ["rollercoaster photograph - sunset gondola ride by allen beatty"]
    decode(source)


def test_img2dataset_tar_with_the_columns_it_has() -> None:
    path = shared_path(f"{REAL}/formats/webdataset_sample_00000.tar")
    wide = opened("pair_tars", path, filters=SourceConfig("pair_tars", "x").filters.__class__(min_width=500))
    assert len(wide) == 4
    assert texts(wide[0]) == ["a giraffe standing outside of a building next to a tree."]


def test_karpathy_dataset_file() -> None:
    path = shared_path(f"{REAL}/formats/karpathy_dataset_coco_layout.json")
    images = json.loads(path.read_text())["images"]
    splits = {image["split"] for image in images}
    for split in sorted(splits):
        wanted = [i for i in images if i["split"] == split or (split == "train" and i["split"] == "restval")]
        source = opened("karpathy", path, shared_path(f"{REAL}/photos/coco"), split=split)
        assert len(source) == len(wanted)
        assert source[0].id == f"{wanted[0]['filepath']}/{wanted[0]['filename']}"
        decode(source)


def test_flickr30k_test_pictures(tmp_path: Path) -> None:
    path = shared_path(f"{REAL}/captions/flickr30k_test1k_refs.json")
    names = [row["file_name"] for row in json.loads(path.read_text())["images"]]
    photographs(tmp_path, names)
    source = opened("flickr30k", path, tmp_path, lowercase=False)
    captions = {row["caption"].strip() for row in json.loads(path.read_text())["annotations"]}
    assert len(source) == 1000
    assert {texts(source.document(0, epoch))[0] for epoch in range(5)} <= captions
    assert len({texts(source.document(0, epoch))[0] for epoch in range(5)}) == 5


@pytest.mark.parametrize("name", ["vist_sis_sample.json", "vist_formatted_filtered_layout.json"])
def test_vist_stories(name: str, tmp_path: Path) -> None:
    path = shared_path(f"{REAL}/formats/{name}")
    content = json.loads(path.read_text())["annotations"]
    if isinstance(content, dict):
        first = next(iter(content.values()))
        sentence = (first[0]["image_id"], first[0]["caption"])
        photos = [row["image_id"] for story in content.values() for row in story]
        count = len(content)
    else:
        rows = [row[0] for row in content]
        sentence = (rows[0]["photo_flickr_id"], rows[0]["text"])
        photos, count = [row["photo_flickr_id"] for row in rows], len({row["story_id"] for row in rows})
    photographs(tmp_path, [f"val_images/{photo}.jpg" for photo in photos])
    source = opened("vist", path, tmp_path, split="val")
    assert len(source) == count
    assert sentence[1].strip() in texts(source[0])
    learned = [(isinstance(item, ImageItem), item.loss) for item in source[0].items]
    assert set(learned) == {(True, True), (False, False)}
    decode(source)


def test_referring_expressions_with_boxes_in_fractions(tmp_path: Path) -> None:
    path = shared_path(f"{REAL}/formats/rec_rows_sample.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    photographs(tmp_path, [row["img_path"] for row in rows])
    source = opened("grounding_rows", path, tmp_path)
    assert len(source) == 5
    assert texts(source[0]) == [
        "Provide the bounding box coordinate of the region this sentence describes. guy wihtout cap<box>",
        "(388,387)(815,917)</box>",
    ]


def test_referring_expressions_with_boxes_in_pixels(tmp_path: Path) -> None:
    path = shared_path(f"{REAL}/refcoco/refcoco_testA_sample.json")
    rows = json.loads(path.read_text())
    for name in {row["image"] for row in rows}:
        Image.new("RGB", (640, 480), (90, 120, 30)).save(tmp_path / name)
    source = opened("grounding_rows", path, tmp_path)
    assert len(source) == 26
    assert texts(source[0])[1] == "(000,198)(176,873)</box>"


def test_a_record_of_the_refcoco_pickle(tmp_path: Path) -> None:
    sample = json.loads(shared_path(f"{REAL}/formats/refcoco_refs_record_sample.json").read_text())
    image = sample["image"] | {"file_name": "COCO_train2014_000000581857.jpg"}
    write_pickle(tmp_path / "refs(unc).p", [sample["ref"]])
    instances = {"images": [image], "annotations": [sample["instances_annotation_for_it"]], "categories": []}
    (tmp_path / "instances.json").write_text(json.dumps(instances))
    photographs(tmp_path, ["train2014/COCO_train2014_000000581857.jpg"])
    source = opened("refcoco", tmp_path / "refs(unc).p")
    assert [source[i].id for i in range(len(source))] == ["0"]
    assert "the lady with the blue shirt" in texts(source[0])[0]
    # 103.93 / 427, 299.99 / 640, 238.15 / 427, 477.41 / 640, each times 999.
    assert texts(source[0])[1] == "(243,468)(557,745)</box>"


def test_ade20k(tmp_path: Path) -> None:
    root = shared_path(f"{REAL}/ade20k")
    for folder in ("images", "annotations"):
        (tmp_path / folder / "validation").mkdir(parents=True)
    shutil.copy(root / "images" / "ADE_val_00000001.jpg", tmp_path / "images" / "validation")
    shutil.copy(root / "annotations" / "ADE_val_00000001.png", tmp_path / "annotations" / "validation")
    (tmp_path / "validation.json").write_text('[{"image_id": "ADE_val_00000001", "caption": "a room with a bed"}]')
    source = opened("ade20k", tmp_path / "validation.json")
    colours, caption, photo = source[0].items
    assert isinstance(colours, ImageItem)
    assert isinstance(photo, ImageItem)
    assert texts(source[0]) == ["a room with a bed."]
    assert (colours.loss, caption.loss, photo.loss) == (False, False, True)
    with colours.open() as one, photo.open() as two:
        assert Image.open(one).size == Image.open(two).size
    decode(source)


def test_mmc4_pictures_in_a_tar(tmp_path: Path) -> None:
    import tarfile

    lines = shared_path(f"{REAL}/formats/mmc4_docs_sample.jsonl")
    names = [image["image_name"] for line in lines.read_text().splitlines() for image in json.loads(line)["image_info"]]
    photographs(tmp_path / "photos", names)
    with tarfile.open(tmp_path / "photos-0.tar", "w") as archive:
        for name in names:
            archive.add(tmp_path / "photos" / name, f"some/folder/{name}")
    rules = {"min_similarity": 0.0, "drop_single_image_probability": 0.0, "max_images": 99}
    packed = opened("mmc4", lines, tmp_path / "photos-*.tar", **rules)
    plain = opened("mmc4", lines, tmp_path / "photos", **rules)
    assert sum(packed[i].n_images for i in range(len(packed))) == len(names)
    assert [texts(packed[i]) for i in range(len(packed))] == [texts(plain[i]) for i in range(len(plain))]
    decode(packed)
