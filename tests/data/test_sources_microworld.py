"""Every source reads the micro-world's files of its layout: counts, first items, no skip, every picture decodes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mmi.data.datamodule import InterleavedDataModule
from mmi.data.document import Document, ImageItem, TextItem
from mmi.data.encode import EncodingRules, encode_document
from mmi.data.images import ImageViews
from mmi.data.sources import SOURCES, SourceConfig, open_source
from mmi.tokens import Tokenizer

# Format, path, further settings, documents, and the shape of each: t given text, T learned text, i and I pictures.
CASES: dict[str, tuple[str, str, dict[str, Any], int, str]] = {
    "mmc4": ("mmc4", "stories/train.jsonl.zip", {"images": "stories/images"}, 12, ""),
    "obelics": ("obelics", "obelics/train.jsonl.zip", {"images": "obelics/images"}, 12, ""),
    "pairs": ("pair_tars", "pairs/train", {"image_first_probability": 1.0}, 12, "IT"),
    "coco": ("coco_captions", "coco/annotations/captions_train.json", {"images": "coco/images"}, 12, ""),
    "blip": ("coco_captions", "coco/karpathy/coco_karpathy_val.json", {"images": "coco/images"}, 2, ""),
    "karpathy train": ("karpathy", "coco/karpathy/dataset_coco.json", {"images": "coco/images"}, 12, ""),
    "karpathy test": ("karpathy", "coco/karpathy/dataset_coco.json", {"images": "coco/images", "split": "test"}, 3, ""),
    "flickr30k tokens": ("flickr30k", "flickr30k/results_20130124.token", {}, 5, ""),
    "flickr30k coco": ("flickr30k", "flickr30k/test1k.token.coco_format", {}, 3, ""),
    "flickr30k split": ("karpathy", "flickr30k/dataset_flickr30k.json", {"split": "val"}, 2, ""),
    "nocaps": ("nocaps", "nocaps/nocaps_val_4500_captions.json", {}, 2, ""),
    "narratives": ("narratives", "narratives/coco_val_captions.jsonl", {"images": "coco/images"}, 2, ""),
    "paragraphs": ("paragraphs", "paragraphs/paragraphs_v1.json", {}, 17, ""),
    "paragraphs of a split": (
        "paragraphs",
        "paragraphs/paragraphs_coco.json",
        {"annotations": "paragraphs/test_split.json"},
        3,
        "",
    ),
    "conversations": ("conversations", "conversations/train.json", {}, 12, ""),
    "vqa": (
        "vqa",
        "vqa/questions_train.json",
        {"annotations": "vqa/annotations_train.json", "images": "coco/images"},
        36,
        "titT",
    ),
    "okvqa": (
        "vqa",
        "okvqa/questions_train.json",
        {"annotations": "okvqa/annotations_train.json", "images": "coco/images"},
        12,
        "titT",
    ),
    "textvqa": ("textvqa", "textvqa/TextVQA_0.5.1_train.json", {}, 24, "titT"),
    "vizwiz": ("vizwiz", "vizwiz/train.json", {}, 12, "titT"),
    "gqa": ("gqa", "gqa/train_balanced_questions.json", {}, 59, "titT"),
    "refcoco": ("refcoco", "refcoco/refcoco/refs(unc).p", {"images": "coco/images"}, 0, "itT"),
    "refcoco+": ("refcoco", "refcoco/refcoco+/refs(unc).p", {"images": "coco/images", "split": "testB"}, 0, "itT"),
    "refcocog": ("refcoco", "refcoco/refcocog/refs(umd).p", {"images": "coco/images", "split": "val"}, 0, "itT"),
    "ade20k": ("ade20k", "ade20k/training.json", {}, 12, "itI"),
    "ade20k text first": ("ade20k", "ade20k/validation.json", {"image_first_probability": 0.0}, 2, "tiI"),
    "vist official": ("vist", "vist/annotations/train.story-in-sequence.json", {}, 12, "tI" * 5),
    "vist formatted": ("vist", "vist/annotations/val_formatted_filtered.json", {"learn_text": True}, 2, "TI" * 5),
    "pororo": ("pororo", "pororo", {}, 12, "tI" * 5),
    "flintstones": ("flintstones", "flintstones", {"split": "test", "image_first_probability": 1.0}, 3, "It" * 5),
}
NOT_IN_THE_WORLD = {
    *("pair_jsonl", "folder", "textcaps", "grounding_rows"),
    *("chartqa", "docvqa", "infovqa", "estvqa", "stvqa", "ocrvqa", "dvqa"),
}


def opened(world: Path, name: str, **more: Any):
    format, path, settings, _, _ = CASES[name]
    placed = {k: str(world / v) if k in ("images", "annotations") else v for k, v in settings.items()} | more
    return open_source("mine", SourceConfig(format, str(world / path), **placed), 0, where="x")  # type: ignore[arg-type]


def shape(document: Document) -> str:
    letters = ("ti" if not item.loss else "TI" for item in document.items)
    return "".join(pair[isinstance(item, ImageItem)] for pair, item in zip(letters, document.items, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_every_document_is_read_and_its_pictures_decode(name: str, microworld: Path) -> None:
    source = opened(microworld, name, **({"drop_single_image_probability": 0.0} if name in ("mmc4", "obelics") else {}))
    count, expected = CASES[name][3:]
    documents = [source.document(i, 0) for i in range(len(source))]
    assert len(documents) == count or (count == 0 and documents)
    assert len({document.id for document in documents}) == len(documents)
    for document in documents:
        assert shape(document) == expected or not expected
        assert document.n_images >= (0 if name == "conversations" else 1)
        for item in document.items:
            if isinstance(item, ImageItem):
                view = ImageViews(16)(item)[0]
                # Some of VizWiz's pictures are dark on purpose.
                assert view.float().std() > 1 or name == "vizwiz"
            else:
                assert item.text.strip()


def test_every_format_is_proven_here_or_on_files_written_in_its_own_test() -> None:
    assert {case[0] for case in CASES.values()} | NOT_IN_THE_WORLD == set(SOURCES)


def test_refcoco_asks_for_the_box_that_the_files_give(microworld: Path) -> None:
    document = opened(microworld, "refcoco")[0]
    asked, answered = document.items[1], document.items[2]
    assert isinstance(asked, TextItem)
    assert isinstance(answered, TextItem)
    assert asked.text.startswith("Provide the bounding box coordinate of the region this sentence describes. ")
    assert asked.text.endswith("<box>")
    assert not asked.loss
    assert answered.closes
    corner, end = answered.text.removesuffix("</box>").strip("()").split(")(")
    assert all(len(part) == 3 and 0 <= int(part) <= 999 for point in (corner, end) for part in point.split(","))


def test_colours_of_labels_are_the_official_ones(microworld: Path) -> None:
    import numpy as np
    from PIL import Image

    from mmi_eval.formats.ade20k import labels_of_colours, read_labels

    first = opened(microworld, "ade20k")[0].items[0]
    assert isinstance(first, ImageItem)
    assert not first.loss
    with first.open() as stream:
        colours = np.array(Image.open(stream).convert("RGB"))
    assert np.array_equal(labels_of_colours(colours), read_labels(first.uri))


def test_captions_of_scenes_end_in_one_full_stop(microworld: Path) -> None:
    captions = [item.text for item in opened(microworld, "ade20k")[0].items if isinstance(item, TextItem)]
    written = json.loads((microworld / "ade20k" / "training.json").read_text())[0]["caption"]
    assert captions == [f"{written}."]


def test_clips_show_another_frame_in_another_epoch_and_the_same_one_twice(microworld: Path) -> None:
    source = opened(microworld, "pororo")

    def frames(epoch: int) -> list[bytes]:
        return [item.open().read() for item in source.document(3, epoch).items if isinstance(item, ImageItem)]

    assert frames(2) == frames(2)
    assert len({tuple(frames(epoch)) for epoch in range(8)}) > 1


def test_names_of_characters_keep_their_capital(microworld: Path) -> None:
    source = opened(microworld, "flintstones")
    texts = [item.text for i in range(3) for item in source[i].items if isinstance(item, TextItem)]
    assert all(text == text.lower() or any(name in text for name in ("Fred", "Wilma", "Dino")) for text in texts)


def test_a_caption_that_answers_a_request_is_learned_and_its_picture_is_given(microworld: Path) -> None:
    template = "{image} Provide a one-sentence caption for the provided image. {answer}"
    source = opened(microworld, "coco", turn_template=template)
    assert source.pairs is False
    assert shape(source[0]) == "itT"
    assert source[0].items[1].text == "Provide a one-sentence caption for the provided image."  # type: ignore[union-attr]


def test_the_paper_s_wording_of_questions(microworld: Path) -> None:
    items = opened(microworld, "vqa")[0].items
    question = json.loads((microworld / "vqa" / "questions_train.json").read_text())["questions"][0]["question"]
    answer = json.loads((microworld / "vqa" / "annotations_train.json").read_text())["annotations"][0]
    assert [item.text for item in items if isinstance(item, TextItem)] == [
        "Based on the image, please answer the question.",
        f"{question}. The answer is:",
        answer["multiple_choice_answer"],
    ]


def test_pages_keep_their_order_and_at_most_so_many_pictures(microworld: Path) -> None:
    everything = opened(microworld, "obelics", max_images=99, drop_single_image_probability=0.0)
    few = opened(microworld, "obelics", max_images=1, drop_single_image_probability=0.0)
    for i in range(len(everything)):
        whole, cut = everything[i], few[i]
        assert cut.n_images == 1
        assert [x.text for x in whole.items if isinstance(x, TextItem)] == [
            x.text for x in cut.items if isinstance(x, TextItem)
        ]
        kept = [x.uri for x in cut.items if isinstance(x, ImageItem)]
        assert set(kept) < {x.uri for x in whole.items if isinstance(x, ImageItem)} or whole.n_images == 1


@pytest.mark.parametrize("name", ["mmc4", "pairs", "coco", "vqa", "refcoco", "pororo"])
def test_a_limit_and_an_epoch_change_nothing_about_ids(name: str, microworld: Path) -> None:
    source = opened(microworld, name)
    some = opened(microworld, name, limit=2, **({} if name != "mmc4" else {"drop_single_image_probability": 0.0}))
    assert len(some) == 2
    ids = [source.document(i, 5).id for i in range(2)] if name != "mmc4" else None
    assert ids is None or ids == [some.document(i, 0).id for i in range(2)]


def test_configs_survive_a_round_trip(microworld: Path) -> None:
    from mmi.config_tree import from_tree, to_tree

    config = SourceConfig("pair_tars", "x", opt_out=["a.txt"])
    config = replace(config, filters=replace(config.filters, min_aesthetic=5.0, columns={"aesthetic": "score"}))
    assert from_tree(SourceConfig, to_tree(config)) == config


def test_all_sources_together_make_batches_with_something_to_learn(microworld: Path) -> None:
    train = {}
    for name, (format, path, settings, _, _) in CASES.items():
        placed = {k: str(microworld / v) if k in ("images", "annotations") else v for k, v in settings.items()}
        train[name] = SourceConfig(format, str(microworld / path), **placed)  # type: ignore[arg-type]
    data = InterleavedDataModule(
        str(microworld / "tokenizer"),
        train,
        seq_length=512,
        batch_size=4,
        image_size=16,
        target_size=16,
        tokens_per_image=4,
        buffer=4,
        crop="resize",
    )
    seen: set[str] = set()
    for _, batch in zip(range(60), data.train_dataloader(), strict=False):
        assert (batch.labels >= 0).any()
        assert batch.image_loss.shape[0] == batch.images.shape[0]
        seen |= {span.source for span in batch.provenance}
    assert len(seen) >= len(CASES) - 2


@pytest.mark.parametrize(("name", "learned"), [("ade20k", 1), ("vist official", 5), ("vqa", 0), ("refcoco", 0)])
def test_only_the_pictures_to_be_drawn_are_learned(name: str, learned: int, microworld: Path) -> None:
    tokenizer = Tokenizer.load(str(microworld / "tokenizer"))
    document = opened(microworld, name)[0]
    encoded = encode_document(document, tokenizer, EncodingRules(tokens_per_image=2))
    assert sum(item.loss for item in encoded.images) == learned
    starts = [int(label) for label in encoded.labels if label == tokenizer.special.image_start]
    assert len(starts) == learned
    text = [label for label in encoded.labels if label >= 0 and label != tokenizer.special.image_start]
    told = [item for item in document.items if isinstance(item, TextItem) and item.loss]
    # Where no text is learned, only the end of the document is.
    assert (len(text) > 1) == bool(told)
