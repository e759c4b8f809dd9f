"""Caption benchmarks: oracle, empty and constant captions worked out by hand, prompts, examples, submissions, files."""

from __future__ import annotations

import json
import shutil
from dataclasses import MISSING, fields, replace
from importlib.util import find_spec
from typing import Any

import pytest
from shared_data import shared_path
from toy_captions import TEXTS, TRAIN, Speaker, caption_tasks, write_caption_benchmarks

from mmi_eval.formats.caption_files import read_caption_references, read_captioned_pictures
from mmi_eval.formats.caption_results import read_caption_results, write_caption_results
from mmi_eval.formats.errors import FormatError
from mmi_eval.model import TextDecoding
from mmi_eval.sample import Picture
from mmi_eval.tasks import TASKS
from mmi_eval.tasks.captioning import read_references, read_results, score_captions
from mmi_eval.tasks.few_shot import FewShot
from mmi_eval.tasks.nocaps import NoCaps

NAMES = ["coco_caption", "flickr30k", "nocaps", "image2paragraph"]
needs_java = pytest.mark.skipif(
    shutil.which("java") is None or find_spec("pycocoevalcap") is None, reason="Java or pycocoevalcap is missing"
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_caption_benchmarks(tmp_path_factory.mktemp("captions") / "data")


def values(task, texts):
    samples = task.samples()
    answers = task.answer(Speaker(texts), samples)
    return {name: score.value for name, score in task.score(samples, answers).values.items()}


@pytest.mark.parametrize("name", NAMES)
def test_an_oracle_gets_the_best_score(files, name):
    task = caption_tasks(files)[name]
    found = values(task, TEXTS)
    best = {"cider": 10.0, "ROUGE-L": 1.0} | {f"BLEU-{n}": 1.0 for n in range(1, 5)}
    assert {key: found[key] for key in best} == pytest.approx(best, abs=1e-6)
    assert next(iter(found)) == "cider"


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_model_gets_nothing(files, name):
    task = caption_tasks(files)[name]
    samples = task.samples()
    scored = task.score(samples, [None, "", " ", "."])
    assert all(score.value == pytest.approx(0, abs=1e-3) for score in scored.values.values())
    assert scored.counts == {"empty captions": 3}


@pytest.mark.parametrize("name", NAMES)
def test_a_constant_caption_is_right_once_in_four(files, name):
    # 4 of 16 words are in the reference and no caption is too short: BLEU-1 is 1/4, and so are its n-grams.
    found = values(caption_tasks(files)[name], [TEXTS[0]] * 4)
    expected = {"cider": 2.5, "BLEU-1": 0.25, "BLEU-4": 0.25, "ROUGE-L": 0.25}
    assert {key: found[key] for key in expected} == pytest.approx(expected, abs=1e-6)


def test_a_longer_caption_loses_what_can_be_worked_out(files):
    # "the red dogs chase balls" has 5, 4, 3, 2 n-grams of which 4, 3, 2, 1 are right. Unseen n-grams weigh log 4, as
    # much as those seen once, so that the cosines are sqrt(4/5), ...; one bigram more costs exp(-1/72). ROUGE-L:
    # precision 4/5, recall 1.
    found = values(caption_tasks(files)["flickr30k"], [f"the {text}" for text in TEXTS])
    cosines = [(k / (k + 1)) ** 0.5 for k in (4, 3, 2, 1)]
    assert found["cider"] == pytest.approx(10 * sum(cosines) / 4 * 2.718281828459045 ** (-1 / 72))
    assert found["ROUGE-L"] == pytest.approx((1 + 1.44) * 0.8 / (1 + 1.44 * 0.8))
    assert found["BLEU-1"] == pytest.approx(0.8, abs=1e-6)


def test_nocaps_scores_each_domain_as_a_set_of_its_own(files):
    task = caption_tasks(files)["nocaps"]
    found = values(task, [TEXTS[0]] * 4)
    # Of two pictures one is right. The single picture of another domain makes a set in which no word tells anything.
    assert found["domain/in-domain"] == pytest.approx(5.0)
    assert (found["domain/near-domain"], found["domain/out-domain"]) == (0.0, 0.0)
    assert values(task, TEXTS)["domain/in-domain"] == pytest.approx(10.0)
    assert [sample.meta["domain"] for sample in task.samples()][2:] == ["near-domain", "out-domain"]
    assert list(values(replace(task, n=2), TEXTS[:1] * 2))[-1] == "domain/near-domain"


def test_only_coco_captions_are_cut_at_the_first_full_stop(files):
    longer = [f"{text}. and more" for text in TEXTS]
    for name, task in caption_tasks(files).items():
        found = values(task, longer)
        assert ("cider, first sentence" in found) == (name == "coco_caption")
        assert found["cider"] < 10
    assert values(caption_tasks(files)["coco_caption"], longer)["cider, first sentence"] == pytest.approx(10)


@pytest.mark.parametrize("name", NAMES)
def test_baselines_are_a_frequent_caption_and_people(files, name):
    task = caption_tasks(files)[name]
    found = task.baselines(task.samples())
    frequent = found["most_frequent_caption"]
    assert frequent.notes == {"caption": "horses graze", "times": 2}
    assert frequent.values["cider"].value == 0
    if name == "image2paragraph":
        assert "human_leave_one_out" not in found
    else:
        assert found["human_leave_one_out"].values["cider"].value == pytest.approx(10)


def test_a_training_file_without_captions_is_one_sentence(files, tmp_path):
    (tmp_path / "t.json").write_text('{"images": [{"id": 5, "file_name": "VG/1.png"}], "annotations": []}')
    task = replace(caption_tasks(files)["flickr30k"], train_captions=tmp_path / "t.json")
    with pytest.raises(FormatError, match=r"t\.json holds no caption; name a file"):
        task.baselines(task.samples())


def test_defaults_are_those_of_the_official_system():
    expected = {
        "coco_caption": ("{image}a photo of", TextDecoding(20, 7, 5)),
        "flickr30k": ("{image}a photo of", TextDecoding(20, 7, 5)),
        "nocaps": ("{image}a photo of", TextDecoding(20, 7, 5)),
        "image2paragraph": (
            "{image}Please describe the image in detail. The image depicts",
            TextDecoding(90, 89, 5, repetition_penalty=1.2),
        ),
    }
    for name, (prompt, decoding) in expected.items():
        task: Any = TASKS[name]
        defaults = {field.name: field for field in fields(task)}
        factory = defaults["decoding"].default_factory
        assert factory is not MISSING
        assert (defaults["prompt"].default, factory(), task.name) == (prompt, decoding, name)


def test_a_prompt_is_the_picture_and_then_the_words(files):
    task = caption_tasks(files)["image2paragraph"]
    sample = task.samples()[1]
    assert sample.prompt == (Picture(files / "VG" / "1.png"), task.prompt.removeprefix("{image}"))
    assert sample.references == (TEXTS[1],)  # of two paragraphs the last


@pytest.mark.parametrize("name", NAMES)
def test_examples_are_training_captions_before_the_question(files, name):
    settings = FewShot(n=2, seed=1)
    task = replace(caption_tasks(files)[name], few_shot=settings, prompt="{image}Caption:")
    plain = caption_tasks(files)[name].samples()
    for sample, alone in zip(task.samples(), plain, strict=True):
        names = [str(picture.path.stem) for picture in sample.pictures]
        assert names[-1] == sample.id
        assert sample.meta["examples"] == names[:-1]
        assert len(set(names[:-1])) == 2
        assert sample.prompt[1] == f"Caption: {TRAIN[int(names[0])]}"
        assert sample.prompt[-1] == "Caption:"
        assert sample.references == alone.references
    assert [s.prompt for s in task.samples()] == [s.prompt for s in task.samples()]


def test_examples_need_a_training_file(files):
    task = replace(caption_tasks(files)["coco_caption"], train_captions=None, few_shot=FewShot(n=2))
    with pytest.raises(FormatError, match=r"tasks.coco_caption.few_shot takes examples from train_captions"):
        task.check()


def test_similar_examples_need_something_that_compares_pictures(files):
    task = replace(caption_tasks(files)["nocaps"], few_shot=FewShot(n=2, similar=True))
    with pytest.raises(FormatError, match=r"networks\.clip"):
        task.check()


def test_nocaps_writes_what_the_server_takes(files, tmp_path):
    task = NoCaps(files / "nocaps_test.json", files, tokens="java-free", split="test")
    samples = task.samples()
    assert all(not sample.references and "domain" not in sample.meta for sample in samples)
    task.write_submission(tmp_path / "nocaps.json", samples, list(TEXTS))
    assert json.loads((tmp_path / "nocaps.json").read_text()) == [
        {"image_id": i, "caption": text} for i, text in enumerate(TEXTS)
    ]


@pytest.mark.parametrize("lost", [None, "", "  "], ids=["error", "empty", "blank"])
def test_a_submission_must_be_whole(files, tmp_path, lost):
    task = caption_tasks(files)["nocaps"]
    assert isinstance(task, NoCaps)
    with pytest.raises(FormatError, match=r"1 of 4 pictures .* such as image_id 2; .* no --limit"):
        task.write_submission(tmp_path / "x.json", task.samples(), [*TEXTS[:2], lost, TEXTS[3]])
    with pytest.raises(FormatError, match="2 of 4 pictures"):
        task.write_submission(tmp_path / "x.json", task.samples()[:2], list(TEXTS[:2]))
    assert not (tmp_path / "x.json").exists()


def test_captions_that_are_not_public_cannot_be_scored(files):
    task = NoCaps(files / "nocaps_test.json", files, tokens="java-free")
    for act in (lambda: task.score(task.samples(), list(TEXTS)), lambda: task.baselines(task.samples())):
        with pytest.raises(FormatError, match="no captions to score against; write a submission"):
            act()


def test_a_picture_without_captions_is_refused(files, tmp_path):
    (tmp_path / "c.json").write_text('{"images": [{"id": 5, "file_name": "VG/1.png"}], "annotations": []}')
    with pytest.raises(FormatError, match="picture 5 has no caption; score an annotated split"):
        replace(caption_tasks(files)["coco_caption"], captions=tmp_path / "c.json").samples()


def test_java_is_looked_for_and_not_started(files, monkeypatch, tmp_path):
    broken = tmp_path / "java"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    task = replace(caption_tasks(files)["coco_caption"], tokens="ptb", tokens_without_java="java-free", meteor=True)
    if find_spec("pycocoevalcap") is not None:
        monkeypatch.setattr("mmi_eval.metrics.toolkit_jars.shutil.which", lambda name: str(broken))
        assert task.protocol == "ptb"
        task.check()
        with pytest.raises(FormatError, match="failed: it said nothing; mend Java, or"):
            task.score(task.samples(), list(TEXTS))
    monkeypatch.setattr("mmi_eval.metrics.toolkit_jars.shutil.which", lambda name: None)
    assert task.protocol == "java-free"
    assert replace(task, meteor=False).score(task.samples(), list(TEXTS)).values["cider"].value == pytest.approx(10)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"tokens": "ptb"}, 'tasks.flickr30k.tokens is ptb: .*needs Java; install it, or score with .* "java-free"'),
        ({"meteor": True}, r"tasks.flickr30k.meteor is true: METEOR needs Java; install it, or leave it out"),
    ],
    ids=["tokens", "meteor"],
)
def test_without_java_the_check_says_what_to_do(files, monkeypatch, settings, sentence):
    monkeypatch.setattr("mmi_eval.metrics.toolkit_jars.shutil.which", lambda name: None)
    with pytest.raises(FormatError, match=sentence) as error:
        replace(caption_tasks(files)["flickr30k"], **settings).check()
    assert "\n" not in str(error.value)


