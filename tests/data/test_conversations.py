"""Conversations become documents whose answers are learned, and pictures are given or learned as a source says."""

from __future__ import annotations

from pathlib import Path

import pytest
from factories import byte_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmi.config import ConfigError
from mmi.data.document import Document, ImageItem, TextItem
from mmi.data.encode import EncodedDocument, EncodingRules, encode_document
from mmi.data.skips import SkipError
from mmi.data.sources import Source, SourceConfig, open_source
from mmi_eval.formats.llava import IMAGE_MARK, Conversation, Turn, write_conversations

TOKENIZER = byte_tokenizer()
S = TOKENIZER.special


def talk(*texts: str, images: tuple[str, ...] = (), name: str = "one") -> Conversation:
    """A conversation in which a person begins."""
    turns = tuple(Turn("gpt" if n % 2 else "human", text) for n, text in enumerate(texts))
    return Conversation(name, images, turns)


def conversations(folder: Path, *records: Conversation, missing: tuple[str, ...] = (), **rules: object) -> Source:
    write_conversations(folder / "talk.json", records)
    (folder / "images").mkdir(exist_ok=True)
    for name in {image for record in records for image in record.images} - set(missing):
        Image.new("RGB", (4, 4)).save(folder / "images" / name)
    config = SourceConfig("conversations", str(folder / "talk.json"), **rules)  # type: ignore[arg-type]
    return open_source("talks", config, 0, where="data.train.talks")


def shape(document: Document) -> list[str]:
    """Given text as it is, learned text after a star, pictures as the stem of their name in brackets."""
    return [
        ("*" if item.loss else "") + (item.text if isinstance(item, TextItem) else f"[{Path(item.uri).stem}]")
        for item in document.items
    ]


def encoded(document: Document) -> EncodedDocument:
    return encode_document(document, TOKENIZER, EncodingRules(tokens_per_image=2))


def learned(document: Document) -> str:
    """What is learned, ids with a role as letters in angle brackets."""
    names = {S.eos: "<e>", S.image_start: "<S>"}
    labels = [int(label) for label in encoded(document).labels if label >= 0]
    return "".join(names[i] if i in names else TOKENIZER.decode([i]) for i in labels)


def test_only_answers_are_learned_and_pictures_stand_where_their_marks_are(tmp_path: Path) -> None:
    record = talk(
        f"{IMAGE_MARK}\nWhat colour?",
        "red",
        "And where?",
        " left \n",
        f"{IMAGE_MARK}\n{IMAGE_MARK}Which of {IMAGE_MARK} is it?",
        "none",
        images=("a.png", "b.png", "c.png", "d.png"),
    )
    document = conversations(tmp_path, record)[0]
    assert shape(document) == [
        "[a]",
        "Question: What colour? Short answer:",
        "*red.",
        "Question: And where? Short answer:",
        "*left.",
        "[b]",
        "[c]",
        "Question: Which of",
        "[d]",
        "is it? Short answer:",
        "*none.",
    ]
    assert learned(document) == " red.<e> left.<e> none.<e>"


def test_a_picture_after_its_question_stands_before_the_answer(tmp_path: Path) -> None:
    document = conversations(tmp_path, talk(f"What is it?\n{IMAGE_MARK}", "a cat", images=("a.png",)))[0]
    assert shape(document) == ["Question: What is it?", "[a]", "Short answer:", "*a cat."]


def test_conversations_of_text_alone_are_documents(tmp_path: Path) -> None:
    document = conversations(tmp_path, talk("Hi.", "Hello."), turn_template="USER: {question} ASSISTANT: {answer}")[0]
    assert shape(document) == ["USER: Hi. ASSISTANT:", "*Hello."]
    assert document.n_images == 0


words = st.text("abc? ", max_size=8)
asked = st.tuples(words, st.integers(0, 2), words.filter(str.strip))


