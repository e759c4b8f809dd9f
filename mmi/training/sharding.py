"""Cutting the network into shares, one for each rank (FSDP2), and putting tensors together again.

What every rank runs in every step, in the same order, becomes a unit of its own: attention and feed-forward of the
language model's layers, CLIP's layers, the blocks of the U-Net. A unit is gathered before it runs and let go behind it.
Everything else (embeddings, heads, adapters, resamplers, every MMFS) is the rest: gathered once at the start of a step
and reduced at its end, so nothing waits for another rank however it is used: through methods, through functions of its
weights, or not at all because a rank has no picture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.nn import functional

from mmi.models.image_decoder import ImageDecoder
from mmi.models.mm_interleaved import MMInterleaved
from mmi.models.noise import DiffusionDraws
from mmi.models.output import NetworkOutput
from mmi.training.agreement import refuse_disagreement

# Numbers put together in one exchange: 256 MiB of float32.
_GATHERED_AT_ONCE = 2**26


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor in one piece; where it is cut into shares every rank must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_tree(tree: Any, keep: Callable[[Tensor], Any] = lambda tensor: tensor) -> Any:
    """Return mappings, lists and tuples with every tensor in one piece, gathered many at a time; call it on all ranks.

    Saving a network tensor by tensor would wait for the other ranks thousands of times.

    Args:
        tree: Tensors cut into shares, and others.
        keep: What becomes of each tensor as soon as it is whole. A device that need not hold the whole tree must not
            keep its tensors until the last one has come.
    """
    cut: list[DTensor] = []
    _visit(tree, lambda tensor: cut.append(tensor) if isinstance(tensor, DTensor) else None)
    pieces = iter(_put_together(cut))
    return _visit(tree, lambda tensor: keep(next(pieces) if isinstance(tensor, DTensor) else tensor))


def whole_on_one(tree: Any, keeps: bool) -> Any:
    """Put a tree together on the CPU of the rank that keeps it; call it on all ranks.

    Args:
        tree: As ``whole_tree`` takes it.
        keeps: Whether this rank keeps it; others hold no more than one exchange at a time.

    Returns:
        The tree; an empty mapping where it is not kept.
    """
    made = whole_tree(tree, on_cpu if keeps else _nothing)
    return made if keeps else {}


def on_cpu(tensor: Tensor) -> Tensor:
    """Return a tensor on the CPU, without its graph."""
    return tensor.detach().cpu()


def _nothing(tensor: Tensor) -> None:
    """Keep nothing of a tensor."""


def _visit(tree: Any, change: Callable[[Tensor], Any]) -> Any:
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, Mapping):
        return {key: _visit(item, change) for key, item in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)([_visit(item, change) for item in tree])
    return tree


def _put_together(tensors: Sequence[DTensor]) -> Iterator[Tensor]:
    """Yield each tensor in one piece, gathering ``_GATHERED_AT_ONCE`` numbers of one type at a time."""
    waiting: list[DTensor] = []
    for tensor in tensors:
        if waiting and (
            tensor.dtype != waiting[0].dtype or sum(t.numel() for t in (*waiting, tensor)) > _GATHERED_AT_ONCE
        ):
            yield from _gather(waiting)
            waiting = []
        waiting.append(tensor)
    if waiting:
        yield from _gather(waiting)


def _gather(tensors: Sequence[DTensor]) -> list[Tensor]:
    """Put tensors of one type together in one exchange."""
    mesh = tensors[0].device_mesh
    assert all(t.device_mesh == mesh and t.placements == (Shard(0),) for t in tensors), "as fully_shard cuts them"
    # Every rank has the same number of rows of a tensor, but for the last ones, which have fewer or none.
    n_rows = [-(-tensor.shape[0] // mesh.size()) for tensor in tensors]
    padded = []
    for tensor, rows in zip(tensors, n_rows, strict=True):
        own = tensor.to_local().detach().flatten()
        padded.append(functional.pad(own, (0, rows * tensor.shape[1:].numel() - len(own))))
    sent = torch.cat(padded)
    received = sent.new_empty(mesh.size() * len(sent))
    distributed.all_gather_into_tensor(received, sent, group=mesh.get_group())
    parts = received.view(mesh.size(), -1).split([len(piece) for piece in padded], dim=1)
    return [
        part.reshape(-1, *tensor.shape[1:])[: tensor.shape[0]].clone(memory_format=torch.contiguous_format)
        for tensor, part in zip(tensors, parts, strict=True)
    ]


def share_of(tensor: Tensor, like: Tensor) -> Tensor:
    """Cut this rank's share out of a whole tensor that every rank has, the way ``like`` is cut; nothing is sent."""
    if not isinstance(like, DTensor) or isinstance(tensor, DTensor):
        return tensor
    tensor = tensor.to(like.device)
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


def is_sharded(network: nn.Module) -> bool:
    """Say whether ``shard`` has cut a network."""
    return any(isinstance(module, FSDPModule) for module in network.modules())


