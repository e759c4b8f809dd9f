"""A conversion holds little more than what it is just writing, however large the checkpoint."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from official_folders import official_facts, write_backbones
from safetensors.torch import save_file

from mmi.checkpoints.conversion import Backbones, find_network_numbers
from mmi.checkpoints.official import official_layout
from mmi.models.positions import sincos_2d
from mmi.models.visual_tokenizer import CLIP_MEAN, CLIP_STD

LLAMA = {"hidden_size": 1024, "intermediate_size": 4096, "vocab_size": 16000, "num_attention_heads": 8}
# Runs in a process of its own; says how much memory of its own (no mapped file) it had at most, less what imports took.
SCRIPT = """
import json, sys, threading, time
from pathlib import Path
from mmi.checkpoints.conversion import Backbones, convert_official, export_official
from mmi.checkpoints.run_folder import RunFolder
import mmi.models.build
def own():
    return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("RssAnon")) * 1024
checkpoint, folder, out = map(Path, sys.argv[1:])
start, most, running = own(), 0, True
def watch():
    global most
    while running:
        most = max(most, own())
        time.sleep(0.002)
thread = threading.Thread(target=watch)
thread.start()
convert_official(checkpoint, Backbones(folder / "llm", folder / "clip", folder / "sd"), out, {})
converted, most = most - start, 0
export_official(RunFolder(out), "last", out / "back", shard_bytes=10**8)
running = False
thread.join()
print(json.dumps({"convert": converted, "export": most - start}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_memory_stays_far_below_the_size_of_the_checkpoint(tmp_path: Path, kind: str) -> None:
    write_backbones(tmp_path)
    for file in (tmp_path / "llm").glob("tokenizer*"):
        file.unlink()
    config_file = tmp_path / "llm" / "config.json"
    config_file.write_text(json.dumps(json.loads(config_file.read_text()) | LLAMA))
    state = _random_state(tmp_path)
    size = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    checkpoint = tmp_path / f"model.{kind}"
    save_file(state, checkpoint) if kind == "safetensors" else torch.save(state, checkpoint)
    command = [sys.executable, "-c", SCRIPT, str(checkpoint), str(tmp_path), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peak = json.loads(done.stdout.splitlines()[-1])
    megabytes = {what: round(value / 1e6) for what, value in peak.items()}
    print(f"{kind} of {size / 1e6:.0f} MB, most memory in MB: {megabytes}")
    assert size > 300e6
    assert max(peak.values()) < 0.6 * size


def _random_state(folder: Path) -> dict[str, torch.Tensor]:
    """A half-precision checkpoint of the tiny architecture around a wider language model."""
    facts = official_facts()
    shapes = {name: torch.empty(entry[0], device="meta") for name, entry in facts["keys"].items()}
    backbones = Backbones(folder / "llm", folder / "clip", folder / "sd")
    config, _ = find_network_numbers(shapes, backbones, {})
    generator = torch.Generator().manual_seed(0)
    state = {
        name: (torch.randn(shape, generator=generator) * 0.02).half() for name, shape in official_layout(config).items()
    }
    before = "visual_tokenizer."
    state[f"{before}pos_embed"] = torch.cat([torch.zeros(1, 32), sincos_2d(16, 16, 32)])
    state[f"{before}clip_mean"] = torch.tensor(CLIP_MEAN).reshape(1, 3, 1, 1)
    state[f"{before}clip_std"] = torch.tensor(CLIP_STD).reshape(1, 3, 1, 1)
    state[f"{before}encoder.vision_model.embeddings.position_ids"] = torch.arange(257)[None]
    for name in [name for name in state if name.startswith("image_decoder") and name.endswith("pos_embed")]:
        state[name] = sincos_2d(8, 8, state[name].shape[1])
    return state
