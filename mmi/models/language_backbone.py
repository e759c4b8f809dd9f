"""The pretrained part of the language model, as the ``transformers`` library builds it.

Every number comes from our own configuration, so that a run folder rebuilds the network without the weights it started
from. Weights from outside must have been made with the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from mmi.config import ConfigError, LanguageConfig, weight_place
from mmi.models.lora import add_lora
from mmi.models.pretrained import READ_ERRORS, first_line, quiet_library
from mmi.models.quantised import FrozenLinear, replace_linears
from mmi.models.text_head import TextHead

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
LAYER_PARTS = frozenset({"input_layernorm", "self_attn", "post_attention_layernorm", "mlp"})

# What decides the computation, by the library's name and ours. Fields without one of ours are fixed.
_COMPARED = {
    "model_type": "family",
    "vocab_size": "vocab_size",
    "hidden_size": "d_model",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "num_key_value_heads": "n_kv_heads",
    "head_dim": "d_head",
    "intermediate_size": "d_mlp",
    "max_position_embeddings": "max_positions",
    "rms_norm_eps": "norm_eps",
    "tie_word_embeddings": "tie_embeddings",
    "rope_parameters": "rope_theta and rope_scaling",
    "sliding_window": "sliding_window",
    "layer_types": "sliding_window and full_attention_layers",
    "hidden_act": None,
    "attention_bias": None,
    "mlp_bias": None,
}


@dataclass(frozen=True)
class Backbone:
    """The parts of a causal language model of the library, and what the whole gives on a short random sequence.

    Args:
        config: The library's configuration; its attention layers read the backend from it.
        embed_tokens: Embedding table of the base vocabulary.
        layers: Decoder layers.
        norm: Norm after the last layer.
        rotary: Positions to cos and sin.
        output: Hidden states to logits; shares its weight with the embedding table where the two are tied.
        probe: float[1, T, d] random embeddings; ``None`` on the meta device.
        expected: float[1, T, d] hidden states of the untouched model for them, after the final norm.
    """

    config: PreTrainedConfig
    embed_tokens: nn.Embedding
    layers: nn.ModuleList
    norm: nn.Module
    rotary: nn.Module
    output: nn.Module
    probe: Tensor | None
    expected: Tensor | None


def library_config(config: LanguageConfig) -> PreTrainedConfig:
    """Return the library's configuration for our numbers."""
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_theta}
    scaling = config.rope_scaling
    if scaling is not None:
        rope |= {"rope_type": scaling.kind, "factor": scaling.factor}
        if scaling.kind == "llama3":
            rope |= {
                "low_freq_factor": scaling.low_freq_factor,
                "high_freq_factor": scaling.high_freq_factor,
                "original_max_position_embeddings": scaling.original_max_positions,
            }
    window: dict[str, Any] = {}
    if config.family == "mistral":
        window = {"sliding_window": config.sliding_window}
    elif config.family in ("qwen2", "qwen3") and config.sliding_window is not None:
        window = {
            "use_sliding_window": True,
            "sliding_window": config.sliding_window,
            "max_window_layers": config.full_attention_layers,
        }
    return AutoConfig.for_model(
        config.family,
        vocab_size=config.vocab_size,
        hidden_size=config.d_model,
        num_hidden_layers=config.n_layers,
        num_attention_heads=config.n_heads,
        num_key_value_heads=config.n_kv_heads,
        head_dim=config.d_head,
        intermediate_size=config.d_mlp,
        max_position_embeddings=config.max_positions,
        rms_norm_eps=config.norm_eps,
        tie_word_embeddings=config.tie_embeddings,
        rope_parameters=rope,
        # Ids with a role are ours; with a padding id the library would zero that embedding row.
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        initializer_range=config.init_std,
        **window,
    )


def _value(config: PreTrainedConfig, name: str) -> Any:
    value = getattr(config, name, None)
    if name == "head_dim" and value is None:
        return config.hidden_size // config.num_attention_heads
    if name == "rope_parameters":
        # Files from before the library's version 5 say "type", which stays beside its new name.
        return {"rope_type": "default", **{k: v for k, v in (value or {}).items() if k != "type"}}
    return value


