"""The layout rules: imports point downwards, files stay short, names say what they mean."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.util import resolve_name
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"mmi": ROOT / "mmi", "mmfs": ROOT / "ops" / "mmfs", "mmi_eval": ROOT / "evaluation" / "mmi_eval"}

# What each layer may import of our own packages, besides itself. The longest matching name decides.
SHARED = {"mmi.config", "mmi.tokens", "mmi.batch"}
MAY_IMPORT: dict[str, set[str]] = {
    "mmfs": set(),
    "mmi_eval": set(),
    "mmi_eval.formats": set(),
    "mmi": set(),  # mmi/__init__.py
    "mmi.config": SHARED,
    "mmi.tokens": SHARED,
    "mmi.batch": SHARED,
    "mmi.config_tree": {"mmi.config"},
    "mmi.errors": {"mmi.config"},
    "mmi.compose": {"mmi.config", "mmi.config_tree", "mmi.errors"},
    "mmi.models": {"mmfs", "mmi.config_tree", *SHARED},
    "mmi.data": {"mmi_eval.formats", *SHARED},
    "mmi.checkpoints": {"mmi.models", "mmi.config_tree", *SHARED},
    "mmi.planning": {"mmi.models", *SHARED},
    # Parameter groups are chosen by module (STYLE section 7), so training knows the class MMFS.
    "mmi.training": {"mmfs", "mmi.models", "mmi.data", "mmi.checkpoints", "mmi.config_tree", "mmi.errors", *SHARED},
    "mmi.inference": {"mmi.models", "mmi.data", "mmi.checkpoints", "mmi.config_tree", *SHARED},
    "mmi.inspection": {"mmfs", "mmi_eval", "mmi.models", "mmi.data", "mmi.inference", *SHARED},
    "mmi.serving": {
        "mmi_eval.report",
        "mmi.models",
        "mmi.data",
        "mmi.inference",
        "mmi.inspection",
        "mmi.config_tree",
        *SHARED,
    },
    # Runs commands in processes of their own and reads what they leave.
    "mmi.ablation": {
        "mmi_eval",
        "mmi.models",
        "mmi.data.sources",
        "mmi.checkpoints",
        "mmi.planning",
        "mmi.inference",
        "mmi.compose",
        "mmi.config_tree",
        "mmi.errors",
        *SHARED,
    },
    "mmi.commands": {"mmi", "mmfs", "mmi_eval"},
    "mmi.cli": {"mmi.config", "mmi.config_tree", "mmi.errors", "mmi.commands"},
}

# Libraries from outside that a layer must not know (none of its files, however deep, but those of MAY_IMPORT_TOO).
MAY_NOT_IMPORT: dict[str, set[str]] = {
    "mmfs": {"transformers", "diffusers", "lightning", "torchvision", "numpy", "PIL", "omegaconf", "jsonargparse"},
    "mmi_eval": {"lightning", "pytorch_lightning"},
    "mmi_eval.formats": {"torch", "torchvision", "lightning", "transformers", "diffusers", "pandas"},
    "mmi.config": {"torch", "transformers", "diffusers", "lightning", "omegaconf", "numpy"},
    "mmi.tokens": {"torch", "transformers", "diffusers", "lightning"},
    "mmi.batch": {"transformers", "diffusers", "lightning"},
    "mmi.models": {"lightning", "pytorch_lightning", "omegaconf", "jsonargparse", "wandb", "torchmetrics"},
    "mmi.data": {"transformers", "diffusers", "omegaconf", "jsonargparse", "wandb"},
    "mmi.checkpoints": {"wandb", "omegaconf", "jsonargparse"},
    "mmi.inference": {"lightning", "omegaconf", "jsonargparse", "wandb"},
    "mmi.ablation": {"lightning", "transformers", "diffusers", "omegaconf", "jsonargparse", "matplotlib"},
    "mmi.inspection": {"lightning", "omegaconf", "jsonargparse", "wandb", "matplotlib"},
}

MAY_IMPORT_TOO = {"mmfs.cpu": {"numpy"}}  # the flat arrays of Numba, which depends on it

# Modules that are on the way to ``mmi --help`` and may import at their top only the standard library and each other.
LIGHT = ("mmi", "mmi.cli", "mmi.compose", "mmi.config", "mmi.config_tree", "mmi.errors", "mmi.tokens", "mmi.commands")

BANNED_NAMES = {"utils", "util", "helpers", "helper", "misc", "common", "tools", "base", "manager"}
BANNED_CLASS_ENDINGS = ("Manager", "Helper", "Base", "Utils", "_v2", "V2")
MAX_LINES = 400
MAX_FUNCTION_LINES = 60


def modules() -> list[tuple[str, Path]]:
    """Every module of the three packages with its dotted name."""
    found = []
    for package, folder in PACKAGES.items():
        for file in sorted(folder.rglob("*.py")):
            parts = file.relative_to(folder).with_suffix("").parts
            found.append((".".join((package, *(p for p in parts if p != "__init__"))), file))
    return found


MODULES = modules()
NAMES = {name for name, _ in MODULES}


def imports_of(name: str, file: Path, *, top_level_only: bool = False) -> set[str]:
    """Dotted names a module imports; ``from a import b`` counts as ``a.b`` where that is a module of ours."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            source = resolve_name("." * node.level + (node.module or ""), package)
            full = {f"{source}.{alias.name}" for alias in node.names}
            found |= {module if module in NAMES else source for module in full}
    return found


