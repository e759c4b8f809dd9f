"""The fused GPU backend: Triton kernels, forward and backward."""

from mmfs.triton.backend import attention_backward, attention_forward, sampling_backward, sampling_forward

__all__ = ["attention_backward", "attention_forward", "sampling_backward", "sampling_forward"]
