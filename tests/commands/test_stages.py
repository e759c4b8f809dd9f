"""Every stage is what its header says: its command parses, its network can be built, its small twin is its twin."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from functools import lru_cache
from pathlib import Path

import pytest
import torch

from mmi.checkpoints.storage import MODEL, read_manifest, write_checkpoint
from mmi.commands.arguments import Arguments
from mmi.commands.evaluation_tasks import read_evaluation_config
from mmi.commands.settings import check_settings, settings_from_command_line
from mmi.compose import compose, packaged_configs
from mmi.config import NetworkConfig
from mmi.models.build import build_network
from mmi.planning import without_values
from mmi.training.optimizer import group_parameters
from mmi_eval.formats.errors import write_json
from mmi_eval.metrics.intervals import Score
from mmi_eval.report.run_card import read_card
from mmi_eval.results import Checkpoint, Condition, Evaluation, Plan

STAGES = packaged_configs() / "stages"
EXPERIMENT = packaged_configs().parent / "experiments" / "stages"
FULL = sorted(file.name for file in STAGES.glob("*.yaml"))
SMALL = sorted(f"micro/{file.name}" for file in STAGES.glob("micro/*.yaml"))
FINE_TUNING = [name for name in FULL if name.startswith("sft_")]
TWINS = {
    "micro/vqa_caption.yaml": "sft_vqa_caption.yaml",
    "micro/rec.yaml": "sft_rec.yaml",
    "micro/ade20k.yaml": "sft_ade20k.yaml",
    "micro/vist.yaml": "sft_vist.yaml",
    "micro/pororo.yaml": "sft_pororo.yaml",
    "micro/flintstones.yaml": "sft_flintstones.yaml",
    "micro/joint_stories.yaml": "sft_joint_stories.yaml",
}


def header(name: str) -> str:
    lines = (STAGES / name).read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines[: next(i for i, line in enumerate(lines) if line[:1] != "#")])


def commands(name: str, command: str) -> list[list[str]]:
    """The words behind ``mmi fit`` or ``mmi plan`` in the header of a stage."""
    found = re.findall(rf"^# mmi {command} (.*?)(?:  +.*)?$", header(name), re.MULTILINE)
    return [shlex.split(line) for line in found]


@lru_cache
def settings(name: str):
    return check_settings(compose([f"stages/{name}"]), "fit")


@lru_cache
def built(network: NetworkConfig):
    with without_values():
        return build_network(network, load_weights=False)


@pytest.mark.parametrize("name", [*FULL, *SMALL])
def test_the_command_of_a_header_is_of_this_config_and_is_accepted(name):
    (words,) = commands(name, "fit")
    assert words[:2] == ["--config", f"stages/{name}"]
    parser = Arguments("fit", "", "", takes_configs=True)
    parser.add_argument("--run")
    check_settings(settings_from_command_line(parser.read(words)), "fit")


@pytest.mark.parametrize("name", FULL)
def test_a_header_says_what_the_stage_needs_and_what_to_expect(name):
    (words,) = commands(name, "plan")
    assert words[:2] == ["--config", f"stages/{name}"]
    text = header(name)
    assert re.search(r"^# says .*\d GB of tensors .*\d H100 hours", text, re.MULTILINE)
    assert "\n# Expect: " in text


@pytest.mark.parametrize("name", FINE_TUNING)
def test_a_header_plans_for_the_devices_that_give_the_batch(name):
    (words,) = commands(name, "plan")
    assert settings(name).trainer["devices"] == int(words[words.index("--devices") + 1])


@pytest.mark.parametrize("name", FULL)
def test_a_full_stage_can_be_built_and_has_parts_to_train(name):
    found = settings(name)
    network = built(found.network)
    groups = {group.name.partition(".")[0] for group in group_parameters(network, found.optimizer)}
    assert ("unet" in groups) == (network.image_decoder is not None) == found.network.image_decoder.enabled
    trains_language = name.startswith("sft_vqa_caption")
    assert ("language_model" in groups) == trains_language
    assert "vision_trunk" not in groups


def test_every_stage_of_fine_tuning_has_a_small_twin():
    variants = {"sft_vqa_caption_lora.yaml", "sft_vqa_caption_4bit.yaml"}
    assert set(TWINS.values()) | variants == set(FINE_TUNING)
    assert set(TWINS) | {"micro/pretrain.yaml"} == set(SMALL)


@pytest.mark.parametrize(("small", "full"), TWINS.items(), ids=[Path(small).stem for small in TWINS])
def test_a_twin_learns_the_same_with_the_same_optimizer(small, full):
    ours, theirs = settings(small), settings(full)
    for name in ("betas", "eps", "schedule", "weight_decay"):
        assert getattr(ours.optimizer, name) == getattr(theirs.optimizer, name), name
    assert ours.network.image_decoder.enabled == theirs.network.image_decoder.enabled
    assert ours.loss == theirs.loss
    for name, source in ours.data["train"].items():
        twin = theirs.data["train"].get(name)
        if twin is not None and twin.format == source.format:
            assert (source.images_learned, source.text_learned) == (twin.images_learned, twin.text_learned), name
            assert (source.augment, source.given_turns) == (twin.augment, twin.given_turns), name
    assert ours.run.start_from == "runs/stage-pretrain"


@pytest.mark.parametrize("stage", ["ade20k", "vist", "pororo", "flintstones"])
def test_the_image_decoder_of_a_twin_is_faster_or_slower_than_the_rest_as_in_the_paper(stage):
    ours, theirs = settings(f"micro/{stage}.yaml"), settings(f"sft_{stage}.yaml")
    unet = (ours.optimizer.rates.unet or 0) / ours.optimizer.learning_rate
    assert unet == pytest.approx((theirs.optimizer.rates.unet or 0) / theirs.optimizer.learning_rate)


def test_every_small_stage_has_a_suite_of_its_own_tasks():
    config = read_evaluation_config(["eval/stages.yaml"])
    assert all(config.chosen(None, Path(name).stem) for name in SMALL)


def test_pretraining_teaches_neither_questions_nor_boxes():
    assert {source.format for source in settings("micro/pretrain.yaml").data["train"].values()} == {
        "mmc4",
        "pair_tars",
        "coco_captions",
    }


def test_the_table_of_scores_is_made_from_the_results():
    collect = collect_program()
    stages = json.loads((EXPERIMENT / "results" / "scores.json").read_text(encoding="utf-8"))
    assert set(stages) == {Path(name).stem for name in SMALL}
    assert collect.table(stages) in (EXPERIMENT / "README.md").read_text(encoding="utf-8")


def test_no_control_and_no_other_checkpoint_stands_in_the_table(tmp_path):
    collect = collect_program()
    write_checkpoint(tmp_path / "checkpoints" / "last", {"x": torch.zeros(1)}, {}, 40)
    last = Checkpoint("last", 40, read_manifest(tmp_path / "checkpoints" / "last").files[MODEL])
    for condition, checkpoint, value in (
        (Condition(), last, 0.5),
        (Condition(weights="untrained"), last, 0.1),
        (Condition("blank"), last, 0.2),
        (Condition("blank", weights="untrained"), last, 0.05),
        (Condition(mmfs=False), last, 0.3),
        (Condition(), Checkpoint("best", 20, "0" * 64), 0.4),
    ):
        plan = Plan("vqav2", 1, {}, condition, checkpoint, None, "0" * 16)
        evaluation = Evaluation(tmp_path / "evaluations" / "vqav2" / plan.hash)
        write_json(evaluation.folder / "evaluation.json", plan.record())
        values = {"accuracy": Score(value, value, value, 9).record()}
        evaluation.write_score({"label": "vqav2", "limited": False, "values": values})
    for untrained, value in ((False, 0.5), (True, 0.1)):
        found = collect.evaluations_of(tmp_path, untrained=untrained)
        assert {label: e.value("accuracy").value for label, e in found.items()} == {"vqav2": value}


def test_every_card_has_the_tasks_of_its_stage_after_and_before(capsys):
    collect = collect_program()
    for name in SMALL:
        stage = Path(name).stem
        collect.main(["--tasks", stage])
        tasks = set(capsys.readouterr().out.strip().split(","))
        card = read_card(EXPERIMENT / stage / "card.json")
        assert {score.split("/")[0] for score in card.after} == tasks
        assert set(card.before) == set(card.after)


def collect_program():
    spec = importlib.util.spec_from_file_location("collect", EXPERIMENT / "collect.py")
    assert spec is not None
    assert spec.loader is not None
    collect = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(collect)
    return collect
