"""What MMFS reads while it answers: shares that add up, layers made to look where a test knows, averages by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from factories import byte_tokenizer, picture, tiny_config, wake_up
from html_page import Page, is_usable, is_whole, needs_nothing
from toy_shades import ShadeQuiz, even_shades, shade_question

from mmi.config import ConfigError, MMFSConfig
from mmi.inference import Generator
from mmi.inspection.mass import EVERY_LAYER, RIGHT, WRONG, masses_of, preferences_of, score_column
from mmi.inspection.mass_tables import mass_findings, short_lines
from mmi.inspection.reading import LayerReading, Reading, ReadingModel, read_all, readable_samples
from mmi.inspection.result_page import Asked, as_markdown, as_page
from mmi.inspection.sampling import Wanted, captured_looks
from mmi.models.build import build_network
from mmi.models.text_decoding import TextDecoding
from mmi_eval.formats.errors import FormatError
from mmi_eval.model import TextDecoding as AskedDecoding
from mmi_eval.sample import Sample

ASKED = Asked("runs/toy", {"name": "last", "step": 5}, "shades", 1, 12, False, "0" * 16)
PROMPTS = [
    [picture(1), "one?"],
    [picture(2), "and ", picture(3), "two of them?"],
    [picture(4), picture(5), picture(6), "three"],
]
DECODING = AskedDecoding(max_new_tokens=4)


def generator(**mmfs) -> Generator:
    """A tiny network whose MMFS samples three levels; awake, with random weights."""
    numbers = {"n_heads": 4, "n_points": 2, "d_inner": 32, "base_size": 4, "max_images": 8, "offset_init": 1.0}
    torch.manual_seed(0)
    network = build_network(tiny_config(language_mmfs=MMFSConfig(**(numbers | mmfs))))
    wake_up(network)
    return Generator(network, byte_tokenizer())


def read(model: ReadingModel, prompts) -> list[dict[str, LayerReading]]:
    model.found.clear()
    model.generate_text(prompts, DECODING)
    return [layers for _, layers in model.found]


def mmfs_of(made: Generator):
    return [layer.mmfs.attention for layer in made.network.language_model.layers if layer.mmfs is not None]


def forget_queries(made: Generator) -> None:
    """Let weights depend on nothing: every point of every picture and the null slot count the same."""
    with torch.no_grad():
        for attention in mmfs_of(made):
            for part in (attention.query_proj, attention.attention_weights):
                part.weight.zero_()
                part.bias.zero_()


@pytest.mark.parametrize("mmfs", [{}, {"attention": "dense"}, {"null_slot": False}], ids=["mmfs", "dense", "no null"])
def test_shares_of_pictures_and_null_slot_add_up_to_one(mmfs):
    found = read(ReadingModel(generator(**mmfs)), PROMPTS)
    for n_pictures, layers in enumerate(found, start=1):
        assert len(layers) == 2
        for layer in layers.values():
            assert layer.images.shape == (n_pictures, 3)
            assert layer.images.sum() + layer.null == pytest.approx(1, abs=1e-5)
            assert n_pictures * layer.even.sum() + layer.even_null == pytest.approx(1)
            assert (layer.null > 0, layer.even_null > 0) == ((False, False) if "null_slot" in mmfs else (True, True))
            assert layer.said > 0


def test_answers_are_those_of_the_model_alone_and_a_batch_reads_as_each_prompt_does():
    made = generator()
    model = ReadingModel(made)
    plain = made.generate_text(PROMPTS, TextDecoding(max_new_tokens=4, min_new_tokens=0, do_sample=False, n_beams=1))
    assert model.generate_text(PROMPTS, DECODING) == plain
    together = [layers for _, layers in model.found]
    assert [n for n, _ in model.found] == [5, 5, 5]
    for prompt, layers in zip(PROMPTS, together, strict=True):
        (alone,) = read(model, [prompt])
        for name, layer in layers.items():
            np.testing.assert_allclose(layer.images, alone[name].images, atol=1e-5)
            assert layer.said == pytest.approx(alone[name].said, rel=1e-3)


def test_answers_of_other_lengths_are_read_to_their_own_end(monkeypatch):
    made, eos = generator(), 2
    rows = [[70, 71, eos], [eos], [90, 91, 92, 93]]
    model, given = ReadingModel(made), list(rows)
    monkeypatch.setattr("mmi.models.generation.InterleavedState.write", lambda self, settings: list(given))
    together = [(n, layers) for n, layers in zip([3, 1, 5], read(model, PROMPTS), strict=True)]
    assert [n for n, _ in model.found] == [n for n, _ in together]
    for row, prompt, (n, layers) in zip(rows, PROMPTS, together, strict=True):
        given[:] = [row]
        (alone,) = read(model, [prompt])
        assert model.found[0][0] == n
        for name, layer in layers.items():
            np.testing.assert_allclose(layer.images, alone[name].images, atol=1e-5)


def test_the_tokens_that_answer_are_averaged_and_no_other():
    made = generator()
    model = ReadingModel(made)
    (layers,) = read(model, PROMPTS[1:2])
    with captured_looks(made.network, Wanted(parts=("language",))) as looks:
        state = made.read(PROMPTS[1:2])
        width = state.language.text_ids.shape[1]
        # As a model answers: token by token, each read before the next is chosen.
        state.write(TextDecoding(max_new_tokens=5, min_new_tokens=5, do_sample=False, n_beams=1))
    for name, layer in layers.items():
        rows = {q: (look, i) for look in looks if look.layer.name == name for i, q in enumerate(look.queries)}
        chosen = [rows[q] for q in range(width - 1, width + 4)]
        nearest = np.mean([float(look.mass()[i, :, 1].sum(-1).mean()) for look, i in chosen])
        assert layer.images[0].sum() == pytest.approx(nearest, abs=1e-5)


def test_equal_weights_give_the_even_shares():
    made = generator()
    forget_queries(made)
    for layers in read(ReadingModel(made), PROMPTS):
        for layer in layers.values():
            np.testing.assert_allclose(layer.images, np.tile(layer.even, (len(layer.images), 1)), atol=1e-6)
            assert layer.null == pytest.approx(layer.even_null)
            # Two points on each of three levels of every picture, and the null slot.
            assert layer.even_null == pytest.approx(1 / (6 * len(layer.images) + 1))


def test_a_layer_made_to_look_at_one_level_reads_it():
    made = generator()
    forget_queries(made)
    with torch.no_grad():
        for attention in mmfs_of(made):
            attention.attention_weights.bias.view(4, 3, 2)[:, 2] = 20.0
    for layers in read(ReadingModel(made), PROMPTS):
        for layer in layers.values():
            assert layer.images[:, 2].sum() == pytest.approx(1, abs=1e-4)


def test_a_layer_made_to_look_at_the_picture_before_reads_that_one():
    made = generator()
    forget_queries(made)
    with torch.no_grad():
        for attention in mmfs_of(made):
            attention.index_embedding.weight.zero_()
            attention.index_embedding.weight[2] = 1.0
            attention.attention_weights.weight.fill_(1.0)
    one, two, three = read(ReadingModel(made), PROMPTS)
    for layers in (two, three):
        for layer in layers.values():
            assert layer.images[1].sum() == pytest.approx(1, abs=1e-4)
    for layer in one.values():
        assert layer.images[0].sum() == pytest.approx(6 / 7)


@pytest.fixture
def questions(tmp_path) -> list[Sample]:
    shades = even_shades(36)
    return [shade_question(tmp_path, i, shades[3 * i : 3 * i + 2 + i % 2], 1 + i % 2) for i in range(12)]


def test_all_samples_are_read_in_their_order_with_the_looks_of_one_batch_at_a_time(questions):
    told, model, task = [], ReadingModel(generator()), ShadeQuiz(tuple(questions))
    readings = read_all(task, model, questions, batch_size=5, tell=lambda *at: told.append(at))
    assert [one.sample.id for one in readings] == [q.id for q in questions]
    assert [len(next(iter(one.layers.values())).images) for one in readings] == [2, 3] * 6
    assert told == [(5, 12), (10, 12), (12, 12)]
    assert len(model.found) <= 5
    assert {layer.part for layer in model.modules.values()} == {"language"}


def test_tasks_that_ask_for_something_else_than_a_text_are_refused(questions):
    class Twice(ShadeQuiz):
        def answer(self, model, batch):
            return super().answer(model, batch) and super().answer(model, batch)

    with pytest.raises(FormatError, match="something else than one text"):
        read_all(Twice(tuple(questions)), ReadingModel(generator()), questions)
    with pytest.raises(FormatError, match="shows a picture and asks for words"):
        readable_samples([Sample("a", ("words",), ("b",))])


def test_a_network_without_mmfs_is_refused():
    with pytest.raises(ConfigError, match="no MMFS"):
        ReadingModel(generator(enabled=False)).generate_text(PROMPTS, DECODING)


def reading(number: int, about: int, shares: tuple[float, ...], answer: str = "red") -> Reading:
    """A reading of one layer on one level; the rest of the weight is on the null slot."""
    tags = ["colour"] if about == 1 else ["colour", f"earlier {about - 1}"]
    sample = Sample(str(number), (), ("red",), {"type": "colour", "tags": tags}, group=f"g{number}")
    n = len(shares)
    layer = LayerReading(np.array(shares)[:, None], 1 - sum(shares), np.array([1 / (n + 1)]), 1 / (n + 1), 0.5)
    other = LayerReading(np.full((n, 1), 1 / n), 0.0, layer.even, layer.even_null, 0.1)
    return Reading(sample, answer, 1, {"a": layer, "b": other})


def made_up() -> list[Reading]:
    """12 questions about the nearest of two pictures, 12 about the one before, 2 on a single picture."""
    near = [reading(i, 1, (0.6, 0.2)) for i in range(12)]
    far = [reading(100 + i, 2, (0.3, 0.6), "red" if i % 3 else "blue") for i in range(12)]
    return [*near, *far, reading(200, 1, (0.9,)), reading(201, 1, (0.7,))]


def test_averages_are_those_worked_out_by_hand():
    readings = made_up()
    column = score_column(ShadeQuiz(()), readings)
    masses = {(m.layer, m.n_pictures, m.group): m for m in masses_of(readings, column)}
    whole = masses["a", 2, "all"]
    assert (whole.n, whole.accuracy.value) == (24, pytest.approx(20 / 24))
    assert [score.value for score in whole.images] == pytest.approx([0.45, 0.4])
    assert whole.null.value == pytest.approx(0.15)
    assert whole.levels[0].value == pytest.approx(0.85)
    assert (whole.even_image, whole.even_null) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert [score.value for score in masses["a", 2, "earlier 1"].images] == pytest.approx([0.3, 0.6])
    assert [score.value for score in masses["a", 2, WRONG].images] == pytest.approx([0.3, 0.6])
    assert masses["a", 2, WRONG].n == 4
    assert [score.value for score in masses["a", 2, RIGHT].images] == pytest.approx([0.48, 0.36])
    assert [score.value for score in masses["a", 1, "all"].images] == pytest.approx([0.8])
    mean = masses[EVERY_LAYER, 2, "all"]
    assert [score.value for score in mean.images] == pytest.approx([0.475, 0.45])
    assert mean.said.value == pytest.approx(0.3)


def test_pictures_that_are_asked_about_are_compared_with_the_same_place_not_asked_about():
    found = {(p.layer, p.n_pictures, p.distance): p for p in preferences_of(made_up())}
    assert {key[1] for key in found} == {2}
    nearest, earlier = found["a", 2, 1], found["a", 2, 2]
    assert (nearest.asked.value, nearest.others.value) == (pytest.approx(0.6), pytest.approx(0.3))
    assert earlier.difference.value == pytest.approx(0.4)
    # Resampling 12 questions that all read the same says nothing of how far off they are.
    assert earlier.verdict == "no difference shown"
    spread = [reading(i, 1 + i % 2, (0.5 + 0.1 * (i % 4), 0.1 + 0.1 * (i % 4))) for i in range(24)]
    assert {p.distance: p.verdict for p in preferences_of(spread) if p.layer == "a"} == {
        1: "looked at less where asked about",
        2: "looked at more where asked about",
    }
    assert {p.verdict for p in preferences_of(spread[:16])} == {"too few to tell"}


def test_everything_is_written_as_json_markdown_and_a_page(questions):
    model, task = ReadingModel(generator()), ShadeQuiz(tuple(questions))
    readings = read_all(task, model, questions)
    masses, preferences = masses_of(readings, score_column(task, readings)), preferences_of(readings)
    findings = mass_findings(ASKED, masses, preferences, model.modules, model.level_shapes)
    page = Page(as_page(findings, "mmi"))
    is_whole(page)
    needs_nothing(page)
    is_usable(page)
    assert len(page.all("svg")) == 2
    text = as_markdown(findings)
    assert "| language layer 0 | all | 6 |" in text
    assert "3 pictures seen, mean over layers" in text
    assert [line.partition(":")[0] for line in short_lines(masses)] == [
        "2 pictures seen (n 6)",
        "3 pictures seen (n 6)",
    ]
    record = json.loads(json.dumps(findings.values))
    row = record["masses"][0]
    assert (row["layer"], row["group"]) == (record["layers"][0]["name"], "all")
    assert sum(map(sum, row["cells"])) + row["null"]["value"] == pytest.approx(1, abs=1e-4)


def test_pictures_are_counted_that_a_layer_sees_and_said_to_be_those(questions):
    model, task = ReadingModel(generator(visible_images=1)), ShadeQuiz(tuple(questions))
    assert min(len(question.pictures) for question in questions) == 2
    readings = read_all(task, model, questions)
    masses = masses_of(readings, score_column(task, readings))
    assert {m.n_pictures for m in masses} == {1}
    assert [line.partition(":")[0] for line in short_lines(masses)] == ["1 picture seen (n 12)"]
    text = as_markdown(mass_findings(ASKED, masses, [], model.modules, model.level_shapes))
    assert "1 picture seen, every layer" in text
    assert "Prompts of" not in text, "they hold two or three"
