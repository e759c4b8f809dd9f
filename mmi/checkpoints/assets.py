"""Fetch and check files from outside, by the manifest of ``mmi.config.assets``; only where a user asks for it.

A fetched asset notes in ``asset.json`` where it came from and the SHA-256 of every file, so that a later check finds
damage even where nobody publishes hashes.
"""

from __future__ import annotations

import json
import re
import shutil
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmi.checkpoints.storage import sha256, write_json
from mmi.config import ConfigError
from mmi.config.assets import Asset, matches

RECORD = "asset.json"
SCHEMA_VERSION = 1
Progress = Callable[[int, int], None]
"""Told bytes done and bytes in all (0 where unknown)."""
_BLOCK = 1 << 20


@dataclass(frozen=True)
class AssetState:
    """What was found of an asset.

    Args:
        state: ``absent``, ``whole`` (everything needed is there and nothing speaks against it) or ``wrong``.
        problems: Why it is wrong, a clause each.
        checked: What was compared: ``hash``, ``record``, ``config``; empty if there was nothing to compare with.
    """

    state: str
    problems: tuple[str, ...] = ()
    checked: tuple[str, ...] = ()


def verify_asset(asset: Asset, *, hashes: bool = True) -> AssetState:
    """Compare an asset on disk with the manifest and with what was noted when it was fetched.

    Args:
        asset: The asset.
        hashes: Read every file and compare its SHA-256; off compares names and ``config.json`` only.
    """
    folder = asset.folder
    missing = asset.missing()
    if len(missing) == len(asset.needs):
        return AssetState("absent")
    problems = [f"{pattern.replace('|', ' or ')} is missing" for pattern in missing]
    checked = []
    for file, expected in asset.config.items():
        if (folder / file).is_file():
            checked.append("config")
            problems += _disagreements(_read_json(folder / file), expected, file)
    if hashes:
        known = {name: (value, "the manifest") for name, value in asset.sha256.items()}
        noted = _noted(folder)
        checked += ["hash"] * bool(known) + ["record"] * bool(noted)
        # What the manifest says comes last: a note can only be as good as what was fetched.
        for name, (value, whose) in ({n: (v, "what was fetched") for n, v in noted.items()} | known).items():
            if not (folder / name).is_file():
                problems.append(f"{name} is missing")
            elif not sha256(folder / name).startswith(value):
                problems.append(f"{name} has another SHA-256 than {whose}")
    return AssetState("wrong" if problems else "whole", tuple(problems), tuple(dict.fromkeys(checked)))


def download_asset(asset: Asset, *, home: str | None = None, progress: Progress | None = None) -> Path:
    """Fetch an asset into its folder; what is there already is not fetched again, and a broken download goes on.

    Args:
        asset: The asset.
        home: Fetch from there instead of trying the manifest's homes in turn; of the same kinds.
        progress: Told how far a single file is; hub downloads have their own bars.

    Returns:
        Its folder.

    Raises:
        ConfigError: If no home has it, or what came is not what the manifest describes.
    """
    state = verify_asset(asset)
    if state.state == "whole" and home is None:
        return asset.folder
    # A hub's library may take a damaged file for the right one, and without network it takes whatever is there.
    for name, value in _noted(asset.folder).items():
        if (asset.folder / name).is_file() and sha256(asset.folder / name) != value:
            (asset.folder / name).unlink()
    failures = []
    for place in (home,) if home is not None else asset.homes:
        try:
            _fetch(asset, place, progress)
        except _NotThereError as error:
            failures.append(f"{place} ({error})")
            continue
        state = verify_asset(asset)
        if state.state == "whole":
            return asset.folder
        failures.append(f"{place} ({'; '.join(state.problems) or 'nothing came'})")
    raise ConfigError(
        f"asset {asset.name} could not be had: {', '.join(failures)}; bring it by hand to {asset.folder}, or give "
        "another home with --from."
    )


class _NotThereError(Exception):
    """A home that does not have the asset, or cannot be reached; the next one may."""


