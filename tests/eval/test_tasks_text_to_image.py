"""Text-to-image: which captions and photos, which candidate is kept, and distances that can be worked out by hand."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from shared_data import shared_path
from tiny_networks import write_clip, write_inception
from toy_benchmarks import CHECKPOINT, COLOURS, SIDE, ToyJudges, captions, drawn, look

from mmi_eval.formats.caption_annotations import CaptionAnnotation, read_caption_annotations
from mmi_eval.formats.coco_captions import CaptionedImage, write_coco_captions
from mmi_eval.formats.errors import FormatError
from mmi_eval.formats.narratives import Narrative, write_narratives
from mmi_eval.networks import Networks, picture_text_matcher
from mmi_eval.runner import Runner
from mmi_eval.sample import Picture, Sample, fingerprint
from mmi_eval.tasks import TASKS
from mmi_eval.tasks.coco_image import COCOImage
from mmi_eval.tasks.drawn_sets import compare_sets, real_pictures, score_features
from mmi_eval.tasks.ln_coco_image import LNCOCOImage
from mmi_eval.tasks.similarity import similarity_to_texts
from mmi_eval.tasks.text_to_image import TextToImage, best_of, read_results

N = 12
GREY = (128, 128, 128)


class MatchingJudges(ToyJudges):
    """Judges that also match a picture with a text by the colour of its thing."""

    def picture_vectors(self, images: np.ndarray) -> np.ndarray:
        seen = self.attributes(images).cells[:, :, 1]  # 0 where nothing is seen
        return np.stack([(seen == number).any(axis=1) for number in range(1, 5)], axis=1).astype(np.float32)

    def text_vectors(self, texts) -> np.ndarray:
        return np.array([[colour in text for colour in COLOURS] for text in texts], np.float32)


@pytest.fixture(autouse=True)
def judges(monkeypatch):
    monkeypatch.setattr("mmi_eval.judges.load_judges", lambda folder: MatchingJudges())


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Twelve pictures with three captions each, which stand in the file as in COCO's: not together."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "images").mkdir()
    for i in range(N):
        drawn(i).save(folder / "images" / f"{i:012d}.png")
    images = [CaptionedImage(i, f"{i:012d}.png", captions(i), (SIDE, SIDE)) for i in range(N)]
    write_coco_captions(folder / "captions.json", images)
    content = json.loads((folder / "captions.json").read_text())
    content["annotations"] = [content["annotations"][(7 * k) % (3 * N)] for k in range(3 * N)]
    (folder / "captions.json").write_text(json.dumps(content))
    write_coco_captions(folder / "karpathy.json", images, "karpathy_blip")
    spoken = [Narrative(str(i % N), f"In this picture {captions(i % N)[0]}") for i in (*range(N), 0, 0, 0)]
    write_narratives(folder / "narratives.jsonl", spoken)
    return folder


def coco(world: Path, n: int | None = 9, n_candidates: int = 1) -> COCOImage:
    networks = Networks(judges=world / "judges")
    return COCOImage(world / "captions.json", world / "images", networks, n=n, n_candidates=n_candidates)


def told(world: Path, n: int | None = None, draw_seed: int = 0) -> LNCOCOImage:
    networks = Networks(judges=world / "judges")
    images = world / "images"
    return LNCOCOImage(world / "narratives.jsonl", images, networks, n=n, ending=".png", draw_seed=draw_seed)


class Painter:
    """Draws a thing of a colour that the seed chooses, and remembers the seeds."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def generate_image(self, prompts, drawing, seeds) -> list[Image.Image]:
        self.asked += [(prompt[0], seed) for prompt, seed in zip(prompts, seeds, strict=True)]
        return [thing(list(COLOURS.values())[seed % 4]) for seed in seeds]


def painter() -> Any:
    return Painter()


def thing(colour: tuple[int, int, int]) -> Image.Image:
    pixels = np.full((SIDE, SIDE, 3), 60, np.uint8)
    pixels[1:11, 1:11] = colour
    return Image.fromarray(pixels)


def same_picture(path: Path, n: int) -> list[Picture]:
    Image.new("RGB", (SIDE, SIDE), GREY).save(path)
    return [Picture(path)] * n