@needs_java
def test_meteor_of_an_oracle_counts_each_caption_as_a_fragment(files):
    # All matches are exact; the corpus has 4 fragments of 16 words, which costs 0.6 * (4 / 16) ** 0.2.
    task = replace(caption_tasks(files)["nocaps"], meteor=True)
    scored = task.score(task.samples(), list(TEXTS))
    assert scored.values["METEOR"].value == pytest.approx(1 - 0.6 * 0.25**0.2)
    assert "METEOR" not in scored.per_sample  # the value is no mean of samples


def test_captions_are_scored_without_a_task():
    scored = score_captions({"7": "a b c d"}, {"7": ["a b c d"], "8": ["e"]}, tokens="whitespace")
    assert scored.values["BLEU-4"].value == pytest.approx(1, abs=1e-6)
    assert scored.counts == {"empty captions": 0, "references without a caption": 1}


@pytest.mark.parametrize(
    ("predictions", "sentence"),
    [({"9": "a"}, "1 of 1 captions are about pictures without references, such as 9"), ({}, "no captions to score")],
    ids=["unknown picture", "nothing"],
)
def test_captions_of_another_split_are_refused(predictions, sentence):
    with pytest.raises(FormatError, match=sentence):
        score_captions(predictions, {"7": ["a"], "9": []}, tokens="whitespace")


