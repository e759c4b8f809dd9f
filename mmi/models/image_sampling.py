"""From noise to a picture: the diffusion samplers and classifier-free guidance (SPEC 5.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from mmi.config import ConfigError, DiffusionConfig
from mmi.models.spatial_mmfs import PreviousImages
from mmi.models.unet import UNet

Sampler = Literal["ddpm", "ddim", "dpm++"]
Spacing = Literal["leading", "trailing"]
# A number to start a generator of its own from, or a generator to go on drawing from.
Seed = int | torch.Generator
# Called after each step with the steps done and the steps in all.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ImageSampling:
    """How a picture is drawn.

    Args:
        n_steps: Steps of the sampler.
        guidance_scale: ``s`` in ``u + s * (c - u)``, where ``u`` is predicted without and ``c`` with the condition; up
            to 1 the condition alone is used.
        sampler: ``ddpm`` draws fresh noise at each step (released code); ``ddim`` and ``dpm++`` draw only the first.
        spacing: ``leading`` visits ``1, 1 + k, 1 + 2k, ...`` (released code; ``dpm++`` shifts them a little) and so
            starts below full noise;
            ``trailing`` starts at the last timestep, which matters when steps are few.
    """

    n_steps: int = 30
    guidance_scale: float = 7.5
    sampler: Sampler = "ddpm"
    spacing: Spacing = "leading"

    def __post_init__(self) -> None:
        if self.n_steps < 1:
            raise ConfigError(f"n_steps is {self.n_steps}; expected at least 1.")
        for name, allowed in (("sampler", get_args(Sampler)), ("spacing", get_args(Spacing))):
            value = getattr(self, name)
            if value not in allowed:
                raise ConfigError(f"{name} is {value!r}; expected one of {', '.join(allowed)}.")


def training_schedule(config: DiffusionConfig) -> DDPMScheduler:
    """Return the schedule that noises latents in training."""
    return DDPMScheduler(**schedule_numbers(config), clip_sample=False)


def sampling_schedule(config: DiffusionConfig, settings: ImageSampling) -> Any:
    """Return the library's scheduler, its timesteps set.

    Returns:
        A ``DDPMScheduler`` (fixed small variance, no clipping), ``DDIMScheduler`` or ``DPMSolverMultistepScheduler``.

    Raises:
        ConfigError: If there are more steps than timesteps.

    Example:
        >>> schedule = sampling_schedule(DiffusionConfig(), ImageSampling(n_steps=30))
        >>> schedule.timesteps[:2].tolist(), schedule.timesteps[-1].item()
        ([958, 925], 1)
    """
    most = config.n_timesteps - (1 if settings.spacing == "leading" else 0)
    if settings.n_steps > most:
        raise ConfigError(
            f"n_steps is {settings.n_steps}; expected at most {most} with {settings.spacing} spacing over the "
            f"{config.n_timesteps} timesteps of the noise schedule."
        )
    numbers = schedule_numbers(config)
    spacing = {"timestep_spacing": settings.spacing, "steps_offset": 1 if settings.spacing == "leading" else 0}
    if settings.sampler == "ddpm":
        schedule: Any = DDPMScheduler(**numbers, **spacing, clip_sample=False, variance_type="fixed_small")
    elif settings.sampler == "ddim":
        schedule = DDIMScheduler(**numbers, **spacing, clip_sample=False, set_alpha_to_one=True)
    else:
        schedule = DPMSolverMultistepScheduler(**numbers, **spacing, algorithm_type="dpmsolver++")
    schedule.set_timesteps(settings.n_steps)
    return schedule


def schedule_numbers(config: DiffusionConfig) -> dict[str, Any]:
    """Return our numbers under the names of the library's schedulers."""
    return {
        "num_train_timesteps": config.n_timesteps,
        "beta_start": config.beta_start,
        "beta_end": config.beta_end,
        "beta_schedule": config.beta_schedule,
        "prediction_type": config.prediction,
    }


@torch.no_grad()
def sample_latents(
    unet: UNet,
    diffusion: DiffusionConfig,
    latent_shape: Sequence[int],
    condition: Tensor,
    unconditional: Tensor,
    previous: PreviousImages | None,
    settings: ImageSampling,
    seeds: Sequence[Seed],
    progress: Progress | None = None,
    *,
    guidance_in_turn: bool = False,
) -> Tensor:
    """Draw latents for ``M`` conditions.

    With guidance the batch is ``[unconditional, conditional]``; both halves look at the same earlier images, whose
    values are projected once for all steps, so guidance amplifies the condition tokens only (SPEC 1.11).

    Args:
        unet: The network.
        diffusion: Noise schedule and what the network predicts.
        latent_shape: ``(c, h, w)``.
        condition: float[M, n, d] condition tokens.
        unconditional: float[1, n, d] the learned tokens of "no condition".
        previous: Earlier images the pictures may look at.
        settings: How to draw.
        seeds: One per picture. Its noise comes from its own generator on the CPU, so a picture does not depend on the
            batch it is drawn in or on the device. One CPU generator given for all of them draws what the released code
            draws for a batch: its noise comes from a single generator, picture after picture.
        progress: Told after each step.
        guidance_in_turn: Predict without and with the condition one after the other, which needs the memory of one
            half of that batch.

    Returns:
        float32[M, c, h, w].

    Raises:
        ValueError: If there are not as many seeds as conditions.
    """
    n = condition.shape[0]
    if len(seeds) != n:
        raise ValueError(f"{len(seeds)} seeds for {n} pictures; give one seed per picture.")
    if n == 0:
        return condition.new_empty((0, *latent_shape), dtype=torch.float32)
    guided = settings.guidance_scale > 1
    if previous is not None:
        previous = previous.narrowed()
    conditions = [condition]
    if guided:
        conditions = [unconditional.to(condition.dtype).expand(n, -1, -1), condition]
        if not guidance_in_turn:
            conditions = [torch.cat(conditions)]
            previous = None if previous is None else previous.repeated(2, n)

    generators = [s if isinstance(s, torch.Generator) else torch.Generator().manual_seed(s) for s in seeds]
    latents = torch.stack([torch.randn(tuple(latent_shape), generator=g, dtype=torch.float32) for g in generators]).to(
        condition.device
    )
    schedule = sampling_schedule(diffusion, settings)
    steps = schedule.timesteps.tolist()
    for done, step in enumerate(steps, start=1):
        predictions = []
        for tokens in conditions:
            timesteps = torch.full((len(tokens),), step, device=latents.device)
            predictions.append(unet(latents.repeat(len(tokens) // n, 1, 1, 1), timesteps, tokens, previous).float())
        prediction = predictions[0]
        if guided:
            without, given = torch.cat(predictions).chunk(2)
            prediction = without + settings.guidance_scale * (given - without)
        latents = schedule.step(prediction, step, latents, generator=generators, return_dict=False)[0]
        if progress is not None:
            progress(done, len(steps))
    return latents
