"""What each fine-tuning stage gives and what it learns, written out by hand (SPEC 3.6, 3.7; paper, Appendix B.2).

A document is written as its tokens are: ``<s>``, ``</s>``, one ``<img>`` for a picture; what is learned stands in
``[ ]``, a picture that is drawn is ``<IMG>``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from factories import ByteCodec, byte_tokenizer, tiny_config
from PIL import Image

from mmi.compose import compose, parse_override
from mmi.config_tree import from_tree
from mmi.data.datamodule import InterleavedDataModule
from mmi.data.encode import EncodedDocument, EncodingRules, encode_document
from mmi.data.sources import SourceConfig, build_source
from mmi.models.build import build_network
from mmi_eval.formats.errors import write_json
from mmi_eval.formats.grounding_rows import GroundingRow, write_grounding_rows

TOKENIZER = byte_tokenizer()
QUESTION = "Based on the image, please answer the question."
FIND = "Provide the bounding box coordinate of the region this sentence describes"
TOLD = [f"{word} happens" for word in ("one", "two", "three", "four", "five")]


def audited(encoded: EncodedDocument) -> str:
    """A document in the notation above."""
    special, told, images, inside = TOKENIZER.special, "", iter(encoded.images), False
    waiting: list[int] = []

    def flush() -> str:
        text = TOKENIZER.decode(waiting)
        waiting.clear()
        return text

    for token, label in zip(encoded.ids.tolist(), encoded.labels.tolist(), strict=True):
        assert label in (-100, token)
        if token == special.image:
            assert label == -100
            continue
        if (label >= 0) != inside:
            told += flush() + ("]" if inside else "[")
            inside = label >= 0
        if token < 3 or token >= ByteCodec.vocab_size:
            drawn = token == special.image_start and next(images).loss
            told += flush() + {special.bos: "<s>", special.eos: "</s>"}.get(token, "<IMG>" if drawn else "<img>")
        else:
            waiting.append(token)
    return told + flush() + ("]" if inside else "")


def learned(config: SourceConfig, index: int = 0) -> str:
    document = build_source("mine", config, 0).document(index, 0)
    return audited(encode_document(document, TOKENIZER, EncodingRules(tokens_per_image=2)))


def preset(name: str, key: str, **changed: Any) -> SourceConfig:
    """A source of a shipped config with its files elsewhere."""
    tree = compose([f"data/{name}.yaml"], [])["data"]["train"][key]
    tree = {k: v for k, v in tree.items() if k not in ("images", "augment")}
    return from_tree(SourceConfig, tree | changed, key)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photo")
    Image.new("RGB", (100, 50), (200, 30, 60)).save(folder / "a.png")
    return folder


@pytest.fixture(scope="module")
def rows(photo: Path) -> str:
    write_grounding_rows(photo / "rows.jsonl", [GroundingRow("a.png", "red car", (10.0, 5.0, 60.0, 50.0))])
    return str(photo / "rows.jsonl")


def pointed(rows: str, **changed: Any) -> SourceConfig:
    return preset("sft_grounding", "refcoco", format="grounding_rows", path=rows, split=None, **changed)


def test_a_box_is_learned_after_the_official_wording(rows: str) -> None:
    assert learned(pointed(rows)) == f"<s><img>{FIND}. red car<box>[ (099,099)(599,999)</box></s>]"


def test_a_box_is_learned_after_the_paper_s_wording(rows: str) -> None:
    template = f"{{image}}Question: {FIND}: {{question}}, Answer: {{answer}}"
    expected = f"<s><img>Question: {FIND}: red car, Answer:[ (099,099)(599,999)</s>]"
    assert learned(pointed(rows, turn_template=template)) == expected


def test_words_of_a_region_are_learned_after_its_box(rows: str) -> None:
    expected = (
        "<s><img>Provide a short description for this <ref>region</ref><box>(099,099)(599,999)</box>.[ red car</s>]"
    )
    assert learned(pointed(rows, describe_regions=True)) == expected


def vqa(photo: Path) -> dict[str, Any]:
    question = {"image_id": 1, "question_id": 1, "question": "what is red?"}
    answers = [{"answer": "car", "answer_confidence": "yes", "answer_id": 1}]
    write_json(photo / "q.json", {"questions": [question]})
    told = {"question_id": 1, "image_id": 1, "answers": answers, "multiple_choice_answer": "car"}
    write_json(photo / "a.json", {"annotations": [told]})
    (photo / "train2014").mkdir(exist_ok=True)
    Image.open(photo / "a.png").save(photo / "train2014" / "COCO_train2014_000000000001.jpg")
    return {"path": str(photo / "q.json"), "annotations": str(photo / "a.json"), "split": "train2014"}


def test_an_answer_is_learned_after_the_paper_s_wording(photo: Path) -> None:
    config = preset("sft_vqa_caption", "vqav2", **vqa(photo), images=str(photo))
    assert learned(config) == f"<s>{QUESTION}<img>what is red?. The answer is:[ car</s>]"


def test_vizwiz_is_told_that_a_question_may_have_no_answer(photo: Path) -> None:
    record = {"image": "a.png", "question": "what is red?", "answers": [{"answer": "car"}], "answerable": 1}
    write_json(photo / "vizwiz.json", [record])
    config = SourceConfig("vizwiz", str(photo / "vizwiz.json"))
    assert learned(config) == (
        f"<s>{QUESTION}<img>what is red? When the provided information is insufficient, respond with 'Unanswerable'. "
        "Please provide an accurate answer within one word. The answer is:[ car</s>]"
    )


@pytest.mark.parametrize(
    ("template", "asked"),
    [
        (None, "Provide a one-sentence caption for the provided image."),
        ("{image} Please describe the image in detail. {answer}", "Please describe the image in detail."),
    ],
    ids=["short", "long"],
)
def test_a_caption_is_learned_after_the_paper_s_request(template: str | None, asked: str, photo: Path) -> None:
    sentence = {"raw": "a red field", "tokens": ["a", "red", "field"], "imgid": 0, "sentid": 1}
    image = {"filename": "a.png", "split": "train", "sentences": [sentence], "cocoid": 1, "imgid": 0, "sentids": [1]}
    write_json(photo / "captions.json", {"images": [image], "dataset": "coco"})
    own = {} if template is None else {"turn_template": template}
    config = preset("sft_vqa_caption", "coco_caption", path=str(photo / "captions.json"), images=str(photo), **own)
    assert learned(config) == f"<s><img>{asked}[ a red field</s>]"


def test_every_answer_of_a_conversation_is_learned_and_closed(photo: Path) -> None:
    said = [("human", "<image>\nwhat is it?"), ("gpt", "a car"), ("human", "and now?"), ("gpt", "gone")]
    turns = [{"from": speaker, "value": value} for speaker, value in said]
    write_json(photo / "talk.json", [{"id": "1", "image": "a.png", "conversations": turns}])
    config = preset("sft_vqa_caption", "llava_mix_665k", path=str(photo / "talk.json"), images=str(photo))
    expected = "<s><img>USER: what is it? ASSISTANT:[ a car</s>]USER: and now? ASSISTANT:[ gone</s>]"
    assert learned(config) == expected


@pytest.mark.parametrize("first", [1.0, 0.0], ids=["image first", "text first"])
def test_of_a_label_map_a_caption_and_a_photograph_only_the_last_is_learned(first: float, microworld: Path) -> None:
    config = preset(
        "sft_ade20k", "ade20k", path=str(microworld / "ade20k" / "training.json"), image_first_probability=first
    )
    document = build_source("mine", config, 0)[0]
    caption = next(item.text for item in document.items if hasattr(item, "text"))
    assert caption.endswith(".")
    assert not caption.endswith("..")
    expected = f"<s><img>{caption}[<IMG></s>]" if first else f"<s>{caption}<img>[<IMG></s>]"
    assert learned(config) == expected


def story(folder: Path) -> str:
    """A story in VIST's layout, as released."""
    rows = [
        [
            {
                "story_id": "7",
                "worker_arranged_photo_order": i,
                "photo_flickr_id": f"{i}",
                "original_text": text,
                "text": text,
            }
        ]
        for i, text in enumerate(TOLD)
    ]
    images = [{"id": f"{i}", "album_id": "1"} for i in range(5)]
    (folder / "train").mkdir(exist_ok=True)
    for i in range(5):
        Image.new("RGB", (20, 20), (40 * i, 0, 0)).save(folder / "train" / f"{i}.png")
    write_json(folder / "train.story-in-sequence.json", {"annotations": rows, "images": images, "albums": []})
    return str(folder / "train.story-in-sequence.json")