REAL = {
    "flickr30k_clipre": ("flickr30k_clipre_results.json", ["flickr30k_test1k_refs.json"], "ptb"),
    "flickr30k_contrastive": ("flickr30k_contrastive_results.json", ["flickr30k_test1k_refs.json"], "ptb"),
    "coco_subset500": ("coco_subset500_results.json", ["coco_subset500_refs.json"], "ptb"),
    "clipscore_example_good": ("clipscore_example/good_captions.json", ["clipscore_example/refs.json"], "ptb"),
    "clipscore_example_bad": ("clipscore_example/bad_captions.json", ["clipscore_example/refs.json"], "ptb"),
    "nlgeval_example": (
        "nlgeval_example/hyp.txt",
        ["nlgeval_example/ref1.txt", "nlgeval_example/ref2.txt"],
        "whitespace",
    ),
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=needs_java if REAL[n][2] == "ptb" else ()) for n in REAL])
def test_real_files_get_the_scores_of_the_original_scorers(name):
    folder = shared_path("evaldata/captions")
    expected = json.loads(shared_path("evaldata/expected.json").read_text())["captions"][name]
    predictions, references, tokens = REAL[name]
    scored = score_captions(
        read_results(folder / predictions),
        read_references([folder / reference for reference in references]),
        tokens=tokens,
    )
    ours = {"CIDEr": "cider", "ROUGE_L": "ROUGE-L"} | {f"Bleu_{n}": f"BLEU-{n}" for n in range(1, 5)}
    for theirs, value in expected["scores"].items():
        if theirs != "METEOR":  # in test_metrics_meteor_rouge, where Java starts once for all
            score = scored.values[ours[theirs]]
            assert score.value == pytest.approx(value, abs=1e-10)
            assert score.low - 1e-12 <= score.value <= score.high + 1e-12
            assert score.n == expected["n"]
    for picture, value in (expected.get("first5") or expected.get("per", {})).items():
        assert scored.per_sample["cider"][picture] == pytest.approx(value, abs=1e-10)


