"""Generation goes on from a state and agrees with reading everything at once."""

from __future__ import annotations

import pytest
import torch
from factories import batch, byte_tokenizer, picture, tiny_config, wake_up
from PIL import Image

from mmi.config import ConfigError
from mmi.inference import Generator
from mmi.models.build import build_network
from mmi.models.generation import GenerationSettings, InterleavedState
from mmi.models.image_sampling import ImageSampling
from mmi.models.text_decoding import TextDecoding

GREEDY = TextDecoding(max_new_tokens=6, min_new_tokens=2, n_beams=1)
DRAW = ImageSampling(n_steps=2, guidance_scale=2.0)


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    network = build_network(tiny_config())
    wake_up(network)
    return Generator(network, byte_tokenizer())


def test_reading_in_pieces_equals_reading_at_once(generator: Generator) -> None:
    data = batch([[("ab", 1, "cd", 2, "e")]])
    whole, pieces = InterleavedState(generator.network), InterleavedState(generator.network)
    whole.read(data.text_ids, None, data.images, data.image_row, data.image_start)
    pieces.read(data.text_ids[:, :4])
    pieces.read_image(data.images[0])
    # The second piece begins after <BoI> and three placeholders.
    pieces.read(data.text_ids[:, 7:9])
    pieces.read(data.text_ids[:, 9:], None, data.images[1:], data.image_row[1:], data.image_start[1:] - 9)
    torch.testing.assert_close(whole.language.hidden_states, pieces.language.hidden_states)
    at = torch.tensor([9])
    # Rounding to 8 bits may differ by one step where a pixel lies on the edge.
    torch.testing.assert_close(whole.draw(at * 0, at, DRAW, [5]), pieces.draw(at * 0, at, DRAW, [5]), atol=1, rtol=0)


def test_a_state_gives_the_hidden_states_of_training(generator: Generator) -> None:
    data = batch([[("ab", 1, "cd", 2, "e")]])
    state = InterleavedState(generator.network)
    state.read(data.text_ids, None, data.images, data.image_row, data.image_start)
    with torch.no_grad():
        features = generator.network.visual_tokenizer(data.images)
        hidden, _ = generator.network.encode(data, features)
    torch.testing.assert_close(state.language.hidden_states, hidden)


def test_a_story_goes_on_with_the_images_asked_for(generator: Generator) -> None:
    settings = GenerationSettings(text=GREEDY, image=DRAW, max_images=2, min_images=2)
    told: list[tuple[int, int, int]] = []
    pieces = generator.generate(["once", picture(1), "then"], settings, lambda *step: told.append(step))
    images = [p for p in pieces if isinstance(p, Image.Image)]
    assert [i.size for i in images] == [(32, 32)] * 2
    assert told == [(0, 1, 2), (0, 2, 2), (1, 1, 2), (1, 2, 2)]


def test_a_document_projects_every_image_once_for_every_module_that_looks_at_it(generator: Generator) -> None:
    network = generator.network
    assert network.image_decoder is not None
    layers = [branch.attention for branch in network.language_model.branches]
    modules = [module.attention for module in network.image_decoder.unet.spatial_mmfs]
    calls: dict[torch.nn.Module, int] = dict.fromkeys((layer.value_proj for layer in layers + modules), 0)

    def count(module: torch.nn.Module, inputs: tuple[torch.Tensor], _: torch.Tensor) -> None:
        calls[module] += inputs[0].shape[0]

    hooks = [projection.register_forward_hook(count) for projection in calls]
    settings = GenerationSettings(text=GREEDY, image=DRAW, max_images=2, min_images=2)
    list(generator.generate(["once", picture(1), "then"], settings))
    for hook in hooks:
        hook.remove()
    # The last image is read by the language model, but no picture is drawn after it.
    assert list(calls.values()) == [3] * len(layers) + [2] * len(modules)


