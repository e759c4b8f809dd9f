"""A working directory to evaluate in: a run folder of a random network, toy benchmarks, an evaluation config."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from factories import tiny_config, wake_up
from toy_benchmarks import write_benchmarks

from mmi.checkpoints.run_folder import RunFolder
from mmi.checkpoints.storage import write_checkpoint
from mmi.config_tree import to_tree
from mmi.data.microworld.tokenizer import write_tokenizer
from mmi.models.build import build_network
from mmi.tokens import Tokenizer


def write_tiny_run(folder: Path, config: Mapping[str, Any]) -> None:
    """Write ``data``, ``tokenizer``, ``runs/toy`` and ``eval.yaml`` below a folder."""
    write_benchmarks(folder / "data")
    write_tokenizer(folder / "tokenizer", 259)
    tokenizer = Tokenizer.load(folder / "tokenizer")
    special = tokenizer.special
    ids = {"bos_token_id": special.bos, "eos_token_id": special.eos, "pad_token_id": special.pad}
    network_config = tiny_config(language={**ids, "max_positions": 512}, decoder={"n_context_positions": 512})
    torch.manual_seed(0)
    network = build_network(network_config)
    wake_up(network)
    run = RunFolder(folder / "runs" / "toy")
    run.start({"model": {"network": to_tree(network_config), "compat": "corrected"}}, tokenizer)
    write_checkpoint(run.checkpoints / "last", network.state_dict(), {}, step=5)
    (folder / "eval.yaml").write_text(yaml.safe_dump(dict(config)))
