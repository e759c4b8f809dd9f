"""The manifest of files from outside, and where they lie: what ``asset:NAME`` in a config means.

Only names and places: nothing here opens a connection (see ``mmi.checkpoints.assets``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from mmi.config.checks import ConfigError

PREFIX = "asset:"
HOME_KINDS = ("hf:", "https://", "package:", "modelscope:")


@dataclass(frozen=True)
class Asset:
    """One file or folder from outside.

    Args:
        name: What configs call it.
        purpose: What it is for.
        licence: The licence at its source, in a few words.
        homes: Where it can be had, best first; see ``HOME_KINDS``.
        needs: Patterns of files that must be there; ``a|b`` is one of the two.
        size_gb: About how much is fetched, in 10^9 bytes, where that is known.
        files: Patterns of what is fetched from a hub.
        save_as: Name of a single file from the web.
        config: What its JSON files must say, by file.
        sha256: Hashes of files, in full or their beginning.
        note: What else one should know.
    """

    name: str
    purpose: str
    licence: str
    homes: tuple[str, ...]
    needs: tuple[str, ...]
    size_gb: float | None = None
    files: tuple[str, ...] = ()
    save_as: str | None = None
    config: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sha256: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    @property
    def folder(self) -> Path:
        """Where it lies: in the folder of its package, or below ``assets_folder``."""
        packaged = _package_file(self.homes)
        return packaged.parent if packaged is not None else assets_folder() / self.name

    def missing(self, folder: Path | None = None) -> tuple[str, ...]:
        """Return the patterns of ``needs`` that no file in ``folder`` (its own by default) matches."""
        folder = self.folder if folder is None else folder
        return tuple(p for p in self.needs if not any(any(folder.glob(part)) for part in p.split("|")))


def assets_folder() -> Path:
    """Return ``$MMI_ASSETS``, or a folder of the user's cache."""
    chosen = os.environ.get("MMI_ASSETS")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmi" / "assets"


def read_assets(file: Path | None = None) -> dict[str, Asset]:
    """Read the manifest.

    Args:
        file: Another manifest; the packaged one by default.

    Raises:
        ConfigError: If an entry is incomplete or names a home of an unknown kind.
    """
    import yaml

    file = file or Path(__file__).with_name("assets.yaml")
    assets: dict[str, Asset] = {}
    for name, entry in yaml.safe_load(file.read_text(encoding="utf-8")).items():
        try:
            plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
            asset = Asset(name, **plain)
        except TypeError as error:
            raise ConfigError(f"asset {name} of {file.name}: {error}.") from error
        strange = [home for home in asset.homes if not home.startswith(HOME_KINDS)]
        if strange or not asset.homes:
            raise ConfigError(f"asset {name} has the homes {list(asset.homes)}; expected {', '.join(HOME_KINDS)}...")
        assets[name] = asset
    return assets


def find_asset(name: str) -> Asset:
    """Return the asset of that name.

    Raises:
        ConfigError: If there is none; the sentence names the nearest.
    """
    assets = read_assets()
    if name not in assets:
        near = get_close_matches(name, assets, n=2, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known assets: {', '.join(assets)}."
        raise ConfigError(f'no asset "{name}"; {hint}')
    return assets[name]


def weight_place(weights: str, where: str) -> str:
    """Return the folder, file or hub id that a ``weights`` entry means.

    Args:
        weights: A path, a hub id, or ``asset:NAME``; only the last is changed, but for a leading ``~``.
        where: The configuration entry, for messages.

    Raises:
        ConfigError: If it is an asset that is unknown or not on this machine.

    Example:
        >>> weight_place("owner/model", "language.weights")
        'owner/model'
    """
    if not weights.startswith(PREFIX):
        return str(Path(weights).expanduser()) if weights.startswith("~") else weights
    asset = find_asset(weights.removeprefix(PREFIX))
    missing = asset.missing()
    if missing:
        raise ConfigError(
            f"{where} is {weights}, but {asset.folder} has no {missing[0].replace('|', ' or ')}; run: mmi assets "
            f"download {asset.name}, or set {where} to a folder of yours."
        )
    return str(asset.folder / asset.save_as) if asset.save_as else str(asset.folder)


def matches(path: str, patterns: tuple[str, ...]) -> bool:
    """Say whether a relative path matches one of the patterns, each of which may be ``a|b``."""
    return any(fnmatch(path, part) for pattern in patterns for part in pattern.split("|"))


def _package_file(homes: tuple[str, ...]) -> Path | None:
    """Return the file of an installed package that one of the homes names, without importing the package."""
    from importlib.util import find_spec

    for home in homes:
        if home.startswith("package:"):
            package, _, inner = home.removeprefix("package:").partition("/")
            spec = find_spec(package)
            for root in (spec.submodule_search_locations or ()) if spec is not None else ():
                if (Path(root) / inner).is_file():
                    return Path(root) / inner
    return None
