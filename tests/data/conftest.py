"""Small data sets on disk: a tokenizer, pictures, pairs, captions and MMC4 documents."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from mmi.data.microworld.write import write_world
from mmi_eval.formats.coco_captions import CaptionedImage, write_coco_captions
from mmi_eval.formats.mmc4 import MMC4Document, MMC4Image, write_mmc4
from mmi_eval.formats.pair_tars import TarPair, write_pair_tar

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def png(value: int, size: tuple[int, int] = (12, 10)) -> bytes:
    """A noisy picture of (width, height) that no other value gives."""
    pixels = np.random.default_rng(value).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    roles = ["<pad>", "<s>", "</s>"]
    tokenizer.train_from_iterator(
        WORDS, trainers.BpeTrainer(vocab_size=300, special_tokens=roles, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "mmi_tokenizer.json").write_text(json.dumps({"pad": 0, "bos": 1, "eos": 2}))
    return str(folder)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``pairs.tar`` (20), ``captions.json`` with ``photos`` (9, three captions each), ``mmc4.jsonl`` (15)."""
    folder = tmp_path_factory.mktemp("world")
    caption = [" ".join(WORDS[: 1 + i % 7]) + f" number {i}" for i in range(20)]
    write_pair_tar(
        folder / "pairs.tar", ((TarPair(f"{i:04d}", caption[i], "png", {"i": i}), png(i)) for i in range(20))
    )
    (folder / "photos").mkdir()
    (folder / "images").mkdir()
    for i in range(9):
        (folder / "photos" / f"{i}.png").write_bytes(png(100 + i))
    captioned = [CaptionedImage(i, f"{i}.png", tuple(f"{word} {i}" for word in "abc")) for i in range(9)]
    write_coco_captions(folder / "captions.json", captioned)
    documents = []
    for i in range(15):
        images = []
        for k in range(2 + i % 3):
            (folder / "images" / f"{i}-{k}.png").write_bytes(png(200 + 10 * i + k))
            images.append(MMC4Image(f"{i}-{k}.png", k % 3, 0.3))
        documents.append(MMC4Document(tuple(f"Sentence {w} of {i}." for w in WORDS[:3]), tuple(images)))
    write_mmc4(folder / "mmc4.jsonl", documents)
    return folder


@pytest.fixture(scope="session")
def microworld(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A micro-world of 12 training stories, pairs, questions and so on, in every layout; tests only read it."""
    folder = tmp_path_factory.mktemp("microworld") / "world"
    write_world(folder, size=12)
    return folder
