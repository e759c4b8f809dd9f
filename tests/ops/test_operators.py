"""The operators are opaque to PyTorch's compiler, exporter and checkpointing, with known shapes and gradients."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from recorded_calls import WAITING, RecordedCalls
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmfs import MMFS, ImageView, PyramidValues, deformable_sampling
from mmfs.backends import choose_backend
from mmfs.operators import attention, attention_backward, sampling, sampling_backward

SHAPES = [3, 4, 2, 2]


@pytest.fixture(params=["eager", "cpu"])
def backend(request: pytest.FixtureRequest) -> str:
    try:
        return choose_backend(request.param, torch.device("cpu"), torch.float32)
    except ValueError as error:
        pytest.skip(str(error))


def normal(*shape: int, dtype: torch.dtype = torch.float32, trained: bool = True) -> Tensor:
    return torch.randn(*shape).to(dtype).requires_grad_(trained)


def attention_inputs(backend: str, *, dtype: torch.dtype, null_slot: bool, trained: bool) -> tuple:
    torch.manual_seed(0)
    options = {"dtype": dtype, "trained": trained}
    return (
        normal(3, 16, 2, 5, **options),
        SHAPES,
        torch.tensor([[2, 0], [1, -1]]),
        torch.tensor([[[0, 0], [1, 0], [2, 1]], [[1, 0], [0, 0], [1, 1]]]),
        normal(2, 3, 2, 2, 2, **options),
        normal(4, 2, 2, 2, **options),
        normal(2, 3, 2, 2, 2, **options),
        normal(4, 2, 2, 2, **options),
        torch.rand(3, 2).requires_grad_(trained),
        torch.full((2, 2), 0.25),
        normal(2, 5, **options) if null_slot else None,
        backend,
    )


def sampling_inputs(backend: str, *, dtype: torch.dtype = torch.float32, trained: bool = True) -> tuple:
    torch.manual_seed(0)
    value = normal(2, 16, 2, 5, dtype=dtype, trained=trained)
    locations, weights = torch.rand(2, 3, 2, 2, 2, 2), torch.rand(2, 3, 2, 2, 2)
    return value, SHAPES, locations.requires_grad_(trained), weights.requires_grad_(trained), backend


@pytest.mark.parametrize("null_slot", [True, False], ids=["null_slot", "no_null_slot"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_the_attention_passes_opcheck(backend: str, dtype: torch.dtype, null_slot: bool) -> None:
    torch.library.opcheck(attention, attention_inputs(backend, dtype=dtype, null_slot=null_slot, trained=True))


@pytest.mark.parametrize("wanted", [[True] * 7, [False, True, False, False, True, True, False]], ids=["all", "some"])
def test_the_backward_of_the_attention_passes_opcheck(backend: str, wanted: list[bool]) -> None:
    inputs = attention_inputs(backend, dtype=torch.float32, null_slot=True, trained=False)
    output, log_total = attention(*inputs)
    torch.library.opcheck(attention_backward, (torch.randn_like(output), output, log_total, *inputs, wanted))


def test_the_sampling_and_its_backward_pass_opcheck(backend: str) -> None:
    torch.library.opcheck(sampling, sampling_inputs(backend))
    inputs = sampling_inputs(backend, trained=False)
    for wanted in ([True] * 3, [False, True, True], [True, False, False]):
        torch.library.opcheck(sampling_backward, (torch.randn(2, 3, 2, 5), *inputs, wanted))


def test_unwanted_gradients_are_not_asked_for(backend: str) -> None:
    inputs = list(attention_inputs(backend, dtype=torch.float32, null_slot=True, trained=False))
    inputs[4].requires_grad_()
    calls = RecordedCalls()
    with calls:
        attention(*inputs)[0].sum().backward()
    (arguments,) = calls.arguments["mmfs::attention_backward"]
    assert arguments[-1] == [False, True, False, False, False, False, False]


def make_layer() -> MMFS:
    torch.manual_seed(0)
    layer = MMFS(
        d_query=10, d_value=7, d_inner=8, d_out=9, n_heads=2, n_points=2, n_levels=2, max_images=4, offset_init=3.0
    )
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return layer


class Looking(nn.Module):
    """A layer called on tensors only, as exported programs are."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = make_layer()

    def forward(self, query: Tensor, pyramid: Tensor, table: Tensor, visible: Tensor) -> Tensor:
        values = self.layer.project(pyramid, ((3, 4), (2, 2)))
        view = ImageView.of(table, visible, self.layer.max_images)
        return self.layer(query, values, view, query.new_full((query.shape[1], 2), 0.5), base_size=2.0)


