"""No test reaches for a hub: everything it loads it made itself. Without a GPU, Triton interprets its kernels."""

import os

import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
if not torch.cuda.is_available():
    # Triton reads this when it is imported, which any other test may cause.
    os.environ.setdefault("TRITON_INTERPRET", "1")
