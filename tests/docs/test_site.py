"""The documentation: links and anchors lead somewhere, pictures have texts, examples run, the site can be built."""

from __future__ import annotations

import importlib.util
import re
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from markdown.extensions.toc import slugify

from mmi_eval.tasks import TASKS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
CODE = re.compile(r"^( *`{3,}).*?^\1$|(`+)[^`\n]+\2", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")
HTML_PICTURE = re.compile(r'<img\b(?:[^>"]|"[^"]*")*>')
RUN_BY_TESTS = ("extend.md", "operator.md")


@pytest.fixture(scope="module")
def site() -> ModuleType:
    """What the site does beside mkdocs."""
    spec = importlib.util.spec_from_file_location("site_pages", DOCS / "site_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["site_pages"] = module
    spec.loader.exec_module(module)
    return module


def documents() -> list[Path]:
    found = [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "ops").rglob("*.md"), ROOT / "evaluation" / "README.md"]
    found += [path for path in (ROOT / "experiments").rglob("*.md") if path.name in ("README.md", "card.md")]
    return sorted(found)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def words_of(path: Path) -> str:
    """The text of a document without its code."""
    return CODE.sub("", path.read_text(encoding="utf-8"))


@cache
def anchors_of(path: Path) -> set[str]:
    text = re.sub(r"^( *`{3,}).*?^\1$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#{1,6} +(.+?)\s*$", text, re.MULTILINE)
    return {slugify(re.sub(r"[`*]", "", heading), "-") for heading in headings}


def dead_links(path: Path) -> list[str]:
    """Links of a document, within the repository, that lead nowhere."""
    dead = []
    for _, _, link in LINK.findall(words_of(path)):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = (path.parent / place).resolve() if place else path
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors_of(target)):
            dead.append(link)
    return dead


@pytest.mark.parametrize("path", documents(), ids=name_of)
def test_links_and_anchors_lead_somewhere(path):
    assert dead_links(path) == []


@pytest.mark.parametrize("path", documents(), ids=name_of)
def test_pictures_have_a_text_and_a_file(path):
    pictures = [(text, link) for mark, text, link in LINK.findall(words_of(path)) if mark]
    for tag in HTML_PICTURE.findall(words_of(path)):
        about = dict(re.findall(r'(\w+)="([^"]*)"', tag))
        pictures.append((about.get("alt", ""), about["src"]))
    for text, source in pictures:
        assert len(text.split()) >= 3, f"{source} needs a text that says what is seen"
        assert (path.parent / source).is_file(), source


def test_a_link_or_anchor_that_leads_nowhere_is_found(tmp_path):
    (tmp_path / "there.md").write_text("# A heading: `code`\n")
    page = tmp_path / "page.md"
    page.write_text("[a](there.md#a-heading-code) [b](there.md#none) [c](gone.md) `[d](gone.md)`\n")
    assert dead_links(page) == ["there.md#none", "gone.md"]


def test_every_page_is_in_the_navigation():
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))

    def pages(entry: Any) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        return [page for part in (entry.values() if isinstance(entry, dict) else entry) for page in pages(part)]

    assert sorted(pages(settings["nav"])) == sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


def test_the_site_is_built_so_that_a_dead_link_stops_it():
    (line,) = re.findall(r"^\t.*mkdocs build.*$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert "--strict" in line
    assert "--quiet" not in line, "warnings that are not told are not counted"


def test_reference_names_every_task():
    text = (DOCS / "api" / "mmi_eval.md").read_text(encoding="utf-8")
    for name, task in TASKS.items():
        assert f"### {name}\n\n::: {task.__module__}\n" in text
        assert f"members: [{task.__name__}]" in text


def test_reference_names_everything_mmfs_offers():
    import mmfs

    text = (DOCS / "api" / "mmfs.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^::: mmfs\.(\w+)$", text, re.MULTILINE)) == set(mmfs.__all__)