def mean_colours(pictures) -> np.ndarray:
    return np.stack([np.asarray(p.open(), np.float64).mean((0, 1)) for p in pictures])


# Which captions


def test_another_network_that_chooses_candidates_is_another_evaluation(world, tmp_path, monkeypatch):
    run = Runner(tmp_path / "run")
    one, eight = coco(world, n=4), coco(world, n=4, n_candidates=8)
    first = [run.plan(task, CHECKPOINT) for task in (one, eight)]
    assert first[1].chosen_by == {"micro-judges": f"sha256:{MatchingJudges().digest}"}
    monkeypatch.setattr(MatchingJudges, "digest", "other")
    second = [run.plan(task, CHECKPOINT) for task in (one, eight)]
    assert (first[0].hash == second[0].hash, first[1].hash == second[1].hash) == (True, False)
    evaluation = run.evaluate(eight, painter(), CHECKPOINT)
    assert evaluation.plan.hash == evaluation.folder.name == second[1].hash
    assert replace(coco(world, n_candidates=8), n_reranked=0).chosen_by() == {}


def test_captions_are_those_of_the_file_in_its_order(world):
    rows = json.loads((world / "captions.json").read_text())["annotations"]
    samples = coco(world, n=20).samples()
    assert [s.id for s in samples] == [f"{row['image_id']}-{row['id']}" for row in rows[:20]]
    assert [s.prompt for s in samples] == [(row["caption"].lower(),) for row in rows[:20]]
    assert [s.target.path.name for s in samples if s.target] == [f"{row['image_id']:012d}.png" for row in rows[:20]]
    pictures = Counter(s.group for s in samples)
    assert max(pictures.values()) > 1  # the real set holds such a picture as often
    assert len(real_pictures(samples)) == 20
    assert len(coco(world, n=None).samples()) == 3 * N


def test_one_caption_of_each_picture_in_either_layout(world):
    first = replace(coco(world, n=None), one_per_picture=True)
    karpathy = replace(first, captions=world / "karpathy.json")
    assert [s.group for s in karpathy.samples()] == [str(i) for i in range(N)]
    assert [s.prompt[0] for s in karpathy.samples()] == [captions(i)[0] for i in range(N)]
    assert sorted(s.group for s in first.samples()) == sorted(s.group for s in karpathy.samples())


def test_annotations_of_any_layout_are_read_one_by_one(world, tmp_path):
    rows = read_caption_annotations(world / "karpathy.json")
    assert rows[4] == CaptionAnnotation(5, 1, f"{1:012d}.png", captions(1)[1])
    content = json.loads((world / "captions.json").read_text())
    content["annotations"].append(content["annotations"][0])
    (tmp_path / "twice.json").write_text(json.dumps(content))
    with pytest.raises(FormatError, match="id 1 is there twice"):
        read_caption_annotations(tmp_path / "twice.json")


def test_narratives_are_drawn_again_by_pictures_and_the_same_with_a_seed(world):
    samples = told(world, n=3000).samples()
    assert [s.id for s in samples[:3]] == ["0-1", "1-2", "2-3"]
    assert samples[1].prompt == (f"In this picture {captions(1)[0]}",)
    assert len({s.id for s in samples}) == len({s.seed for s in samples}) == 3000
    again = Counter(s.group for s in samples[15:])
    # Picture 0 has four narratives with a quarter of the weight each, so it comes no oftener than the others.
    assert all(abs(again[str(i)] - 2985 / N) < 5 * np.sqrt(2985 / N) for i in range(N))
    assert fingerprint(told(world, n=40).samples()) == fingerprint(samples[:40])
    assert fingerprint(told(world, n=40, draw_seed=1).samples()) != fingerprint(samples[:40])
    assert fingerprint(told(world, n=15, draw_seed=1).samples()) == fingerprint(told(world).samples())
    assert len(told(world, n=4).samples()) == 4


# Which candidate