def test_of_a_story_the_pictures_are_learned(tmp_path: Path) -> None:
    config = preset("sft_vist", "vist", path=story(tmp_path), images=str(tmp_path))
    assert learned(config) == "<s>" + "".join(f"{text}[<IMG>]" for text in TOLD)[:-1] + "</s>]"


def test_a_joint_story_is_learned_from_its_second_sentence_on(tmp_path: Path) -> None:
    joint = compose(["data/sft_joint_stories.yaml"], [])["data"]["train"]
    rules = {key: joint["pororo"][key] for key in ("learn_text", "given_turns")}
    assert all(rules.items() <= source.items() for source in joint.values())
    config = preset("sft_vist", "vist", path=story(tmp_path), images=str(tmp_path), **rules)
    assert learned(config) == f"<s>{TOLD[0]}<img>[" + "".join(f"{text}<IMG>" for text in TOLD[1:]) + "</s>]"
    images_only = preset("sft_vist", "vist", path=story(tmp_path), images=str(tmp_path), given_turns=3)
    given = "".join(f"{text}<img>" for text in TOLD[:3])
    assert learned(images_only) == f"<s>{given}{TOLD[3]}[<IMG>]{TOLD[4]}[<IMG></s>]"


def test_a_story_whose_turns_are_all_given_is_left_out(tmp_path: Path) -> None:
    from mmi.data.skips import SkipError

    config = preset("sft_vist", "vist", path=story(tmp_path), images=str(tmp_path), given_turns=5)
    with pytest.raises(SkipError, match="every turn is given"):
        build_source("mine", config, 0)[0]


