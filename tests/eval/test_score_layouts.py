"""Result and reference files as other people's systems write them get the same scores as the official layouts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shared_data import shared_path

from mmi_eval.formats.errors import FormatError
from mmi_eval.metrics.visdial import ranks_of_scores
from mmi_eval.score_files import FileOptions, score_prediction_file

JAVA_FREE = FileOptions(tokens="java-free", meteor=False)


def shared(name: str) -> Path:
    return shared_path(f"evaldata/{name}")


def content(name: str) -> Any:
    return json.loads(shared(name).read_text())


def values(task: str, predictions: Path, *references: Path) -> dict[str, float]:
    found = score_prediction_file(task, predictions, references, JAVA_FREE)["values"]
    return {name: score["value"] for name, score in found.items()}


def as_list(path: Path, rows: list[dict]) -> None:
    path.write_text(json.dumps(rows))


def as_lines(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


CAPTIONS: dict[str, Callable[[Path, list[dict]], object]] = {
    "ids as text": lambda p, rows: as_list(p, [{**r, "image_id": str(r["image_id"])} for r in rows]),
    "ids with zeros": lambda p, rows: as_list(p, [{**r, "image_id": f"{r['image_id']:012d}"} for r in rows]),
    "file names": lambda p, rows: as_list(
        p, [{**r, "image_id": f"val2014/COCO_val2014_{r['image_id']:012d}.jpg"} for r in rows]
    ),
    "a row on each line": as_lines,
    "lists of one": lambda p, rows: p.write_text(json.dumps({str(r["image_id"]): [r["caption"]] for r in rows})),
    "references and all": lambda p, rows: as_list(
        p,
        [
            {"image_name": f"COCO_val2014_{r['image_id']:012d}.jpg", "captions": ["x"], "prediction": r["caption"]}
            for r in rows
        ],
    ),
}


@pytest.mark.parametrize("write", CAPTIONS.values(), ids=CAPTIONS)
def test_captions(write, tmp_path):
    rows = content("captions/coco_subset500_results.json")[:20]
    as_list(tmp_path / "official.json", rows)
    write(tmp_path / "other.json", rows)
    references = shared("captions/coco_subset500_refs.json")
    found = values("coco_caption", tmp_path / "other.json", references)
    assert found == values("coco_caption", tmp_path / "official.json", references)


REFERENCES: dict[str, Callable[[dict], object]] = {
    "annotations alone": lambda content: {"annotations": content["annotations"]},
    "a list of annotations": lambda content: content["annotations"],
    "ids as text": lambda content: {
        "images": [{"id": str(image["id"])} for image in content["images"]],
        "annotations": [{**row, "image_id": str(row["image_id"])} for row in content["annotations"]],
    },
}


@pytest.mark.parametrize("change", REFERENCES.values(), ids=REFERENCES)
def test_references(change, tmp_path):
    official, references = shared("captions/coco_subset500_results.json"), tmp_path / "references.json"
    references.write_text(json.dumps(change(content("captions/coco_subset500_refs.json"))))
    expected = values("captions", official, shared("captions/coco_subset500_refs.json"))
    assert values("captions", official, references) == expected


@pytest.mark.parametrize("wrap", [lambda rows: rows, lambda rows: {"annotations": rows}], ids=["v1", "coco"])
def test_paragraphs_of_which_the_last_of_a_picture_counts(wrap, tmp_path):
    key = "paragraph" if isinstance(wrap([]), list) else "caption"
    texts = {1: ("no", "a red dog runs over a hill"), 2: ("two cats sleep on a bed",)}
    rows = [{"image_id": i, "url": f"a/{i}.jpg", key: text} for i, of_image in texts.items() for text in of_image]
    (tmp_path / "paragraphs.json").write_text(json.dumps(wrap(rows)))
    as_list(tmp_path / "said.json", [{"image_id": i, "caption": of_image[-1]} for i, of_image in texts.items()])
    assert values("image2paragraph", tmp_path / "said.json", tmp_path / "paragraphs.json")["cider"] == pytest.approx(10)


def test_nocaps_references_for_scoring_alone(tmp_path):
    images = [{"id": 1, "domain": "in-domain"}, {"id": 2}]
    texts = {1: "a red dog runs over a hill", 2: "two cats sleep on a bed"}
    annotations = [{"image_id": i, "caption": text} for i, text in texts.items()]
    (tmp_path / "references.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    as_list(tmp_path / "said.json", annotations)
    record = score_prediction_file("nocaps", tmp_path / "said.json", [tmp_path / "references.json"], JAVA_FREE)
    assert record["values"]["cider"]["n"] == 2
    assert [name for name in record["values"] if "/" in name] == ["domain/in-domain"]


def test_a_file_with_its_own_references(tmp_path):
    sample, official = shared("captions/magic_layout_sample.json"), tmp_path / "official.json"
    ids = {int(row["image_name"][-16:-4]) for row in content("captions/magic_layout_sample.json")}
    as_list(official, [r for r in content("captions/coco_subset500_results.json") if r["image_id"] in ids])
    expected = values("captions", official, shared("captions/coco_subset500_refs.json"))
    assert values("captions", sample, sample) == expected


QUESTIONS, ANNOTATIONS = "vqa/textvqa_val60_questions.json", "vqa/textvqa_val60_annotations.json"
ANSWERS: dict[str, Callable[[Path, list[dict]], object]] = {
    "ids as text": lambda p, rows: as_list(p, [{**r, "question_id": str(r["question_id"])} for r in rows]),
    "a row on each line": lambda p, rows: as_lines(
        p, [{"question_id": r["question_id"], "text": r["answer"], "prompt": "what?"} for r in rows]
    ),
    "predictions": lambda p, rows: as_list(
        p, [{"questionId": r["question_id"], "prediction": r["answer"]} for r in rows]
    ),
}


@pytest.mark.parametrize("write", ANSWERS.values(), ids=ANSWERS)
def test_answers(write, tmp_path):
    official = "vqa/textvqa_val60_first_annotator_results.json"
    write(tmp_path / "other.json", content(official))
    references = shared(QUESTIONS), shared(ANNOTATIONS)
    expected = values("textvqa", shared(official), *references)
    assert values("textvqa", tmp_path / "other.json", *references) == expected


def test_annotations_whose_ids_are_text(tmp_path):
    rows = content(ANNOTATIONS)
    for row in rows["annotations"]:
        row["question_id"] = str(row["question_id"])
    (tmp_path / "annotations.json").write_text(json.dumps(rows))
    official = shared("vqa/textvqa_val60_first_annotator_results.json")
    expected = values("vqav2", official, shared(QUESTIONS), shared(ANNOTATIONS))
    assert values("vqav2", official, shared(QUESTIONS), tmp_path / "annotations.json") == expected


def test_vizwiz_regrouped_in_two_files():
    official = shared("vqa/vizwiz_val_frozen_vilt2_results.json")
    expected = values("vizwiz", official, shared("vqa/vizwiz_val_official_layout.json"))
    found = values(
        "vizwiz", official, shared("vqa/vizwiz_val_annotations.json"), shared("vqa/vizwiz_val_questions.json")
    )
    assert found == expected


def test_gqa_as_its_authors_compare(tmp_path):
    questions = {
        str(i): {"question": "?", "imageId": str(i), "answer": "red", "isBalanced": i < 3, "types": None}
        for i in range(4)
    }
    (tmp_path / "questions.json").write_text(json.dumps(questions))
    said = ("red", "Red.", "blue", "red")
    as_list(tmp_path / "said.json", [{"questionId": str(i), "prediction": text} for i, text in enumerate(said)])
    found = values("gqa", tmp_path / "said.json", tmp_path / "questions.json")
    assert found["accuracy"] == 3 / 4
    assert found["accuracy, letter for letter"] == 2 / 4
    assert found["accuracy, balanced questions"] == pytest.approx(2 / 3)


def test_a_submission_of_all_rounds_of_visdial(tmp_path):
    dialogs, dense = shared("visdial/visdialconv_dialogs.json"), shared("visdial/visdialconv_dense_annotations.json")
    draws = np.random.default_rng(0)
    rows, true_ranks = [], []
    for dialog in content("visdial/visdialconv_dialogs.json")["data"]["dialogs"]:
        for number, turn in enumerate(dialog["dialog"], start=1):
            ranks = ranks_of_scores([draws.random(100)])[0].tolist()
            rows.append({"image_id": dialog["image_id"], "round_id": number, "ranks": ranks})
            true_ranks.append(ranks[turn["gt_index"]])
    as_list(tmp_path / "all.json", rows)
    annotated = {(row["image_id"], row["round_id"]) for row in content("visdial/visdialconv_dense_annotations.json")}
    as_list(tmp_path / "dense.json", [row for row in rows if (row["image_id"], row["round_id"]) in annotated])
    record = score_prediction_file("visdial", tmp_path / "all.json", [dialogs, dense], JAVA_FREE)
    found = {name: score["value"] for name, score in record["values"].items()}
    assert found["NDCG"] == values("visdial", tmp_path / "dense.json", dialogs, dense)["NDCG"]
    assert found["MRR"] == pytest.approx(np.mean(1 / np.array(true_ranks)))
    assert found["R@10"] == pytest.approx(np.mean(np.array(true_ranks) <= 10))
    assert (record["values"]["NDCG"]["n"], record["values"]["MRR"]["n"]) == (40, 400)
    assert record["notes"]["rounds without dense annotations"] == 360
    assert record["counts"]["rounds without a relevant option"] == 0
    as_list(tmp_path / "other.json", [*rows, {**rows[0], "image_id": 1}])
    with pytest.raises(FormatError, match=r"ranks round 1/1 .*does not hold"):
        values("visdial", tmp_path / "other.json", dialogs, dense)


def test_boxes_that_could_not_be_had_are_misses(tmp_path):
    rows = content("refcoco/oracle_detection_predictions.json")
    rows[0]["pred_box_xywh"] = None
    as_lines(tmp_path / "boxes.jsonl", rows)
    reference = shared("refcoco/refcoco_testA_sample.json")
    record = score_prediction_file("refcoco", tmp_path / "boxes.jsonl", [reference])
    assert record["counts"]["unparsable"] == 1
    assert record["values"]["mean IoU"]["n"] == len(rows)


@pytest.mark.parametrize("name", ["full_rank", "rank_deficient"])
def test_statistics_and_archives_of_features(name, tmp_path):
    files = [shared(f"fid/{name}_{which}.npy") for which in "ab"]
    rows = [np.load(file) for file in files]
    kept = []
    for which, features in zip("ab", rows, strict=True):
        kept.append(tmp_path / f"{which}.npz")
        np.savez(kept[-1], mu=features.mean(axis=0), sigma=np.cov(features, rowvar=False))
        np.savez_compressed(tmp_path / f"{which}-rows.npz", features)
    wanted = content("expected.json")["fid"][f"fid_{name}"]["eigenvalue_form_torchmetrics_style"]
    for drawn, real in ((kept[0], kept[1]), (files[0], kept[1]), (kept[0], files[1])):
        record = score_prediction_file("fid", drawn, [real])
        assert record["values"]["frechet distance"]["value"] == pytest.approx(wanted, abs=1e-6)
        assert "a file holds mean and covariance only" in record["notes"]["left out"]
    assert values("fid", tmp_path / "a-rows.npz", tmp_path / "b-rows.npz") == values("fid", *files)


WRONG_FEATURES = {
    "other arrays": ({"a": np.zeros(3), "b": np.zeros(3)}, "holds the arrays a, b; expected mu and sigma"),
    "shapes": ({"mu": np.zeros(3), "sigma": np.zeros((2, 2))}, "expected d and d x d numbers"),
    "not finite": ({"mu": np.zeros(2), "sigma": np.full((2, 2), np.nan)}, "statistics that are not finite"),
    "objects": ({"mu": np.array([{}]), "sigma": np.zeros((1, 1))}, "holds no arrays that can be read"),
    "another width": ({"mu": np.zeros(3), "sigma": np.eye(3)}, "compare features of one network"),
}


@pytest.mark.parametrize("case", WRONG_FEATURES.values(), ids=WRONG_FEATURES)
def test_wrong_features_are_one_sentence(case, tmp_path):
    arrays, sentence = case
    np.savez(tmp_path / "wrong.npz", **arrays)
    with pytest.raises(FormatError, match=sentence):
        values("fid", tmp_path / "wrong.npz", shared("fid/full_rank_a.npy"))