def test_candidates_have_seeds_of_their_own_and_the_nearest_to_the_caption_is_kept(world):
    task, model = coco(world, n_candidates=8), painter()
    samples = task.samples()
    kept = task.answer(model, samples)
    for row, sample in enumerate(samples):
        assert [seed for _, seed in model.asked[row :: len(samples)]] == [sample.seed + k for k in range(8)]
        colour = next(name for name in COLOURS if name in sample.meta["caption"])
        assert kept[row].tobytes() == thing(COLOURS[colour]).tobytes()
    one_by_one = [task.answer(painter(), [sample])[0].tobytes() for sample in samples]
    assert one_by_one == [picture.tobytes() for picture in kept]


def test_one_candidate_is_the_first_one_and_needs_no_matcher(world, monkeypatch):
    task, model = coco(world), painter()
    monkeypatch.setattr("mmi_eval.tasks.text_to_image.picture_text_matcher", None)
    samples = task.samples()
    task.answer(model, samples)
    assert model.asked == [(s.prompt[0], s.seed) for s in samples]
    replace(task, seed=5).answer(model, samples[:1])
    assert model.asked[-1][1] == samples[0].seed + 5


def test_only_the_first_captions_get_candidates_where_it_says_so(world, tmp_path):
    task, model = replace(coco(world, n_candidates=8), n_reranked=2), painter()
    samples = task.samples()
    pictures = task.answer(model, samples)
    asked = Counter(caption for caption, _ in model.asked)
    assert [asked[str(s.prompt[0])] for s in samples] == [8, 8, 1, 1, 1, 1, 1, 1, 1]
    assert task.protocol == "micro-fid, best of 8 for the first 2"
    values = task.score(samples, saved(pictures, tmp_path)).values
    assert values["candidates/8"].value == 1.0
    assert (values["candidates/8"].n, values["candidates/1"].n) == (2, 7)


def test_candidates_are_ranked_by_the_cosine_of_clip(tmp_path):
    networks = Networks(clip=write_clip(tmp_path))
    matcher = picture_text_matcher(networks)
    candidates = [[drawn(i) for i in range(k, k + 4)] for k in range(3)]
    texts = ["a red dot", "snow", "blue"]
    cosines = [
        matcher.picture_vectors(c) @ matcher.text_vectors([t])[0] for c, t in zip(candidates, texts, strict=True)
    ]
    kept = best_of(candidates, texts, networks)
    assert [picture.tobytes() for picture in kept] == [
        row[int(cosine.argmax())].tobytes() for row, cosine in zip(candidates, cosines, strict=True)
    ]
    name, found, assets = similarity_to_texts([candidates[0][0], None], texts[:2], networks)
    assert (name, found) == ("CLIP similarity", [pytest.approx(cosines[0][0], abs=1e-5), 0.0])
    assert assets == {"clip": f"sha256:{matcher.digest}"}


def saved(pictures: list[Image.Image], folder: Path) -> list[Picture]:
    for place, picture in enumerate(pictures):
        picture.save(folder / f"{place}.png")
    return [Picture(folder / f"{place}.png") for place in range(len(pictures))]


# Scores


@pytest.mark.parametrize("make", [coco, told], ids=["coco", "narratives"])
def test_an_oracle_gets_no_distance_and_whole_similarity(make, world):
    task = make(world, n=15)
    samples = task.samples()
    scored = task.score(samples, real_pictures(samples))
    assert next(iter(scored.values)) == "micro-fid"
    assert scored.values["micro-fid"].value == pytest.approx(0, abs=1e-6)
    assert scored.values["micro-kid"].value < 0  # unbiased: the same pictures are nearer than two draws would be
    assert scored.values["micro-similarity"].value == 1
    assert scored.assets == {"micro-judges": "sha256:toy"}
    assert scored.notes["real pictures"] == 15
    assert all(name.startswith(task.lower_is_better) for name in ("micro-fid", "micro-kid"))


def test_grey_pictures_get_the_value_worked_out_by_hand(world, tmp_path):
    task = coco(world)
    samples = task.samples()
    scored = task.score(samples, same_picture(tmp_path / "grey.png", len(samples)))
    real = mean_colours(real_pictures(samples))
    # A set without spread: the squared distance of the means and the spread of the real pictures.
    expected = ((real.mean(0) - 128) ** 2).sum() + real.var(0, ddof=1).sum()
    assert scored.values["micro-fid"].value == pytest.approx(expected)
    assert scored.values["micro-similarity"].value == 0


