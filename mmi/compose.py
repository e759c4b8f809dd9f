"""Several config files and command-line settings to one tree of plain types.

Merge order: ``base:`` includes, ``--config`` files left to right, command-line overrides, and only then interpolation,
so that ``${model.network.vision.image_size}`` sees what the command line set. Mappings of files merge key by key; on
the command line a mapping replaces what was there, and ``null`` removes a data source.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from mmi.config import ConfigError
from mmi.config_tree import nearest
from mmi.errors import UsageError

CONFIG_ROOTS = ("seed_everything", "trainer", "model", "data", "run")
EVALUATION_ROOTS = ("tasks", "suites", "conditions")
"""The roots of an evaluation config, which is no part of a run's."""
PATHS = "paths"
"""One more root, for names of folders used as ``${paths.world}`` elsewhere; gone once everything is resolved."""
_SOURCE_TABLES = ("train", "val")


@dataclass(frozen=True)
class Override:
    """One setting from the command line, its value already read as YAML."""

    key: str
    value: Any


def parse_override(key: str, text: str) -> Override:
    """Read the value of ``--key=text`` as YAML.

    Raises:
        UsageError: If the text is not YAML or a part of the key is empty.

    Example:
        >>> parse_override("trainer.max_steps", "100")
        Override(key='trainer.max_steps', value=100)
        >>> parse_override("model.optimizer.learning_rate", "1e-4").value
        0.0001
    """
    import yaml

    if not all(key.split(".")):
        raise UsageError(f"--{key} is no setting; expected names with single dots, as in --data.batch_size.")
    try:
        return Override(key, yaml.load(text, _loader()))  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ConfigError) as error:
        raise UsageError(f"--{key}={text} cannot be read as YAML; quote it if it is text.") from error


def compose(configs: Sequence[str | Path], overrides: Iterable[Override] = ()) -> dict[str, Any]:
    """Merge config files and overrides and resolve every interpolation.

    Args:
        configs: Files of the user, or names of packaged ones such as ``demo`` or ``model/tiny.yaml``.
        overrides: Settings from the command line, left to right.

    Raises:
        ConfigError: If a file is missing or malformed, includes itself, or an interpolation leads nowhere.
    """
    return settle(gather(configs), overrides)


def gather(configs: Sequence[str | Path]) -> dict[str, Any]:
    """Merge config files with their includes, interpolations as they are written; the first half of ``compose``.

    Raises:
        ConfigError: If a file is missing or malformed, or includes itself.
    """
    return _merge([tree for name in configs for tree in _with_bases(find_config(name), ())])


def settle(merged: Mapping[str, Any], overrides: Iterable[Override] = ()) -> dict[str, Any]:
    """Return what ``gather`` returned with overrides on top and everything resolved; the second half of ``compose``.

    Raises:
        ConfigError: If an override leads into a value that is no mapping, or an interpolation leads nowhere.
    """
    tree = deepcopy(dict(merged))
    for override in overrides:
        _set(tree, override)
    resolved = _interpolate(tree)
    resolved.pop(PATHS, None)
    _drop_removed_sources(resolved)
    return resolved


def find_config(name: str | Path, beside: Path | None = None) -> Path:
    """Return the file meant by a ``--config`` or ``base:`` name.

    Looked up in this order: beside the including file, as a path, among the packaged configs (with or without
    ``configs/`` in front and ``.yaml`` behind).

    Raises:
        ConfigError: If there is no such file; the sentence names the nearest packaged one.
    """
    path = Path(name).expanduser()
    packaged = packaged_configs()
    inner = Path(*path.parts[1:]) if len(path.parts) > 1 and path.parts[0] == "configs" else path
    candidates = [beside / path] if beside is not None else []
    candidates += [path, packaged / inner]
    for candidate in candidates:
        for file in (candidate, candidate.with_name(candidate.name + ".yaml")):
            if file.is_file():
                return file
    known = [file.relative_to(packaged).as_posix() for file in sorted(packaged.rglob("*.yaml"))]
    near = nearest(inner.as_posix(), known) or nearest(inner.name, [Path(k).name for k in known])
    hint = f"did you mean {' or '.join(near)}?" if near else "packaged configs lie in " + str(packaged) + "."
    raise ConfigError(f"no config file {name}; {hint}")


def packaged_configs() -> Path:
    """Return the folder of the configs that come with the package: inside a wheel, beside ``mmi/`` in a checkout."""
    here = Path(__file__).resolve().parent
    inside = here / "_configs"
    return inside if inside.is_dir() else here.parent / "configs"


