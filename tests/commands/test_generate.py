"""``mmi generate``: pictures that say how they were drawn and can be drawn again, official samples, low memory."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import picture, tiny_config, wake_up
from PIL import Image
from PIL.PngImagePlugin import PngImageFile, PngInfo
from serving.served import serve_tiny, user
from tiny_run import write_tiny_run

from mmi.checkpoints.storage import write_checkpoint
from mmi.cli import main
from mmi.commands.png_metadata import read_record
from mmi.commands.prompt_documents import read_documents
from mmi.config import CodecConfig
from mmi.errors import UsageError
from mmi.inference import Generator
from mmi.models.build import build_network
from mmi.models.codec import VAECodec, build_codec
from mmi.models.image_sampling import ImageSampling, sample_latents
from mmi.serving.pngs import KEY

FAST = ["--max-new-tokens", "4", "--steps", "2", "--guidance", "2", "--decoding", "sample", "--device", "cpu"]
RUN = ["generate", "--run", "runs/toy"]
PROMPT = ["--text", "Once", "--image", "a.png", "--text", "then"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generate")
    write_tiny_run(folder, {})
    picture(1, 50).save(folder / "a.png")
    picture(2, 50).save(folder / "b.png")
    return folder


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.chdir(place)
    return place


def generated(here, out: str, *more: str, prompt=PROMPT) -> Path:
    assert main([*RUN, *prompt, *FAST, "--new-images", "2", "--seed", "5", "--out", out, *more]) == 0
    return here / out


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_a_picture_says_how_it_was_drawn_and_not_from_what(here, capsys):
    out = generated(here, "said")
    with Image.open(out / "image-2.png") as image:
        assert isinstance(image, PngImageFile)
        text = dict(image.text)
    assert {key: text[key] for key in ("AI-generated", "Seed", "Steps", "Guidance", "Sampler")} == {
        "AI-generated": "yes",
        "Seed": "6",
        "Steps": "2",
        "Guidance": "2",
        "Sampler": "ddpm",
    }
    manifest = json.loads((here / "runs/toy/checkpoints/last/manifest.json").read_text())
    assert text["Model"] == manifest["files"]["model.safetensors"]
    assert "trainedAlgorithmicMedia" in text["XML:com.adobe.xmp"]
    raw = (out / "image-2.png").read_bytes()
    assert b"Once" not in raw
    assert str(here).encode() not in raw
    record = read_record(out / "image-2.png")
    assert (record.picture, record.seed, record.prompt) == (1, 6, None)
    transcript = json.loads((out / "transcript.json").read_text())
    assert transcript["prompt_sha256"] == record.prompt_hash
    page = (out / "transcript.html").read_text()
    assert "AI-generated, seed 6, 2 steps of ddpm, guidance 2" in page
    assert 'alt="Generated picture, image-1.png, after the words' in page
    printed = capsys.readouterr().out
    assert all(entry["text"] in printed for entry in transcript["output"] if "text" in entry)


@pytest.mark.parametrize("number", [1, 2])
def test_from_image_draws_a_picture_again_pixel_for_pixel(here, capsys, number):
    out = generated(here, "first")
    again = here / f"again-{number}"
    source = f"first/image-{number}.png"
    assert main([*RUN, *PROMPT, "--from-image", source, "--out", str(again), "--device", "cpu"]) == 0
    assert "pixel for pixel" in capsys.readouterr().out
    assert (again / f"image-{number}.png").read_bytes() == (out / f"image-{number}.png").read_bytes()


def test_an_embedded_prompt_is_enough(here, capsys):
    generated(here, "whole", "--embed-prompt", "--low-memory")
    record = read_record(here / "whole/image-1.png")
    assert record.prompt is not None
    assert [p if isinstance(p, str) else p.size for p in record.prompt] == ["Once", (32, 32), "then"]
    assert main([*RUN, "--from-image", "whole/image-1.png", "--out", "whole-again", "--device", "cpu"]) == 0
    assert "pixel for pixel" in capsys.readouterr().out


def entries(path: Path) -> tuple[set[str], dict]:
    with Image.open(path) as image:
        assert isinstance(image, PngImageFile)
        return set(image.text), json.loads(image.text[KEY])


def test_a_picture_of_the_server_says_the_same_and_is_drawn_again(here, capsys):
    out = generated(here, "own", "--embed-prompt")
    asked = [user("Once", picture(1, 50))]
    chosen = {"min_images": 2, "max_images": 2, "seed": 5, "max_tokens": 4}
    with serve_tiny(generator=Generator.load("runs/toy"), embed_prompt=True) as served:
        later = [*asked, {"role": "assistant", "content": "so"}, user("then")]
        answers = [served.chat({"messages": messages, **chosen})[2] for messages in (asked, later)]
    for number, answer in enumerate(answers):
        last = [part for part in answer["choices"][0]["message"]["content"] if part["type"] == "image_url"][-1]
        source = here / f"served-{number}.png"
        source.write_bytes(base64.b64decode(last["image_url"]["url"].partition(",")[2]))
        mine, theirs = entries(out / "image-2.png"), entries(source)
        assert mine[0] == theirs[0]
        assert mine[1].keys() == theirs[1].keys()
        assert theirs[1]["seed"] == 6
        assert main([*RUN, "--from-image", str(source), "--out", f"served-{number}", "--device", "cpu"]) == 0
        assert "pixel for pixel" in capsys.readouterr().out
    assert {"end": True} in theirs[1]["prompt"]


def test_another_picture_than_the_prompts_is_noticed(here, capsys):
    generated(here, "first")
    other = ["--text", "Once", "--image", "b.png", "--text", "then"]
    assert main([*RUN, *other, "--from-image", "first/image-1.png", "--device", "cpu"]) == 2
    assert "the prompt is not the one first/image-1.png was drawn from" in capsys.readouterr().err


def test_the_checkpoint_that_drew_it_is_found_and_another_model_refused(here, capsys):
    generated(here, "first")
    torch.manual_seed(1)
    config = tiny_config(language={"max_positions": 512}, decoder={"n_context_positions": 512})
    write_checkpoint(here / "runs/toy/checkpoints/best", build_network(config).state_dict(), {}, step=1)
    try:
        options = [*RUN, *PROMPT, "--from-image", "first/image-1.png", "--device", "cpu", "--out", "found"]
        assert main(options) == 0
        assert "pixel for pixel" in capsys.readouterr().out
        assert main([*options, "--checkpoint", "best"]) == 2
        said = capsys.readouterr().err
        assert "was drawn with a model whose weights have the hash" in said
        assert said.count("\n") == 1
    finally:
        for file in sorted((here / "runs/toy/checkpoints/best").rglob("*"), reverse=True):
            file.unlink() if file.is_file() else file.rmdir()
        (here / "runs/toy/checkpoints/best").rmdir()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--from-image", "a.png"], "a.png does not say how it was drawn"),
        (["--from-image", "none.png"], "none.png"),
        (["--from-image", "eval.yaml"], "eval.yaml is no PNG"),
        (["--from-image", "a.png", "--seed", "1"], "leave out --seed"),
        (["--from-image", "a.png", "--low-memory"], "leave out --low-memory"),
        (["--text", "a", "--new-images", "-1"], "--new-images is -1"),
        (["--text", ""], "the prompt is empty"),
        (["--text", "a", "--out", "a.png"], "--out a.png is a file"),
        (["--text", "x" * 600], "the context is full"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(here, capsys, words, sentence):
    code = main([*RUN, *words, "--device", "cpu"])
    said = capsys.readouterr().err
    assert code == 2
    assert sentence in said
    assert said.count("\n") == 1


def test_a_prompt_that_is_not_embedded_must_be_given_again(here, capsys):
    generated(here, "first")
    assert main([*RUN, "--from-image", "first/image-1.png", "--device", "cpu"]) == 2
    assert "holds a hash of its prompt, not the prompt" in capsys.readouterr().err


def test_text_that_was_cut_short_by_a_full_context_is_kept(here, capsys):
    options = [*FAST, "--max-new-tokens", "90", "--new-images", "5", "--out", "full"]
    assert main([*RUN, "--text", "x" * 380, *options]) == 2
    assert "the context is full" in capsys.readouterr().err
    assert json.loads((here / "full/transcript.json").read_text())["output"]


# --- the official JSON ---


def official(here, *samples: dict) -> list:
    (here / "official.json").write_text(json.dumps(list(samples)))
    return read_documents(here / "official.json")


SAMPLE = {
    "sentences": ["one", "two"],
    "images": ["a.png", "b.png"],
    "sentence_ixs": [0, 1],
    "image_first": [True, False],
    "generate_mode": "generate_texts",
    "num_iter": 2,
}


def test_official_samples_are_laid_out_in_reading_order(here):
    (document,) = official(here, SAMPLE)
    assert [p if isinstance(p, str) else "picture" for p in document.pieces] == ["picture", "one", "two", "picture"]
    assert np.array_equal(np.asarray(document.pieces[0]), np.asarray(picture(1, 50)))
    assert document.official is not None
    assert (document.official.first, document.official.n_iterations) == ("text", 2)


def test_the_picture_to_draw_only_says_where(here):
    drawn = SAMPLE | {"generate_mode": "generate_images", "images": ["a.png", "need-not-exist.png"]}
    (document,) = official(here, drawn)
    assert [p if isinstance(p, str) else "picture" for p in document.pieces] == ["picture", "one", "two"]
    assert document.official is not None
    assert document.official.first == "image"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"generate_mode": "generate_all"}, "generate_mode is"),
        ({"sentence_ixs": [0]}, "sentence_ixs is [0]; expected a list with one int for each of 2 images"),
        ({"sentence_ixs": [0, 7]}, "sentence_ixs has 7, but there are 2 sentences"),
        ({"image_first": [1, 0]}, "expected a list with one bool"),
        ({"num_iter": 0}, "num_iter is 0"),
        ({"images": ["a.png", 3]}, "images is"),
        ({"images": 5}, "images is 5"),
        ({"sentences": None}, "sentences is null"),
        ({"sentence_ixs": 5}, "sentence_ixs is 5"),
        ({"multiround_context": [None]}, "multiround_context is [null]"),
        ({"generate_mode": 5}, "generate_mode is 5"),
        ({"num_iter": None}, "num_iter is null"),
        ({"num_itr": 3}, 'has the key "num_itr"'),
        ({"generate_mode": "generate_images", "image_first": [True, True]}, "must come last"),
    ],
)
def test_a_wrong_sample_is_one_sentence(here, change, sentence):
    with pytest.raises(UsageError) as raised:
        official(here, SAMPLE | change)
    assert "sample 0" in str(raised.value)
    assert sentence in str(raised.value)


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"image": 5}, "prompt.json: entry 1: image is 5; expected the name of a picture file"),
        ({"image": None}, "prompt.json: entry 1: image is null"),
        ({"image": ["a.png"]}, 'prompt.json: entry 1: image is ["a.png"]'),
        ({"text": 5}, "prompt.json: entry 1: text is 5; expected a text"),
        ({"text": {"a": 1}}, 'prompt.json: entry 1: text is {"a": 1}'),
        ({"picture": "a.png"}, "prompt.json: entry 1 is"),
        (7, "prompt.json: entry 1 is 7"),
    ],
    ids=str,
)
def test_a_wrong_entry_of_a_prompt_is_one_sentence(here, capsys, entry, sentence):
    (here / "prompt.json").write_text(json.dumps(["once", entry]))
    assert main([*RUN, "--document", "prompt.json", "--device", "cpu"]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1


def test_official_samples_take_turns_and_are_written_with_their_results(here, capsys):
    texts = SAMPLE | {"multiround_context": ["given instead", ""]}
    drawn = SAMPLE | {"generate_mode": "generate_images", "num_iter": 1}
    official(here, texts, drawn)
    options = ["--document", "official.json", *FAST, "--new-images", "1", "--out", "both"]
    assert main([*RUN, *options]) == 0
    first, second = json.loads((here / "both/eval_results.json").read_text())
    assert first["generate_results"] == ["given instead", "0/image-1.png"]
    assert second["generate_results"] == ["1/image-1.png"]
    assert Image.open(here / "both/1/image-1.png").size == (32, 32)
    assert main([*RUN, "--document", "official.json", "--text", "more"]) == 2
    assert "cannot be added to official samples" in capsys.readouterr().err


def test_a_picture_of_an_official_sample_is_drawn_again(here, capsys):
    texts = SAMPLE | {"multiround_context": ["given instead", ""]}
    # The same pieces, gone on with in another way.
    drawn = SAMPLE | {"sentence_ixs": [0, 1], "images": ["a.png", "b.png"], "num_iter": 3}
    official(here, texts, drawn)
    options = ["--document", "official.json", *FAST, "--new-images", "1", "--seed", "5", "--out", "samples"]
    assert main([*RUN, *options]) == 0
    again = ["--document", "official.json", "--device", "cpu", "--out"]
    for number in (0, 1):
        source = f"samples/{number}/image-1.png"
        assert main([*RUN, "--from-image", source, *again, f"sample-again-{number}"]) == 0
        assert "pixel for pixel" in capsys.readouterr().out
        assert (here / f"sample-again-{number}/image-1.png").read_bytes() == (here / source).read_bytes()
    generated(here, "first")
    official(here, drawn)
    for options, sentence in (
        (["--from-image", "samples/0/image-1.png", "--document", "official.json"], "none of 1 samples is the one"),
        (["--from-image", "samples/0/image-1.png", "--text", "one"], "was drawn from an official sample"),
        (["--from-image", "first/image-1.png", "--document", "official.json"], "does not say that it was drawn from"),
    ):
        assert main([*RUN, *options, "--device", "cpu"]) == 2
        assert sentence in capsys.readouterr().err


def test_a_picture_of_another_size_is_refused_before_anything_is_drawn(here, capsys, monkeypatch):
    generated(here, "first")
    with Image.open(here / "first/image-1.png") as image:
        assert isinstance(image, PngImageFile)
        entries = PngInfo()
        for key, value in image.text.items():
            entries.add_itxt(key, value)
        image.resize((64, 48)).save(here / "resized.png", pnginfo=entries)
    monkeypatch.setattr("mmi.models.generation.InterleavedState.draw", None)
    monkeypatch.setattr("mmi.models.generation.InterleavedState.write", None)
    capsys.readouterr()
    assert main([*RUN, *PROMPT, "--from-image", "resized.png", "--device", "cpu"]) == 2
    said = capsys.readouterr().err
    assert "resized.png has 64 x 48 pixels, but its model draws 32 x 32" in said
    assert said.count("\n") == 1


# --- low memory ---


def test_low_memory_draws_the_same_pictures(here):
    plain, small = generated(here, "plain"), generated(here, "small", "--low-memory")
    for name in ("image-1.png", "image-2.png"):
        assert np.abs(pixels(plain / name) - pixels(small / name)).max() <= 1


def test_guidance_in_turn_halves_the_batch_and_gives_the_same_latents():
    torch.manual_seed(0)
    network = build_network(tiny_config())
    wake_up(network)
    decoder = network.image_decoder
    assert decoder is not None
    sizes: list[int] = []
    hook = decoder.unet.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    generator = torch.Generator().manual_seed(0)
    condition = torch.randn(3, 5, 32, generator=generator)
    previous = decoder.look_at(
        [torch.randn(1, 32, n, n, generator=generator) for n in (16, 8, 4, 2)],
        torch.tensor([[0], [-1], [0]]),
        torch.tensor([[True], [False], [True]]),
    )
    settings = ImageSampling(n_steps=3, guidance_scale=3.0, sampler="ddim")
    found = [
        sample_latents(
            decoder.unet,
            decoder.config.diffusion,
            decoder.latent_shape,
            condition,
            decoder.unconditional,
            previous,
            settings,
            [1, 2, 3],
            guidance_in_turn=in_turn,
        )
        for in_turn in (False, True)
    ]
    hook.remove()
    assert sizes == [6] * 3 + [3] * 6
    assert (found[0] - found[1]).abs().max() < 1e-4 * found[0].abs().max()


def test_a_large_picture_is_decoded_in_tiles_and_a_small_one_whole():
    config = CodecConfig(block_channels=(8, 8, 8, 8), norm_groups=4, layers_per_block=1, allow_frozen_random=True)
    torch.manual_seed(0)
    codec = build_codec(config)
    assert isinstance(codec, VAECodec)
    sizes: list[int] = []
    codec.vae.decoder.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape[-1]))
    small, large = (torch.randn(1, 4, n, n) for n in (32, 48))
    noise = torch.randn(1, 4, 48, 48)
    whole = [codec.decode(small), codec.decode(large), codec.encode(torch.zeros(1, 3, 384, 384), noise)]
    assert sizes == [32, 48]
    sizes.clear()
    codec.decode_in_tiles()
    tiled = [codec.decode(small), codec.decode(large), codec.encode(torch.zeros(1, 3, 384, 384), noise)]
    assert sizes[0] == 32
    assert len(sizes) > 2
    assert max(sizes) == 32
    assert tiled[1].shape == whole[1].shape
    for kept in (0, 2):
        torch.testing.assert_close(tiled[kept], whole[kept])
