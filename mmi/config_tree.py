"""Plain YAML types to typed configuration objects and back, strictly.

A misspelt key or a wrong type is one sentence that names the key, the value and what was expected (STYLE, third
sentence to remember). Everything that reads a configuration goes through here: the command line, run folders, tests.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from mmi.config import ConfigError

T = TypeVar("T")
_PLAIN_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}
_REQUIRED = inspect.Parameter.empty


def from_tree(cls: type[T], tree: object, where: str = "", *, start: T | None = None) -> T:
    """Build a dataclass from plain types, nested dataclasses included.

    A nested mapping that names some fields leaves the others as its owner has them, not as the nested class has them:
    ``image_decoder: {resampler: {n_tokens: 5}}`` changes one number of the decoder's resampler.

    Args:
        cls: The dataclass, possibly frozen.
        tree: A mapping of its fields. An instance of ``cls`` is returned as it is.
        where: Dotted name of this part of the configuration, for messages.
        start: What holds where the tree says nothing; ``None`` takes the defaults of the class.

    Raises:
        ConfigError: On an unknown or missing key, a wrong type, or a value the class itself refuses.

    Example:
        >>> from mmi.config import LossConfig
        >>> from_tree(LossConfig, {"image_weight": 5}, "model.loss")
        LossConfig(text_weight=1.0, image_weight=5.0)
        >>> from_tree(LossConfig, {"image_wieght": 5}, "model.loss")
        Traceback (most recent call last):
        mmi.config.checks.ConfigError: unknown key model.loss.image_wieght; did you mean image_weight?
    """
    if isinstance(tree, cls):
        return tree
    values = arguments_from_tree(cls, tree, where, start=start)
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}" if where else str(error)) from error
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{where or cls.__name__}: {error}") from error


def arguments_from_tree(
    constructor: Callable[..., object], tree: object, where: str = "", *, start: object = None
) -> dict[str, Any]:
    """Check a mapping against a constructor's signature and return its typed keyword arguments.

    Args:
        constructor: A class or function whose parameters are annotated.
        tree: A mapping of parameter names to plain types.
        where: Dotted name of this part of the configuration, for messages.
        start: An instance whose attributes hold where the tree says nothing.

    Raises:
        ConfigError: On an unknown key, a missing one without a default, or a wrong type.
    """
    known = parameters(constructor)
    if start is not None:
        known = {name: (hint, getattr(start, name)) for name, (hint, _) in known.items()}
    if not isinstance(tree, Mapping):
        hint = " (leave the key out to keep the defaults)" if tree is None else ""
        raise ConfigError(f"{_named(where)} is {_shown(tree)}; expected keys such as {_listed(known)}{hint}.")
    for key in tree:
        if key not in known:
            raise ConfigError(unknown_key(_join(where, key), known, elsewhere=_deeper(known, str(key), where)))
    for name, (_, default) in known.items():
        if default is _REQUIRED and name not in tree:
            raise ConfigError(f"{_join(where, name)} is missing; it has no default.")
    values = {name: default for name, (_, default) in known.items() if start is not None}
    return values | {
        key: _convert(value, known[key][0], _join(where, key), known[key][1]) for key, value in tree.items()
    }


def parameters(constructor: Callable[..., object]) -> dict[str, tuple[Any, Any]]:
    """Return the annotated type and the default (``inspect.Parameter.empty`` for none) of every parameter."""
    is_class = inspect.isclass(constructor)
    if is_class and dataclasses.is_dataclass(constructor):
        hints = get_type_hints(constructor)
        return {f.name: (hints[f.name], _field_default(f)) for f in dataclasses.fields(constructor) if f.init}
    hints = get_type_hints(constructor.__init__ if is_class else constructor)
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    signature = inspect.signature(constructor).parameters.values()
    return {p.name: (hints.get(p.name, Any), p.default) for p in signature if p.kind in kinds}


def _field_default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return _REQUIRED if field.default is dataclasses.MISSING else field.default


def to_tree(value: object) -> Any:
    """Return a configuration object as plain YAML types: mappings, lists, text, numbers, booleans and None.

    Raises:
        TypeError: If it holds anything else.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_tree(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, Mapping):
        return {str(key): to_tree(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_tree(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise TypeError(f"a configuration cannot hold {type(value).__name__}; expected plain types.")


def unknown_key(name: str, known: Iterable[str], elsewhere: str | None = None) -> str:
    """Return the sentence for a key nobody knows, with the nearest valid names."""
    if elsewhere is not None and not nearest(name.rpartition(".")[2], known):
        return f"unknown key {name}; did you mean {elsewhere}?"
    return f"unknown key {name}; {did_you_mean(name.rpartition('.')[2], known)}"


def did_you_mean(name: str, known: Iterable[str], what: str = "keys") -> str:
    """Return ``did you mean x?``, or the list of known names where none is near."""
    known = list(known)
    close = nearest(name, known)
    return f"did you mean {' or '.join(close)}?" if close else f"known {what}: {', '.join(known) or 'none'}."


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Return the one or two known names most like ``name``, best first; none if nothing is near."""
    close = difflib.get_close_matches(name, list(known), n=2, cutoff=0.6)
    ratio = [difflib.SequenceMatcher(None, name, match).ratio() for match in close]
    return [match for match, score in zip(close, ratio, strict=True) if score >= ratio[0] - 0.05]


def _deeper(known: Mapping[str, tuple[Any, Any]], name: str, where: str) -> str | None:
    """Find a field of that exact name inside the nested dataclasses, for a key written one level too high."""
    for key, (hint, _) in known.items():
        for cls in _dataclasses_in(hint):
            inner = parameters(cls)
            place = _join(where, key)
            found = _join(place, name) if name in inner else _deeper(inner, name, place)
            if found:
                return found
    return None


def _dataclasses_in(hint: Any) -> list[type]:
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return [o for o in options if inspect.isclass(o) and dataclasses.is_dataclass(o)]


def _convert(value: Any, hint: Any, where: str, default: Any = None) -> Any:
    """Return ``value`` as the annotated type, or raise the sentence that says what was expected.

    ``default`` is what the owner would use; a mapping for a nested dataclass starts from it.
    """
    origin = get_origin(hint)
    if hint is Any or hint is object:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(value, hint, where, default)
    if dataclasses.is_dataclass(hint) and inspect.isclass(hint):
        return from_tree(hint, value, where, start=default if isinstance(default, hint) else None)
    if origin is Literal:
        for choice in get_args(hint):
            if value == choice and type(value) is type(choice):
                return choice
        near = nearest(value, map(str, get_args(hint))) if isinstance(value, str) else []
        extra = f"; did you mean {near[0]}?" if near else "."
        raise ConfigError(f"{where} is {_shown(value)}; expected {_described(hint)}{extra}")
    if _is_array(hint):
        return _convert_array(value, hint, where)
    if (origin or hint) in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise _wrong(value, hint, where)
        inner = (get_args(hint) or (str, Any))[1]
        return {str(key): _convert(item, inner, _join(where, key)) for key, item in value.items()}
    return _convert_scalar(value, hint, where)


def _convert_union(value: Any, hint: Any, where: str, default: Any) -> Any:
    options = get_args(hint)
    if value is None and type(None) in options:
        return None
    if isinstance(value, Mapping):
        nested = [o for o in options if _dataclasses_in(o) or get_origin(o) in (dict, Mapping)]
        if nested:
            return _convert(value, nested[0], where, default)
    rest = [o for o in options if o is not type(None)]
    if len(rest) == 1:
        return _convert(value, rest[0], where)
    # Exact types first, so that 3 under `float | int` stays a whole number and "4" under `int | str` stays text.
    for option in sorted(rest, key=lambda o: type(value) is not o):
        if _dataclasses_in(option) and not isinstance(value, option):
            continue
        try:
            return _convert(value, option, where)
        except ConfigError:
            continue
    raise _wrong(value, hint, where)


def _is_array(hint: Any) -> bool:
    return (get_origin(hint) or hint) in (tuple, list, Sequence, typing.Sequence)


def _convert_array(value: Any, hint: Any, where: str) -> Any:
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise _wrong(value, hint, where)
    inner = get_args(hint)
    is_list = (get_origin(hint) or hint) is list
    if is_list or len(inner) < 2 or inner[1] is Ellipsis:
        each = [inner[0] if inner else Any] * len(value)
    else:
        each = list(inner)
    if len(each) != len(value):
        raise ConfigError(f"{where} has {len(value)} entries; expected {len(each)}.")
    items = [_convert(v, h, f"{where}[{i}]") for i, (v, h) in enumerate(zip(value, each, strict=True))]
    return items if is_list else tuple(items)


def _convert_scalar(value: Any, hint: Any, where: str) -> Any:
    if hint is float and not isinstance(value, bool):
        number = _as_float(value)
        if number is not None:
            return number
    elif hint is Path and isinstance(value, (str, Path)):
        return Path(value)
    elif inspect.isclass(hint) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise _wrong(value, hint, where)


def _as_float(value: object) -> float | None:
    """Read a number; YAML 1.1 takes ``1e-4`` for text, so number-like text counts."""
    try:
        number = float(value) if isinstance(value, (int, float, str)) else None
    except ValueError:
        return None
    return None if number is None or math.isnan(number) else number


def _wrong(value: object, hint: Any, where: str) -> ConfigError:
    return ConfigError(f"{where} is {_shown(value)}; expected {_described(hint)}.")


def _shown(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, str):
        return f'the text "{value}"'
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _described(hint: Any) -> str:
    origin, inner = get_origin(hint), get_args(hint)
    if hint in _PLAIN_WORDS:
        return _PLAIN_WORDS[hint]
    if hint is type(None):
        return "null"
    if origin is Literal:
        return ("one of " if len(inner) > 1 else "") + ", ".join(str(choice) for choice in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(_described(option) for option in inner)
    if _is_array(hint):
        return f"a list (each {_described(inner[0])})" if inner else "a list"
    if (origin or hint) in (dict, Mapping):
        return "a mapping"
    if inspect.isclass(hint) and dataclasses.is_dataclass(hint):
        return f"the keys of {hint.__name__}"
    return getattr(hint, "__name__", str(hint))


def _join(where: str, key: object) -> str:
    return f"{where}.{key}" if where else str(key)


def _named(where: str) -> str:
    return where or "the configuration"


def _listed(known: Iterable[str]) -> str:
    return ", ".join(list(known)[:4])