def test_lost_pictures_are_counted_left_out_of_the_sets_and_like_no_caption(world):
    task = coco(world)
    samples = task.samples()
    answers = [None, *real_pictures(samples)[1:]]
    scored = task.score(samples, answers)
    assert scored.counts == {"pictures lost": 1}
    assert (scored.values["micro-fid"].n, scored.values["micro-similarity"].n) == (8, 9)
    assert scored.values["micro-similarity"].value == pytest.approx(8 / 9)
    nothing = task.score(samples, [None] * 9)
    assert list(nothing.values) == ["micro-similarity"]
    assert nothing.values["micro-similarity"].value == 0


def test_baselines_are_other_photos_as_a_set_and_the_real_ones_with_their_captions(world):
    task = replace(coco(world, n=None), one_per_picture=True, n=5)
    samples = task.samples()
    baselines = task.baselines(samples)
    assert baselines["real_pictures"].values["micro-similarity"].value == 1
    others = [item.picture for item in task.captioned()[5:10]]
    expected = compare_sets(others, real_pictures(samples), task.networks)
    assert baselines["other_real_pictures"].values == expected.values
    assert expected.values["micro-fid"].value > 0
    assert set(told(world).baselines(told(world).samples())) == {"real_pictures"}


def test_any_extractor_gives_a_value_for_each_protocol_and_group(world):
    class Extractor:
        asset, protocols, kernel_name, digest = "mine", ("mean", "spread"), "mean-kid", "0"

        def features(self, pictures, protocol):
            function = np.mean if protocol == "mean" else np.std
            return np.stack([function(np.asarray(p.open(), np.float64), axis=(0, 1)) for p in pictures])

    pictures = [Picture(world / "images" / f"{i:012d}.png") for i in range(N)]
    places = [f"frame/{2 + i % 2}" for i in range(N)]
    scored = compare_sets([None, *pictures[1:]], [*pictures[2:], *pictures[:2]], Extractor(), groups=places)
    assert list(scored.values) == ["mean", "spread", "mean-kid", "frame/2", "frame/3"]
    assert [scored.values[name].n for name in ("mean", "frame/2", "frame/3")] == [11, 5, 6]
    alone = compare_sets(pictures[1::2], [*pictures[3::2], pictures[1]], Extractor())
    assert scored.values["frame/3"] == alone.values["mean"]
    assert scored.assets == {"mine": "sha256:0"}


def test_inception_gives_four_protocols_and_a_kernel_distance(world, tmp_path):
    path, digest = write_inception(tmp_path)
    networks = Networks(inception=path, inception_sha256=digest, statistics=tmp_path / "kept")
    pictures = [Picture(world / "images" / f"{i:012d}.png") for i in range(5)]
    scored = compare_sets(pictures[:4], [*pictures[:3], pictures[2]], networks)
    assert list(scored.values) == ["clean-fid", "official-64px", "coco256", "pytorch-fid", "kid"]
    assert all(scored.values[name].value > 1e-6 for name in scored.values if name != "kid")
    assert scored.assets == {"inception": f"sha256:{digest}"}
    assert scored.notes == {"real pictures": 4, "different real pictures": 3}
    kept = sorted(file.name.rsplit("-", 1)[0] for file in (tmp_path / "kept").iterdir())
    assert kept == ["clean-fid", "coco256", "official-64px", "pytorch-fid"]


BAD = {
    "too few": (lambda p: compare_sets(p[:3], p, Networks()), "3 drawn and 12 real pictures are too few"),
    "groups": (lambda p: compare_sets(p, p, Networks(), groups=["a"]), "12 drawn and 12 real pictures in 1 groups"),
    "no network": (lambda p: compare_sets(p, p, Networks()), "networks.inception is not set"),
    "no target": (lambda p: real_pictures([Sample("7", ("x",))]), "sample 7 has no real picture"),
}