def check_numbers(config: LanguageConfig, theirs: PreTrainedConfig) -> None:
    """Make sure weights from outside were made with our numbers.

    Raises:
        ConfigError: Naming every number that differs.
    """
    ours = library_config(config)
    wrong = []
    for name, field in _COMPARED.items():
        found, expected = _value(theirs, name), _value(ours, name)
        if found != expected:
            setting = f"language.{field}" if field else "no setting"
            wrong.append(f"{name} {found!r} against {expected!r} ({setting})")
    if wrong:
        raise ConfigError(
            f"language.weights {config.weights} was made with other numbers than model.network.language: "
            f"{'; '.join(wrong)}; copy its numbers into the configuration."
        )


def load_backbone(config: LanguageConfig, *, load_weights: bool = True) -> Backbone:
    """Build the causal language model, from weights where the configuration names some, and take it apart.

    Args:
        config: Its numbers, and where weights come from.
        load_weights: False leaves random weights in place of pretrained ones, for a checkpoint that follows.

    Raises:
        ConfigError: If the weights cannot be read or have other numbers, if the attention backend is not available, or
            if a random model is to be frozen.
    """
    if load_weights and config.weights is None and config.frozen and not config.allow_frozen_random:
        raise ConfigError(
            "language.frozen is true but language.weights is null, so random weights would never be trained; set "
            "language.weights, or frozen: false, or allow_frozen_random: true for speed measurements."
        )
    model = _read(config, config.weights) if config.weights and load_weights else _at_random(config)
    base = model.base_model
    with as_if_trained(config, model.device):
        probe, expected = _probe(base)
    return Backbone(
        config=model.config,
        embed_tokens=model.get_input_embeddings(),
        layers=base.layers,
        norm=base.norm,
        rotary=base.rotary_emb,
        output=model.get_output_embeddings(),
        probe=probe,
        expected=expected,
    )


def _held_dtype(config: LanguageConfig) -> torch.dtype:
    """Return the type weights are read in; those to be held in 4 bits are rounded from it layer by layer."""
    return torch.get_default_dtype() if config.weights_dtype == "float32" else torch.bfloat16


def as_if_trained(config: LanguageConfig, device: torch.device) -> AbstractContextManager[object]:
    """Compute in mixed precision where weights are held in a lower type than what is trained, for self-checks."""
    if config.weights_dtype == "float32" or device.type == "meta":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def hold_frozen(config: LanguageConfig, layers: Sequence[nn.Module], head: TextHead) -> None:
    """Bring frozen weights into the form they are held in, and put LoRA beside them.

    Args:
        config: The form, and where LoRA goes.
        layers: Decoder layers of the library; with ``nf4`` their linear maps are rounded, the tables are not.
        head: Its output layer is computed from a weight of a lower type.
    """
    if config.weights_dtype != "float32":
        packed = config.weights_dtype == "nf4"
        for layer in layers:
            replace_linears(layer, lambda _, linear: FrozenLinear(linear, packed=packed))
        if isinstance(head.base, nn.Linear):
            head.base = FrozenLinear(head.base)
    if config.lora is not None:
        add_lora(layers, config.lora)


def _at_random(config: LanguageConfig) -> Any:
    try:
        return AutoModelForCausalLM.from_config(
            library_config(config), attn_implementation=config.attention_backend, dtype=_held_dtype(config)
        )
    except (ImportError, ValueError) as error:
        raise ConfigError(_backend_refused(config, error)) from error


def _read(config: LanguageConfig, weights: str) -> Any:
    place = weight_place(weights, "language.weights")
    check_numbers(config, read_numbers(weights, place))
    try:
        with quiet_library():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                place,
                config=library_config(config),
                attn_implementation=config.attention_backend,
                dtype=_held_dtype(config),
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except ImportError as error:
        raise ConfigError(_backend_refused(config, error)) from error
    except READ_ERRORS as error:
        if "attn_implementation" in str(error):
            raise ConfigError(_backend_refused(config, error)) from error
        raise ConfigError(
            f"language.weights {weights} has a config.json but no readable weights ({type(error).__name__}: "
            f"{first_line(error)}); download or copy the folder again."
        ) from error
    model, report = loaded
    _check_tensors(weights, report)
    return model


