"""``mmi doctor``: what this machine offers, what is missing, and how to mend it."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from mmi.commands.arguments import Arguments
from mmi.config import ConfigError, weight_place
from mmi.errors import DONE, EXTRA_OF_PACKAGE, FAILED

_DESCRIPTION = """\
Check this machine: versions, devices, threads, the operator's backend, Java, disk, shared memory, optional packages;
with --config also the data and weights that config names. Every problem comes with its fix (then exit code 1)."""
_EXAMPLE = """\
mmi doctor
mmi doctor --config configs/demo.yaml --json"""
_FREE_DISK_GB = 10
_SHARED_MEMORY_GB = 1
_WHAT_JAVA_IS_FOR = "only the caption metrics of the eval extra use it"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        name: What was looked at.
        state: ``problem`` stops something that mmi does; ``note`` is worth knowing.
        found: What is there.
        fix: What to do about it; empty where nothing needs doing.
    """

    name: str
    state: Literal["ok", "note", "problem"]
    found: str
    fix: str = ""


def run(command: str, argv: Sequence[str]) -> int:
    """Print the findings."""
    parser = Arguments(command, _DESCRIPTION, _EXAMPLE, takes_configs=True)
    parser.add_argument("--json", action="store_true", help="print JSON")
    line = parser.read(argv)
    findings = [*check_packages(), *check_devices(), *check_machine(), *check_extras()]
    if line.options.config or line.overrides:
        from mmi.commands.settings import settings_from_command_line

        findings += check_config(settings_from_command_line(line))
    problems = [finding for finding in findings if finding.state == "problem"]
    print(json.dumps([asdict(f) for f in findings], indent=1) if line.options.json else _page(findings))
    return FAILED if problems else DONE


def check_packages() -> Iterator[Finding]:
    """Compare Python and the installed packages with what the project asks for."""
    yield Finding("python", "ok", f"{platform.python_version()} ({platform.system()} {platform.machine()})")
    try:
        needed = requires("mmi") or []
        yield Finding("mmi", "ok", version("mmi"))
    except PackageNotFoundError:
        yield Finding("mmi", "problem", "not installed", 'run: pip install -e ".[dev]"')
        return
    from packaging.requirements import Requirement

    for text in needed:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        fix = f'run: pip install "{requirement}"'
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            yield Finding(requirement.name, "problem", "not installed", fix)
            continue
        fits = requirement.specifier.contains(found, prereleases=True)
        state = "ok" if fits else "problem"
        yield Finding(
            requirement.name, state, found if fits else f"{found}, outside {requirement.specifier}", "" if fits else fix
        )


def check_devices() -> Iterator[Finding]:
    """Name the devices and the operator's backend on the one that would be used."""
    try:
        import torch
        import torchvision  # noqa: F401 - its import fails where it does not fit torch

        from mmfs import active_backend
        from mmfs.backends import FUSED
    except (ImportError, RuntimeError, OSError) as error:
        problem = " ".join(str(error).split())[:200]
        yield Finding(
            "torch", "problem", problem, "install torch and torchvision together: pip install torch torchvision"
        )
        return
    device = "cpu"
    if torch.cuda.is_available():
        device = "cuda"
        for index in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(index)
            yield Finding(f"cuda:{index}", "ok", f"{about.name}, {about.total_memory / 2**30:.0f} GiB")
    elif torch.backends.mps.is_available():
        device = "mps"
        yield Finding("mps", "ok", "Apple GPU")
    else:
        yield Finding("gpu", "note", "none; the small configs train on a CPU, the full-size ones do not")
    threads, cores = torch.get_num_threads(), _usable_cores()
    fits = threads <= cores
    fix = "" if fits else f"set OMP_NUM_THREADS={cores}"
    yield Finding("threads", "ok" if fits else "note", f"{threads} for torch on {cores} usable cores", fix)
    for kind in dict.fromkeys((device, "cpu")):  # an evaluation may run on the CPU of a machine with a GPU
        backend, reason = active_backend(kind)
        name = "operator" if kind == device else f"operator on {kind}"
        yield Finding(name, "ok" if backend in FUSED else "note", f"{backend}: {reason}")


