"""What ``mmi bench generate`` measures: three ways that give the same, and what goes through the network in each."""

from __future__ import annotations

import json

import pytest
import torch
from told_sessions import tiny_generator

from mmi.cli import main
from mmi.commands.drawing_timing import WAYS as DRAWING_WAYS
from mmi.commands.drawing_timing import build_drawing, draw_once
from mmi.commands.generation_timing import (
    QUESTION,
    WAYS,
    conversation,
    counting,
    exactly,
    projecting_again,
    tell_story,
    time_text_turn,
)
from mmi.models.image_sampling import ImageSampling

TINY = ["bench", "generate", "--config", "model/tiny.yaml", "--turns", "2", "--tokens", "3", "--steps", "2"]
DRAW = ImageSampling(n_steps=3, guidance_scale=2.0, sampler="ddim")


@pytest.fixture(scope="module")
def generator():
    return tiny_generator()


def test_the_ways_tell_the_same_story_and_pass_as_much_as_they_say(generator):
    stories, passes = {}, {}
    for way in WAYS:
        with counting(generator) as counts:
            stories[way] = tell_story(generator, way, 3, 4, DRAW)
        passes[way] = counts[0]
    for way in WAYS:
        assert stories[way].difference(stories["session"]) <= 1
        assert len(stories[way].requests) == 6
        assert 0 < stories[way].outside < stories[way].seconds
    # Pictures before each request: none, none, one, one, two, two.
    assert (passes["session"].pictures, passes["again"].pictures) == (2, 6)
    assert (passes["session"].projections, passes["again"].projections) == (2, 6)
    # Three steps of each text come after reading; the texts stand behind no, one and two pictures.
    assert passes["released"].projections == 6 + 3 * (1 + 2)
    # Two pictures look at one before them: once each, or for both halves of guidance at each of three steps more.
    assert passes["session"].decoder_projections == passes["again"].decoder_projections == 2
    assert passes["released"].decoder_projections == 2 + 2 * 2 * 3
    assert passes["session"].tokens < passes["again"].tokens == passes["released"].tokens < passes["nothing"].tokens
    # Four readings for each text instead of one.
    assert passes["nothing"].pictures == 4 * (0 + 1 + 2) + (0 + 1 + 2)


def test_a_mistake_in_what_is_projected_again_would_show(generator):
    """The values that were kept are replaced, not only computed beside."""
    before = conversation(generator, 2, 3)
    answer = time_text_turn(before, "session", 12)[1]
    assert all(time_text_turn(before, way, 12)[1] == answer for way in WAYS)
    projection = generator.network.language_model.branches[0].attention.value_proj
    calls = []

    def spoil(_module, _inputs, output):
        calls.append(len(output))
        return output if len(calls) == 1 else torch.randn_like(output) * 30

    session = before.fork()
    session.release()
    session.append(QUESTION)
    hook = projection.register_forward_hook(spoil)
    try:
        with projecting_again(generator):
            session.ask_text(exactly(12))
    finally:
        hook.remove()
    assert calls == [2] * len(calls)
    assert len(calls) > 2
    assert session.token_ids != answer


def test_a_text_turn_is_the_same_in_every_way_and_leaves_the_session_alone(generator):
    before = conversation(generator, 3, 2)
    n_tokens = before.n_tokens
    assert len({tuple(time_text_turn(before, way, 5)[1]) for way in WAYS}) == 1
    assert before.n_tokens == n_tokens
    assert before._forgotten is None


def test_drawing_gives_the_same_latents_in_every_way():
    setup = build_drawing(256, 16, torch.device("cpu"))
    assert len(setup.unet.spatial_mmfs) == 13
    drawn = [draw_once(setup, way, ImageSampling(n_steps=2))[1] for way in DRAWING_WAYS]
    for latents in drawn[1:]:
        torch.testing.assert_close(latents, drawn[0])
    silent = draw_once(setup, DRAWING_WAYS[0], ImageSampling(n_steps=2))[1]
    with torch.no_grad():
        for module in setup.unet.spatial_mmfs:
            module.conv.weight.zero_()
    assert not torch.allclose(draw_once(setup, DRAWING_WAYS[0], ImageSampling(n_steps=2))[1], silent)


def test_the_command_prints_tables_and_writes_files(capsys, tmp_path):
    out = tmp_path / "out"
    options = ["--repeats", "1", "--divide", "16", "--drawing-steps", "1", "--out", str(out)]
    assert main([*TINY, *options]) == 0
    printed = capsys.readouterr().out
    assert printed.strip() == (out / "results.md").read_text().strip()
    for words in (
        "Story: 2 turns",
        "Text turn after 2 pictures",
        "| 512 px | each step, both halves |",
        "model/tiny.yaml",
    ):
        assert words in printed
    report = json.loads((out / "results.json").read_text())
    ways = report["story"][0]["ways"]
    assert list(ways) == list(WAYS)
    assert all(way["largest_pixel_difference"] <= 1 for way in ways.values())
    assert ways["session"]["ratio_whole"]["median"] == 1
    assert {drawing["image_size"] for drawing in report["drawing"]} == {256, 512}
    assert all(way["largest_relative_difference"] < 1e-5 for d in report["drawing"] for way in d["ways"].values())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--parts", "storey"], 'no "storey"'),
        (["--ways", "session,none"], 'no "none"; expected any of session, again'),
        (["--tokens", "4,x"], "--tokens is 4,x"),
        (["--repeats", "0"], "--repeats is 0"),
        (["--drawing-steps", "0"], "--drawing-steps is 0"),
        (["--tokens", "400"], "the network has room for"),
        (["--run", "runs/x"], "--run has its own config"),
        (["--checkpoint", "best"], "--checkpoint belongs to a run folder"),
        (["--model.network.image_decoder.enabled=false"], "has no image decoder"),
    ],
)
def test_wrong_options_are_one_sentence(capsys, words, sentence):
    assert main([*TINY, "--parts", "story", *words]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
