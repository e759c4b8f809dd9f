"""The model card of a network that is passed on: its origin, its data, its scores, its limits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mmi.config import CompatConfig, NetworkConfig
from mmi.config.assets import PREFIX, read_assets

UNKNOWN_LICENCE = "not known here: see its source"
_OFFICIAL_DATA = (
    "The official system was trained on MMC4, LAION-2B-en, LAION-COCO, CC12M and Objects365 (as its paper says); what "
    "this very file was trained on only its authors know."
)


@dataclass(frozen=True)
class BaseWeights:
    """Weights a network starts from.

    Args:
        part: Which part of the network.
        name: Hub id, asset, or the last name of a local path.
        licence: A few words.
        hub_id: Where it can be had, if that is known.
    """

    part: str
    name: str
    licence: str
    hub_id: str | None = None


@dataclass(frozen=True)
class CardFacts:
    """What a card is written from.

    Args:
        name: Name of the model.
        network: Its architecture.
        compat: Defects of the official system that are followed.
        data: The ``data`` part of the run's configuration.
        step: Optimizer steps done.
        weights_sha256: Of ``model.safetensors`` in the run folder; scores of other weights are left out.
        n_parameters: Numbers in all tensors.
        converted: What ``conversion.json`` says, for a converted model.
        scores: Contents of ``score.json`` files.
    """

    name: str
    network: NetworkConfig
    compat: CompatConfig
    data: Mapping[str, Any]
    step: int
    weights_sha256: str
    n_parameters: int
    converted: Mapping[str, Any]
    scores: Sequence[Mapping[str, Any]]


def write_card(facts: CardFacts) -> str:
    """Return the card as Markdown with the hub's YAML head."""
    bases = base_weights(facts.network)
    parts = [
        _head(bases),
        f"# {facts.name}",
        _what_it_is(facts),
        "## Base weights and their licences",
        _weights_table(bases),
        "## Training data",
        "\n".join(_data_lines(facts)),
        "## Deviations from the official system",
        _deviations(facts),
        "## Scores",
        _scores(facts),
        "## Intended use",
        "Research on models that read and write interleaved text and images, and comparison with the published system. "
        "Not for decisions about people, and not where a wrong text or picture does harm.",
        "## Limits",
        _limits(facts),
    ]
    return "\n\n".join(parts) + "\n"


def base_weights(network: NetworkConfig) -> list[BaseWeights]:
    """Return the weights a configuration names, with their licences as far as the list of assets knows them."""
    decoder = network.image_decoder
    named = [("vision trunk", network.vision.trunk.weights), ("language model", network.language.weights)]
    if decoder.enabled:
        named += [("image decoder (U-Net)", decoder.unet.weights), ("autoencoder", decoder.codec.weights)]
    return [_base(part, weights) for part, weights in named if weights]


def without_local_paths(tree: Any) -> Any:
    """Return settings in which ``weights`` that are local paths are null: they mean nothing elsewhere."""
    if isinstance(tree, Mapping):
        return {k: None if k == "weights" and _is_local(v) else without_local_paths(v) for k, v in tree.items()}
    return [without_local_paths(item) for item in tree] if isinstance(tree, list) else tree


def _is_local(weights: object) -> bool:
    if not isinstance(weights, str):
        return False
    is_name = weights.count("/") == 1 and not weights.startswith((".", "/", "~")) and "\\" not in weights
    return not weights.startswith(PREFIX) and (not is_name or Path(weights).exists())


def _base(part: str, weights: str) -> BaseWeights:
    name = Path(weights).name if _is_local(weights) else weights
    for asset in read_assets().values():
        homes = [home.removeprefix("hf:").partition("@")[0] for home in asset.homes if home.startswith("hf:")]
        known = {asset.name, PREFIX + asset.name, *homes, *(home.partition("/")[2] for home in homes)}
        if name in known:
            return BaseWeights(part, name, asset.licence, homes[0] if homes else None)
    return BaseWeights(part, name, UNKNOWN_LICENCE, None if _is_local(weights) else weights)


def _head(bases: Iterable[BaseWeights]) -> str:
    import yaml

    hub_ids = list(dict.fromkeys(base.hub_id for base in bases if base.hub_id))
    tree: dict[str, Any] = {
        "library_name": "mmi",
        "pipeline_tag": "any-to-any",
        "license": "other",
        "license_name": "those-of-the-base-weights",
        "tags": ["mm-interleaved", "image-text-to-text", "text-to-image"],
    }
    if hub_ids:
        tree["base_model"] = hub_ids
    return "---\n" + yaml.safe_dump(tree, sort_keys=False) + "---"