@settings(deadline=None, max_examples=40)
@given(rounds=st.lists(asked, min_size=1, max_size=4), learn_images=st.booleans())
def test_every_picture_is_there_in_order_and_labels_spell_the_answers(tmp_path_factory, rounds, learn_images) -> None:
    names = tuple(f"{n}.png" for n in range(sum(n for _, n, _ in rounds)))
    turns = [text for question, n, answer in rounds for text in (IMAGE_MARK * n + question, answer)]
    folder = tmp_path_factory.mktemp("talk")
    document = conversations(
        folder, talk(*turns, images=names), turn_template="{question}={answer}", learn_images=learn_images
    )[0]
    assert [Path(item.uri).name for item in document.items if isinstance(item, ImageItem)] == list(names)
    assert all(item.loss == learn_images for item in document.items if isinstance(item, ImageItem))
    text = learned(document).replace("<S>", "").replace(" ", "")
    assert text == "".join(answer.replace(" ", "") + "<e>" for *_, answer in rounds)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (talk(f"{IMAGE_MARK} What?", "red"), "marks and pictures differ: 1 <image> marks but 0 pictures"),
        (talk("What?", "red", images=("a.png",)), "marks and pictures differ: 0 <image> marks but 1 pictures"),
        (talk("Draw.", IMAGE_MARK, images=("a.png",)), "picture in an answer"),
        (talk(f"{IMAGE_MARK} What?", images=("a.png",)), "nothing is answered"),
        (talk(f"{IMAGE_MARK} What?", "  ", images=("a.png",)), "nothing is answered"),
        (talk(f"{IMAGE_MARK} What?", "red", images=("gone.png",)), r"picture without a file: gone\.png is not in"),
        (talk(f"{IMAGE_MARK} What?", "red", images=("../../gone.png",)), "picture without a file"),
    ],
)
def test_what_is_no_document_is_skipped_with_its_reason(tmp_path: Path, record: Conversation, reason: str) -> None:
    source = conversations(
        tmp_path, talk("Hi.", "Hello."), record, missing=tuple(name for name in record.images if "gone" in name)
    )
    assert len(source) == 2
    with pytest.raises(SkipError, match=rf"one#2: {reason}"):
        source.document(1, 0)


def test_a_wrong_picture_folder_is_noticed_at_once(tmp_path: Path) -> None:
    record = talk(f"{IMAGE_MARK} What?", "red", images=("a.png",))
    with pytest.raises(FileNotFoundError, match=r"none of the first 1 .* set data\.train\.talks\.images"):
        conversations(tmp_path, record, images=str(tmp_path / "elsewhere"))


def test_repeated_ids_are_told_apart_in_one_file_and_over_files(tmp_path: Path) -> None:
    for name in ("x", "y"):
        write_conversations(tmp_path / f"{name}.json", [talk("Hi.", "Hello."), talk("Hi.", "Hey.")])
    for files, ids in (("x", ["one", "one#2"]), ("xy", ["x/one", "x/one#2", "y/one", "y/one#2"])):
        config = SourceConfig("conversations", [str(tmp_path / f"{name}.json") for name in files])
        source = open_source("talks", config, 0, where="x")
        assert [source[i].id for i in range(len(source))] == ids


@pytest.mark.parametrize(
    "template", ["", "{answer}", "{question}", "{answer} {question}", "{question} {answer} {answer}"]
)
def test_a_wrong_template_is_one_sentence(template: str) -> None:
    with pytest.raises(ConfigError, match=r"turn_template of source p is .*; expected \{question\} and then") as error:
        SourceConfig("conversations", "p", turn_template=template)
    assert "\n" not in str(error.value)


PATHS = {
    "pair_tars": "pairs.tar",
    "pair_jsonl": "lines.jsonl",
    "mmc4": "mmc4.jsonl",
    "coco_captions": "captions.json",
}


@pytest.mark.parametrize("format", PATHS)
def test_pictures_of_every_format_are_learned_unless_told_otherwise(world: Path, format: str) -> None:
    (world / "lines.jsonl").write_text('{"image": "photos/0.png", "caption": "one"}\n')
    images = {"coco_captions": str(world / "photos"), "mmc4": str(world / "images")}.get(format)
    rules = {"drop_single_image_probability": 0.0} if format == "mmc4" else {}
    for learn, expected in ((None, True), (True, True), (False, False)):
        config = SourceConfig(
            format,  # type: ignore[arg-type]
            str(world / PATHS[format]),
            images,
            learn_images=learn,
            image_first_probability=0.0,
            **rules,
        )
        document = open_source("mine", config, 0, where="x")[0]
        assert {item.loss for item in document.items if isinstance(item, ImageItem)} == {expected}
        assert {item.loss for item in document.items if isinstance(item, TextItem)} == {True}
        labels = encoded(document).labels[list(encoded(document).image_starts)]
        assert (labels == S.image_start).all() if expected else (labels < 0).all()
