"""Run a model on a prompt and see where MMFS looks for one token, or for one pixel of the picture it draws."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image

from mmi.config import ConfigError
from mmi.data.images import to_rgb, to_square
from mmi.inference import Generator, Prompt, to_picture
from mmi.inspection.looks import Looks, for_pictures
from mmi.inspection.sampling import Wanted, captured_looks
from mmi.inspection.words import find_token, tokens_of
from mmi.models.image_sampling import ImageSampling
from mmi.models.text_decoding import TextDecoding

SHORT_ANSWER = TextDecoding(max_new_tokens=20, min_new_tokens=0, n_beams=1)
_MOST_STEPS = 5


@torch.no_grad()
def look(
    generator: Generator,
    prompt: Prompt,
    token: str | int | None = None,
    *,
    answer: str | None = None,
    settings: TextDecoding = SHORT_ANSWER,
    seed: int = 0,
) -> Looks:
    """See where MMFS looks for one token.

    A token of the prompt looks while it is read; one of the answer is looked for at the token before it, which chooses
    it. The answer is written first, then prompt and answer are read with hooks on.

    Args:
        generator: Network and tokenizer.
        prompt: Texts and pictures in reading order.
        token: A word or a position, see `find_token`; by default the answer's first token.
        answer: An answer to put in the model's mouth instead of its own.
        settings: How its own is written.
        seed: Where sampled text draws from.

    Raises:
        ConfigError: If there is no such token, the prompt is empty, or the language model has no MMFS.
    """
    if not prompt:
        raise ConfigError("the prompt is empty; give at least one text or picture.")
    state = generator.read([prompt])
    prompt_ids = state.language.text_ids[0].tolist()
    if answer is None:
        (answer_ids,) = state.write(settings, generator=torch.Generator(generator.device).manual_seed(seed))
    else:
        answer_ids = generator.tokenizer.encode(answer)
    tokens = tokens_of([*prompt_ids, *answer_ids], len(prompt_ids), generator.tokenizer)
    chosen = find_token(tokens, token)
    with captured_looks(generator.network, Wanted(tokens=[chosen.query], parts=["language"])) as records:
        state = generator.read([prompt])
        if chosen.query >= len(prompt_ids):
            given = answer_ids[: chosen.query + 1 - len(prompt_ids)]
            state.read(torch.tensor([given], device=generator.device))
    pictures = _as_seen(generator, prompt)
    return Looks(
        moment=chosen.moment,
        pictures=pictures,
        records=tuple(for_pictures(record, len(pictures)) for record in records),
        tokens=tokens,
        chosen=chosen,
        answer=generator.tokenizer.decode(answer_ids).strip(),
    )


@torch.no_grad()
def look_from_pixel(
    generator: Generator,
    prompt: Prompt,
    pixel: tuple[int, int] | None = None,
    *,
    settings: ImageSampling | None = None,
    steps: Sequence[int] | None = None,
    seed: int = 0,
) -> Looks:
    """Draw the picture that follows a prompt and see where one of its pixels looks.

    With guidance the model predicts twice per step; shown is the prediction that knows the prompt.

    Args:
        generator: Network and tokenizer.
        prompt: Texts and pictures in reading order.
        pixel: ``(x, y)`` in pixels of the drawn picture; by default its middle.
        settings: How to draw.
        steps: Diffusion steps to keep, counted from 1; by default a few from the first to the last.
        seed: Of the picture.

    Raises:
        ConfigError: If the network cannot draw or has no MMFS where it draws, the picture sees no earlier one, or
            there is no such pixel or step.
    """
    network, settings = generator.network, settings or ImageSampling()
    if network.image_decoder is None:
        raise ConfigError("this network has no image decoder (image_decoder.enabled is false), so it can't draw.")
    pictures = _as_seen(generator, prompt)
    if not pictures:
        raise ConfigError("the drawn picture sees no earlier one; put a picture into the prompt.")
    size = network.config.image_decoder.image_size
    x, y = pixel or (size // 2, size // 2)
    if not (0 <= x < size and 0 <= y < size):
        raise ConfigError(f"there is no pixel {x},{y}; drawn pictures are {size} pixels wide and high.")
    place = ((x + 0.5) / size, (y + 0.5) / size)
    kept = _checked_steps(steps, settings.n_steps)
    state = generator.read([prompt])
    state.read(torch.tensor([[generator.tokenizer.special.image_start]], device=generator.device))
    start = torch.tensor([state.language.text_ids.shape[1] - 1], device=generator.device)
    wanted = Wanted(places=[place], steps=[step - 1 for step in kept], parts=["image_decoder"])
    with captured_looks(network, wanted) as records:
        (pixels,) = state.draw(torch.zeros_like(start), start, settings, [seed])
    if not records:
        raise ConfigError("the drawn picture sees no earlier one of the prompt; see image_decoder.mmfs.visible_images.")
    conditional = max(record.row for record in records)  # after the one without condition
    ids = state.language.text_ids[0].tolist()
    return Looks(
        moment=f"drawing the pixel at {x}, {y}",
        pictures=pictures,
        records=tuple(for_pictures(r, len(pictures)) for r in records if r.row == conditional),
        tokens=tokens_of(ids, len(ids), generator.tokenizer),
        drawn=to_picture(pixels),
        pixel=place,
        n_steps=settings.n_steps,
    )


def _checked_steps(steps: Sequence[int] | None, n_steps: int) -> list[int]:
    """Return the steps to keep, counted from 1; by default a few that are evenly spread, the first and last among them.

    Example:
        >>> _checked_steps(None, 30)
        [1, 8, 16, 23, 30]
    """
    if steps is None:
        few = min(_MOST_STEPS, n_steps)
        return list(dict.fromkeys(1 + round(k * (n_steps - 1) / max(1, few - 1) + 0.01) for k in range(few)))
    for step in steps:
        if not 1 <= step <= n_steps:
            raise ConfigError(f"there is no diffusion step {step}; the picture is drawn in {n_steps}, counted from 1.")
    return list(dict.fromkeys(steps))


def _as_seen(generator: Generator, prompt: Prompt) -> tuple[Image.Image, ...]:
    """Return the pictures of a prompt as the encoder sees them: square, of its size."""
    size = generator.network.config.vision.image_size
    return tuple(to_square(to_rgb(piece), size, generator.crop) for piece in prompt if not isinstance(piece, str))
