"""What ``mmi doctor`` and ``mmi params`` print."""

from __future__ import annotations

import json
import os

import pytest

from mmi.cli import main
from mmi.commands import doctor
from mmi.data.microworld import write_world


def findings(capsys, *arguments: str) -> tuple[int, dict[str, dict]]:
    code = main(["doctor", "--json", *arguments])
    return code, {finding["name"]: finding for finding in json.loads(capsys.readouterr().out)}


def test_doctor_names_versions_devices_and_backend(capsys):
    _, found = findings(capsys)
    assert {"python", "torch", "lightning", "threads", "operator", "disk", "java", "extra tracking"} <= set(found)
    backend, _, reason = found["operator"]["found"].partition(": ")
    assert backend in {"reference", "eager", "cpu", "triton"}
    assert reason


def test_every_problem_comes_with_its_fix(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    _, found = findings(capsys)
    assert found["java"]["state"] == "note"
    assert found["extra tracking"]["fix"] == 'if you need it: pip install "mmi[tracking]"'
    assert all(finding["fix"] for finding in found.values() if finding["state"] == "problem")


def test_doctor_finds_the_data_of_a_config(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_world("w", size=4)
    code, found = findings(capsys, "--config", "smoke", "--paths.world=w")
    assert code == 0
    assert found["data.train.stories"]["found"] == "4 documents"
    code, found = findings(capsys, "--config", "smoke", "--paths.world=w", "--data.train.pairs.path=nowhere")
    assert code == 1
    assert found["data.train.pairs"]["state"] == "problem"
    assert "--data.train.pairs.path" in found["data.train.pairs"]["fix"]


def test_doctor_takes_a_config_without_a_tokenizer(capsys):
    _, found = findings(capsys, "--config", "model/tiny", "--data.tokenizer=null")
    assert "data.tokenizer" not in found


def test_doctor_says_which_weights_are_missing(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("MMI_ASSETS", str(tmp_path))
    # The data of this config is not here either; only the weights are looked at.
    network = "--model.network.language.weights"
    _, found = findings(capsys, "--config", "model/mm_interleaved_13b", f"{network}=./nowhere")
    assert found["model.network.language.weights"]["state"] == "problem"
    assert found["model.network.vision.trunk.weights"]["state"] == "problem"
    assert "run: mmi assets download clip-vit-l-14, or set" in found["model.network.vision.trunk.weights"]["fix"]


def test_doctor_warns_of_more_threads_than_cores(monkeypatch):
    import torch

    monkeypatch.setattr(torch, "get_num_threads", lambda: 4096)
    (threads,) = [finding for finding in doctor.check_devices() if finding.name == "threads"]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert threads.fix == f"set OMP_NUM_THREADS={cores}"


def test_page_is_readable(capsys):
    main(["doctor"])
    shown = capsys.readouterr().out
    assert "\nok       torch" in shown
    assert shown.rstrip().splitlines()[-1].endswith(("problem.", "problems."))


@pytest.mark.parametrize("name", ["tiny", "micro"])
def test_params_adds_up(capsys, name):
    assert main(["params", "--config", f"model/{name}.yaml", "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert all(0 <= count["trainable"] <= count["total"] for count in counts)
    assert main(["params", "--config", f"model/{name}.yaml"]) == 0
    assert f"{sum(count['total'] for count in counts):,}" in capsys.readouterr().out


def test_params_sees_overrides(capsys):
    without = ["--model.network.language.mmfs.enabled=false", "--model.network.image_decoder.enabled=false"]
    assert main(["params", "--config", "model/tiny.yaml", "--json", *without]) == 0
    parts = {count["part"] for count in json.loads(capsys.readouterr().out)}
    assert "language_model / mmfs" not in parts
    assert not any(part.startswith("image_decoder") for part in parts)
