"""The fused CPU backend: compiled by Numba at first use, no tensor of queries x images x points x channels.

The softmax, the placing of points and the sums of rows happen in one pass per image; hidden pairs cost nothing.

``vectors`` and ``arithmetic`` are instructions, ``points`` and ``point_gradients`` go from predictions to points and
back, ``rows`` and ``cells`` read and write values, ``attention``, ``attention_gradients`` and ``sampling`` are the
loops, ``compile`` and ``threads`` run them, ``arguments`` turns tensors into flat arrays.
"""

from mmfs.cpu.backend import attention_backward, attention_forward, sampling_backward, sampling_forward

__all__ = ["attention_backward", "attention_forward", "sampling_backward", "sampling_forward"]
