"""Every saving of a training step leaves losses and gradients as they are without it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from factories import batch, tiny_config, wake_up
from recorded_calls import WAITING
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mmfs import MMFS, ImageView, PyramidValues
from mmfs.unfactored import unfactored_attention
from mmi.batch import InterleavedBatch
from mmi.commands.settings import check_settings
from mmi.compose import compose, parse_override
from mmi.config import ConfigError, LossConfig, MMFSConfig, NetworkConfig, SavingsConfig
from mmi.models import losses
from mmi.models.build import build_network
from mmi.models.layout import BatchLayout
from mmi.models.mm_interleaved import MMInterleaved
from mmi.models.noise import DiffusionDraws
from mmi.models.output import NetworkOutput
from mmi.training.module import MMInterleavedModule

NAMES = [f.name for f in fields(SavingsConfig) if f.name != "drop_unweighted_images"]
ALL_OFF = replace(SavingsConfig(), **dict.fromkeys(NAMES, False))
CASES = {
    "pictures open documents and follow each other": [[("ab", 1, "c", 2, "d", 3)], [(4, "efg"), ("h", 5), (6, "ij")]],
    "a row without pictures": [[("abcdef",)], [(1, "gh", 2)]],
    "nobody sees an earlier picture": [[("a", 1), (2, "b")], [("cd", 3)]],
    "no picture has a loss": [[(1, "ab")], [(2, "c"), (3, "d")]],
    "no pictures": [[("abc",)], [("de",), ("f",)]],
}
CAPTIONS = CASES["pictures open documents and follow each other"]


def network(config: NetworkConfig | None = None, savings: SavingsConfig = SavingsConfig()) -> MMInterleaved:  # noqa: B008
    torch.manual_seed(0)
    made = build_network(config or tiny_config()).double()
    wake_up(made)
    made.use_savings(savings)
    return made


def draws(made: MMInterleaved, n: int) -> DiffusionDraws:
    assert made.image_decoder is not None
    drawn = DiffusionDraws.create(0, 0, 0, n, made.image_decoder.latent_shape, 1000, 0.3)
    return replace(drawn, noise=drawn.noise.double(), posterior_noise=drawn.posterior_noise.double())


def step(made: MMInterleaved, data: InterleavedBatch) -> tuple[NetworkOutput, dict[str, Tensor]]:
    """Losses of a batch and the gradients of a weighted sum of them; parts without a gradient have zero."""
    output = made(data, draws(made, data.n_images))
    terms = torch.cat([output.text_loss, output.image_loss])
    total = (terms * torch.linspace(0.5, 1.5, len(terms), dtype=terms.dtype)).sum()
    if total.requires_grad:
        total.backward()
    gradients = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in made.named_parameters()}
    return output, gradients


def assert_same(data: InterleavedBatch, savings: SavingsConfig, config: NetworkConfig | None = None) -> None:
    with_all, gradients = step(network(config), data)
    without, expected = step(network(config, savings), data)
    for field in fields(NetworkOutput):
        found, wanted = getattr(with_all, field.name), getattr(without, field.name)
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12, msg=lambda m, f=field: f"{f.name}: {m}")
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-6, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("rows", CASES.values(), ids=CASES)
def test_without_any_saving_losses_and_gradients_are_the_same(rows: list) -> None:
    assert_same(batch(rows), ALL_OFF)


@pytest.mark.parametrize("saving", NAMES)
def test_one_saving_less_changes_nothing(saving: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "CHUNK_LOGITS", 4 * 261)  # several chunks
    assert_same(batch(CAPTIONS), replace(SavingsConfig(), **{saving: False}))


def test_without_labels_nothing_is_lost_or_gained() -> None:
    data = batch(CAPTIONS)
    silent = replace(data, labels=torch.full_like(data.labels, -100))
    assert_same(silent, ALL_OFF)


def test_a_limit_of_targets_takes_the_same_pictures_without_savings() -> None:
    assert_same(batch(CAPTIONS), ALL_OFF, tiny_config(decoder={"max_targets": 1}))


@pytest.mark.parametrize("changes", [{"visible_images": None}, {"null_slot": False}], ids=["all seen", "no null slot"])
def test_variants_of_mmfs_give_the_same_without_savings(changes: dict) -> None:
    mmfs = {"n_heads": 4, "n_points": 2, "d_inner": 32, "max_images": 3, "offset_init": 1.0, **changes}
    config = tiny_config(
        language_mmfs=MMFSConfig(**mmfs, base_size=4),
        decoder_mmfs=MMFSConfig(**mmfs, levels=(0, 1, 2, 3), base_size=None),
    )
    assert_same(batch(CAPTIONS), ALL_OFF, config)


@pytest.mark.parametrize("null_slot", [True, False])
def test_queries_repeated_for_every_image_give_what_the_layer_gives(null_slot: bool) -> None:
    torch.manual_seed(0)
    sizes = {"d_query": 12, "d_value": 10, "d_inner": 8, "d_out": 6, "n_heads": 2, "n_points": 3, "n_levels": 2}
    layer = MMFS(**sizes, max_images=3, offset_init=1.0, null_slot=null_slot).double()
    wake_up(layer)
    pyramid, query = torch.randn(3, 20, 10).double(), torch.randn(2, 4, 12).double()
    values = layer.project(pyramid, ((4, 4), (2, 2)))
    table = torch.tensor([[0, 1, 2], [2, -1, -1]])  # empty slots, one query that sees nothing, one that sees too many
    visible = torch.tensor([[[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]], [[0, 1, 1], [1, 0, 0], [1, 1, 1], [0, 0, 0]]])
    view = ImageView.of(table, visible.bool(), 3)
    place = torch.rand(4, 2)
    options: dict[str, Any] = {"base_size": 4.0, "level_sizes": (2.0, 1.0)}
    found = unfactored_attention(layer, query, values, view, place, **options)
    torch.testing.assert_close(found, layer(query, values, view, place, **options))
    nobody = ImageView.of(table[:, :0], visible.bool()[..., :0], 3)
    none = PyramidValues(values.value[:0], values.spatial_shapes)
    found = unfactored_attention(layer, query, none, nobody, place, **options)
    torch.testing.assert_close(found, layer(query, none, nobody, place, **options))


def test_a_switch_brings_back_the_work_it_names() -> None:
    """Rows that reach the U-Net, the head and MMFS grow where their saving is off; tables are built once or often."""
    data = batch(CAPTIONS)

    def seen(savings: SavingsConfig) -> dict[str, int]:
        made, counts = network(savings=savings), {}
        decoder, language = made.image_decoder, made.language_model
        assert decoder is not None

        def count(name: str, size: Any) -> Any:
            return lambda _module, given: counts.__setitem__(name, counts.get(name, 0) + size(given))

        decoder.unet.register_forward_pre_hook(count("pictures", lambda g: len(g[0])))
        language.text_head.register_forward_pre_hook(count("rows", lambda g: g[0][..., 0].numel()))
        decoder.unet.spatial_mmfs[0].attention.value_proj.register_forward_pre_hook(count("seen", lambda g: len(g[0])))
        language.branches[0].attention.index_embedding.register_forward_pre_hook(count("repeated", lambda _: 1))
        with torch.no_grad():
            made(data, draws(made, data.n_images))
        return counts

    saved = seen(SavingsConfig())
    assert saved["pictures"] == 4  # two of six open their documents
    assert saved["seen"] == 2
    assert "repeated" not in saved
    for name, saving in {
        "pictures": "skip_masked_images",
        "seen": "skip_blind_mmfs",
        "rows": "labelled_rows_head",
    }.items():
        assert seen(replace(SavingsConfig(), **{saving: False}))[name] > saved[name]
    assert seen(replace(SavingsConfig(), factored_mmfs=False))["repeated"] == 1


def test_masks_are_built_once_for_all_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    from mmi.models import language_model

    data, built = batch(CAPTIONS), []
    real = language_model.attention_masks
    monkeypatch.setattr(language_model, "attention_masks", lambda *a: built.append(1) or real(*a))
    for savings, times in ((SavingsConfig(), 1), (replace(SavingsConfig(), shared_tables=False), 4)):
        made = network(savings=savings)
        built.clear()
        made(data, None)
        assert len(built) == times


def test_an_image_loss_of_weight_zero_changes_nothing_whether_it_is_computed_or_not() -> None:
    data, found = batch(CAPTIONS), []
    for drop in (True, False):
        torch.manual_seed(0)
        savings = replace(SavingsConfig(), drop_unweighted_images=drop)
        module = MMInterleavedModule(tiny_config(), LossConfig(image_weight=0.0), savings=savings)
        assert module.draws_images is not drop
        made = module.network
        given = None if drop else DiffusionDraws.create(0, 0, 0, data.n_images, (48, 8, 8), 1000, 0.3)
        output, loss = module._step(data, given)
        assert (len(output.image_loss) > 0) is not drop
        loss.total.backward()
        assert made.image_decoder is not None
        assert not any(p.requires_grad for p in made.image_decoder.parameters())
        found.append((loss.total, [p.grad for p in made.language_model.parameters()]))
    torch.testing.assert_close(found[1], found[0])


def test_savings_are_settings_of_the_model() -> None:
    module = MMInterleavedModule(tiny_config(), savings=replace(SavingsConfig(), shared_tables=False))
    parts = [m for m in module.modules() if hasattr(m, "savings")]
    assert {type(part).__name__ for part in parts} == {
        "MMInterleaved", "VisualTokenizer", "LanguageModel", "MMFSBranch", "ImageDecoder", "UNet", "SpatialMMFS"
    }  # fmt: skip
    assert not any(part.savings.shared_tables for part in parts)
    tree = compose(["demo.yaml"], [parse_override("model.savings.chunked_head", "false")])
    settings = check_settings(tree, "fit")
    assert settings.savings == replace(SavingsConfig(), chunked_head=False)
    assert settings.tree()["model"]["savings"]["chunked_head"] is False
    tree["model"]["savings"] = {"chunked_haed": True}
    with pytest.raises(ConfigError, match=r"unknown key model\.savings\.chunked_haed; did you mean chunked_head"):
        check_settings(tree, "fit")


# No hidden waiting


class _Reads(TorchDispatchMode):
    """Note operations for which a GPU and the host would wait for each other, outside of the one allowed place."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.allowed = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().split(".")[0]
        indexed = name in ("aten::index", "aten::index_put_")
        by_mask = indexed and any(t is not None and t.dtype == torch.bool for t in args[1])
        if not self.allowed and (name in WAITING or by_mask):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@contextmanager
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Reads]:
    mode, of = _Reads(), BatchLayout.of

    def allowed(*args: Any) -> BatchLayout:
        mode.allowed = True
        try:
            return of(*args)
        finally:
            mode.allowed = False

    with monkeypatch.context() as patch:
        patch.setattr(BatchLayout, "of", allowed)
        with mode:
            yield mode


@pytest.mark.parametrize("rows", CASES.values(), ids=CASES)
def test_a_forward_pass_reads_values_on_the_host_in_one_place_only(rows: list, monkeypatch: pytest.MonkeyPatch) -> None:
    data = batch(rows)
    made = network()
    given = draws(made, data.n_images)
    with reads(monkeypatch) as mode:
        made(data, given)
    assert mode.found == []


def test_reading_on_the_host_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    with reads(monkeypatch) as mode:
        flags = torch.tensor([True, False])
        flags[flags]
        int(flags.sum())
        torch.nonzero(flags)
    assert {"aten::_local_scalar_dense", "aten::index", "aten::nonzero"} <= set(mode.found)
