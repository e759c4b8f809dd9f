"""The prompt panel shows progress and leaves training as it found it."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import document, picture
from PIL import Image
from toy_training import StepLosses, ToyData, run_config, toy_module, toy_trainer

from mmi.checkpoints.run_folder import RunFolder
from mmi.config import ConfigError
from mmi.training.contact_sheet import contact_sheet
from mmi.training.panel import PanelItem, PromptPanel, panel_from_documents, panel_from_prompts
from mmi.training.randomness import random_state, restore_random_state, undisturbed
from mmi.training.run import make_panel


def generate(network: torch.nn.Module, prompt: Sequence[Any]) -> list[Any]:
    """Disturb everything a real generation could."""
    assert not network.training
    assert not torch.is_grad_enabled()
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    network.train()
    return [f"{len(prompt)} parts", picture(3)]


def test_training_goes_on_as_if_no_panel_had_been_drawn(tmp_path: Path) -> None:
    losses, without = StepLosses(), StepLosses()
    panel = PromptPanel([PanelItem(("a", picture(1)), (picture(2),))], 2, tmp_path, generate)
    toy_trainer([panel, losses], 3, enable_checkpointing=False).fit(toy_module(), ToyData(n_val=0))
    toy_trainer([without], 3, enable_checkpointing=False).fit(toy_module(), ToyData(n_val=0))
    assert losses.by_step == without.by_step
    assert [path.name for path in tmp_path.iterdir()] == ["step-2"]
    answers = json.loads((tmp_path / "step-2" / "answers.json").read_text())
    assert answers["samples"] == [{"prompt": ["a", "<image>"], "target": ["<image>"], "answer": ["2 parts", "<image>"]}]
    with Image.open(tmp_path / "step-2" / "panel.png") as sheet:
        assert sheet.width > sheet.height > 96


def test_random_states_and_modes_come_back() -> None:
    module = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Dropout())
    module[1].eval()
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    state = random_state()

    def draw() -> tuple[float, float, float]:
        return random.random(), np.random.random(), float(torch.rand(()))

    expected = draw()
    restore_random_state(state)
    with undisturbed(module):
        draw()
        assert not module[0].training
    assert draw() == expected
    assert (module.training, module[0].training, module[1].training) == (True, True, False)


def test_documents_are_cut_before_their_last_picture() -> None:
    documents = [
        document("one", 1, "two", 2, "three"),
        document(1, "after"),
        document("a", "b", "c", "d"),
        document("not reached"),
    ]
    first, second, third = panel_from_documents(documents, 3)
    assert [type(part).__name__ for part in first.prompt] == ["str", "Image", "str"]
    assert [type(part).__name__ for part in first.target] == ["Image", "str"]
    assert len(second.prompt) == 1
    assert second.target == ("after",)
    assert (third.prompt, third.target) == (("a", "b"), ("c", "d"))


def test_prompts_of_ones_own_name_their_pictures(tmp_path: Path) -> None:
    picture(1).save(tmp_path / "a.png")
    (item,) = panel_from_prompts([["What is this?", {"image": str(tmp_path / "a.png")}, {"text": "It is"}]])
    assert [type(part).__name__ for part in item.prompt] == ["str", "Image", "str"]
    with pytest.raises(ConfigError, match=r"missing\.png cannot be read"):
        panel_from_prompts([[{"image": str(tmp_path / "missing.png")}]])
    with pytest.raises(ConfigError, match="picture such as"):
        panel_from_prompts([[{"img": "a.png"}]])


def test_a_panel_is_built_only_when_asked_for(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert make_panel(run_config(tmp_path), folder, [document("a", 1)], generate) is None
    panel = make_panel(run_config(tmp_path, panel_every=5), folder, [document("a", 1)], generate)
    assert panel is not None
    assert (panel.every, len(panel.items)) == (5, 1)
    with pytest.raises(ConfigError, match=r"set data\.val"):
        make_panel(run_config(tmp_path, panel_every=5), folder, [], generate)


def test_a_contact_sheet_takes_any_mixture_of_text_and_pictures() -> None:
    rows = [
        (("text " * 40, picture(1, 300), picture(2)), (), ("",)),
        ((picture(1).resize((500, 20)),), ("x",), (picture(1), "y", picture(2))),
    ]
    sheet = contact_sheet(rows, ("prompt", "target", "answer"))
    assert sheet.mode == "RGB"
    assert sheet.height > 2 * 96