def units_of(network: MMInterleaved) -> list[nn.Module]:
    """Return the modules that are gathered one by one, in the order they run."""
    units: list[nn.Module] = [*network.visual_tokenizer.trunk.layers]
    for block in network.language_model.blocks:
        units += [block.layer.self_attn, block.layer.mlp]
    if network.image_decoder is not None:
        unet = network.image_decoder.unet
        assert unet.mid_block is not None
        units += [*unet.down_blocks, unet.mid_block, *unet.up_blocks]
    return units


def shard(network: MMInterleaved, mesh: DeviceMesh, *, half: torch.dtype | None = None) -> None:
    """Cut every parameter into shares along a mesh, in place; names stay as they are.

    Args:
        network: The same on every rank.
        mesh: One dimension: the ranks.
        half: In which type units of linear maps alone are gathered, where autocast would round them anyway; gradients
            are summed in float32. ``None`` is their own.

    Raises:
        ConfigError: If ranks start from different weights.
    """
    refuse_disagreement({"the starting weights": fingerprint(network)}, mesh.size())
    kept: set[nn.Parameter] = set()
    if network.image_decoder is not None:
        _DrawingForNothing(network, network.image_decoder)
        # Never trained, in a precision of its own, and run only where there are pictures: every rank keeps it whole.
        kept = set(network.image_decoder.codec.parameters())
    own = MixedPrecisionPolicy(cast_forward_inputs=False)
    rounded = own if half is None else replace(own, param_dtype=half, reduce_dtype=torch.float32)
    for unit in units_of(network):
        fully_shard(unit, mesh=mesh, mp_policy=rounded if _only_products(unit) else own)
    fully_shard(network, mesh=mesh, mp_policy=own, ignored_params=kept)


def _only_products(unit: nn.Module) -> bool:
    """Say whether all parameters are those of linear maps; norms are computed in float32."""
    return all(isinstance(module, nn.Linear) or not module._parameters for module in unit.modules())


def fingerprint(network: nn.Module) -> str:
    """Return a hash of the beginning of every tensor: cheap, and different for another seed or other weights."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        beginning = tensor.detach().flatten()[:64].cpu().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(beginning.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


class _DrawingForNothing:
    """Let the U-Net run once over nothing where a rank has no picture to draw.

    Gathering its blocks and summing their gradients takes all ranks. The result is left out of the losses, so gradients
    are exact zeros. The visual tokenizer does the same by itself for a batch without pictures.

    Args:
        network: Not cut yet: these hooks must come before FSDP's, so that what is gathered belongs to its forward pass.
        decoder: Of this network.
    """

    def __init__(self, network: MMInterleaved, decoder: ImageDecoder) -> None:
        self.decoder = decoder
        self.has_drawn = False
        network.register_forward_pre_hook(self._begin)
        decoder.unet.register_forward_hook(self._note)
        network.register_forward_hook(self._end)

    def _begin(self, network: nn.Module, inputs: tuple[object, ...]) -> None:
        self.has_drawn = False

    def _note(self, unet: nn.Module, inputs: tuple[object, ...], output: Tensor) -> None:
        self.has_drawn = True

    def _end(self, network: nn.Module, inputs: tuple[object, ...], output: NetworkOutput) -> NetworkOutput | None:
        if self.has_drawn or not any(isinstance(given, DiffusionDraws) for given in inputs):
            return None
        device = self.decoder.unconditional.device
        latents = torch.zeros(1, *self.decoder.latent_shape, device=device)
        timesteps = torch.zeros(1, dtype=torch.int64, device=device)
        drawn = self.decoder.unet(latents, timesteps, self.decoder.unconditional, None)
        return replace(output, image_loss=drawn.float().mean(dim=(1, 2, 3))[:0])


@contextmanager
def gathered(network: nn.Module) -> Iterator[None]:
    """Hold the whole network on every rank for a while, so that one of them can run it alone; call it on all ranks.

    Nothing happens where it is not cut into shares. Parameters must not be changed meanwhile.
    """
    if isinstance(network, FSDPModule):
        # The first unit that runs takes itself for the outermost one: before the first step of training that would be
        # whatever part of the network is asked here. Done once; nothing happens later.
        network._get_fsdp_state()._lazy_init()
    units = [module for module in network.modules() if isinstance(module, FSDPModule)]
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    try:
        yield
    finally:
        for unit in units:
            # The outermost one stays whole between the two passes of a step anyway.
            unit.set_reshard_after_forward(unit is not network, recurse=False)
            unit.reshard()
            _forget_order(unit)


def _forget_order(unit: FSDPModule) -> None:
    """Forget which units have run: FSDP gathers ahead in that order, and only one rank has run these.

    FSDP itself forgets at the end of a backward pass, and offers no other way. Its groups of parameters were one for
    each unit in torch 2.11.
    """
    state: Any = unit._get_fsdp_state()
    if state._comm_ctx is not None:
        state._comm_ctx.post_forward_order.clear()
    groups = getattr(state, "_fsdp_param_groups", None) or [state._fsdp_param_group]
    for group in groups:
        if group is not None:
            group._post_forward_indices.clear()
