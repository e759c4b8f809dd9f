"""The whole network: pictures to tokens, tokens to hidden states, hidden states to text and pictures (SPEC 1.1)."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmfs import relative_image_index
from mmi.batch import InterleavedBatch
from mmi.config import CompatConfig, NetworkConfig
from mmi.models.image_decoder import ImageDecoder
from mmi.models.language_model import ImageContext, LanguageModel
from mmi.models.losses import label_losses, label_places
from mmi.models.noise import DiffusionDraws
from mmi.models.output import NetworkOutput
from mmi.models.visibility import (
    context_starts,
    gather_contexts,
    image_slots,
    previous_images,
    slot_values,
    visible_images,
)
from mmi.models.visual_tokenizer import VisualFeatures, VisualTokenizer


class _ImageLosses(NamedTuple):
    """Losses of ``J`` images, the earlier images each could look at, and (image, image) pairs the table left out."""

    per_image: Tensor
    n_visible: Tensor
    n_hidden: Tensor


class MMInterleaved(nn.Module):
    """A visual tokenizer, a language model and an image decoder that look into the pyramids of earlier images.

    Args:
        config: Every architecture number.
        visual_tokenizer: Picture to visual tokens and a four-level pyramid.
        language_model: Interleaved embeddings to hidden states.
        image_decoder: Hidden states to a picture; None builds a model that only writes.
        compat: Defects followed or corrected.
    """

    def __init__(
        self,
        config: NetworkConfig,
        visual_tokenizer: VisualTokenizer,
        language_model: LanguageModel,
        image_decoder: ImageDecoder | None,
        compat: CompatConfig,
    ) -> None:
        super().__init__()
        self.config = config
        self.compat = compat
        self.visual_tokenizer = visual_tokenizer
        self.language_model = language_model
        self.image_decoder = image_decoder

    @classmethod
    def from_pretrained(cls, source: str | Path) -> MMInterleaved:
        """Read a network from a folder that ``mmi checkpoint export --to safetensors`` wrote, or from the hub by id.

        Args:
            source: The folder, or an ``owner/name``, which is downloaded.

        Returns:
            The network in evaluation mode, on the CPU; `mmi.inference.Generator.from_pretrained` adds its tokenizer.

        Raises:
            ConfigError: If there is no such folder, or it does not hold a network of ours.
        """
        from mmi.models.hub_folder import load_hub_network

        return load_hub_network(source)

    @torch.no_grad()
    def silence_mmfs(self) -> None:
        """Close every MMFS for good: gates of the language model and last convolutions of the U-Net become zero.

        What is left sees images through their visual tokens only; compare with it to see what MMFS contributes.
        """
        for block in self.language_model.blocks:
            if block.mmfs is not None:
                block.mmfs.gate.zero_()
        for module in self.image_decoder.unet.spatial_mmfs if self.image_decoder is not None else ():
            module.conv.weight.zero_()
            if module.conv.bias is not None:
                module.conv.bias.zero_()

    def forward(self, batch: InterleavedBatch, draws: DiffusionDraws | None) -> NetworkOutput:
        """Compute the loss of every label and of every image that is learned.

        Args:
            batch: Packed rows.
            draws: Noise, timesteps and condition drops of the batch's images; None skips the image loss.

        Returns:
            One number per label and per diffused image; nothing is averaged here.

        Raises:
            ValueError: If ``draws`` are given to a network without image decoder, or the batch has no target images.
        """
        features = self.visual_tokenizer(batch.images)
        hidden, n_hidden = self.encode(batch, features)

        row, position = label_places(batch.labels)
        text_loss, correct = label_losses(
            hidden[row, position - 1],
            batch.labels[row, position],
            self.language_model.head,
            self.config.language.vocab_size + 2,
        )

        contexts_from = context_starts(
            batch.text_ids, batch.image_row, batch.image_start, bos_token_id=self.config.language.bos_token_id
        )
        context_lengths = batch.image_start - contexts_from + 1
        has_loss = batch.image_loss & (context_lengths >= self.config.image_decoder.min_context)
        chosen = torch.zeros(0, dtype=torch.long, device=hidden.device)
        image_loss = hidden.new_zeros(0, dtype=torch.float32)
        timesteps, n_visible = chosen, chosen
        if draws is not None:
            chosen = self._choose_targets(has_loss, draws)
            timesteps = draws.timesteps[chosen]
        if draws is not None and len(chosen):
            losses = self._image_losses(batch, features, hidden, contexts_from, draws, chosen)
            image_loss, n_visible = losses.per_image, losses.n_visible
            n_hidden = n_hidden + losses.n_hidden
        return NetworkOutput(
            text_loss=text_loss,
            text_correct=correct,
            text_row=row,
            text_position=position,
            image_loss=image_loss,
            image_index=chosen,
            timesteps=timesteps,
            n_visible=n_visible,
            n_image_loss=has_loss.sum(),
            n_images=torch.tensor(batch.n_images, device=hidden.device),
            n_hidden=n_hidden,
        )

    def encode(self, batch: InterleavedBatch, features: VisualFeatures) -> tuple[Tensor, Tensor]:
        """Run the language model over packed rows.

        Returns:
            float[B, T, C] hidden states after the final norm, and int64[] (token, image) pairs that the language
            model's relative-index table could not hold.

        Raises:
            ValueError: If the batch was made for another number of visual tokens.
        """
        if batch.n_images and batch.tokens_per_image != self.config.tokens_per_image:
            raise ValueError(
                f"the batch has {batch.tokens_per_image} placeholders per image but the network makes "
                f"{self.config.tokens_per_image} visual tokens; set data.tokens_per_image."
            )
        lm = self.language_model
        ids = batch.text_ids
        table = image_slots(batch.image_row, ids.shape[0])
        starts = slot_values(batch.image_start, table)
        visible = visible_images(ids, starts, bos_token_id=self.config.language.bos_token_id)
        context = ImageContext(lm.project_pyramid(features.pyramid), table, visible)
        hidden = lm(
            lm.embed(ids, features.tokens, batch.image_row, batch.image_start),
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            document_ids=batch.document_ids,
            images=context,
        )
        return hidden, lm.count_hidden(visible & batch.attention_mask[:, :, None])

    def _choose_targets(self, has_loss: Tensor, draws: DiffusionDraws) -> Tensor:
        """Return the images to diffuse: those with a loss, or the ``max_targets`` of them drawn first."""
        (eligible,) = torch.nonzero(has_loss, as_tuple=True)
        most = self.config.image_decoder.max_targets
        if most is None or len(eligible) <= most:
            return eligible
        return eligible[draws.priority[eligible].argsort()[:most]].sort().values

    def _image_losses(
        self,
        batch: InterleavedBatch,
        features: VisualFeatures,
        hidden: Tensor,
        contexts_from: Tensor,
        draws: DiffusionDraws,
        chosen: Tensor,
    ) -> _ImageLosses:
        """Compute the losses of the chosen images."""
        decoder = self.image_decoder
        if decoder is None:
            raise ValueError("an image loss was asked for but image_decoder.enabled is false.")
        if batch.target_images is None:
            raise ValueError("an image loss was asked for but the batch has no target_images; set data.target_size.")
        table, visible = previous_images(
            batch.image_row, batch.image_start, contexts_from, self.config.image_decoder.mmfs.visible_images
        )
        previous = decoder.look_at(features.pyramid, table[chosen], visible[chosen])
        contexts, mask = gather_contexts(
            hidden, batch.image_row[chosen], batch.image_start[chosen], contexts_from[chosen]
        )
        losses = decoder.loss(
            batch.target_images[chosen], decoder.condition(contexts, mask), previous, draws.index(chosen)
        )
        index, n_hidden = relative_image_index(visible[chosen][:, None], self.config.image_decoder.mmfs.max_images)
        return _ImageLosses(losses, (index > 0).sum(dim=(1, 2)), n_hidden)