def test_generated_pieces_are_those_of_a_state_that_reads_them_again(generator: Generator) -> None:
    """The image drawn second must come out the same when everything before it is given as a prompt."""
    settings = GenerationSettings(text=GREEDY, image=DRAW, max_images=2, min_images=2, seed=3)
    state = generator.read([["once", picture(1)]])
    from mmi.models.generation import ImagePiece, continue_document

    pieces = list(continue_document(state, settings))
    second = [p for p in pieces if isinstance(p, ImagePiece)][1]
    images = [torch.as_tensor(p.pixels) for p in pieces if isinstance(p, ImagePiece)]
    ids = state.language.text_ids
    boi = torch.nonzero(ids[0] == generator.tokenizer.special.image_start)[:, 0]
    again = InterleavedState(generator.network)
    prompt_image = generator._pixels(picture(1))
    stop = int(boi[2]) + 1
    again.read(ids[:, :stop], None, torch.stack([prompt_image, images[0]]), torch.tensor([0, 0]), boi[:2])
    drawn = again.draw(torch.tensor([0]), boi[2:], DRAW, [second.seed])[0]
    # Rounding to 8 bits may differ by one step where a pixel lies on the edge.
    assert (drawn.int() - second.pixels.int()).abs().max() <= 1


def test_text_only_prompts_and_empty_prompts_work(generator: Generator) -> None:
    texts = generator.generate_text([["just text"], []], GREEDY)
    assert len(texts) == 2
    assert len(generator.generate_image([["a cat"]], DRAW, [0])) == 1


@pytest.mark.parametrize("beams", [1, 3], ids=["greedy", "beams"])
def test_text_does_not_depend_on_the_prompts_beside_it(generator: Generator, beams: int) -> None:
    settings = TextDecoding(max_new_tokens=6, min_new_tokens=2, n_beams=beams)
    prompts = [["a rather long prompt", picture(1), "and"], ["x"], [picture(2), "y", picture(3)]]
    together = generator.generate_text(prompts, settings)
    assert together == [generator.generate_text([p], settings)[0] for p in prompts]


def test_an_image_does_not_depend_on_the_prompts_beside_it(generator: Generator) -> None:
    prompts = [["a rather long prompt", picture(1), "and"], ["x"], [picture(2), "y", picture(3)]]
    together = generator.generate_image(prompts, DRAW, [4, 5, 6])
    for prompt, image, seed in zip(prompts, together, [4, 5, 6], strict=True):
        (alone,) = generator.generate_image([prompt], DRAW, [seed])
        difference = torch.tensor(list(alone.tobytes())).int() - torch.tensor(list(image.tobytes())).int()
        assert difference.abs().max() <= 1


def test_continuation_scores_equal_the_losses_of_training(generator: Generator) -> None:
    (long, short) = generator.score_continuations(["ab", picture(1)], ["cde", "f"])
    for text, score in (("cde", long), ("f", short)):
        data = batch([[("ab", 1, text)]])
        with torch.no_grad():
            out = generator.network(data, None)
        last = len(data.text_ids[0]) - 1  # </s> is no part of the continuation
        mine = (out.text_position >= last - len(text)) & (out.text_position < last)
        assert score == pytest.approx(-float(out.text_loss[mine].sum()), abs=1e-4)


def test_the_same_seed_gives_the_same_document(generator: Generator) -> None:
    sampled = TextDecoding(max_new_tokens=5, min_new_tokens=0, n_beams=1, do_sample=True)
    settings = GenerationSettings(text=sampled, image=DRAW, max_images=1, min_images=1, seed=7)
    first, second = (generator.generate(["a"], settings) for _ in range(2))
    assert [p if isinstance(p, str) else p.tobytes() for p in first] == [
        p if isinstance(p, str) else p.tobytes() for p in second
    ]


def test_a_wrong_number_of_images_is_refused() -> None:
    with pytest.raises(ConfigError, match="min_images is 3 and max_images 2"):
        GenerationSettings(min_images=3)


def test_an_image_does_not_depend_on_padding_between_the_tokens_of_its_row(generator: Generator) -> None:
    ids = torch.tensor([[1, 10, 11, 12, 13]])
    boi = torch.tensor([[generator.tokenizer.special.image_start]])
    whole, gap = InterleavedState(generator.network), InterleavedState(generator.network)
    whole.read(torch.cat([ids, boi], dim=1))
    gap.read(ids)
    gap.read(torch.zeros(1, 3, dtype=torch.int64), torch.zeros(1, 3, dtype=torch.bool))
    gap.read(boi)
    row = torch.tensor([0])
    expected = whole.draw(row, torch.tensor([5]), DRAW, [1])
    torch.testing.assert_close(gap.draw(row, torch.tensor([8]), DRAW, [1]), expected, atol=1, rtol=0)


def test_a_bare_string_is_no_prompt(generator: Generator) -> None:
    with pytest.raises(TypeError, match="wrap the text"):
        generator.generate_text(["hello"], GREEDY)
