"""``mmi data caption``: a tiny random BLIP and BLIP-2 caption every picture once, whatever stopped the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from mmi.cli import main
from mmi.data.sources import SourceConfig, open_source

WORDS = ["a", "photo", "of", "the", "red", "blue", "cat", "dog", "on", "in"]


def tokenizer_of(folder: Path):
    from transformers import BertTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]) + "\n")
    return BertTokenizer(str(folder / "vocab.txt"))


def save_blip(folder: Path, seed: int = 0) -> Path:
    """A BLIP of a few thousand parameters with random weights."""
    import torch
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

    torch.manual_seed(seed)
    tokenizer = tokenizer_of(folder)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {
        **small,
        "vocab_size": len(tokenizer),
        "encoder_hidden_size": 16,
        "bos_token_id": 2,
        "sep_token_id": 3,
        "eos_token_id": 3,
        "pad_token_id": 0,
        "max_position_embeddings": 64,
    }
    vision = {**small, "image_size": 32, "patch_size": 16}
    BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
    BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def blip(tmp_path_factory) -> Path:
    return save_blip(tmp_path_factory.mktemp("blip") / "model")


@pytest.fixture
def photos(tmp_path) -> Path:
    root = tmp_path / "photos"
    (root / "inner").mkdir(parents=True)
    for number, colour in enumerate(("red", "green", "blue", "white")):
        Image.new("RGB", (40 + number, 30), colour).save(root / f"{number}.png")
    (root / "inner" / "copy of 0.png").write_bytes((root / "0.png").read_bytes())
    (root / "broken.jpg").write_bytes(b"no picture")
    return root


def run(photos: Path, model: Path, out: Path, *more: str) -> int:
    words = ["--images", str(photos), "--model", str(model), "--out", str(out), "--device", "cpu"]
    return main(["data", "caption", *words, "--max-new-tokens", "5", "--beams", "2", *more])


def lines(out: Path) -> list[dict]:
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def test_every_picture_gets_its_line_and_broken_ones_are_told(photos, blip, tmp_path, capsys):
    out = tmp_path / "captions.jsonl"
    assert run(photos, blip, out, "--batch-size", "2") == 0
    printed = capsys.readouterr().out
    assert "5 captions written, 0 were there, 1 pictures cannot be read" in printed
    assert "broken.jpg" in printed
    found = lines(out)
    assert {row["image"] for row in found} == {"0.png", "1.png", "2.png", "3.png", "inner/copy of 0.png"}
    assert all(len(row["sha256"]) == 64 and row["model"].startswith("blip-") for row in found)
    same = [row["caption"] for row in found if row["image"] in ("0.png", "inner/copy of 0.png")]
    assert same[0] == same[1]


def test_training_reads_the_file(photos, blip, tmp_path):
    out = tmp_path / "captions.jsonl"
    run(photos, blip, out, "--prompt", "a photo of")
    source = open_source("own", SourceConfig("pair_jsonl", str(out), str(photos)), 0, where="data.train.own")
    assert len(source) == 5
    assert source.document(0, 0).n_images == 1


def test_what_is_there_is_not_captioned_again(photos, blip, tmp_path, monkeypatch, capsys):
    out = tmp_path / "captions.jsonl"
    assert run(photos, blip, out) == 0
    before = out.read_bytes()
    # A run that was stopped while it wrote a line, and a new picture.
    out.write_bytes(before[: before.rstrip().rfind(b"\n") + 20])
    Image.new("RGB", (33, 33), "purple").save(photos / "new.png")
    asked = []
    from mmi.commands import captioner

    original = captioner.Captioner.caption

    def noted(self, images):
        asked.extend(images)
        return original(self, images)

    monkeypatch.setattr(captioner.Captioner, "caption", noted)
    assert run(photos, blip, out) == 0
    found = lines(out)
    assert len(found) == len({row["image"] for row in found}) == 6
    assert len(asked) <= 2
    capsys.readouterr()
    assert run(photos, blip, out) == 0
    assert "0 captions written, 6 were there" in capsys.readouterr().out


def test_another_model_or_way_of_asking_has_its_own_captions(photos, blip, tmp_path):
    out = tmp_path / "captions.jsonl"
    other = save_blip(tmp_path / "other", seed=1)
    for model, more in ((blip, ()), (other, ()), (blip, ("--prompt", "a photo of"))):
        assert run(photos, model, out, *more) == 0
    assert len(lines(out)) == 15
    assert len({row["model"] for row in lines(out)}) == 3


def test_a_copied_model_shares_the_captions(photos, blip, tmp_path, capsys):
    import shutil

    out = tmp_path / "captions.jsonl"
    run(photos, blip, out)
    capsys.readouterr()
    assert run(photos, Path(shutil.copytree(blip, tmp_path / "moved")), out) == 0
    assert "0 captions written, 5 were there" in capsys.readouterr().out


def test_blip_2_is_read_too(photos, tmp_path):
    import torch
    from transformers import (
        AddedToken,
        Blip2Config,
        Blip2ForConditionalGeneration,
        Blip2Processor,
        BlipImageProcessor,
        OPTConfig,
    )

    torch.manual_seed(0)
    folder = tmp_path / "blip2"
    tokenizer = tokenizer_of(folder)
    tokenizer.add_tokens([AddedToken("<image>", special=True)], special_tokens=True)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = OPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        ffn_dim=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        word_embed_proj_dim=16,
        max_position_embeddings=64,
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=0,
    )
    config = Blip2Config(
        vision_config={**small, "image_size": 32, "patch_size": 16},
        qformer_config={**small, "encoder_hidden_size": 16, "vocab_size": len(tokenizer)},
        text_config=text.to_dict(),
        num_query_tokens=4,
        image_token_index=len(tokenizer) - 1,
    )
    Blip2ForConditionalGeneration(config).save_pretrained(folder)
    images = BlipImageProcessor(size={"height": 32, "width": 32})
    Blip2Processor(images, tokenizer, num_query_tokens=4).save_pretrained(folder)
    assert run(photos, folder, tmp_path / "captions.jsonl") == 0
    assert {row["model"].rpartition("-")[0].split("-")[0] for row in lines(tmp_path / "captions.jsonl")} == {"blip"}
    assert len(lines(tmp_path / "captions.jsonl")) == 5


WRONG = {
    "no such folder": (["--model", "./nowhere"], "no folder of a captioning model"),
    "folder without a model": (["--model", "EMPTY"], "holds no config.json"),
    "another kind of model": (["--model", "OTHER"], "type llama; expected blip or blip-2"),
    "no pictures": (["--images", "EMPTY"], "holds no pictures"),
    "no batch": (["--batch-size", "0"], "--batch-size is 0; expected at least 1"),
    "file of something else": (["--out", "FILE"], "no line of mmi data caption"),
    "no such device": (["--device", "abacus"], "cannot be loaded on abacus"),
}


@pytest.mark.parametrize(("words", "said"), WRONG.values(), ids=WRONG.keys())
def test_wrong_input_is_one_sentence(photos, blip, tmp_path, capsys, words, said):
    (tmp_path / "empty").mkdir()
    (tmp_path / "llama").mkdir()
    (tmp_path / "llama" / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "file.jsonl").write_text('{"caption": "x"}\n')
    places = {"EMPTY": "empty", "OTHER": "llama", "FILE": "file.jsonl"}
    words = [str(tmp_path / places[word]) if word in places else word for word in words]
    assert run(photos, blip, tmp_path / "captions.jsonl", *words) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err


def test_tars_are_captioned_and_packed_with_their_captions(photos, blip, tmp_path, capsys):
    """What the paper does to CC-12M: its alt texts give way to generated captions."""
    (photos / "broken.jpg").unlink()
    for number in range(4):
        (photos / f"{number}.txt").write_text("an alt text", encoding="utf-8")
    (photos / "inner" / "copy of 0.txt").write_text("an alt text", encoding="utf-8")
    raw, new, out = str(tmp_path / "raw"), str(tmp_path / "new"), tmp_path / "captions.jsonl"
    assert main(["data", "prepare", "own", "--from", str(photos), "--out", raw]) == 0
    assert run(Path(raw), blip, out) == 0
    assert "--captions" in capsys.readouterr().out
    assert main(["data", "prepare", "own", "--from", raw, "--captions", str(out), "--out", new]) == 0
    from mmi_eval.formats.pair_tars import PairTars

    tars = PairTars(new)
    said = {row["sha256"]: row["caption"] for row in lines(out)}
    assert len(tars) == 5
    assert all(tars[i].caption == said[str(tars[i].metadata["sha256"])] for i in range(5))


def test_pictures_without_a_cached_caption_are_left_out(photos, blip, tmp_path, capsys):
    """What the paper does to Objects365, which has no captions of its own."""
    out = tmp_path / "captions.jsonl"
    (photos / "broken.jpg").unlink()
    assert run(photos, blip, out) == 0
    Image.new("RGB", (50, 50), "orange").save(photos / "later.png")
    words = ["objects365", "--from", str(photos), "--captions", str(out), "--out", str(tmp_path / "new")]
    assert main(["data", "prepare", *words]) == 0
    printed = capsys.readouterr().out
    assert "5 records" in printed
    assert "1 x picture without a cached caption" in printed


def test_captions_of_two_models_are_not_mixed(photos, blip, tmp_path, capsys):
    out = tmp_path / "captions.jsonl"
    for prompt in ("", "a photo of"):
        run(photos, blip, out, "--prompt", prompt)
    words = ["own", "--from", str(photos), "--captions", str(out), "--out", str(tmp_path / "new")]
    assert main(["data", "prepare", *words]) == 2
    assert "captions by 2 models" in capsys.readouterr().err
