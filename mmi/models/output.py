"""What the network says about a batch: one number per label and per drawn image, weighed by nobody yet."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class NetworkOutput:
    """Losses of a batch before any averaging, with what is needed to break them down.

    Args:
        text_loss: float32[K] cross-entropy of each label, in nats.
        text_correct: bool[K] whether the most likely token was the label.
        text_row: int64[K] row of each label.
        text_position: int64[K] position of the label token in its row.
        image_loss: float32[J] mean squared error of each image that was diffused.
        image_index: int64[J] which image of the batch it is.
        timesteps: int64[J] diffusion timestep it was noised to.
        n_visible: int64[J] earlier images the image decoder could look at.
        n_image_loss: int64[] images of the batch that have a loss, before any were left out to save time.
        n_images: int64[] all images of the batch.
        n_hidden: int64[] (query, image) pairs hidden because the relative-index table is too small.
    """

    text_loss: Tensor
    text_correct: Tensor
    text_row: Tensor
    text_position: Tensor
    image_loss: Tensor
    image_index: Tensor
    timesteps: Tensor
    n_visible: Tensor
    n_image_loss: Tensor
    n_images: Tensor
    n_hidden: Tensor
