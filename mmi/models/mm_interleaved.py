"""The whole network: pictures to tokens, tokens to hidden states, hidden states to text and pictures (SPEC 1.1)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from mmfs import relative_image_index
from mmi.batch import InterleavedBatch
from mmi.config import CompatConfig, NetworkConfig, SavingsConfig
from mmi.models.decoder_block import MMFSBranch
from mmi.models.image_decoder import ImageDecoder
from mmi.models.language_model import ImageContext, LanguageModel
from mmi.models.layout import BatchLayout
from mmi.models.losses import label_losses
from mmi.models.noise import DiffusionDraws
from mmi.models.output import NetworkOutput
from mmi.models.reference_step import dense_label_losses
from mmi.models.spatial_mmfs import SpatialMMFS
from mmi.models.unet import UNet
from mmi.models.visibility import contexts_at, image_slots, slot_values, visible_images
from mmi.models.visual_tokenizer import VisualFeatures, VisualTokenizer

_PARTS_THAT_SAVE = (VisualTokenizer, LanguageModel, MMFSBranch, ImageDecoder, UNet, SpatialMMFS)


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
        self.savings = SavingsConfig()
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

    def use_savings(self, savings: SavingsConfig) -> None:
        """Leave out what ``savings`` says, in every part; numbers do not depend on it."""
        self.savings = savings
        for module in self.modules():
            if isinstance(module, _PARTS_THAT_SAVE):
                module.savings = savings

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
        layout = BatchLayout.of(batch, draws, self.config, self.savings)
        features = self.visual_tokenizer(batch.images)
        hidden, n_hidden = self.encode(batch, features, layout.image_table)
        text_loss, correct = self.text_losses(batch, hidden, layout)
        image_loss = hidden.new_zeros(0, dtype=torch.float32)
        chosen = layout.chosen
        timesteps, n_visible = chosen, chosen
        if draws is not None and len(layout.diffused):
            image_loss = self._image_losses(batch, features, hidden, layout, draws)
            table = layout.previous
            index, n_too_far = relative_image_index((table >= 0)[:, None], self.config.image_decoder.mmfs.max_images)
            timesteps, n_visible = draws.timesteps[chosen], (index > 0).sum(dim=(1, 2))
            n_hidden = n_hidden + n_too_far
        return NetworkOutput(
            text_loss=text_loss,
            text_correct=correct,
            text_row=layout.label_row,
            text_position=layout.label_position,
            image_loss=image_loss,
            image_index=chosen,
            timesteps=timesteps,
            n_visible=n_visible,
            n_image_loss=layout.n_image_loss,
            # Filled on the device: a tensor made from a number would be copied there, and the copy waits.
            n_images=torch.full((), batch.n_images, device=hidden.device),
            n_hidden=n_hidden,
        )

    def encode(
        self, batch: InterleavedBatch, features: VisualFeatures, image_table: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run the language model over packed rows.

        Args:
            batch: Packed rows.
            features: Of their pictures.
            image_table: int64[B, N] as from `image_slots`, where it is known.

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
        table = image_slots(batch.image_row, ids.shape[0]) if image_table is None else image_table
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

    def text_losses(self, batch: InterleavedBatch, hidden: Tensor, layout: BatchLayout) -> tuple[Tensor, Tensor]:
        """Compute the loss of each label and whether it was the most likely token."""
        head, n_logits = self.language_model.head, self.config.language.vocab_size + 2
        chunked = self.savings.chunked_head
        if not self.savings.labelled_rows_head:
            return dense_label_losses(hidden, batch.labels, head, n_logits, chunked=chunked)
        row, position = layout.label_row, layout.label_position
        return label_losses(hidden[row, position - 1], batch.labels[row, position], head, n_logits, chunked=chunked)

    def _image_losses(
        self,
        batch: InterleavedBatch,
        features: VisualFeatures,
        hidden: Tensor,
        layout: BatchLayout,
        draws: DiffusionDraws,
    ) -> Tensor:
        """Compute the losses of the chosen images."""
        decoder = self.image_decoder
        if decoder is None:
            raise ValueError("an image loss was asked for but image_decoder.enabled is false.")
        if batch.target_images is None:
            raise ValueError("an image loss was asked for but the batch has no target_images; set data.target_size.")
        images = layout.diffused
        contexts = contexts_at(hidden, batch.image_row[images], layout.context_positions, layout.context_mask)
        losses = decoder.loss(
            batch.target_images[images],
            decoder.condition(contexts, layout.context_mask),
            decoder.project_seen(features.pyramid, layout.seen),
            draws.index(images),
        )
        return losses if layout.kept is None else losses[layout.kept]