def read_numbers(weights: str, place: str) -> PreTrainedConfig:
    """Read the ``config.json`` of a model from outside; code that it brings is not looked at.

    Args:
        weights: The configuration entry, for messages.
        place: The folder or hub id it stands for.

    Raises:
        ConfigError: If there is none, or its layers are not of the kind that MMFS fits into.
    """
    try:
        found = PreTrainedConfig.get_config_dict(place)[0]
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"language.weights {weights} cannot be read; expected a folder with config.json and model weights, "
            f"or a hub id that can be reached ({type(error).__name__})."
        ) from error
    # Looked at before the library does: for a type it does not know it would offer to run the folder's code.
    kind = found.get("model_type")
    if kind not in FAMILIES:
        raise ConfigError(
            f"language.weights {weights} is a model of type {kind!r}, whose decoder layers are not known to be one "
            "norm before attention and one before the feed-forward, as MMFS needs them (and code from a folder is "
            f"never run); choose weights of type {', '.join(FAMILIES[:-1])} or {FAMILIES[-1]}."
        )
    if found.get("quantization_config") is not None:
        raise ConfigError(
            f"language.weights {weights} is quantised, which cannot be trained through; give the model's weights in "
            "float32, bfloat16 or float16."
        )
    return AutoConfig.from_pretrained(place)


def _check_tensors(weights: str, report: Any) -> None:
    """Every tensor of the folder must have its place, and every place a tensor of its shape."""
    unknown = sorted(key for key in report["unexpected_keys"] if not key.endswith("rotary_emb.inv_freq"))
    problems = (
        (sorted(report["missing_keys"]), "lacks", "the model needs"),
        (unknown, "holds", "its type of model has no place for"),
        ([f"{key} {list(a)} against {list(b)}" for key, a, b in report["mismatched_keys"]], "has", "of another shape"),
    )
    for keys, verb, words in problems:
        if keys:
            raise ConfigError(
                f"language.weights {weights} {verb} {len(keys)} tensors {words}, such as {keys[0]}; the folder is "
                "incomplete or of another kind of model."
            )


def _backend_refused(config: LanguageConfig, error: Exception) -> str:
    return (
        f"language.attention_backend {config.attention_backend!r} cannot be used here: {' '.join(str(error).split())}"
    )


@torch.no_grad()
def _probe(base: Any) -> tuple[Tensor | None, Tensor | None]:
    weight = base.embed_tokens.weight
    if weight.is_meta:
        return None, None
    probe = torch.randn(1, 6, weight.shape[1], generator=torch.Generator().manual_seed(0)).to(weight.device)
    with portable_attention(base.config):
        return probe, base(inputs_embeds=probe, use_cache=False).last_hidden_state


@contextmanager
def portable_attention(config: PreTrainedConfig) -> Iterator[None]:
    """Use eager attention where a kernel runs only on some devices and precisions, for self-checks."""
    chosen = config._attn_implementation
    if chosen not in ("eager", "sdpa"):
        config._attn_implementation = "eager"
    try:
        yield
    finally:
        config._attn_implementation = chosen


def check_layer_layout(layer: nn.Module) -> None:
    """Refuse decoder layers whose parts are not the four our own block calls.

    Raises:
        ConfigError: If a norm is missing or extra, as in gemma2 and gemma3.
    """
    parts = {name for name, _ in layer.named_children()}
    if parts != LAYER_PARTS:
        raise ConfigError(
            f"{type(layer).__name__} holds {', '.join(sorted(parts))}; a decoder layer with MMFS needs exactly "
            f"{', '.join(sorted(LAYER_PARTS))}, so choose a language.family out of llama, mistral, qwen2 and qwen3."
        )


def layer_kinds(config: PreTrainedConfig) -> tuple[str, ...]:
    """Say for each layer whether it attends to everything or through a sliding window."""
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        windowed = getattr(config, "sliding_window", None) is not None
        kinds = ["sliding_attention" if windowed else "full_attention"] * config.num_hidden_layers
    return tuple(kinds)