def test_references_are_read_from_every_layout(files, tmp_path):
    plain = {str(i): (text, f"{text}.") for i, text in enumerate(TEXTS)}
    for name in ("coco.json", "test1k.token.coco_format", "nocaps_val.json"):
        assert read_caption_references(files / name) == plain
    alone = {str(i): (text,) for i, text in enumerate(TEXTS)}
    paragraphs = read_caption_references(files / "paragraphs_v1.json")
    assert {i: paragraphs[i] for i in alone} == alone
    (tmp_path / "ids.json").write_text('{"images": [{"id": 3}], "annotations": [{"image_id": 3, "caption": "x"}]}')
    assert read_caption_references(tmp_path / "ids.json") == {"3": ("x",)}
    (tmp_path / "map.json").write_text('{"p": ["x", "y"], "q": "z"}')
    assert read_caption_references(tmp_path / "map.json") == {"p": ("x", "y"), "q": ("z",)}
    (tmp_path / "r.token").write_text("12.jpg#0\tx y\n12.jpg#1\tz\n")
    assert read_caption_references(tmp_path / "r.token") == {"12": ("x y", "z")}
    for name, text in (("a.txt", "x\r\ny\n"), ("b.txt", "v\nw")):
        (tmp_path / name).write_bytes(text.encode())
    assert read_caption_references([tmp_path / "a.txt", tmp_path / "b.txt"]) == {"1": ("x", "v"), "2": ("y", "w")}