def layer_inputs(n_queries: int = 5) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    table = torch.tensor([[2, 0], [1, -1]])
    return torch.randn(2, n_queries, 10), torch.randn(3, 16, 7), table, torch.rand(2, n_queries, 2) < 0.7


def gradients(module: nn.Module) -> dict[str, Tensor | None]:
    return {name: parameter.grad for name, parameter in module.named_parameters()}


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("fresh_compiler")
def test_the_layer_compiles_without_a_break_and_gives_the_same_numbers() -> None:
    plain, compiled = Looking(), Looking()
    run = torch.compile(compiled, backend="aot_eager", fullgraph=True)
    for n_queries in (5, 3):  # the second size makes the sizes symbolic
        expected, found = plain(*layer_inputs(n_queries)), run(*layer_inputs(n_queries))
        torch.testing.assert_close(found, expected)
        expected.square().sum().backward()
        found.square().sum().backward()
    for name, gradient in gradients(compiled).items():
        torch.testing.assert_close(gradient, gradients(plain)[name], msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.usefixtures("fresh_compiler")
def test_deformable_sampling_compiles_without_a_break() -> None:
    shapes = [(3, 4), (2, 2)]
    value, _, locations, weights, _ = sampling_inputs("")
    run = torch.compile(deformable_sampling, backend="aot_eager", fullgraph=True)
    expected, found = (f(value, shapes, locations, weights) for f in (deformable_sampling, run))
    torch.testing.assert_close(found, expected)
    pairs = (torch.autograd.grad(output.sum(), (value, locations, weights)) for output in (expected, found))
    torch.testing.assert_close(*pairs)


def test_the_layer_exports_with_any_number_of_queries() -> None:
    module, (query, *rest) = Looking(), layer_inputs()
    queries = torch.export.Dim("queries", min=2)
    program = torch.export.export(
        module, (query, *rest), dynamic_shapes=({1: queries}, None, None, {1: queries}), strict=False
    )
    called = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert torch.ops.mmfs.attention.default in called
    for n_queries in (5, 8):
        inputs = layer_inputs(n_queries)
        torch.testing.assert_close(program.module()(*inputs), module(*inputs))


def test_recomputing_the_layer_in_the_backward_pass_changes_nothing() -> None:
    plain, recomputed = Looking(), Looking()
    expected = plain(*layer_inputs())
    found = checkpoint(recomputed, *layer_inputs(), use_reentrant=False)
    assert isinstance(found, Tensor)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    expected.square().sum().backward()
    found.square().sum().backward()
    for name, gradient in gradients(recomputed).items():
        torch.testing.assert_close(gradient, gradients(plain)[name], rtol=0, atol=0)


def test_nothing_in_the_layer_reads_a_number_back_or_builds_a_tensor_from_a_list() -> None:
    module, inputs, calls = Looking(), layer_inputs(), RecordedCalls()
    with calls:
        module(*inputs).sum().backward()
    assert {"mmfs::attention", "mmfs::attention_backward"} <= calls.names
    assert not WAITING & calls.names


def test_shapes_alone_are_enough_on_the_meta_device() -> None:
    with torch.device("meta"):
        output = Looking()(*(torch.empty_like(t, device="meta") for t in layer_inputs()))
    assert output.shape == (2, 5, 9)
    assert output.is_meta


def test_under_autocast_values_are_half_and_the_denominator_is_not() -> None:
    module, calls = Looking(), RecordedCalls()
    with calls, torch.autocast("cpu", torch.bfloat16):
        output = module(*layer_inputs())
    ((value, *rest),) = calls.arguments["mmfs::attention"]
    assert value.dtype == torch.bfloat16
    assert rest[7].dtype == rest[8].dtype == torch.float32  # reference points and offset scale
    expected = module(*layer_inputs())
    assert (output - expected).norm() < 0.03 * expected.norm()


def test_values_and_what_is_selected_and_joined_from_them_are_head_major() -> None:
    values = make_layer().project(torch.randn(3, 16, 7), ((3, 4), (2, 2)))
    picked = values.index(torch.tensor([2, 0]))
    for some in (values, picked, PyramidValues.cat([values, picked])):
        assert some.value.transpose(1, 2).is_contiguous()