def check_machine() -> Iterator[Finding]:
    """Look at memory, disk, shared memory and Java."""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        yield Finding("memory", "ok", f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB")
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    few = free < _FREE_DISK_GB
    fix = "free some, or set run.folder to another disk; checkpoints stop a run when it is full" if few else ""
    yield Finding("disk", "problem" if free < 1 else "note" if few else "ok", f"{free:.0f} GiB free here", fix)
    shared = Path("/dev/shm")  # noqa: S108 - looked at, not written to
    if shared.is_dir():
        size = shutil.disk_usage(shared).free / 2**30
        small = size < _SHARED_MEMORY_GB
        fix = "start the container with --shm-size=8g, or set data.num_workers=0" if small else ""
        yield Finding("shared memory", "note" if small else "ok", f"{size:.1f} GiB free for data workers", fix)
    java = shutil.which("java")
    fix = "" if java else f"install a Java runtime (17 or newer) if you need it; {_WHAT_JAVA_IS_FOR}"
    yield Finding("java", "ok" if java else "note", java or "not found", fix)


def check_extras() -> Iterator[Finding]:
    """Say which optional packages are there."""
    for extra in dict.fromkeys(EXTRA_OF_PACKAGE.values()):
        packages = [package for package, owner in EXTRA_OF_PACKAGE.items() if owner == extra]
        absent = [package for package in packages if find_spec(package) is None]
        fix = f'if you need it: pip install "mmi[{extra}]"' if absent else ""
        found = f"without {', '.join(absent)}" if absent else ", ".join(packages)
        yield Finding(f"extra {extra}", "note" if absent else "ok", found, fix)


def check_config(tree: Mapping[str, Any]) -> Iterator[Finding]:
    """Look for the tokenizer, every data source and every weights entry of a config."""
    from mmi.commands.settings import section
    from mmi.config_tree import from_tree
    from mmi.data.row_streams import open_for_reading
    from mmi.data.sources import SourceConfig
    from mmi.tokens import Tokenizer

    data = section(tree, "data")
    if data.get("tokenizer") is not None:
        try:
            place = weight_place(str(data["tokenizer"]), "data.tokenizer")
            yield Finding("data.tokenizer", "ok", f"{Tokenizer.load(place).vocab_size} entries")
        except (OSError, ValueError) as error:
            yield Finding("data.tokenizer", "problem", str(error), "see there")
    for table in ("train", "val"):
        for name, source in section({f"data.{table}": data.get(table)}, f"data.{table}").items():
            key = f"data.{table}.{name}"
            try:
                opened = open_for_reading(name, from_tree(SourceConfig, source, key), 0, where=key)
                yield Finding(key, "ok", opened.told)
            except ConfigError:
                raise
            except (OSError, ValueError) as error:
                yield Finding(
                    key, "problem", " ".join(str(error).split()), f"set --{key}.path, or --{key}=null to leave it out"
                )
    yield from _check_weights(tree, "")


def _check_weights(tree: Mapping[str, Any], where: str) -> Iterator[Finding]:
    for key, value in tree.items():
        place = f"{where}.{key}" if where else key
        if isinstance(value, Mapping):
            yield from _check_weights(value, place)
        elif key == "weights" and isinstance(value, str):
            yield _check_one_weight(place, value)


def _check_one_weight(place: str, value: str) -> Finding:
    if value.startswith("asset:"):
        return _check_asset(place, value)
    if Path(value).expanduser().exists():
        return Finding(place, "ok", value)
    if value.count("/") != 1 or value.startswith((".", "/", "~")):
        return Finding(place, "problem", f"{value} does not exist", f"set {place} to a folder or a hub id")
    from huggingface_hub import try_to_load_from_cache

    for file in ("config.json", "model_index.json"):
        if isinstance(try_to_load_from_cache(value, file), str):
            return Finding(place, "ok", f"{value}, in the local hub cache")
    return Finding(place, "note", f"{value} is downloaded at first use", "without network: set it to a local folder")


def _check_asset(place: str, value: str) -> Finding:
    from mmi.checkpoints.assets import verify_asset
    from mmi.config.assets import find_asset

    asset = find_asset(value.removeprefix("asset:"))
    state = verify_asset(asset, hashes=False)
    if state.state == "whole":
        return Finding(place, "ok", f"{value} in {asset.folder}")
    fix = f"run: mmi assets download {asset.name}, or set {place} to a folder of yours"
    return Finding(place, "problem", f"{value} is {state.state}" + "".join(f", {p}" for p in state.problems), fix)


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _page(findings: Sequence[Finding]) -> str:
    width = max(len(finding.name) for finding in findings)
    marks = {"ok": "ok     ", "note": "note   ", "problem": "PROBLEM"}
    lines = []
    for finding in findings:
        lines.append(f"{marks[finding.state]}  {finding.name:<{width}}  {finding.found}")
        if finding.fix:
            lines.append(f"{'':{width + 11}}fix: {finding.fix}")
    n_problems = sum(finding.state == "problem" for finding in findings)
    lines.append(f"{n_problems} problems." if n_problems != 1 else "1 problem.")
    return "\n".join(lines)
