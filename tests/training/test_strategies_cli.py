"""`mmi fit` on two processes as torchrun starts them: any strategy, one run folder, one export."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from ranks import run_ranks
from safetensors.torch import load_file

from mmi.cli import main
from mmi.data.microworld import write_world

SETTINGS = (
    "--paths.world=w",
    "--data.train={stories: {format: mmc4, path: w/stories/train.jsonl.zip, images: w/stories/images}}",
    "--data.val={}",
    "--run.save_every=2",
    "--run.panel_every=4",
    "--model.optimizer.schedule=constant",
    "--model.optimizer.eps=1e-4",
    # Pictures that are learned are chosen by each device for itself.
    "--model.network.image_decoder.max_targets=null",
    "--trainer.enable_progress_bar=false",
)


def mmi(folder: Path, *argv: str) -> None:
    os.chdir(folder)
    code = main(list(argv))
    if code:
        raise SystemExit(code)


def fit(folder: Path, run: str, strategy: str, n_steps: int, *more: str) -> None:
    """Two rows a step, all in one process or one in each of two."""
    n_ranks = 1 if strategy == "auto" else 2
    size = (f"--data.batch_size={2 // n_ranks}", f"--trainer.devices={n_ranks}", f"--trainer.strategy={strategy}")
    argv = ("fit", "--config", "smoke", *SETTINGS, *size, f"--run.name={run}", f"--trainer.max_steps={n_steps}", *more)
    assert run_ranks(mmi, n_ranks, folder, *argv) == [0] * n_ranks


def exported(folder: Path, run: str) -> dict[str, torch.Tensor]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["checkpoint", "export", "--run", f"runs/{run}", "--to", "safetensors", "--out", f"out-{run}"]) == 0
    return load_file(folder / f"out-{run}" / "model.safetensors")


@pytest.mark.slow
def test_one_run_under_three_strategies_exports_what_one_process_does(tmp_path: Path) -> None:
    write_world(tmp_path / "w", size=8)
    fit(tmp_path, "relay", "ddp", 2)
    fit(tmp_path, "relay", "fsdp2", 4, "--ckpt_path", "last")
    assert (tmp_path / "runs" / "relay" / "samples" / "step-4" / "panel.png").is_file()
    fit(tmp_path, "relay", "auto", 6, "--ckpt_path", "last")
    fit(tmp_path, "alone", "auto", 6)
    relay, alone = exported(tmp_path, "relay"), exported(tmp_path, "alone")
    assert list(relay) == list(alone)
    for name, tensor in alone.items():
        assert torch.allclose(relay[name], tensor, rtol=0, atol=1e-5), name
