"""A network with rows that hold every case, and its losses, predictions and pictures by the plain formulas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import plain_reference as plain
import torch
from tiny_official import BOS, EOS, batch_of_ids, draws_for
from torch import Tensor

from mmi.batch import InterleavedBatch
from mmi.models.image_decoder import ImageDecoder
from mmi.models.mm_interleaved import MMInterleaved
from mmi.models.noise import DiffusionDraws
from mmi.models.unet import _library_numbers

SCALING = 0.18215


def rows_of(network: MMInterleaved) -> list[list[int]]:
    """Rows with 3, 0 and 3 images; images first and last, two documents a row; the last row starts mid-document."""
    language = network.config.language
    image = [language.image_start_token_id] + [language.image_token_id] * network.config.tokens_per_image
    return [
        [BOS, 5, 6, *image, 7, *image, 8, EOS, BOS, *image, 9, 10, EOS],
        [BOS, 11, 12, 13, EOS, BOS, 14, EOS],
        [*image, 15, 16, *image, 17, EOS, BOS, 18, 19, *image, 20],
    ]


def labels_of(network: MMInterleaved, rows: Sequence[Sequence[int]], *, rule_2: bool = False) -> list[list[int]]:
    """Labels at their own positions (SPEC 2.1)."""
    language = network.config.language
    found = []
    for row in rows:
        shifted = plain.shifted_labels(
            row,
            [1] * len(row),
            bos=BOS,
            pad=language.pad_token_id,
            soi=language.image_start_token_id,
            image=language.image_token_id,
            offset=0,
            rule_2=rule_2,
        )
        found.append([plain.NONE, *shifted])
    return found


@dataclass
class ParityCase:
    """A network with a batch; the methods compute what it should say, in the network's own precision."""

    network: MMInterleaved
    batch: InterleavedBatch
    rows: list[list[int]]
    draws: DiffusionDraws

    @classmethod
    def of(cls, network: MMInterleaved) -> ParityCase:
        """Rows with 3, 0 and 3 images for a network, which becomes float64; two of the conditions are dropped."""
        rows = rows_of(network)
        language = network.config.language
        batch = batch_of_ids(
            rows,
            labels_of(network, rows),
            n_tokens=network.config.tokens_per_image,
            soi=language.image_start_token_id,
            pad=language.pad_token_id,
            image_size=network.config.vision.image_size,
            target_size=network.config.image_decoder.image_size,
        )
        dropped = torch.tensor([False, True, False, False, False, True])
        draws = replace(draws_for(network, len(dropped)), drop_condition=dropped)
        return cls(network.double(), batch, rows, draws)

    @property
    def decoder(self) -> ImageDecoder:
        """The image decoder."""
        assert self.network.image_decoder is not None
        return self.network.image_decoder

    @property
    def parameters(self) -> dict[str, Tensor]:
        """Tensors of the image decoder."""
        return {**dict(self.decoder.named_parameters()), **dict(self.decoder.named_buffers())}

    @property
    def places(self) -> list[plain.Placed]:
        """Where the images of the batch are."""
        return plain.placed_images(self.rows, bos=BOS, soi=self.network.config.language.image_start_token_id)

    def conditions(self, hidden: Tensor) -> list[Tensor]:
        """Condition tokens of every image, from hidden states [B, T, d]."""
        n_heads = self.decoder.config.resampler.n_heads
        return [plain.condition(self.parameters, hidden[place.row], place, n_heads) for place in self.places]

    def unet(self) -> plain.PlainUNet:
        """The library's U-Net with our parameters."""
        return plain.PlainUNet(_library_numbers(self.decoder.config.unet), plain.below(self.parameters, "unet."))

    def additions(self, pyramid: Sequence[Tensor], previous: int | None) -> Callable[[int, Tensor], Tensor]:
        """What the MMFS modules add for a picture that sees image ``previous`` of a pyramid, or none."""
        config = self.decoder.config
        maps = None if previous is None else [pyramid[level][previous] for level in config.mmfs.levels]
        sizes = [pyramid[level].shape[-1] for level in config.mmfs.levels]
        parameters = self.parameters

        def add(index: int, feature: Tensor) -> Tensor:
            return plain.decoder_mmfs(
                plain.below(parameters, f"unet.mmfs.{index}."),
                feature,
                maps,
                table_side=config.unet.sample_size,
                level_sizes=sizes,
                n_heads=config.mmfs.n_heads,
                n_points=config.mmfs.n_points,
            )

        return add

    @torch.no_grad()
    def latents(self, image: int) -> Tensor:
        """Latents of a target, a sample of the posterior."""
        assert self.batch.target_images is not None
        pixels = (self.batch.target_images[image].double() / 255 - 0.5) / 0.5
        posterior = self.decoder.codec.vae.encode(pixels[None]).latent_dist
        return (posterior.mean[0] + posterior.std[0] * self.draws.posterior_noise[image]) * SCALING

    def losses(self) -> tuple[Tensor, Tensor]:
        """Text loss, and image loss over all images (SPEC 2.1 and 2.2; D7: official)."""
        features = self.network.visual_tokenizer(self.batch.images)
        hidden, _ = self.network.encode(self.batch, features)
        terms = []
        for r, row in enumerate(labels_of(self.network, self.rows)):
            for t, label in enumerate(row):
                if label != plain.NONE:
                    logits = self.network.language_model.head(hidden[r, t - 1])
                    terms.append(logits.exp().sum().log() - logits[label])

        unet = self.unet()
        images = []
        for m, (place, tokens) in enumerate(zip(self.places, self.conditions(hidden), strict=True)):
            if len(place.context) <= 2:
                continue
            given = self.decoder.unconditional[0] if self.draws.drop_condition[m] else tokens
            time = int(self.draws.timesteps[m])
            look = self.additions(features.pyramid, place.previous)
            images.append(
                plain.image_loss(
                    self.latents(m),
                    self.draws.noise[m].double(),
                    time,
                    self.decoder.config.diffusion.prediction,
                    lambda noisy, time=time, given=given, look=look: unet(noisy, time, given, look),
                )
            )
        return torch.stack(terms).mean(), torch.stack(images).sum() / len(self.places)

    def gradients(self, loss: Tensor) -> dict[str, Tensor]:
        """The gradient of every trained parameter, zero where it has none."""
        trained = {name: p for name, p in self.network.named_parameters() if p.requires_grad}
        found = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
        return {name: torch.zeros(()) if g is None else g for name, g in zip(trained, found, strict=True)}

    @torch.no_grad()
    def picture(
        self,
        condition: Tensor,
        pyramid: Sequence[Tensor],
        previous: int | None,
        *,
        n_steps: int,
        scale: float,
        seed: int,
    ) -> Tensor:
        """A picture [3, H, W] drawn from condition tokens [n, d] by guided ancestral sampling."""
        unet, look = self.unet(), self.additions(pyramid, previous)

        def predict(latents: Tensor, time: int) -> Tensor:
            without = unet(latents, time, self.decoder.unconditional[0], look)
            return without + scale * (unet(latents, time, condition, look) - without)

        noise = torch.Generator().manual_seed(seed)
        start, *later = (torch.randn(self.decoder.latent_shape, generator=noise) for _ in range(n_steps + 1))
        kind = self.decoder.config.diffusion.prediction
        latents = plain.ancestral_sampling(predict, start, later, kind, n_steps)
        return (self.decoder.codec.vae.decode(latents[None] / SCALING).sample[0] / 2 + 0.5).clamp(0, 1)