def _fetch(asset: Asset, home: str, progress: Progress | None) -> None:
    if home.startswith("hf:"):
        _from_hub(asset, home.removeprefix("hf:"))
    elif home.startswith("https://") or (home.startswith("http://") and asset.sha256):
        name = asset.save_as or (asset.needs[0] if len(asset.needs) == 1 else Path(home).name)
        _from_web(home, asset.folder / name, asset.sha256.get(name), progress)
    elif home.startswith("package:"):
        package = home.removeprefix("package:").partition("/")[0]
        raise _NotThereError(f'it comes with the package {package}: pip install "mmi[eval]"')
    elif home.startswith("modelscope:"):
        raise _NotThereError(f"https://modelscope.cn/models/{home.removeprefix('modelscope:')}, by hand")
    else:
        raise ConfigError(f"{home} is no home; expected hf:OWNER/NAME[@REVISION] or https://...")
    _note(asset, home)


def _from_hub(asset: Asset, repository: str) -> None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    name, _, revision = repository.partition("@")
    try:
        snapshot_download(name, revision=revision or None, local_dir=asset.folder, allow_patterns=list(asset.files))
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise _NotThereError(type(error).__name__) from error


def _from_web(address: str, target: Path, expected: str | None, progress: Progress | None) -> None:
    """Fetch one file to ``target.part`` and rename it when it is complete; a part that is there is continued."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    done = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={done}-"} if done else {})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - https only, see _fetch
            if answer.status != 206:
                done = 0
            total = done + int(answer.headers.get("Content-Length") or 0)
            with part.open("ab" if done else "wb") as file:
                while block := answer.read(_BLOCK):
                    file.write(block)
                    done += len(block)
                    if progress is not None:
                        progress(done, total)
    except urllib.request.HTTPError as error:
        if error.code == 416:  # the part is longer than the file: not a part of it
            part.unlink()
        raise _NotThereError(f"HTTP {error.code}") from error
    except OSError as error:
        raise _NotThereError(f"{type(error).__name__}; run it again to go on") from error
    if done < total:
        raise _NotThereError(f"the connection ended after {done} of {total} bytes; run it again to go on")
    if expected is not None and not sha256(part).startswith(expected):
        part.unlink()
        raise _NotThereError("what came has another SHA-256 than the manifest; it was removed")
    shutil.move(part, target)


def _noted(folder: Path) -> dict[str, str]:
    """Return the hashes of the files that were fetched into a folder; empty where nothing was.

    A folder can have come from a stranger with a note in it: names that lead out of the folder are not followed.
    """
    noted = _read_json(folder / RECORD).get("files")
    if not isinstance(noted, dict):
        return {}
    plain = {name: value for name, value in noted.items() if isinstance(value, str)}
    inside = folder.resolve()
    return {name: value for name, value in plain.items() if (folder / name).resolve().is_relative_to(inside)}


def _note(asset: Asset, home: str) -> None:
    """Write where the files came from and their hashes."""
    folder = asset.folder
    patterns = (*asset.files, *asset.needs)
    paths = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file())
    files = {path: sha256(folder / path) for path in paths if matches(path, patterns) and path != RECORD}
    write_json(folder / RECORD, {"schema_version": SCHEMA_VERSION, "home": home, "files": files})


def _read_json(file: Path) -> dict[str, Any]:
    """Return the object in a file of somebody else; empty if it holds none."""
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return tree if isinstance(tree, dict) else {}


def _disagreements(found: Any, expected: Mapping[str, Any], where: str) -> list[str]:
    """Say where a JSON file differs from what the manifest says of it.

    Example:
        >>> _disagreements({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}}, "config.json")
        ['config.json says b.c 2 instead of 3']
    """
    wrong = []
    for key, value in expected.items():
        there = found.get(key) if isinstance(found, Mapping) else None
        if isinstance(value, Mapping):
            wrong += [re.sub(" says ", f" says {key}.", text, count=1) for text in _disagreements(there, value, where)]
        elif there != value:
            wrong.append(f"{where} says {key} {json.dumps(there)} instead of {json.dumps(value)}")
    return wrong