def layer_of(name: str) -> str:
    """The entry of the table a module belongs to: the longest that is the module or a package around it."""
    if name == "mmi":
        return "mmi"
    owners = [layer for layer in MAY_IMPORT if layer != "mmi" and within(name, layer)]
    assert owners, f"{name} belongs to no layer; add it to the table of STYLE section 1 and to MAY_IMPORT"
    return max(owners, key=len)


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


@pytest.mark.parametrize(("name", "file"), MODULES, ids=[name for name, _ in MODULES])
def test_imports_point_downwards(name, file):
    layer = layer_of(name)
    for imported in imports_of(name, file):
        if not any(within(imported, package) for package in PACKAGES) or within(imported, layer):
            continue
        allowed = any(within(imported, lower) for lower in MAY_IMPORT[layer])
        assert allowed, f"{name} imports {imported}; layer {layer} may import {sorted(MAY_IMPORT[layer])}"


@pytest.mark.parametrize(("name", "file"), MODULES, ids=[name for name, _ in MODULES])
def test_layers_do_not_know_libraries_above_them(name, file):
    excused = {library for layer, also in MAY_IMPORT_TOO.items() if within(name, layer) for library in also}
    for layer, banned in MAY_NOT_IMPORT.items():
        if within(name, layer):
            known = {imported.partition(".")[0] for imported in imports_of(name, file)} & banned - excused
            assert not known, f"{name} imports {sorted(known)}, which {layer} must not know"


@pytest.mark.parametrize(("name", "file"), MODULES, ids=[name for name, _ in MODULES])
def test_files_and_functions_stay_short(name, file):
    text = file.read_text(encoding="utf-8")
    is_kernel = name.startswith("mmfs.") and any(word in name for word in ("triton", "cpu"))
    assert is_kernel or text.count("\n") <= MAX_LINES, f"{name} has {text.count(chr(10))} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not is_kernel:
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            docstring = ast.get_docstring(node, clean=False)
            lines -= docstring.count("\n") + 1 if docstring else 0
            assert lines <= MAX_FUNCTION_LINES, f"{name}.{node.name} has {lines} lines; look for the missing noun"


@pytest.mark.parametrize(("name", "file"), MODULES, ids=[name for name, _ in MODULES])
def test_names_say_what_things_are(name, file):
    assert file.stem not in BANNED_NAMES, f"{name}: a file name must say what is in it"
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef):
            assert not node.name.endswith(BANNED_CLASS_ENDINGS), f"{name}.{node.name}: not a noun of the field"


@pytest.mark.parametrize(("name", "file"), MODULES, ids=[name for name, _ in MODULES])
def test_nothing_is_evaluated_or_unpickled(name, file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        assert called not in {"eval", "exec", "pickle.load", "pickle.loads", "yaml.unsafe_load"}, f"{name}: {called}"
        if called == "torch.load":
            safe = {k.arg: ast.unparse(k.value) for k in node.keywords}.get("weights_only")
            assert safe == "True", f"{name} line {node.lineno}: torch.load needs weights_only=True"
        if called.endswith("from_pretrained"):
            trust = {k.arg for k in node.keywords} & {"trust_remote_code"}
            assert not trust, f"{name} line {node.lineno}: code from hubs is not run"


def test_every_package_folder_is_in_the_table():
    for layer in MAY_IMPORT:
        top = layer.split(".")[0]
        path = PACKAGES[top].joinpath(*layer.split(".")[1:])
        assert path.is_dir() or path.with_suffix(".py").is_file(), f"{layer} is in the table but not in the tree"


@pytest.mark.parametrize("name", LIGHT)
def test_the_way_to_help_imports_only_light_modules(name):
    file = dict(MODULES)[name]
    for imported in imports_of(name, file, top_level_only=True):
        standard = imported.partition(".")[0] in sys.stdlib_module_names
        assert standard or any(within(imported, light) for light in LIGHT), f"{name} imports {imported} at its top"


def test_help_loads_no_heavy_library():
    script = (
        "import sys, mmi.cli\n"
        "code = mmi.cli.main(['--help'])\n"
        "heavy = {'torch', 'numpy', 'lightning', 'transformers', 'diffusers', 'yaml', 'omegaconf', 'PIL', 'rich'}\n"
        "sys.exit(code or sorted(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "mmi fit" in done.stdout
