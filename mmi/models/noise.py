"""Random numbers of the image loss, drawn from a counter instead of a stream.

A draw is a function of (seed, optimizer step, number of the image in the step over all ranks). It does not depend on
the device, on how many ranks share the step, on which images stand beside it, or on what was drawn before. The
released code seeds every rank alike, so its ranks draw the same noise (SPEC 9.1, D15).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

_WORD = 2**64 - 1


def _generator(seed: int, step: int, image: int) -> np.random.Generator:
    """Open the stream of one image; the low counter words stay free, so streams of two images never meet."""
    key = np.array([seed & _WORD, step & _WORD], dtype=np.uint64)
    counter = np.array([0, 0, image & _WORD, 0], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


@dataclass(frozen=True)
class DiffusionDraws:
    """Everything random in the image loss of ``M`` images (SPEC 1.11, 1.12, 2.2).

    Args:
        noise: float32[M, c, h, w] standard normal noise added to the latents.
        posterior_noise: float32[M, c, h, w] standard normal noise of the autoencoder's posterior sample.
        timesteps: int64[M] uniform over ``0 .. n_timesteps - 1``.
        drop_condition: bool[M], True where the condition is replaced by the learned unconditional one.
        priority: float32[M] uniform in [0, 1), for choosing at random which images to diffuse.
    """

    noise: Tensor
    posterior_noise: Tensor
    timesteps: Tensor
    drop_condition: Tensor
    priority: Tensor

    @classmethod
    def create(
        cls,
        seed: int,
        step: int,
        first_image: int,
        n_images: int,
        latent_shape: Sequence[int],
        n_timesteps: int,
        condition_dropout: float,
    ) -> DiffusionDraws:
        """Draw for images ``first_image .. first_image + n_images - 1`` of a step.

        Args:
            seed: Seed of the run.
            step: Optimizer step (with accumulation: any number unique to the micro-batch).
            first_image: Number of the first image within the step, counted over all ranks.
            n_images: Images, may be 0.
            latent_shape: ``(c, h, w)`` of one latent.
            n_timesteps: Length of the noise schedule.
            condition_dropout: Probability of dropping the condition.

        Example:
            >>> whole = DiffusionDraws.create(0, 5, 0, 4, (1, 2, 2), 1000, 0.1)
            >>> half = DiffusionDraws.create(0, 5, 2, 2, (1, 2, 2), 1000, 0.1)
            >>> bool((whole.noise[2:] == half.noise).all()), bool((whole.timesteps[2:] == half.timesteps).all())
            (True, True)
        """
        shape = tuple(latent_shape)
        noise = np.empty((n_images, *shape), dtype=np.float32)
        posterior = np.empty((n_images, *shape), dtype=np.float32)
        timesteps = np.empty(n_images, dtype=np.int64)
        uniform = np.empty((n_images, 2), dtype=np.float32)
        for i in range(n_images):
            generator = _generator(seed, step, first_image + i)
            # The scalars come first: they stay the same when the latent size changes.
            timesteps[i] = generator.integers(n_timesteps)
            uniform[i] = generator.random(2, dtype=np.float32)
            noise[i] = generator.standard_normal(shape, dtype=np.float32)
            posterior[i] = generator.standard_normal(shape, dtype=np.float32)
        return cls(
            noise=torch.from_numpy(noise),
            posterior_noise=torch.from_numpy(posterior),
            timesteps=torch.from_numpy(timesteps),
            drop_condition=torch.from_numpy(uniform[:, 0] < condition_dropout),
            priority=torch.from_numpy(uniform[:, 1].copy()),
        )

    @classmethod
    def cat(cls, parts: Sequence[DiffusionDraws]) -> DiffusionDraws:
        """Join the draws of several groups of images, at least one."""
        return cls(**{f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(cls)})

    def index(self, images: Tensor) -> DiffusionDraws:
        """Return the draws of some images, chosen by an int64 or bool index over ``M``."""
        return DiffusionDraws(**{f.name: getattr(self, f.name)[images] for f in fields(self)})

    def to(self, device: torch.device | str, non_blocking: bool = False) -> DiffusionDraws:
        """Return the draws on ``device``."""
        moved = {f.name: getattr(self, f.name).to(device, non_blocking=non_blocking) for f in fields(self)}
        return DiffusionDraws(**moved)
