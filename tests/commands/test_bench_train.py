"""What ``mmi bench train`` packs, times and prints; how much savings are worth at demo size is a slow test."""

from __future__ import annotations

import json

import pytest
import torch
from factories import tiny_config

from mmi.cli import main
from mmi.commands import bench_train, step_timing
from mmi.commands.bench_packs import draw_pack
from mmi.commands.step_timing import SWITCHES, Step, open_mmfs, time_parts
from mmi.config import ConfigError, LossConfig, SavingsConfig
from mmi.models.build import build_network
from mmi.models.layout import BatchLayout
from mmi.models.noise import DiffusionDraws

TINY = ["bench", "train", "--config", "model/tiny.yaml", "--rows", "1", "--tokens", "96", "--repeats", "1"]


def layout(kind: str, rows: int = 2) -> BatchLayout:
    config = tiny_config()
    batch = draw_pack(kind, config, rows, 200)
    draws = DiffusionDraws.create(0, 0, 0, batch.n_images, (48, 8, 8), 1000, 0.1)
    return BatchLayout.of(batch, draws, config, SavingsConfig())


def test_half_of_the_captions_have_no_image_loss_and_nobody_sees_an_earlier_picture() -> None:
    pack = layout("captions")
    n_images = int(pack.image_table.max()) + 1
    assert n_images // 2 - 1 <= len(pack.chosen) <= n_images // 2
    assert pack.seen is None


def test_of_eleven_pictures_in_four_documents_ten_are_learned_and_seven_follow_another() -> None:
    pack = layout("mmc4", rows=1)
    assert int(pack.image_table.max()) + 1 == 11
    assert len(pack.chosen) == 10
    assert int((pack.previous >= 0).any(dim=1).sum()) == 7


@pytest.mark.parametrize(("kind", "length", "sentence"), [("captions", 8, "no document fits"), ("mmc4", 40, "no room")])
def test_rows_too_short_for_a_document_are_refused(kind: str, length: int, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        draw_pack(kind, tiny_config(), 1, length)


def test_every_way_is_timed_and_its_loss_compared(capsys, tmp_path):
    out = tmp_path / "numbers.json"
    assert main([*TINY, "--packs", "captions", "--json", str(out)]) == 0
    said = capsys.readouterr().out
    report = json.loads(out.read_text())
    (one,) = report["measured"]
    assert [way["name"] for way in one["ways"]] == ["all on", "all off", *(f"without {name}" for name in SWITCHES)]
    for way in one["ways"]:
        assert way["seconds"]["median"] > 0
        assert way["peak_bytes"] > 0
        assert way["loss_difference"] <= 1e-6
        assert way["gradient_difference"] <= 1e-4
        assert way["name"] in said
    on, off = one["ways"][:2]
    assert on["ratio"] == 1
    assert off["gradient_difference"] > 0
    assert off["peak_bytes"] > on["peak_bytes"]
    assert set(one["parts"]) == {"all on", "all off"}
    for parts in one["parts"].values():
        assert {"vision", "language model", "MMFS in the language model", "text head", "U-Net", "optimizer"} <= set(
            parts
        )
    assert one["operations"]["U-Net"]["backward"] > one["operations"]["U-Net"]["forward"] > 0
    assert one["tokens_per_second"] > one["images_per_second"] > 0
    assert 0 < one["utilisation"] < 10
    assert report["agree"] is True
    assert "they agree" in said


def test_without_reference_only_the_step_itself_is_timed(capsys):
    assert main([*TINY, "--packs", "mmc4", "--no-reference"]) == 0
    said = capsys.readouterr().out
    assert "all on" in said
    assert "all off" not in said
    assert "not judged" in said


def test_losses_that_differ_end_with_one(monkeypatch, capsys):
    monkeypatch.setattr(bench_train, "AGREEMENT", -1.0)
    monkeypatch.setattr(step_timing, "SWITCHES", ("shared_tables",))
    assert main([*TINY, "--packs", "captions"]) == 1
    assert "more than -1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--repeats", "0"], "--repeats is 0; expected at least 1"),
        (["--packs", "caption"], '--packs: no "caption"; did you mean captions?'),
        (["--tokens", "9", "--config", "model/tiny.yaml"], "no document fits into a row of 9 tokens"),
    ],
    ids=["no repeats", "unknown pack", "rows too short"],
)
def test_wrong_options_are_one_sentence(capsys, words, sentence):
    assert main(["bench", "train", *words]) == 2
    assert sentence in capsys.readouterr().err


def toy_step() -> Step:
    torch.manual_seed(0)
    network, config = build_network(tiny_config()).train(), tiny_config()
    batch = draw_pack("mmc4", config, 1, 120)
    assert network.image_decoder is not None
    draws = DiffusionDraws.create(0, 0, 0, batch.n_images, network.image_decoder.latent_shape, 1000, 0.1)
    return Step(network, torch.optim.AdamW(network.parameters()), batch, draws, LossConfig())


def test_losses_that_are_compared_depend_on_mmfs() -> None:
    step = toy_step()
    closed = step.loss()
    open_mmfs(step.network)
    assert abs(step.loss() - closed) > 1e-3 * closed
    step.network.silence_mmfs()
    torch.testing.assert_close(step.loss(), closed)


def test_parts_of_a_step_are_timed_without_changing_it() -> None:
    step = toy_step()
    network = step.network
    before = [p.detach().clone() for p in network.parameters()]
    plain = step()
    gradients = [p.grad for p in network.parameters()]
    parts = time_parts(step, SavingsConfig(), 1)
    assert {"vision", "U-Net", "MMFS in the U-Net", "image condition", "optimizer"} <= set(parts)
    assert min(parts.values()) >= 0
    assert torch.equal(step(), plain)
    torch.testing.assert_close([p.grad for p in network.parameters()], gradients)
    torch.testing.assert_close(list(network.parameters()), before, rtol=0, atol=0)


@pytest.mark.slow
def test_savings_are_worth_their_goals_at_demo_size(tmp_path):
    out = tmp_path / "numbers.json"
    assert main(["bench", "train", "--config", "demo.yaml", "--rows", "2", "--repeats", "3", "--json", str(out)]) == 0
    for one, least in zip(json.loads(out.read_text())["measured"], (1.2, 1.05), strict=True):
        off = one["ways"][1]
        print(f"{one['pack']}: {off['ratio']:.2f}")
        assert off["ratio"] >= least
