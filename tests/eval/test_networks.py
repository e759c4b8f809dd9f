"""Judging networks: the numbers of the code they stand for, the file that is meant, one sentence where it is not."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from shared_data import shared_path
from tiny_networks import (
    N_CLASSES,
    TASK_LENGTH,
    random_trunk,
    write_clip,
    write_inception,
    write_oneformer,
)
from toy_benchmarks import ToyJudges, drawn
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer, OneFormerImageProcessorPil, OneFormerProcessor

from mmi_eval.formats.errors import FormatError
from mmi_eval.networks import (
    Need,
    Networks,
    check_networks,
    oneformer,
    picture_features,
    picture_text_matcher,
    scene_segmenter,
)
from mmi_eval.networks.inception_inputs import PROTOCOLS, clean_resize, short_side_crop, square_resize
from mmi_eval.networks.inception_trunk import InceptionTrunk
from mmi_eval.networks.reference_features import ReferenceFeatures
from mmi_eval.networks.weight_files import file_sha256
from mmi_eval.sample import Picture


def photo(width: int = 90, height: int = 70, seed: int = 0) -> Image.Image:
    """A smooth picture with noise, of no special size."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.float64)
    waves = 127 + 100 * np.sin(np.arange(width) / 9 + seed)[None, :, None] * np.ones((height, 1, 3))
    return Image.fromarray((0.8 * waves + 0.2 * noise).astype(np.uint8))


@pytest.fixture(scope="module")
def inception(tmp_path_factory) -> Networks:
    path, digest = write_inception(tmp_path_factory.mktemp("inception"))
    return Networks(inception=path, inception_sha256=digest)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Networks:
    return Networks(clip=write_clip(tmp_path_factory.mktemp("clip")))


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory) -> Networks:
    return Networks(segmenter=write_oneformer(tmp_path_factory.mktemp("oneformer")))


# Inception


def test_trunk_gives_what_the_network_of_pytorch_fid_gives(inception, monkeypatch):
    theirs = pytest.importorskip("cleanfid.inception_pytorch")  # a copy of mseitzer/pytorch-fid
    state = torch.load(inception.inception, weights_only=True)
    monkeypatch.setattr(theirs, "load_state_dict_from_url", lambda url, progress: state)
    network = theirs.InceptionV3(resize_input=False).eval()
    images = torch.rand(2, 3, 299, 299, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = network(images)[0].flatten(1), random_trunk()(2 * images - 1)
    assert found.shape == (2, 2048)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert (found[0] - found[1]).abs().mean() > 0.01


def test_features_are_those_of_the_prepared_pictures_whatever_stands_beside_them(inception):
    network = picture_features(inception)
    pictures = [photo(seed=s) for s in range(3)]
    found = network.features(pictures, "official-64px")
    assert (found.dtype, found.shape) == (np.float64, (3, 2048))
    with torch.no_grad():
        expected = random_trunk()(PROTOCOLS["official-64px"](pictures[1])[None])[0].numpy()
    np.testing.assert_allclose(found[1], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(network.features(pictures[:1], "official-64px")[0], found[0], rtol=1e-4, atol=1e-5)
    assert network.features([], "clean-fid").shape == (0, 2048)
    assert network.digest == inception.inception_sha256


def test_every_protocol_sees_a_picture_of_its_own(inception):
    seen = [PROTOCOLS[name](photo()) for name in picture_features(inception).protocols]
    assert all(inputs.shape == (3, 299, 299) and inputs.dtype == torch.float32 for inputs in seen)
    assert all(inputs.abs().max() <= 1 for inputs in seen)
    assert all((a - b).abs().mean() > 1e-3 for i, a in enumerate(seen) for b in seen[:i])
    with pytest.raises(ValueError, match='unknown protocol "fid"'):
        picture_features(inception).features([photo()], "fid")


def test_weights_of_safetensors_are_the_same_weights(inception, tmp_path):
    save_file(random_trunk().state_dict(), tmp_path / "inception.safetensors")
    digest = file_sha256(tmp_path / "inception.safetensors")
    same = picture_features(Networks(inception=tmp_path / "inception.safetensors", inception_sha256=digest[:8]))
    found, expected = (features.features([photo()], "clean-fid") for features in (same, picture_features(inception)))
    np.testing.assert_array_equal(found, expected)


def test_a_file_that_is_not_the_published_one_is_refused_before_it_is_read(tmp_path):
    class Trap:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "touched",))

    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps(Trap(), protocol=2))
    with pytest.raises(FormatError, match=r"has the SHA-256 .*; expected 6726825d0af5"):
        picture_features(Networks(inception=path))
    with pytest.raises(FormatError, match="no tensors that can be read"):
        picture_features(Networks(inception=path, inception_sha256=file_sha256(path)))
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("Mixed_7c.branch_pool.conv.weight"), "differ in the tensor Mixed_7c.branch_pool"),
        (lambda state: state.update(extra=torch.zeros(1)), "differ in the tensor extra"),
        (lambda state: state.update({"Conv2d_1a_3x3.bn.bias": torch.zeros(3)}), r"bn.bias is \[3\]; expected \[32\]"),
    ],
    ids=["lost", "extra", "other shape"],
)
def test_tensors_of_another_network_are_refused(change, words, tmp_path):
    with torch.device("meta"):
        state = {name: torch.empty(t.shape, device="cpu") for name, t in InceptionTrunk().state_dict().items()}
    change(state)
    path = tmp_path / "weights.safetensors"
    save_file(state, path)
    with pytest.raises(FormatError, match=words):
        picture_features(Networks(inception=path, inception_sha256=file_sha256(path)))


