"""Work that a training step leaves out without changing its numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SavingsConfig:
    """Savings of a training step at equal losses and gradients; ``False`` does it as the official code does (SPEC 9.3).

    What runs instead is a plain function kept for tests and for ``mmi bench train``; there is no other reason to switch
    one off.

    Args:
        skip_masked_images: Encode and denoise only images that have a loss, instead of all of them with the loss of the
            others multiplied by zero.
        skip_blind_mmfs: In the U-Net, compute MMFS only for pictures that see an earlier image, and project only images
            that are seen. The others get the constant that MMFS adds where nothing is visible (D20).
        labelled_rows_head: Compute logits only where a label stands, instead of at every position.
        chunked_head: Keep the logits of few rows at a time and compute them again for the gradient. It saves memory.
        shared_tables: Build position tables once and the masks of a batch once for all layers, instead of in every
            forward pass and every layer.
        factored_mmfs: Compute what a query says once, and sample only images it sees, instead of repeating the query
            for every image of the row and weighing hidden ones by zero.
        drop_unweighted_images: Leave the image decoder out where the image loss has weight 0.
    """

    skip_masked_images: bool = True
    skip_blind_mmfs: bool = True
    labelled_rows_head: bool = True
    chunked_head: bool = True
    shared_tables: bool = True
    factored_mmfs: bool = True
    drop_unweighted_images: bool = True
