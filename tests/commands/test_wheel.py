"""The wheel works on its own: it contains the configs, and commands find them from an empty directory."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def unpacked_wheel(tmp_path_factory):
    pytest.importorskip("hatchling", reason="hatchling builds the wheel")
    from hatchling.builders.wheel import WheelBuilder

    folder = tmp_path_factory.mktemp("wheel")
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_wheel_contains_the_three_packages_and_every_config(unpacked_wheel):
    assert {"mmi", "mmfs", "mmi_eval"} <= {path.name for path in unpacked_wheel.iterdir()}
    packaged = {p.relative_to(unpacked_wheel / "mmi" / "_configs") for p in unpacked_wheel.rglob("_configs/**/*.yaml")}
    assert packaged == {p.relative_to(ROOT / "configs") for p in (ROOT / "configs").rglob("*.yaml")}
    assert not list(unpacked_wheel.rglob("tests")), "tests do not belong in the wheel"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["params", "--config", "model/tiny.yaml"],
        ["assets", "list"],
        ["bench", "ops", "--shapes", "tiny", "--quick", "--backends", "reference"],
    ],
    ids=["help", "params of a packaged config", "the manifest of assets", "the operator's benchmark"],
)
def test_wheel_runs_from_an_empty_directory(unpacked_wheel, tmp_path, arguments):
    paths = os.pathsep.join([str(unpacked_wheel), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, mmi.cli; print(mmi.__file__); sys.exit(mmi.cli.main(sys.argv[1:]))",
            *arguments,
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert str(unpacked_wheel) in done.stdout, "the checkout was imported, not the wheel"