# Preparing pictures


@pytest.mark.parametrize("name", ["bicubic", "bilinear"])
def test_resizer_gives_the_pixels_of_clean_fid(name):
    folder = shared_path("evaldata")
    expected = json.loads((folder / "expected.json").read_text())["fid"]["cleanfid_resize"]
    with Image.open(folder / expected["file"]) as image:
        found = clean_resize(image, Image.Resampling[name.upper()])
    record = expected[f"PIL_{name}"]
    assert list(found.shape) == record["shape"]
    assert found.astype(np.float64).mean() == pytest.approx(record["mean"], rel=1e-6)
    assert found.astype(np.float64).std() == pytest.approx(record["std"], rel=1e-6)
    assert [found.min(), found.max()] == pytest.approx([record["min"], record["max"]], rel=1e-6)
    assert found[0, 0].tolist() == pytest.approx(record["px_0_0"], rel=1e-6)
    assert found[150, 150].tolist() == pytest.approx(record["px_150_150"], rel=1e-6)


def test_clean_protocol_is_clean_fids_resizer_and_scale():
    theirs = pytest.importorskip("cleanfid.resize")
    image = photo(310, 420)
    resized = theirs.build_resizer("clean")(np.asarray(image))
    np.testing.assert_array_equal(clean_resize(image), resized)
    np.testing.assert_allclose(PROTOCOLS["clean-fid"](image), (resized.transpose(2, 0, 1) - 128) / 128, atol=1e-7)