@pytest.mark.parametrize("case", BAD)
def test_sets_that_cannot_be_compared_are_one_sentence(case, world):
    compare, words = BAD[case]
    with pytest.raises(FormatError, match=words):
        compare([Picture(world / "images" / f"{i:012d}.png") for i in range(N)])


def test_settings_that_cannot_be_met_are_one_sentence(world):
    with pytest.raises(FormatError, match="has 36 captions and n is 99"):
        coco(world, n=99).samples()
    with pytest.raises(ValueError, match="coco_image has n_candidates 0"):
        coco(world, n_candidates=0)
    eight = replace(coco(world, n_candidates=8), networks=Networks(inception=Path("no.pth")))
    with pytest.raises(FileNotFoundError, match=r"no\.pth"):
        eight.check()
    with pytest.raises(FormatError, match=r"networks\.clip is not set"):
        replace(eight, networks=Networks()).answer(painter(), eight.samples())
    coco(world, n_candidates=8).check()


def test_both_are_known_by_name_and_draw_as_the_paper_does():
    assert TASKS["coco_image"] is COCOImage
    assert TASKS["ln_coco_image"] is LNCOCOImage
    for task in (TASKS["coco_image"], TASKS["ln_coco_image"]):
        assert issubclass(task, TextToImage)
        settings = task(Path("c"), Path("i"))
        assert (settings.drawing.n_steps, settings.drawing.guidance_scale, settings.n) == (250, 3.5, 30000)
        assert settings.n_candidates == (8 if task is COCOImage else 1)


# Files from elsewhere


def test_a_folder_of_pictures_is_read_by_the_ids_in_its_names(tmp_path):
    drawn(0).save(tmp_path / "7-19.png")
    (tmp_path / "readme.txt").write_text("no picture")
    assert read_results(tmp_path) == {"7-19": Picture(tmp_path / "7-19.png")}
    with pytest.raises(FileNotFoundError, match="no folder"):
        read_results(tmp_path / "lost")


@pytest.mark.parametrize("name", ["full_rank", "rank_deficient"])
def test_files_of_features_are_as_far_apart_as_the_original_code_says(name):
    folder = shared_path("evaldata")
    expected = json.loads((folder / "expected.json").read_text())["fid"][f"fid_{name}"]
    first, second = (folder / "fid" / f"{name}_{side}.npy" for side in "ab")
    scored = score_features(first, second)
    # The original takes a root of a singular product, which is off by 1e-7 where rank is missing.
    tolerance = 1e-10 if name == "full_rank" else 1e-6
    found = scored.values["frechet distance"]
    for code in ("pytorch_fid_0.3.0", "clean_fid_0.1.35", "eigenvalue_form_torchmetrics_style"):
        assert found.value == pytest.approx(expected[code], abs=tolerance)
    assert (found.n, scored.notes["real pictures"]) == (expected["n_a"], expected["n_b"])
    assert found.low < found.value < found.high
    same = score_features(first, first).values["frechet distance"]
    assert same.value == pytest.approx(expected["self_distance_a"], abs=tolerance)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((2, 2, 2)), r"shape \(2, 2, 2\)"),
        (np.zeros((3, 4)), "3 drawn and 5 real"),
        (np.zeros((5, 3)), "width 3 and .* width 4"),
        (np.array([[1.0] * 4] * 4 + [[np.nan] * 4]), "row 4 is not finite"),
        (np.array([["a"]]), "expected a row of numbers"),
    ],
    ids=["shape", "rows", "width", "nan", "text"],
)
def test_files_that_hold_no_features_are_one_sentence(array, words, tmp_path):
    np.save(tmp_path / "drawn.npy", array)
    np.save(tmp_path / "real.npy", np.arange(20.0).reshape(5, 4))
    with pytest.raises(FormatError, match=words):
        score_features(tmp_path / "drawn.npy", tmp_path / "real.npy")


def test_colours_of_the_toy_world_are_what_matching_looks_at():
    pictures = np.stack([np.asarray(drawn(i)).transpose(2, 0, 1) for i in range(4)])
    seen = MatchingJudges().picture_vectors(pictures)
    assert [list(COLOURS)[row.argmax()] for row in seen] == [look(i)[1] for i in range(4)]
