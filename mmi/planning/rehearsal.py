"""Run a network without values and write down what a run with values would compute and keep.

Tensors of the network are on the ``meta`` device: they have a shape and a type but no memory. Small integer tensors
(token ids, places of images, who sees what) stay real, because how much is computed depends on them. What is counted is
therefore what the network's own code does, layer by layer, backward included; nothing is estimated by formula but the
work inside single operations. The same counters work on a real network, so that a prediction can be checked.

The operator of MMFS is counted in its plain PyTorch form, the one that runs where there is no memory; a fused kernel
needs less.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from mmi.planning.operations import perform

Pass = Literal["forward", "backward"]


class Ledger(TorchDispatchMode):
    """Count the operations of every part, and the bytes that are alive.

    Bytes are those of tensor storages, each counted once whatever views share it, from the operation that makes it
    until nothing refers to it. Buffers inside single operations are not seen.

    Args:
        kept: Tensors that are there all the time (parameters, buffers, the batch); they are not counted.
    """

    def __init__(self, kept: Iterator[Tensor]) -> None:
        super().__init__()
        self.flops: dict[Pass, Counter[str]] = {"forward": Counter(), "backward": Counter()}
        self.live = self.peak = 0
        self.gradients = self.peak_without_gradients = 0
        self.part = "other"
        self.phase: Pass = "forward"
        self._known: dict[int, weakref.ref[Any]] = {}
        self._kept = {tensor.untyped_storage()._cdata for tensor in kept}
        self._hooks: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # `Precision` chose before; in a backward pass it would also look at what is done here.
        with torch._C.DisableTorchFunction():
            result, operations = perform(func, args, kwargs or {})
            if operations:
                self.flops[self.phase][self.part] += operations
            for tensor in result if isinstance(result, tuple | list) else (result,):
                if isinstance(tensor, Tensor):
                    self._track(tensor)
        return result

    def _track(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known or key in self._kept:
            return
        size = storage.nbytes()

        def free(_: Any) -> None:
            self._known.pop(key, None)
            self.live -= size

        self._known[key] = weakref.ref(storage, free)
        self.live += size
        self.peak = max(self.peak, self.live)
        self.peak_without_gradients = max(self.peak_without_gradients, self.live - self.gradients)

    def watch_gradients(self, network: nn.Module) -> None:
        """Tell gradients of parameters apart from what else is alive."""

        def note(parameter: Tensor) -> None:
            assert parameter.grad is not None
            self.gradients += parameter.grad.untyped_storage().nbytes()

        for parameter in network.parameters():
            if parameter.requires_grad:
                self._hooks.append(parameter.register_post_accumulate_grad_hook(note))

    def close(self) -> None:
        """Take the hooks off the parameters."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    @contextmanager
    def attributed(self, parts: list[tuple[nn.Module, str, str]]) -> Iterator[None]:
        """Attribute what is computed inside methods to parts, in the backward pass too.

        Args:
            parts: Module, name of a method and name of the part. Inner ones win.

        The backward pass is told apart by what it reads: a saved tensor belongs to the part that saved it. Inside
        activation checkpointing nothing is saved, so the last part entered counts there.
        """

        def unpack(packed: tuple[str, Tensor]) -> Tensor:
            self.part = packed[0]
            return packed[1]

        with ExitStack() as stack:
            for module, method, part in parts:
                stack.enter_context(replaced(module, method, self._entering(getattr(module, method), part)))
            hooks = torch.autograd.graph.saved_tensors_hooks(lambda tensor: (self.part, tensor.detach()), unpack)
            stack.enter_context(hooks)
            yield

    def _entering(self, method: Callable[..., Any], part: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            before, self.part = self.part, part
            try:
                return method(*args, **kwargs)
            finally:
                if self.phase == "forward":
                    self.part = before

        return call


@contextmanager
def replaced(module: nn.Module, method: str, by: Callable[..., Any]) -> Iterator[None]:
    """Put a function in the place of a module's method for a while."""
    before = vars(module).get(method)
    setattr(module, method, by)
    try:
        yield
    finally:
        if before is None:
            delattr(module, method)
        else:
            setattr(module, method, before)


class Precision(TorchFunctionMode):
    """Choose kernels and types for tensors without memory as a device would choose them for real ones.

    Attention takes the fused kernel, which keeps no table of every query against every key. With ``lower`` the
    operations that automatic mixed precision lowers on a GPU run in that type and those that it protects in float32;
    torch has no such rules for the ``meta`` device.

    Args:
        lower: ``torch.bfloat16`` or ``torch.float16`` for mixed precision; None leaves every type as it is.
        fused_dropout: Whether fused attention can drop weights, as on a GPU; on a CPU it cannot.
    """

    _LOWERED = frozenset(
        {F.linear, F.conv2d, F.conv_transpose2d, F.scaled_dot_product_attention}
        | {torch.matmul, torch.bmm, torch.baddbmm, torch.addmm, Tensor.matmul, Tensor.__matmul__}
    )
    _PROTECTED = frozenset(
        {F.layer_norm, F.group_norm, F.rms_norm, F.softmax, F.cross_entropy, F.mse_loss, Tensor.softmax, torch.softmax}
        | {Tensor.exp, torch.exp, Tensor.sum, torch.sum, Tensor.pow, torch.pow, Tensor.__pow__}
    )

    def __init__(self, lower: torch.dtype | None = None, *, fused_dropout: bool = True) -> None:
        super().__init__()
        self.lower = lower
        self.fused_dropout = fused_dropout
        self._casts: dict[int, Tensor] | None = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.lower is not None and func in self._LOWERED:
            args, kwargs = tree_map_only(Tensor, self._lowered, (args, kwargs))
        elif self.lower is not None and func in self._PROTECTED:
            args, kwargs = tree_map_only(Tensor, _protected, (args, kwargs))
        if func is F.scaled_dot_product_attention and args[0].is_meta:
            return self._attend(*args, **kwargs)
        return func(*args, **kwargs)

    def forget_casts(self) -> None:
        """End the forward pass: casts of weights are kept no longer, and not kept again."""
        self._casts = None

    def _lowered(self, tensor: Tensor) -> Tensor:
        if tensor.dtype != torch.float32 or not tensor.is_meta:
            return tensor
        # Trained weights are cast once in a forward pass.
        if self._casts is None or not (tensor.requires_grad and tensor.is_leaf):
            return tensor.to(self.lower)
        if id(tensor) not in self._casts:
            self._casts[id(tensor)] = tensor.to(self.lower)
        return self._casts[id(tensor)]

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if dropout_p and not self.fused_dropout:
            return F.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal)
        if enable_gqa and key.shape[1] != query.shape[1]:
            repeats = query.shape[1] // key.shape[1]
            key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
        if attn_mask is not None:
            attn_mask = attn_mask if attn_mask.is_meta else torch.empty_like(attn_mask, device="meta")
            if attn_mask.dtype == torch.bool:
                attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype)
        # Named for the CPU; the GPU's kernels keep the same tensors.
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        return kernel(query, key, value, 0.0, is_causal, attn_mask=attn_mask, scale=scale)[0]


def backward(loss: Tensor) -> None:
    """Compute gradients of a scalar with modes in force.

    ``loss.backward()`` takes the modes for functions out while it runs, but what is recomputed needs `Precision`.
    """
    engine = torch.autograd.Variable._execution_engine
    engine.run_backward(
        (loss,), (torch.ones_like(loss),), False, False, (), allow_unreachable=True, accumulate_grad=True
    )


def _protected(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