@pytest.mark.parametrize("size", [(90, 70), (63, 200), (64, 64), (40, 30), (641, 480)])
def test_official_protocol_is_resize_and_centre_crop_of_torchvision(size):
    from torchvision import transforms

    image = photo(*size)
    steps = [transforms.Resize(64, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(64)]
    small = transforms.Compose(steps)(image)
    np.testing.assert_array_equal(np.asarray(short_side_crop(image, 64)), np.asarray(small))
    enlarged = F.interpolate(transforms.ToTensor()(small)[None], size=(299, 299), mode="bilinear", align_corners=False)
    torch.testing.assert_close(PROTOCOLS["official-64px"](image), 2 * enlarged[0] - 1)


def test_protocol_of_256_pixels_shrinks_the_middle_square():
    image = photo(331, 300)
    square = Image.fromarray(np.asarray(image)[:, 15:315]).resize((256, 256), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(np.asarray(square_resize(image, 256)), np.asarray(square))


# Features kept on disk


class MeanColour:
    """An extractor of one's own: mean colours, and how often it was asked."""

    asset, protocols, kernel_name, digest = "mean colour", ("a", "b"), "kernel", "1"

    def __init__(self) -> None:
        self.asked: list[int] = []

    def features(self, pictures, protocol):
        self.asked.append(len(pictures))
        return np.stack([np.asarray(p.open(), np.float64).mean((0, 1)) for p in pictures]) + (protocol == "b")


@pytest.fixture
def pictures(tmp_path) -> list[Picture]:
    for i in range(3):
        drawn(i).save(tmp_path / f"{i}.png")
    return [Picture(tmp_path / f"{i}.png") for i in (0, 1, 2, 0, 1)]


def test_kept_features_are_those_of_the_network_and_computed_once(pictures, tmp_path):
    network = MeanColour()
    direct = network.features(pictures, "a")
    first = ReferenceFeatures(network, tmp_path / "kept").features(pictures, "a")
    again = ReferenceFeatures(network, tmp_path / "kept").features(pictures, "a")
    np.testing.assert_array_equal(first, direct)
    np.testing.assert_array_equal(again, direct)
    assert network.asked == [5, 3]  # directly; then each different picture once, and never again
    assert ReferenceFeatures(network).features(pictures, "a").tolist() == direct.tolist()


def test_kept_features_are_not_mixed_between_protocols_networks_or_pictures(pictures, tmp_path):
    kept, network = tmp_path / "kept", MeanColour()
    one = ReferenceFeatures(network, kept).features(pictures, "a")
    assert (ReferenceFeatures(network, kept).features(pictures, "b") == one + 1).all()
    other = MeanColour()
    other.digest = "2"
    ReferenceFeatures(other, kept).features(pictures, "a")
    assert other.asked == [3]
    drawn(7).save(pictures[0].path)  # the same name, another picture
    changed = ReferenceFeatures(network, kept).features(pictures, "a")
    assert (changed[0] != one[0]).any()
    assert (changed[1] == one[1]).all()
    blank = [Picture(p.path, blank=True) for p in pictures]
    assert ReferenceFeatures(network, kept).features(blank, "a")[0].tolist() == [128.0] * 3


@pytest.mark.parametrize("damage", ["cut", "objects", "renamed"])
def test_damaged_features_are_refused(damage, pictures, tmp_path):
    reference = ReferenceFeatures(MeanColour(), tmp_path / "kept")
    reference.features(pictures, "a")
    (path,) = (tmp_path / "kept").iterdir()
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    elif damage == "objects":
        np.savez(path, features=np.array([{"a": 1}], dtype=object), protocol="a", digest="1", pictures="")
    else:
        reference.features(pictures[:2], "a")
        (second,) = set((tmp_path / "kept").iterdir()) - {path}
        second.replace(path)
    with pytest.raises(FormatError, match="remove the file"):
        reference.features(pictures, "a")


def test_a_real_picture_that_is_not_there_is_named(pictures, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"9\.png does not exist"):
        ReferenceFeatures(MeanColour(), tmp_path / "kept").features([*pictures, Picture(tmp_path / "9.png")], "a")


# CLIP


def test_clip_gives_the_unit_vectors_of_its_library(clip):
    matcher = picture_text_matcher(clip)
    model = CLIPModel.from_pretrained(clip.clip).eval()
    pixels = CLIPImageProcessorPil.from_pretrained(clip.clip)(images=[photo(seed=1)], return_tensors="pt")
    with torch.no_grad():
        pooled = model.visual_projection(model.vision_model(**pixels).pooler_output)
    vectors = matcher.picture_vectors([photo(seed=s) for s in range(40)])
    assert (vectors.dtype, vectors.shape) == (np.float32, (40, 16))
    np.testing.assert_allclose((vectors**2).sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(vectors[1], F.normalize(pooled, dim=-1)[0], atol=1e-5)
    assert matcher.picture_vectors([]).shape == (0, 16)
    assert matcher.name == "CLIP"
    assert len(matcher.digest) == 64


def test_clip_reads_a_text_the_same_beside_longer_ones_and_cuts_what_is_too_long(clip):
    matcher = picture_text_matcher(clip)
    alone, beside = matcher.text_vectors(["a red dot"]), matcher.text_vectors(["a red dot", "b" * 99, "b" * 98])
    np.testing.assert_allclose(alone[0], beside[0], atol=1e-6)
    np.testing.assert_allclose(beside[1], beside[2], atol=1e-6)
    assert np.abs(beside[0] - beside[1]).max() > 1e-3


# OneFormer


def test_oneformer_gives_the_labels_of_its_library_counted_from_one(segmenter):
    found = scene_segmenter(segmenter)
    assert found.name == "OneFormer Swin"
    assert isinstance(found, oneformer.OneFormerSegmenter)
    numbers = {"size": {"shortest_edge": 32, "longest_edge": 64}, "num_text": 2}
    pictures = OneFormerImageProcessorPil(repo_path=str(segmenter.segmenter), class_info_file="classes.json", **numbers)
    tokenizer = CLIPTokenizer.from_pretrained(segmenter.segmenter)
    processor = OneFormerProcessor(pictures, tokenizer, max_seq_length=TASK_LENGTH, task_seq_length=TASK_LENGTH)
    inputs = processor(images=photo(), task_inputs=["semantic"], return_tensors="pt")
    with torch.no_grad():
        outputs = found.model(**inputs)
    (expected,) = processor.post_process_semantic_segmentation(outputs, target_sizes=[(35, 45)])
    labels = found.segment(photo(), (35, 45))
    assert (labels.dtype, labels.shape) == (np.uint8, (35, 45))
    assert 1 <= labels.min() < labels.max() <= N_CLASSES
    np.testing.assert_array_equal(labels, expected.numpy() + 1)


def test_dinat_without_natten_is_one_sentence(segmenter, tmp_path, monkeypatch):
    for file in segmenter.segmenter.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["backbone_config"] = {"model_type": "dinat"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(oneformer, "find_spec", lambda name: None)
    with pytest.raises(FormatError, match=r"needs the package natten: install it, or .* Swin"):
        check_networks(Networks(segmenter=tmp_path), {"segmenter"})


# What to put where

BAD: dict[str, tuple[Networks, Need, str]] = {
    "no inception": (Networks(), "features", "mmi assets download inception-fid"),
    "no clip": (Networks(), "matcher", "mmi assets download clip-vit-l-14"),
    "no segmenter": (Networks(), "segmenter", "mmi assets download oneformer-ade20k"),
    "lost inception": (Networks(inception=Path("no.pth")), "features", r"no\.pth does not exist"),
    "lost clip": (Networks(clip=Path("no-clip")), "matcher", r"no-clip \(networks.clip\) is no folder"),
    "lost segmenter": (Networks(segmenter=Path("no-former")), "segmenter", "networks.segmenter.* is no folder"),
    "lost judges": (Networks(judges=Path("no-judges")), "features", "the record of judges"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_network_that_is_not_there_is_one_sentence(case):
    networks, need, words = BAD[case]
    with pytest.raises((FormatError, FileNotFoundError), match=words) as caught:
        check_networks(networks, {need})
    assert "\n" not in str(caught.value)


def test_a_folder_without_weights_or_of_another_model_is_refused(clip, segmenter, tmp_path):
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_text((clip.clip / name).read_text())
    with pytest.raises(FileNotFoundError, match=r"has no \*\.safetensors"):
        check_networks(Networks(clip=tmp_path), {"matcher"})
    with pytest.raises(FormatError, match=r"describes a 'clip'; networks\.segmenter must be a OneFormer"):
        check_networks(Networks(segmenter=clip.clip), {"segmenter"})
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(FormatError, match="is no CLIPModel that can be loaded"):
        picture_text_matcher(Networks(clip=tmp_path))
    weights = load_file(clip.clip / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(FormatError, match=r"lacks 1 tensors of a CLIPModel, such as visual_projection\.weight"):
        picture_text_matcher(Networks(clip=tmp_path))


def test_checking_loads_no_network(inception, clip, segmenter, monkeypatch):
    monkeypatch.setattr("mmi_eval.networks.inception.InceptionFeatures.load", None)
    monkeypatch.setattr(CLIPModel, "from_pretrained", None)
    networks = Networks(inception.inception, inception.inception_sha256, clip.clip, segmenter.segmenter)
    check_networks(networks, {"features", "matcher", "segmenter"})


def test_judges_and_a_network_they_stand_for_are_refused():
    with pytest.raises(ValueError, match="judges and clip"):
        Networks(judges=Path("judges"), clip=Path("clip"))


def test_judges_fill_every_slot_under_their_own_names(monkeypatch):
    monkeypatch.setattr("mmi_eval.judges.load_judges", lambda folder: ToyJudges())
    networks = Networks(judges=Path("judges"))
    network = picture_features(networks)
    assert (network.protocols, network.kernel_name, network.asset) == (("micro-fid",), "micro-kid", "micro-judges")
    assert network.features([drawn(0), drawn(1).resize((64, 64))], "micro-fid").shape == (2, 3)
    assert picture_text_matcher(networks).name == scene_segmenter(networks).name == "micro"
    with pytest.raises(ValueError, match="unknown protocol"):
        network.features([drawn(0)], "clean-fid")


def test_nothing_heavy_is_loaded_before_a_network_is():
    script = (
        "import sys, mmi_eval.networks, mmi_eval.networks.reference_features, mmi_eval.networks.settings\n"
        "sys.exit(sorted({'torch', 'transformers', 'torchvision'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
