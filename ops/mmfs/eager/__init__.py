"""The operator in PyTorch's own functions, in the form that suits a CPU: for machines without Numba."""

from mmfs.eager.backend import attention_backward, attention_forward, sampling_backward, sampling_forward

__all__ = ["attention_backward", "attention_forward", "sampling_backward", "sampling_forward"]
