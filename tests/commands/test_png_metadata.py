"""What a PNG of ours says, and what is said of one that does not."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from factories import picture
from PIL import Image
from PIL.PngImagePlugin import PngImageFile, PngInfo

from mmi.commands.png_metadata import read_record
from mmi.errors import UsageError
from mmi.models.generation import GenerationSettings
from mmi.models.image_sampling import ImageSampling
from mmi.serving.pngs import KEY, PictureRecord, prompt_hash, write_png

RECORD = PictureRecord(
    model_hash="a" * 64,
    weights="trained",
    weights_dtype=None,
    low_memory=False,
    settings=GenerationSettings(image=ImageSampling(sampler="dpm++", n_steps=12), seed=4, max_images=3),
    picture=2,
    prompt_hash="b" * 64,
)


@pytest.mark.parametrize("prompt", [None, ("Zoë läuft. 犬", picture(1), "</s>", None)], ids=["hash only", "whole"])
def test_a_record_is_read_back_equal(tmp_path, prompt):
    record = replace(RECORD, prompt=prompt)
    write_png(picture(0), tmp_path / "x.png", record)
    assert read_record(tmp_path / "x.png") == record
    assert record.seed == 6
    with Image.open(tmp_path / "x.png") as image:
        assert image.convert("RGB").tobytes() == picture(0).tobytes()


def test_the_same_picture_is_the_same_file(tmp_path):
    for name in ("a.png", "b.png"):
        write_png(picture(0), tmp_path / name, RECORD)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_hash_tells_texts_pictures_and_their_order_apart():
    one, other = picture(1), picture(2)
    changed = one.copy()
    changed.putpixel((0, 0), (1, 2, 3))
    prompts = [
        [],
        [""],
        ["a"],
        ["a", "b"],
        ["ab"],
        ["b", "a"],
        ["a", None],
        [one],
        [other],
        [changed],
        [one, "a"],
        ["a", one],
    ]
    prompts += [[picture(1, 16)], [one.transpose(Image.Transpose.ROTATE_90)]]
    assert len({prompt_hash(prompt) for prompt in prompts}) == len(prompts)


def rewritten(path, change) -> None:
    """Write a PNG again with another record."""
    with Image.open(path) as image:
        assert isinstance(image, PngImageFile)
        text = dict(image.text)
        image.load()
        entries = PngInfo()
        for key, value in text.items():
            entries.add_itxt(key, change(value) if key == KEY else value)
        image.save(path, pnginfo=entries)


def entry(**changed):
    return lambda text: json.dumps(json.loads(text) | changed)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda text: text[:-5], "is damaged"),
        (entry(schema_version=9), "schema_version 9"),
        (entry(settings={"steps": 3}), "is damaged"),
        (entry(picture="two"), "is damaged"),
        (entry(prompt=[{"image": "!!"}]), "no base64"),
        (entry(prompt=[{"image": "AAAA"}]), "is damaged"),
        (lambda text: "[]", "is damaged"),
    ],
    ids=["cut off", "newer", "unknown setting", "no number", "no base64", "no picture", "no record"],
)
def test_a_damaged_record_is_one_sentence(tmp_path, change, sentence):
    write_png(picture(0), tmp_path / "x.png", RECORD)
    rewritten(tmp_path / "x.png", change)
    with pytest.raises(UsageError, match=sentence):
        read_record(tmp_path / "x.png")


def test_a_picture_without_metadata_and_a_file_that_is_none(tmp_path):
    picture(0).save(tmp_path / "plain.png")
    with pytest.raises(UsageError, match="does not say how it was drawn"):
        read_record(tmp_path / "plain.png")
    picture(0).save(tmp_path / "x.jpg")
    with pytest.raises(UsageError, match="is no PNG that can be read"):
        read_record(tmp_path / "x.jpg")
    write_png(picture(0), tmp_path / "cut.png", RECORD)
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:-300])
    with pytest.raises(UsageError, match="is no PNG that can be read"):
        read_record(tmp_path / "cut.png")
    with pytest.raises(FileNotFoundError):
        read_record(tmp_path / "none.png")