def test_karpathys_files_are_read_in_both_layouts():
    formats = shared_path("evaldata/formats")
    first = json.loads((formats / "karpathy_dataset_coco_layout.json").read_text())["images"]
    split = "train" if first[0]["split"] == "restval" else first[0]["split"]
    found = read_captioned_pictures(formats / "karpathy_dataset_coco_layout.json", split)
    assert found[0].image_id == first[0]["cocoid"]
    assert found[0].captions == tuple(sentence["raw"] for sentence in first[0]["sentences"])
    rows = json.loads((formats / "coco_karpathy_blip_layout.json").read_text())
    references = read_caption_references(formats / "coco_karpathy_blip_layout.json")
    assert next(iter(references.values())) == tuple(rows[0]["caption"])


def test_results_are_read_in_three_layouts_and_written_in_one(tmp_path):
    write_caption_results(tmp_path / "r.json", {5: "a cat", 6: ""})
    assert read_caption_results(tmp_path / "r.json") == {"5": "a cat", "6": ""}
    (tmp_path / "m.json").write_text('{"image1": "a cat"}')
    assert read_caption_results(tmp_path / "m.json") == {"image1": "a cat"}
    (tmp_path / "t.txt").write_bytes("a cat\u2028here\n\nb\n".encode())
    assert read_caption_results(tmp_path / "t.txt") == {"1": "a cat\u2028here", "2": "", "3": "b"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[{"image_id": 1, "caption": "a"}, {"image_id": 1, "caption": "b"}]', "entry 1: image_id 1 is there twice"),
        ('[{"image": 1}]', 'entry 0 has no key "image_id"'),
        ('{"a": 3}', '"a" is 3; expected text'),
        ("", "is empty; expected captions"),
    ],
    ids=["twice", "no id", "number", "empty"],
)
def test_wrong_results_are_one_sentence(tmp_path, text, sentence):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(FormatError, match=sentence) as error:
        read_caption_results(tmp_path / "r.json")
    assert "\n" not in str(error.value)


def test_wrong_references_are_one_sentence(tmp_path):
    for name, text in (("a.txt", "x\ny\n"), ("b.txt", "v\n"), ("c.json", "{}"), ("d.json", '{"dataset": "coco"}')):
        (tmp_path / name).write_text(text)
    with pytest.raises(FormatError, match=r"b.txt has 1 lines, but .*a.txt has 2; align them"):
        read_caption_references([tmp_path / "a.txt", tmp_path / "b.txt"])
    with pytest.raises(FormatError, match=r"c\.json is JSON; of several files"):
        read_caption_references([tmp_path / "a.txt", tmp_path / "c.json"])
    with pytest.raises(FormatError, match="no file of references"):
        read_caption_references([])
    (tmp_path / "e.txt").write_bytes(b"\xff\n")
    with pytest.raises(FormatError, match="not UTF-8"):
        read_caption_references(tmp_path / "e.txt")


def test_a_karpathy_file_without_the_part_is_refused(tmp_path):
    (tmp_path / "k.json").write_text('{"dataset": "coco", "images": []}')
    with pytest.raises(FormatError, match='no picture of the split "test"'):
        read_captioned_pictures(tmp_path / "k.json")