@pytest.mark.parametrize("name", RUN_BY_TESTS)
def test_python_of_the_page_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", (DOCS / name).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert blocks
    page = ModuleType("page")  # dataclasses look up the module of their class
    monkeypatch.setitem(sys.modules, "page", page)
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"{name}, block {number}", "exec"), vars(page))


@pytest.mark.parametrize("path", documents(), ids=name_of)
def test_examples_are_well_formed(path):
    text = path.read_text(encoding="utf-8")
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if language == "python":
            compile(block, name_of(path), "exec")
        if language == "yaml":
            yaml.safe_load(block)


def test_an_experiment_written_in_the_documents_is_read(tmp_path):
    from mmi.ablation.experiment import read_experiment

    page = (DOCS / "reproduce.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    folder = tmp_path / "experiments" / "my_question"
    folder.mkdir(parents=True)
    (folder / "experiment.yaml").write_text(block)
    (folder.parent / "recipes").symlink_to(ROOT / "experiments" / "recipes")
    experiment = read_experiment(folder, "small")
    assert [row.label for row in experiment.rows]
    assert not experiment.missing_columns


def test_the_config_for_own_pictures_leaves_no_other_source(tmp_path):
    from mmi.compose import compose
    from mmi.config_tree import from_tree
    from mmi.data.sources import SourceConfig

    page = (DOCS / "own_data.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "photos.yaml").write_text(block)
    data = compose([tmp_path / "photos.yaml"])["data"]
    assert list(data["train"]) == ["photos"]
    assert not data["val"]
    assert from_tree(SourceConfig, data["train"]["photos"], "data.train.photos").format == "folder"


def test_the_ablations_listed_are_those_there_are():
    page = (DOCS / "reproduce.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `(\w+)` \| (?:\d+\w?|open) \|", page, re.MULTILINE))
    files = (ROOT / "experiments").glob("*/experiment.yaml")
    assert listed == {f.parent.name for f in files if "axes" in yaml.safe_load(f.read_text(encoding="utf-8"))}


def test_links_of_the_repository_become_links_of_the_site(site):
    known = {"training.md", "api/mmfs.md", "project/ops/README.md"}
    assert site.with_site_links("[a](../ops/)", DOCS / "page.md", "page.md", known) == "[a](project/ops/README.md)"
    text = "[a](../ops/README.md#files) [b](training.md) [c](../Makefile) `[d](x)` [e](https://x.org) [f](gone.md)"
    found = site.with_site_links(text, DOCS / "page.md", "page.md", known)
    assert found == (
        "[a](project/ops/README.md#files) [b](training.md) c (`Makefile`) `[d](x)` [e](https://x.org) [f](gone.md)"
    )
    text = '[a](../docs/training.md) <img alt="x" src="operator.png">'
    found = site.with_site_links(text, ROOT / "ops" / "README.md", "project/ops/README.md", known)
    assert found == '[a](../../training.md) <img alt="x" src="operator.png">'


def test_formulas_need_no_script(site):
    page = (DOCS / "operator.md").read_text(encoding="utf-8")
    found = site.with_formulas(page)
    assert found.count('display="block"') == 1
    assert found.count("<mtr>") == 5
    assert "$" not in CODE.sub("", found)


@pytest.mark.parametrize(
    ("html", "fault"),
    [
        ('<img src="a.png">', "no alt text"),
        ('<img src="a.png" alt=" ">', "no alt text"),
        ('<img src="https://x.org/a.png" alt="a picture">', "fetches"),
        ('<script src="//x.org/a.js"></script>', "fetches"),
        ('<link rel="stylesheet" href="https://x.org/a.css">', "fetches"),
        ('<a href="https://x.org">x</a><img src="a.png" alt="a picture"><script src="a.js"></script>', None),
    ],
)
def test_what_no_page_may_have_is_found(site, html, fault):
    found = list(site.faults(html))
    assert len(found) == (fault is not None)
    assert fault is None or fault in found[0]
