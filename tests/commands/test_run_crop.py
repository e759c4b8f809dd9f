"""A network is shown pictures as it was trained to see them: with ``data.crop`` of its run."""

from __future__ import annotations

import io
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_run import write_tiny_run

from mmi.checkpoints.run_folder import RunFolder
from mmi.checkpoints.storage import CheckpointError
from mmi.commands.evaluation_model import find_checkpoint, load_model
from mmi.config import ConfigError
from mmi.data.document import ImageItem
from mmi.data.images import Crop, ImageViews
from mmi.inference import Generator
from mmi.models.generation import InterleavedState
from mmi_eval.results import Condition


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("crop")
    write_tiny_run(folder, {})
    return RunFolder(folder / "runs" / "toy")


def with_crop(folder: RunFolder, crop: str | None) -> RunFolder:
    """The same run, trained with other pictures."""
    config = folder.read_config()
    config.pop("data", None)
    folder.start(config if crop is None else {**config, "data": {"crop": crop}}, resume=True)
    return folder


def long_picture() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 20, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((200, 60))


def trained_on(image: Image.Image, size: int, crop: Crop) -> torch.Tensor:
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return ImageViews(size, None, crop)(ImageItem(partial(io.BytesIO, stream.getvalue()), "long.png"))[0]


@pytest.mark.parametrize("crop", ["center", "resize"])
@pytest.mark.parametrize("loaded_by", ["mmi evaluate", "mmi generate"])
def test_evaluation_and_generation_prepare_pictures_as_training_did(
    loaded_by: str, crop: Crop, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = with_crop(folder, crop).path
    if loaded_by == "mmi evaluate":
        generator = load_model(run, find_checkpoint(run, "last")[0], Condition(), "cpu").generator
    else:
        generator = Generator.load(run)
    seen: list[torch.Tensor | None] = []
    monkeypatch.setattr(InterleavedState, "read", lambda self, ids, mask, images, *rest: seen.append(images))
    generator.read([[long_picture(), "where is it?"]])
    (images,) = seen
    assert images is not None
    assert torch.equal(images[0], trained_on(long_picture(), images.shape[-1], crop))


def test_answers_under_another_crop_are_those_of_another_model(folder: RunFolder) -> None:
    def around(crop: str | None) -> object:
        return find_checkpoint(with_crop(folder, crop).path, "last")[1]

    # Runs that do not say it were trained with the default, and their evaluations stay found.
    assert around(None) == around("center")
    assert around("resize") != around("center")


def test_an_unknown_crop_is_named(folder: RunFolder) -> None:
    with pytest.raises((ConfigError, CheckpointError), match=r"data\.crop is 'squash'; expected one of center, resize"):
        Generator.load(with_crop(folder, "squash").path)