def test_the_paper_s_augmentations_are_those_of_the_configs() -> None:
    """Tables 12 to 15: none (the whole picture), horizontal flip, horizontal flip, centre crop."""
    for name, flip, crop in (
        ("sft_vqa_caption", 0.0, "resize"),
        ("sft_grounding", 0.5, "resize"),
        ("sft_ade20k", 0.5, "center"),
        ("sft_vist", 0.0, "center"),
        ("sft_pororo", 0.0, "center"),
        ("sft_flintstones", 0.0, "center"),
        ("sft_joint_stories", 0.0, "center"),
    ):
        data = compose([f"data/{name}.yaml"], [])["data"]
        assert data.get("crop", "center") == crop
        for key, tree in data["train"].items():
            augment = from_tree(SourceConfig, tree, key).augment
            assert (augment.flip_probability if augment else 0.0) == flip
            assert augment is None or (augment.crop_probability == 0 and not augment.official)


def test_text_alone_is_learned_without_an_image_decoder(microworld: Path) -> None:
    """Stages that only write build no pictures to draw and need no image decoder."""
    sizes = {"seq_length": 128, "image_size": 32, "target_size": "null", "tokens_per_image": 3, "num_workers": 0}
    overrides = {"paths.data": str(microworld), "data.tokenizer": str(microworld / "tokenizer")}
    overrides |= {f"data.{key}": str(value) for key, value in sizes.items()}
    tree = compose(["data/sft_grounding.yaml"], [parse_override(key, value) for key, value in overrides.items()])
    train = {key: from_tree(SourceConfig, source, key) for key, source in tree["data"].pop("train").items()}
    data = InterleavedDataModule(train=train, **tree["data"])
    special = data.tokenizer.special
    ids = {"bos_token_id": special.bos, "eos_token_id": special.eos, "pad_token_id": special.pad}
    language = ids | {"vocab_size": data.tokenizer.vocab_size}
    network_config = tiny_config(language=language, decoder={"enabled": False})
    data.check_network(network_config)
    batch = next(iter(data.train_dataloader()))
    assert batch.target_images is None
    assert not batch.image_loss.any()
    torch.manual_seed(0)
    losses = build_network(network_config)(batch, None).text_loss
    assert losses.isfinite().all()
    assert losses.numel() > 0