def _what_it_is(facts: CardFacts) -> str:
    network = facts.network
    language, decoder = network.language, network.image_decoder
    draws = f"It draws pictures of {decoder.image_size} px." if decoder.enabled else "It draws no pictures."
    origin = f"{facts.step} optimizer steps were done in the run it comes from."
    if facts.converted:
        origin = "Converted from a checkpoint of the official implementation" + (
            f", then trained for {facts.step} steps." if facts.step else "; not trained further."
        )
    return (
        "A network that reads and writes documents in which text and images alternate "
        "([MM-Interleaved](https://arxiv.org/abs/2401.10208), re-implemented by mmi). "
        f"{facts.n_parameters / 1e6:,.1f} M parameters: {language.n_layers} {language.family} layers of width "
        f"{language.d_model}, pictures of {network.vision.image_size} px as {network.tokens_per_image} tokens each. "
        f"{draws} {origin}\n\n"
        "```python\nfrom mmi.inference import Generator\nfrom mmi.models.mm_interleaved import MMInterleaved\n\n"
        'model = Generator.from_pretrained("this/folder")         # texts and pictures in and out\n'
        'network = MMInterleaved.from_pretrained("this/folder")   # the network alone\n```'
    )


def _weights_table(bases: Sequence[BaseWeights]) -> str:
    if not bases:
        return "None: every part started at random. Code under Apache-2.0; the weights are the trainer's."
    lines = ["| part | started from | licence at the source |", "|---|---|---|"]
    lines += [f"| {_cell(b.part)} | {_cell(b.name)} | {_cell(b.licence)} |" for b in bases]
    lines.append(
        "\nThis model inherits all of these terms; licences change, and the text at the source is what counts. "
        "THIRD_PARTY.md of mmi says more. The code is Apache-2.0."
    )
    return "\n".join(lines)


def _data_lines(facts: CardFacts) -> list[str]:
    lines = [_OFFICIAL_DATA] if facts.converted else []
    sources = facts.data.get("train") or {}
    if isinstance(sources, Mapping) and sources:
        lines += [
            f"- {_cell(name)}: format {_cell(source.get('format', '?'))}, weight {_cell(source.get('weight', 1))}"
            for name, source in sources.items()
            if isinstance(source, Mapping)
        ]
    if not facts.converted and not lines:
        lines.append("Not recorded.")
    return lines


def _deviations(facts: CardFacts) -> str:
    lines = [
        "Defects of the official code are corrected unless a switch says `official` (`model.compat`):",
        "",
        "| switch | value |",
        "|---|---|",
    ]
    lines += [f"| `{f.name}` | {getattr(facts.compat, f.name)} |" for f in fields(facts.compat) if f.name != "preset"]
    lines += ["", "The two summands of the head's new rows are kept as their float32 sum; the autoencoder is float32."]
    assumed = facts.converted.get("assumed") or {}
    lines += [f"Assumed in the conversion: `{name}` = {value}." for name, value in assumed.items()]
    return "\n".join(lines)


def _scores(facts: CardFacts) -> str:
    own = [s for s in facts.scores if (s.get("checkpoint") or {}).get("sha256") == facts.weights_sha256]
    left_out = len(facts.scores) - len(own)
    note = f"{left_out} scores of other weights in the run folder are not shown." if left_out else ""
    if not own:
        return ("None were computed for these weights. " + note).strip()
    lines = ["| task | protocol | split | asked | value | score (95% interval) | n |", "|---|---|---|---|---|---|---|"]
    for score in own:
        task = f"{score['task']} v{score['version']}" + (" LIMITED" if score.get("limited") else "")
        for name, value in score["values"].items():
            factor = 100 if (score.get("units") or {}).get(name) == "percent" else 1
            best, low, high = (_number(value[key], factor) for key in ("value", "low", "high"))
            shown = f"{best} ({low} to {high})"
            cells = (task, score["protocol"], score.get("split"), score.get("condition_label"), name, shown, value["n"])
            lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    lines.append("\nLIMITED: not all samples were asked, so this is no benchmark score. " + note)
    return "\n".join(lines).rstrip()


def _limits(facts: CardFacts) -> str:
    lines = [
        f"- At most {facts.network.language.max_positions} tokens, images included.",
        "- It invents things, in texts and in pictures, and repeats what its base models learned from the web: "
        "stereotypes, wrong claims, styles of living artists.",
        "- Neither prompts nor pictures are filtered; nothing marks a drawn picture as drawn.",
    ]
    if facts.converted:
        lines.append(
            "- Converted weights give the official numbers within rounding; the paper's scores are not claimed."
        )
    return "\n".join(lines)


def _number(value: Any, factor: int) -> str:
    return "-" if value is None else f"{factor * float(value):.4g}"


def _cell(value: object) -> str:
    """Return text that cannot break out of a table cell or become markup."""
    text = " ".join(str(value).split())
    for special in "\\`|<>[]*_":
        text = text.replace(special, "\\" + special if special not in "<>" else {"<": "&lt;", ">": "&gt;"}[special])
    return text
