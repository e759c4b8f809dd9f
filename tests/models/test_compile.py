"""A decoder layer with MMFS and the other callers of the operator survive what large training runs do to them."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

from mmfs import ImageView, PyramidValues
from mmi.config import AdapterConfig, CompatConfig, LanguageConfig, MMFSConfig
from mmi.models.decoder_block import AttentionInputs, LayerImages
from mmi.models.deformable_attention import DeformableAttention, Grids
from mmi.models.language_model import LanguageModel
from mmi.models.spatial_mmfs import SeenImages, SpatialMMFS

SHAPES = ((4, 4), (2, 2), (1, 1))
N_POSITIONS = 21
CONFIG = LanguageConfig(
    frozen=False,
    vocab_size=40,
    d_model=32,
    n_layers=1,
    n_heads=4,
    n_kv_heads=2,
    d_head=8,
    d_mlp=48,
    max_positions=128,
    pad_token_id=0,
    mmfs_every=1,
    mmfs=MMFSConfig(n_heads=4, n_points=2, d_inner=16, base_size=4, max_images=6, offset_init=1.0),
)
NEEDS_A_COMPILER = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="the inductor backend needs a C++ compiler"
)
BACKENDS = ["aot_eager", pytest.param("inductor", marks=[pytest.mark.slow, NEEDS_A_COMPILER])]


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


class Layer(nn.Module):
    """One decoder layer, called on tensors: projects the pyramid and runs the block."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        model = LanguageModel(CONFIG, 12, CompatConfig.of("corrected"))
        (self.block,) = model.blocks
        assert self.block.mmfs is not None
        nn.init.constant_(self.block.mmfs.gate, 0.7)

    def forward(
        self, hidden: Tensor, pyramid: Tensor, table: Tensor, visible: Tensor, cos: Tensor, sin: Tensor
    ) -> Tensor:
        mmfs = self.block.mmfs
        assert mmfs is not None
        images = LayerImages(mmfs.project(pyramid, SHAPES), ImageView.of(table, visible, CONFIG.mmfs.max_images))
        positions = torch.arange(hidden.shape[1], device=hidden.device)[None]
        return self.block(hidden, AttentionInputs(None, positions, (cos, sin), None), images)


def layer_inputs(length: int = 7) -> tuple[Tensor, ...]:
    torch.manual_seed(1)
    angles = torch.arange(length)[:, None] * torch.tensor([1.0, 0.1, 0.01, 0.001]).repeat(2)
    cos, sin = (f(angles).expand(2, -1, -1) for f in (torch.cos, torch.sin))
    table, visible = torch.tensor([[0, 2], [1, -1]]), torch.rand(2, length, 2) < 0.6
    hidden, pyramid = torch.randn(2, length, 32), torch.randn(3, N_POSITIONS, 12)
    return hidden.requires_grad_(), pyramid.requires_grad_(), table, visible, cos, sin


def outcome(run, module: nn.Module, inputs: tuple) -> dict[str, Tensor]:
    """Return the output and every gradient."""
    output = run(*inputs)
    output.square().sum().backward()
    found = {"output": output.detach()}
    found |= {f"input {i}": t.grad for i, t in enumerate(inputs) if isinstance(t, Tensor) and t.grad is not None}
    found |= {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}
    module.zero_grad()
    return found


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], **tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, msg=lambda m, name=name: f"{name}: {m}", **tolerance)


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_decoder_layer_with_mmfs_compiles_in_one_piece(backend: str) -> None:
    layer = Layer()
    compiled = torch.compile(layer, backend=backend, fullgraph=True)
    for length in (7, 5):
        expected = outcome(layer, layer, layer_inputs(length))
        assert_same(outcome(compiled, layer, layer_inputs(length)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("fresh_compiler")
def test_a_compiled_block_takes_the_objects_that_the_language_model_hands_it() -> None:
    layer = Layer()
    compiled = torch.compile(layer.block, backend="aot_eager", fullgraph=True)
    hidden, pyramid, table, visible, cos, sin = layer_inputs()
    assert layer.block.mmfs is not None
    images = LayerImages(layer.block.mmfs.project(pyramid, SHAPES), ImageView.of(table, visible, 6))
    attention = AttentionInputs(None, torch.arange(7)[None], (cos, sin), None)
    torch.testing.assert_close(compiled(hidden, attention, images), layer.block(hidden, attention, images))


def test_a_decoder_layer_with_mmfs_exports() -> None:
    layer = Layer().eval()
    program = torch.export.export(layer, layer_inputs(), strict=False)
    assert torch.ops.mmfs.attention.default in [node.target for node in program.graph.nodes]
    torch.testing.assert_close(program.module()(*layer_inputs()), layer(*layer_inputs()))


def test_recomputing_a_decoder_layer_changes_nothing() -> None:
    layer = Layer()

    def recomputed(*inputs: Tensor) -> Tensor:
        output = checkpoint(layer, *inputs, use_reentrant=False)
        assert isinstance(output, Tensor)
        return output

    expected = outcome(layer, layer, layer_inputs())
    assert_same(outcome(recomputed, layer, layer_inputs()), expected, rtol=0, atol=0)


@pytest.fixture
def one_process() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_a_fully_sharded_decoder_layer_gives_the_same_gradients() -> None:
    layer, whole = Layer(), Layer()
    fully_shard(layer, mesh=init_device_mesh("cpu", (1,)))
    parameters = dict(layer.named_parameters())
    assert all(isinstance(parameter, DTensor) for parameter in parameters.values())
    layer(*layer_inputs()).square().sum().backward()
    expected = outcome(whole, whole, layer_inputs())
    for name, parameter in parameters.items():
        assert isinstance(parameter.grad, DTensor)
        torch.testing.assert_close(parameter.grad.full_tensor(), expected[name])


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_adapters_deformable_attention_compiles_in_one_piece(backend: str) -> None:
    torch.manual_seed(0)
    attention = DeformableAttention(16, 2, AdapterConfig(d_stem=8, n_heads=4, n_points=2))
    nn.init.normal_(attention.sampling_offsets.weight, std=0.3)
    nn.init.normal_(attention.attention_weights.weight, std=0.3)
    maps = Grids.of([(4, 4), (2, 3)], torch.device("cpu"))

    def inputs() -> tuple[Tensor, Tensor, Tensor, Grids]:
        torch.manual_seed(1)
        return torch.randn(2, 9, 16).requires_grad_(), torch.rand(9, 2), torch.randn(2, 22, 16).requires_grad_(), maps

    compiled = torch.compile(attention, backend=backend, fullgraph=True)
    expected = outcome(attention, attention, inputs())
    assert_same(outcome(compiled, attention, inputs()), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("fresh_compiler")
def test_the_mmfs_of_a_feature_map_compiles_in_one_piece() -> None:
    torch.manual_seed(0)
    module = SpatialMMFS(CONFIG.mmfs, d_feature=16, d_pyramid=12, size=(4, 4), table_size=4)
    nn.init.normal_(module.conv.weight)
    values = module.project(torch.randn(2, N_POSITIONS, 12), SHAPES)
    view = ImageView.of(torch.tensor([[0], [1]]), torch.tensor([[[True]], [[False]]]), 6)
    seen = SeenImages(PyramidValues(values.value.detach(), SHAPES), view)
    compiled = torch.compile(copy.deepcopy(module), backend="aot_eager", fullgraph=True)
    feature = torch.randn(2, 16, 4, 4)
    torch.testing.assert_close(compiled(feature, seen), module(feature, seen))
