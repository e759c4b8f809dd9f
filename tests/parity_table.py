"""How close this implementation is to the official numbers, stage by stage.

    python tests/parity_table.py

Prints the worst error of every stage against the stored official numbers (golden sets A to D, found beside the checkout
or where ``MMI_SHARED`` points) and, where no official number is stored, against the plain formulas of
`plain_reference.py` in float64. Errors are absolute, those of tensors of gradients relative where these exceed one.
Takes about 20 seconds on one core and no network. Exits with 1 if a stage is worse than allowed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import plain_reference as plain
import torch
from plain_decoder import ParityCase
from safetensors.torch import load_file
from shared_data import shared_folder
from tiny_official import BOS, EOS, IMAGE, N_TOKENS, PAD, SOI, tiny_network
from torch import Tensor
from torch.nn import functional as F

from mmfs import MMFS, ImageView, deformable_sampling
from mmi.batch import InterleavedBatch
from mmi.checkpoints.official_vision import VISION_KEYS
from mmi.config import LossConfig
from mmi.data.document import Document, ImageItem, TextItem
from mmi.data.encode import EncodingRules, encode_document
from mmi.models.image_sampling import ImageSampling
from mmi.models.mm_interleaved import MMInterleaved
from mmi.models.visibility import context_starts, gather_contexts, image_slots, slot_values, visible_images
from mmi.tokens import SpecialTokens, Tokenizer
from mmi.training.loss import StepLoss, count_terms, weigh


@dataclass(frozen=True)
class Stage:
    """One line of the table; ``allowed`` 0 means exactly equal, and ``error`` then counts differing entries."""

    source: str
    name: str
    error: float
    allowed: float

    @property
    def holds(self) -> bool:
        return self.error <= self.allowed


def distance(found: Tensor | None, expected: Tensor) -> float:
    """Largest difference."""
    assert found is not None
    return float((found.detach().double() - expected.double()).abs().max())


def gradient_distance(found: Tensor | None, expected: Tensor) -> float:
    """Largest difference, relative to the largest number where that exceeds one: stored runs are float32 themselves."""
    return distance(found, expected) / max(1.0, float(expected.abs().max()))


def golden(name: str) -> tuple[dict[str, Tensor], dict]:
    folder = shared_folder() / "golden"
    return load_file(folder / f"{name}.safetensors"), json.loads((folder / f"{name}.json").read_text())


def operator() -> Iterator[Stage]:
    tensors, facts = golden("a_mmfs_op")
    outputs, gradients = [], []
    for case, about in facts["cases"].items():
        stored = {k.removeprefix(f"{case}."): v for k, v in tensors.items() if k.startswith(f"{case}.")}
        names = ("value", "sampling_locations", "attention_weights")
        inputs = [stored[name].clone().requires_grad_() for name in names]
        shapes = [(int(h), int(w)) for h, w in stored["spatial_shapes"]]
        output = deformable_sampling(inputs[0], shapes, inputs[1], inputs[2])
        outputs.append(distance(output, stored["output"]))
        if not about.get("forward_only"):
            output.backward(stored["grad_output"])
            gradients += [gradient_distance(x.grad, stored[f"grad_{n}"]) for n, x in zip(names, inputs, strict=True)]
    yield Stage("A", "sampling: output", max(outputs), 2e-6)
    yield Stage("A", "sampling: gradients", max(gradients), 2e-6)


_MODULE_NAMES = {
    "dynamic_offset_mask": "query_proj",
    "query_relpos": "index_embedding",
    "sampling_offsets": "sampling_offsets",
    "attention_weights": "attention_weights",
    "value_proj": "value_proj",
    "output_proj": "output_proj",
}


def module() -> Iterator[Stage]:
    tensors, facts = golden("b_mmfs_module")
    outputs, inputs, parameters = [], [], []
    for case, about in facts["cases"].items():
        numbers = about["constructor"]
        stored = {k.removeprefix(f"{case}."): v for k, v in tensors.items() if k.startswith(f"{case}.")}
        heads, points = numbers["n_heads"], numbers["n_points"]

        def ours(prefix: str, stored: dict = stored, heads: int = heads, points: int = points) -> dict[str, Tensor]:
            found = {"null_value": stored[f"{prefix}.ignore_token"].view(heads, -1)}
            for theirs, name in _MODULE_NAMES.items():
                for leaf in ("weight", "bias"):
                    if f"{prefix}.{theirs}.{leaf}" in stored:
                        found[f"{name}.{leaf}"] = stored[f"{prefix}.{theirs}.{leaf}"]
            for leaf in ("weight", "bias"):
                rows = found[f"attention_weights.{leaf}"].unflatten(0, (-1, points + 1))
                found[f"attention_weights.{leaf}"] = rows[:, :-1].flatten(0, 1)
            return found

        layer = MMFS(
            d_query=numbers["d_query"],
            d_value=numbers["d_value"],
            d_inner=int(numbers["d_model"] * numbers["ratio"]),
            d_out=numbers["d_out"],
            n_heads=heads,
            n_points=points,
            n_levels=numbers["n_levels"],
            max_images=numbers["max_num_image_per_seq"],
            offset_init=numbers["offset_init_magnitude"],
        )
        layer.load_state_dict(ours("param"))
        query, features = (stored[name].clone().requires_grad_() for name in ("query", "features"))
        mask = stored["mask"].bool()
        mask = mask[:, None] if mask.ndim == 2 else mask
        mask = mask[:, -1:] if mask.shape[1] > query.shape[1] else mask  # a cached step
        n_rows, n_images = features.shape[:2]
        shapes = [(int(h), int(w)) for h, w in stored["spatial_shapes_one_image"]]
        output = layer(
            query,
            layer.project(features.flatten(0, 1), shapes),
            ImageView.of(
                torch.arange(n_rows * n_images).view(n_rows, n_images),
                mask.expand(n_rows, query.shape[1], -1),
                layer.max_images,
            ),
            stored["reference_points"][0, :, 0],
            base_size=numbers["base_spatial_shape"],
            level_sizes=numbers["spatial_shapes"],
        )
        outputs.append(distance(output, stored["output"]))
        output.backward(stored["grad_output"])
        inputs.append(gradient_distance(query.grad, stored["grad_query"]))
        inputs.append(gradient_distance(features.grad, stored["grad_features"]))
        expected = ours("grad_param")
        parameters += [gradient_distance(p.grad, expected[name]) for name, p in layer.named_parameters()]
    yield Stage("B", "MMFS module: output", max(outputs), 5e-6)
    yield Stage("B", "MMFS module: gradients of inputs", max(inputs), 2e-5)
    yield Stage("B", "MMFS module: gradients of parameters", max(parameters), 2e-5)


def vision(network: MMInterleaved) -> Iterator[Stage]:
    stored, facts = golden("c_vision_tokenizer")
    tokenizer = network.visual_tokenizer
    features = tokenizer(stored["images_u8"])
    yield Stage("C", "visual tokens", distance(features.tokens, stored["vis_embed"]), 2e-5)
    maps = []
    for level, size in zip(features.pyramid, (64, 32, 16, 8), strict=True):
        expected = stored[f"feature_{size}"]
        maps.append(distance(level[: len(expected)], expected))
    yield Stage("C", "pyramid", max(maps), 1e-4)
    loss = features.tokens.square().mean() + 0.1 * sum(level.square().mean() for level in features.pyramid)
    names = [name for name, p in tokenizer.named_parameters() if p.requires_grad]
    trained = [dict(tokenizer.named_parameters())[name] for name in names]
    norms = {n: g.norm() for n, g in zip(names, torch.autograd.grad(loss, trained), strict=True)}
    expected = {VISION_KEYS.ours(k): v for k, v in facts["gradient_norms_per_parameter"].items()}
    # The stored norms are of all parameters; the trunk is frozen here.
    errors = [abs(float(norms[n]) / expected[n] - 1) for n in norms if expected[n] > 1e-6]
    yield Stage("C", "gradient norm of every trained parameter (relative)", max(errors), 2e-5)


class _Letters:
    vocab_size = 96

    def encode(self, text: str) -> list[int]:
        return [ord(c) - 1000 for c in text]

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(i + 1000) for i in ids)


def encoded_labels(row: list[int], *, rule_2: bool) -> list[int]:
    """Labels of a packed row by taking it apart into documents and encoding those."""
    tokenizer = Tokenizer(_Letters(), SpecialTokens(BOS, EOS, PAD, SOI, IMAGE))
    opens = [i for i, token in enumerate(row) if token == BOS] + [len(row)]
    labels: list[int] = []
    for start, stop in pairwise(opens):
        items: list[TextItem | ImageItem] = []
        for token in row[start + 1 : stop - 1]:
            if token == SOI:
                items.append(ImageItem(open, "drawn"))
            elif token != IMAGE:
                before = items.pop().text if items and isinstance(items[-1], TextItem) else ""
                items.append(TextItem(before + chr(token + 1000)))
        encoded = encode_document(Document("d", "s", tuple(items)), tokenizer, EncodingRules(N_TOKENS, rule_2))
        assert encoded.ids.tolist() == row[start:stop]
        labels += encoded.labels.tolist()
    return labels


def language(network: MMInterleaved) -> Iterator[Stage]:
    stored, facts = golden("d_multimodal_llm")
    ids, real = stored["text_ids"], stored["attention_mask"].bool()
    wrong = dict.fromkeys(("plain", "skip_text_without_image"), 0)
    for name in wrong:
        for row, mask, expected in zip(ids, real, stored[f"labels_{name}"], strict=True):
            found = encoded_labels(row[mask].tolist(), rule_2=name != "plain")
            found += [plain.NONE] * (len(row) - len(found))
            wrong[name] += int((torch.tensor(found[1:]) != expected).sum())
    yield Stage("D", "labels, rules 1 to 7 (entries)", sum(wrong.values()), 0)

    row, start = torch.nonzero(ids == SOI, as_tuple=True)
    table = image_slots(row, len(ids))
    visible = visible_images(ids, slot_values(start, table), bos_token_id=BOS)
    seen = int((visible[real] != stored["cross_attention_mask"].bool()[real]).sum())
    yield Stage("D", "visibility of images (entries)", seen, 0)
    begin = context_starts(ids, row, start, bos_token_id=BOS)
    yield Stage("D", "starts of contexts (entries)", int((begin != stored["nearest_bos_idxs"]).sum()), 0)

    model = network.language_model
    inputs: list[Tensor] = []
    branches: list[Tensor] = []
    handles = [b.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0])) for b in model.blocks]
    handles += [b.register_forward_hook(lambda _, __, output: branches.append(output)) for b in model.branches]
    batch = InterleavedBatch(
        text_ids=ids,
        labels=torch.cat([torch.full_like(ids[:, :1], plain.NONE), stored["labels_plain"]], dim=1),
        attention_mask=real,
        document_ids=(ids == BOS).long().cumsum(1),
        position_ids=torch.zeros_like(ids),
        images=stored["images_u8"],
        target_images=None,
        image_row=row,
        image_start=start,
        image_loss=torch.ones(len(row), dtype=torch.bool),
        tokens_per_image=N_TOKENS,
    )
    with torch.no_grad():
        features = network.visual_tokenizer(batch.images)
        hidden, _ = network.encode(batch, features)
        logits = model.head(hidden)
    for handle in handles:
        handle.remove()
    with torch.no_grad():
        output = network(batch, None)
    yield Stage("D", "visual tokens of the rows", distance(features.tokens, stored["vis_embed_in_order"]), 2e-5)
    yield Stage("D", "embeddings", distance(inputs[0][real], stored["mm_embeds"][real]), 2e-5)
    layers = [distance(x[real], stored["hidden_states"][i][real]) for i, x in enumerate(inputs)]
    yield Stage("D", "input of every layer", max(layers), 3e-5)
    found = [distance(b[real], stored[f"mmfs_output_layer_{i}"][real]) for i, b in zip((0, 4), branches, strict=True)]
    yield Stage("D", "gated MMFS branches", max(found), 3e-5)
    yield Stage("D", "last hidden state", distance(hidden[real], stored["last_hidden_state"][real]), 3e-5)
    yield Stage("D", "logits", distance(logits[real], stored["logits"][real]), 1e-4)
    losses = [abs(float(output.text_loss.mean()) - facts["losses"]["plain"])]
    for name in ("prompt_offset", "skip_text_without_image"):
        loss = F.cross_entropy(logits[:, :-1].transpose(1, 2), stored[f"labels_{name}"], ignore_index=plain.NONE)
        losses.append(abs(float(loss) - facts["losses"][name]))
    yield Stage("D", "text losses", max(losses), 2e-5)


def image_decoder(network: MMInterleaved) -> Iterator[Stage]:
    """The stages without stored numbers: ours in float32 against the plain formulas in float64."""
    case = ParityCase.of(network)
    batch, decoder = case.batch, case.decoder
    begin = context_starts(batch.text_ids, batch.image_row, batch.image_start, bos_token_id=BOS)

    def run() -> tuple[tuple[Tensor, ...], Tensor, dict[str, Tensor], StepLoss]:
        features = network.visual_tokenizer(batch.images)
        hidden, _ = network.encode(batch, features)
        contexts, mask = gather_contexts(hidden, batch.image_row, batch.image_start, begin)
        output = network(batch, case.draws)
        loss = weigh(output, LossConfig(), count_terms(output), image_denominator="official")
        return features.pyramid, decoder.condition(contexts, mask), case.gradients(loss.total), loss

    features = network.visual_tokenizer(batch.images)
    hidden, _ = network.encode(batch, features)
    conditions = torch.stack(case.conditions(hidden)).detach()
    place, tokens = case.places[1], conditions[1]
    noise, time = case.draws.noise[1], int(case.draws.timesteps[1])
    with torch.no_grad():
        prediction = case.unet()(noise.double(), time, tokens, case.additions(features.pyramid, place.previous))
        picture = case.picture(tokens, features.pyramid, place.previous, n_steps=10, scale=3.5, seed=5)
    text, image = case.losses()
    total = text + 10 * image
    expected = case.gradients(total)
    # In float64: in float32 a sampling point beside the edge of a cell may fall into the next, with another slope.
    gradients = run()[2]

    network.float()
    pyramid, found, _, loss = run()
    text, image, total = text.detach(), image.detach(), total.detach()
    yield Stage("formula", "condition tokens of the image decoder", distance(found, conditions), 2e-5)
    look = decoder.look_at(pyramid, torch.tensor([[place.previous]]), torch.tensor([[True]]))
    with torch.no_grad():
        ours = decoder.unet(noise[None], torch.tensor([time]), tokens.float()[None], look)
        drawn = decoder.sample(tokens.float()[None], look, ImageSampling(10, 3.5), [5])
    yield Stage("formula", "U-Net prediction with MMFS", distance(ours[0], prediction), 5e-5)
    yield Stage("formula", "text loss", abs(float(loss.text - text)), 2e-5)
    yield Stage("formula", "image loss, masked", abs(float(loss.image - image)), 2e-5)
    yield Stage("formula", "total loss (relative)", abs(float(loss.total.detach() / total) - 1), 2e-5)
    norms = [(float(gradients[n].norm()), float(g.norm())) for n, g in expected.items()]
    largest = max(norm for _, norm in norms)
    errors = [abs(a - b) / b for a, b in norms if b > 1e-5 * largest]
    yield Stage("formula", f"gradient norms, {len(errors)} parameters, float64 (relative)", max(errors), 1e-4)
    yield Stage("formula", "picture, 10 guided steps", distance(drawn[0], picture), 1e-4)


def measure() -> list[Stage]:
    """Measure all stages."""
    network = tiny_network("official")
    return [*operator(), *module(), *vision(network), *language(network), *image_decoder(network)]


def main() -> int:
    folder = shared_folder() / "golden"
    if not folder.exists():
        print(f"no golden numbers in {folder}; set MMI_SHARED to the folder that holds golden/.", file=sys.stderr)
        return 2
    stages = measure()
    width = max(len(stage.name) for stage in stages)
    print(f"{'set':<8}{'stage':<{width + 2}}{'worst error':>12}{'allowed':>10}")
    for stage in stages:
        print(
            f"{stage.source:<8}{stage.name:<{width + 2}}{stage.error:>12.2g}{stage.allowed:>10.2g}"
            + ("" if stage.holds else "  TOO LARGE")
        )
    return 0 if all(stage.holds for stage in stages) else 1


if __name__ == "__main__":
    raise SystemExit(main())
