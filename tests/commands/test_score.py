"""``mmi score TASK PREDICTIONS --references``: the original scorers' values on real files; one sentence otherwise."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from shared_data import shared_path
from toy_benchmarks import SIDE, N, box, write_benchmarks

from mmi.cli import main
from mmi_eval.formats.boxes import corners, format_box

CAPTIONS = {
    "flickr30k_clipre": ("flickr30k_clipre_results.json", ("flickr30k_test1k_refs.json",), ()),
    "flickr30k_contrastive": ("flickr30k_contrastive_results.json", ("flickr30k_test1k_refs.json",), ()),
    "coco_subset500": ("coco_subset500_results.json", ("coco_subset500_refs.json",), ()),
    "clipscore_example_good": ("clipscore_example/good_captions.json", ("clipscore_example/refs.json",), ()),
    "clipscore_example_bad": ("clipscore_example/bad_captions.json", ("clipscore_example/refs.json",), ()),
    "nlgeval_example": (
        "nlgeval_example/hyp.txt",
        ("nlgeval_example/ref1.txt", "nlgeval_example/ref2.txt"),
        ("--tokens", "none"),
    ),
}
CAPTION_VALUES = {
    "CIDEr": "cider",
    "Bleu_1": "BLEU-1",
    "Bleu_2": "BLEU-2",
    "Bleu_3": "BLEU-3",
    "Bleu_4": "BLEU-4",
    "ROUGE_L": "ROUGE-L",
    "METEOR": "METEOR",
}
TEXTVQA = ("textvqa_val60_questions.json", "textvqa_val60_annotations.json")
VQA_TOOLKIT, RAW = "accuracy, vqa-toolkit, no extraction", "accuracy, no extraction"
LEFT_OUT = "accuracy, leave one out, no extraction"
ANSWERS = {
    "vizwiz_frozen_vilt2": (
        "vizwiz",
        "vizwiz_val_frozen_vilt2_results.json",
        ("vizwiz_val_official_layout.json",),
        {"vqaeval": VQA_TOOLKIT, "vizwiz_toolkit": RAW, "vizwiz_toolkit_leave_one_out": LEFT_OUT},
    ),
    **{
        f"textvqa60_{name}": (
            "textvqa",
            f"textvqa_val60_{name}_results.json",
            TEXTVQA,
            {"m4c_accuracy": RAW, "vqaeval": VQA_TOOLKIT},
        )
        for name in ("majority", "majority_titlecase_period", "first_annotator")
    },
    "vqav2_sample": (
        "vqav2",
        "vqav2_sample_results.json",
        ("vqav2_sample_annotations.json", "vqav2_sample_questions.json"),
        {"vqaeval": RAW},
    ),
    "gqa_sample": ("gqa", "gqa_sample_predictions.json", ("gqa_sample_questions.json",), {"accuracy": "accuracy"}),
}
RANK_VALUES = {"ndcg": "NDCG", "r@1": "R@1", "r@5": "R@5", "r@10": "R@10", "mean": "mean rank", "mrr": "MRR"}
BREAKDOWNS = {"perAnswerType": "answer type, no extraction", "perQuestionType": "type, no extraction"}


def expected(part: str, name: str):
    return json.loads(shared_path("evaldata/expected.json").read_text())[part][name]


def published(name: str) -> dict[str, float]:
    """Return what the authors of a system printed, by our names; METEOR apart, networks left out."""
    known = json.loads(shared_path("evaldata/expected.json").read_text())["published"].get(name, {"values": {}})
    values = known["values"].items()
    return {CAPTION_VALUES[key]: value for key, value in values if key in CAPTION_VALUES and key != "METEOR"}


def score(capsys, task: str, predictions: str, references: tuple[str, ...], *options: str):
    """Run the command on shared files and return what it prints as JSON."""
    paths = [str(shared_path(f"evaldata/{name}")) for name in (predictions, *references)]
    assert main(["score", task, paths[0], "--references", *paths[1:], "--json", "--per-sample", *options]) == 0
    return json.loads(capsys.readouterr().out)


def test_no_expected_score_is_left_out():
    known = json.loads(shared_path("evaldata/expected.json").read_text())
    assert set(known["captions"]) == set(CAPTIONS)
    assert set(known["vqa"]) == set(ANSWERS)
    assert set(known["visdial"]) == {f"visdialconv_{name}" for name in RANKS}
    assert set(known["refcoco"]) == {f"refcoco_{name}" for name in BOXES}
    assert set(known["ade20k"]) == {f"ade20k_{name}" for name in LABELS}
    assert set(known["fid"]) == {f"fid_{name}" for name in FEATURES} | {"cleanfid_resize"}  # no score: pixels


@pytest.mark.parametrize("name", CAPTIONS)
def test_captions_score_as_the_coco_toolkit_scores_them(name, capsys):
    found = score_captions(capsys, name, "--without-meteor")
    wanted = expected("captions", name)
    values = {CAPTION_VALUES[key]: value for key, value in wanted["scores"].items() if key != "METEOR"}
    assert {key: found["values"][key]["value"] for key in values} == pytest.approx(values, rel=1e-9, abs=1e-12)
    assert found["values"]["cider"]["n"] == wanted["n"]
    printed = published(name)
    assert {key: found["values"][key]["value"] for key in printed} == pytest.approx(printed, abs=6e-4)
    each = wanted.get("first5") or wanted.get("per") or {}
    assert {key: found["per_sample"]["cider"][key] for key in each} == pytest.approx(each, rel=1e-9, abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CAPTIONS if name != "nlgeval_example"])
def test_captions_score_as_the_jar_of_meteor_scores_them(name, capsys):
    found = score_captions(capsys, name)
    if "METEOR" not in found["values"]:
        pytest.skip(found["notes"]["left out"])
    wanted = expected("captions", name)["scores"]["METEOR"]
    assert found["values"]["METEOR"]["value"] == pytest.approx(wanted, rel=1e-9)


def score_captions(capsys, name: str, *options: str):
    predictions, references, own = CAPTIONS[name]
    if not own and (missing := java_missing()):
        pytest.skip(missing)
    files = f"captions/{predictions}", tuple(f"captions/{file}" for file in references)
    return score(capsys, "captions", *files, *own, *options)


def java_missing() -> str | None:
    from mmi_eval.metrics.caption_tokens import PTB_JAR

    return PTB_JAR.missing()


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_score_as_the_original_evaluators_score_them(name, capsys):
    task, predictions, references, names = ANSWERS[name]
    found = score(capsys, task, f"vqa/{predictions}", tuple(f"vqa/{file}" for file in references))
    wanted = expected("vqa", name)
    values = {key: score["value"] for key, score in found["values"].items()}
    for key, value_name in names.items():
        one = wanted[key] if isinstance(wanted[key], dict) else {"overall": wanted[key]}
        unit = 1 if key == "m4c_accuracy" else 100
        assert unit * values[value_name] == pytest.approx(one["overall"], abs=1e-9), key
        for kinds, prefix in BREAKDOWNS.items():
            by_kind = {f"{prefix}/{kind}": value / unit for kind, value in one.get(kinds, {}).items()}
            assert {kind: values[kind] for kind in by_kind} == pytest.approx(by_kind, abs=1e-9)
    assert found["values"][found["headline"]]["n"] == wanted["n"]


RANKS = ("random", "noisy_relevance", "option_popularity", "file_order")


@pytest.mark.parametrize("name", RANKS)
def test_ranks_score_as_the_starter_kit_scores_them(name, capsys):
    references = ("visdial/visdialconv_dense_annotations.json", "visdial/visdialconv_dialogs.json")
    found = score(capsys, "visdial", f"visdial/visdialconv_{name}_ranks.json", references)
    wanted = expected("visdial", f"visdialconv_{name}")
    # The kit adds up in float32.
    values = {key: found["values"][value]["value"] for key, value in RANK_VALUES.items()}
    assert values == pytest.approx({key: wanted[key] for key in values}, rel=1e-6, abs=1e-6)
    assert found["values"]["NDCG"]["n"] == wanted["n"]


BOXES = ("keyword_rule", "first_detection", "shifted_gt", "oracle_detection")


@pytest.mark.parametrize("name", BOXES)
def test_boxes_score_as_pycocotools_and_refer_score_them(name, capsys):
    found = score(capsys, "refcoco", f"refcoco/{name}_predictions.json", ("refcoco/refcoco_testA_sample.json",))
    wanted = expected("refcoco", f"refcoco_{name}")
    accuracy, mean = (found["values"][value]["value"] for value in ("accuracy", "mean IoU"))
    assert (accuracy, accuracy) == pytest.approx((wanted["acc50_continuous"], wanted["acc50_refer_inclusive"]))
    assert (mean, mean) == pytest.approx((wanted["mean_iou_continuous"], wanted["mean_iou_refer"]), abs=1e-12)
    ious = np.array(list(found["per_sample"]["mean IoU"].values()))
    assert len(ious) == wanted["n"]
    assert abs(ious - 0.5).min() == pytest.approx(wanted["closest_to_half"], abs=1e-12)


LABELS = ("hflip", "shift16", "other_image", "identical")


@pytest.mark.parametrize("name", LABELS)
def test_label_pictures_score_as_sceneparsing_scores_them(name, capsys):
    found = score(capsys, "ade20k", f"ade20k/predictions_{name}", ("ade20k/annotations",))["values"]
    wanted = expected("ade20k", f"ade20k_{name}")
    values = {name: score["value"] for name, score in found.items()}
    assert values["mIoU"] == pytest.approx(wanted["mean_iou_over_150"], abs=1e-12)
    assert values["mIoU, present classes"] == pytest.approx(wanted["mean_iou_over_present_classes"], abs=1e-12)
    assert values["pixel accuracy"] == pytest.approx(wanted["pixel_accuracy"], abs=1e-12)
    classes = {name.removeprefix("class/"): value for name, value in values.items() if name.startswith("class/")}
    assert classes == pytest.approx(wanted["per_class_iou"], abs=1e-12)
    assert len(classes) == wanted["present_classes"]


FEATURES = ("full_rank", "rank_deficient")


@pytest.mark.parametrize("name", FEATURES)
def test_features_score_as_the_fid_packages_score_them(name, capsys):
    wanted = expected("fid", f"fid_{name}")
    ours = score(capsys, "fid", f"fid/{name}_a.npy", (f"fid/{name}_b.npy",))["values"]["frechet distance"]
    for package in ("pytorch_fid_0.3.0", "clean_fid_0.1.35", "eigenvalue_form_torchmetrics_style"):
        assert ours["value"] == pytest.approx(wanted[package], abs=1e-6), package
    assert ours["n"] == wanted["n_a"]
    itself = score(capsys, "fid", f"fid/{name}_a.npy", (f"fid/{name}_a.npy",))["values"]["frechet distance"]
    assert itself["value"] == pytest.approx(wanted["self_distance_a"], abs=1e-6)


QUESTIONS = {
    "questions": [{"question_id": i, "image_id": i, "question": "what colour?"} for i in range(3)],
}
ANNOTATIONS = {
    "annotations": [
        {
            "question_id": i,
            "image_id": i,
            "question_type": "what colour",
            "answer_type": "other",
            "multiple_choice_answer": "red",
            "answers": [{"answer": "red", "answer_id": k + 1} for k in range(10)],
        }
        for i in range(3)
    ]
}


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    contents = {
        "questions": QUESTIONS,
        "annotations": ANNOTATIONS,
        "answers": [{"question_id": 0, "answer": "red"}, {"question_id": 1, "answer": "blue"}],
        "captions": {"a": ["a red dog runs over a hill"], "b": ["two cats sleep on a bed"]},
        "said": {"a": "a red dog runs", "b": "two cats on a bed"},
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


WITHOUT_JAVA = ["score", "captions", "said.json", "--references", "captions.json", "--tokens", "none"]
WITHOUT_JAVA += ["--without-meteor"]
VQA = ["score", "vqav2", "answers.json", "--references", "annotations.json", "questions.json"]


def test_questions_that_are_not_answered_make_a_score_limited(files, capsys):
    assert main([*VQA, "--out", "score.json"]) == 0
    out = capsys.readouterr().out
    assert "vqav2 LIMITED" in out
    assert "not in the file: 1 of 2" in out
    assert "answers.json: accuracy by the protocol vqa-toolkit, extraction" in out
    assert "values are times 100" in out
    assert "beside it" not in out
    record = json.loads((files / "score.json").read_text())
    assert record["values"]["accuracy"]["value"] == 0.5
    assert set(record["references"]) == {"questions.json", "annotations.json"}


def test_boxes_are_scored_against_the_pickled_references(files, capsys):
    folder = write_benchmarks(files / "data")
    boxes = [{"sent_id": 100 + i, "answer": format_box(corners(box(i)), (SIDE, SIDE))} for i in range(N - 1)]
    (files / "boxes.json").write_text(json.dumps([*boxes[:-1], {"sent_id": 100 + N - 2, "answer": "nowhere"}]))
    command = ["score", "refcoco", "boxes.json", "--references", str(folder / "refs(unc).p"), "data/instances.json"]
    assert main([*command, "--split", "val", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["values"]["accuracy"]["value"] == pytest.approx((N - 2) / (N - 1))
    assert (record["counts"]["unparsable"], record["split"], record["limited"]) == (1, "val", False)
    assert main([*command, "--split", "train"]) == 2
    assert "answers 11 expressions that the split train of" in capsys.readouterr().err


def test_novel_things_are_scored_by_domain(files, capsys):
    images = [
        {"id": i, "file_name": f"{i}.jpg", "open_images_id": f"{i:016x}", "domain": domain}
        for i, domain in enumerate(("in-domain", "near-domain", "near-domain"))
    ]
    texts = ("a dog runs over a red hill", "two cats sleep on a bed", "a kite over the blue sea")
    annotations = [{"id": 2 * i + k, "image_id": i, "caption": texts[i]} for i in range(3) for k in range(2)]
    (files / "nocaps.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    (files / "said.json").write_text(json.dumps([{"image_id": i, "caption": texts[i]} for i in range(3)]))
    command = ["score", "nocaps", "said.json", "--references", "nocaps.json", "--tokens", "java-free"]
    assert main([*command, "--without-meteor", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)["values"]
    assert {name: value["n"] for name, value in values.items() if "/" in name} == {
        "domain/in-domain": 1,
        "domain/near-domain": 2,
    }
    assert values["cider"]["value"] == pytest.approx(10)


def test_captions_are_scored_without_java(files, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(files))
    command = ["score", "captions", "said.json", "--references", "captions.json"]
    assert main(command) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "needs Java; install it, or" in err
    assert main([*command, "--tokens", "java-free"]) == 0
    out = capsys.readouterr().out
    assert "by the protocol java-free" in out
    assert "left out: METEOR (METEOR needs Java" in " ".join(out.split())


def test_no_pytorch_is_needed(files):
    script = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'transformers', 'diffusers', 'lightning', 'cleanfid'):\n"
        "    sys.modules[name] = None\n"
        "from mmi.cli import main\n"
        f"first = main({VQA!r})\n"
        f"sys.exit(first or main({WITHOUT_JAVA!r}))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


REFERENCES = ["--references", "questions.json", "annotations.json"]
WRONG = {
    "unknown task": (["vqav3", "answers.json", *REFERENCES], 'no task "vqav3" for files; did you mean vqav2'),
    "no references": (["vqav2", "answers.json"], "mmi score vqav2 PREDICTIONS needs --references FILE: the questions"),
    "two forms": (["vqav2", "answers.json", "--run", "runs/x"], "give either --run DIR, or --task NAME"),
    "a config": (["vqav2", "answers.json", *REFERENCES, "--tasks.vqav2.n=3"], "need no config"),
    "no such file": (["vqav2", "none.json", *REFERENCES], "none.json"),
    "no such reference": (["vqav2", "answers.json", "--references", "none.json"], "none.json"),
    "one file of two": (["vqav2", "answers.json", "--references", "questions.json"], "two files"),
    "twice the same": (["vqav2", "answers.json", "--references", "questions.json", "answers.json"], "one must hold"),
    "three files": (["vqav2", "answers.json", *REFERENCES, "said.json"], "there are 3 files of references"),
    "other questions": (["vqav2", "said.json", *REFERENCES], "said.json"),
    "no split": (["refcoco", "answers.json", "--references", "refs(unc).p", "instances.json"], "--split"),
    "no dense annotations": (["visdial", "answers.json", "--references", "questions.json"], "expected dialogs and"),
    "no features": (["fid", "answers.json", "--references", "said.json"], "is no .npy file"),
    "no folder": (["ade20k", "answers.json", "--references", "said.json"], "is no folder"),
    "a submission of a file": (["vqav2", "answers.json", *REFERENCES, "--submission"], "--submission goes with --run"),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
def test_wrong_input_is_one_sentence(files, case, capsys):
    words, sentence = case
    assert main(["score", *words]) == 2
    err = capsys.readouterr().err
    assert sentence in err
    assert err.count("\n") == 1


def test_help_lists_every_task_with_its_files(capsys):
    from mmi_eval.score_files import FILE_SCORERS

    assert main(["score", "--help"]) == 0
    out = capsys.readouterr().out
    for name, scorer in FILE_SCORERS.items():
        assert name in out
        assert f"predictions: {scorer.predictions}" in out
        assert f"references: {scorer.references}" in out