def load_yaml(path: Path) -> dict[str, Any]:
    """Read one YAML mapping; duplicate keys are refused and ``1e-4`` is a number.

    Raises:
        ConfigError: If the file cannot be read, is malformed or holds no mapping.
    """
    import yaml

    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), _loader())  # noqa: S506 - a SafeLoader
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no text file in UTF-8; expected YAML.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "malformed YAML"
        raise ConfigError(f"{path}{line}: {problem}; fix the YAML there or just above.") from error
    except ConfigError as error:
        raise ConfigError(f"{path} {error}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} holds a {type(tree).__name__}; expected keys such as {', '.join(CONFIG_ROOTS)}.")
    return tree


def _with_bases(path: Path, open_files: tuple[Path, ...]) -> list[dict[str, Any]]:
    """Return the trees of a file's ``base:`` includes, then its own."""
    path = path.resolve()
    if path in open_files:
        circle = " -> ".join(file.name for file in (*open_files[open_files.index(path) :], path))
        raise ConfigError(f"{path} includes itself through base: {circle}; remove one of them.")
    tree = load_yaml(path)
    bases = tree.pop("base", None) or []
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"{path}: base is {bases!r}; expected a file name or a list of them.")
    included: list[dict[str, Any]] = []
    for base in bases:
        try:
            found = find_config(base, beside=path.parent)
        except ConfigError as error:
            raise ConfigError(f"{path}: base: {error}") from error
        included += _with_bases(found, (*open_files, path))
    return [*included, tree]


def _merge(trees: Sequence[dict[str, Any]]) -> dict[str, Any]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    place = next((clash for one, other in combinations(trees, 2) if (clash := _clash(one, other))), None)
    if place is not None:
        raise ConfigError(f"{place} is a list in one config file and holds keys in another; use the same in both.")
    try:
        merged: Any = OmegaConf.to_container(OmegaConf.merge({}, *trees))
    except OmegaConfBaseException as error:
        raise _unresolved(error) from error
    return merged


def _clash(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """Return the dotted name of a setting that is a list in one tree and a mapping in the other."""
    for key in one.keys() & other.keys():
        left, right = one[key], other[key]
        if {type(left), type(right)} == {dict, list}:
            return str(key)
        if isinstance(left, dict) and isinstance(right, dict) and (inner := _clash(left, right)):
            return f"{key}.{inner}"
    return None


def _set(tree: dict[str, Any], override: Override) -> None:
    *parents, last = override.key.split(".")
    node = tree
    for depth, name in enumerate(parents):
        child = node.get(name)
        if child is None:
            child = node[name] = {}
        if not isinstance(child, dict):
            place = ".".join(parents[: depth + 1])
            raise ConfigError(f"--{override.key}: {place} is {child!r}, not a mapping; set --{place} as a whole.")
        node = child
    node[last] = override.value


def _interpolate(tree: dict[str, Any]) -> dict[str, Any]:
    from omegaconf import OmegaConf
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    try:
        resolved = OmegaConf.to_container(OmegaConf.create(tree), resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        key = getattr(error, "full_key", None) or "a setting"
        raise ConfigError(f"{key} must be set, for example with --{key}=VALUE.") from error
    except OmegaConfBaseException as error:
        raise _unresolved(error) from error
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def _unresolved(error: Exception) -> ConfigError:
    key = getattr(error, "full_key", None) or "a setting"
    problem = str(error).strip().splitlines()[0].rstrip(".")
    return ConfigError(f"{key}: {problem}; expected ${{a.b.c}} with the full name of a setting.")


def _drop_removed_sources(tree: dict[str, Any]) -> None:
    data = tree.get("data")
    if not isinstance(data, dict):
        return
    for table in _SOURCE_TABLES:
        sources = data.get(table)
        if isinstance(sources, Mapping):
            data[table] = {name: source for name, source in sources.items() if source is not None}


def _loader() -> Any:
    """Return a ``SafeLoader`` that refuses keys given twice or without a name; ``1e-4`` is a number, dates are text."""
    import re

    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen: set[object] = set()
            for key_node, _ in node.value:
                if key_node.tag == "tag:yaml.org,2002:merge":
                    continue
                key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
                if not isinstance(key, (str, int, float)):
                    raise ConfigError(f"line {line}: the key {key!r} is no name; expected text such as data.")
                if key in seen:
                    raise ConfigError(f"line {line}: the key {key} is given twice.")
                seen.add(key)
            return super().construct_mapping(node, deep=deep)

    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    number = re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)([eE][-+]?\d+)$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+.0123456789"))
    return Loader
