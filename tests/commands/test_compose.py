"""Merging config files, overrides and interpolation."""

from __future__ import annotations

import pytest

from mmi.compose import compose, find_config, packaged_configs, parse_override
from mmi.config import ConfigError


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write files into an empty working directory."""
    monkeypatch.chdir(tmp_path)

    def _write(**files: str) -> None:
        for name, text in files.items():
            (tmp_path / f"{name}.yaml").write_text(text)

    return _write


def overrides(*words: str):
    return [parse_override(*word.split("=", 1)) for word in words]


def test_later_files_win_and_mappings_merge(write):
    write(a="data: {size: 1, sources: {x: {path: p}}}", b="data: {size: 2, sources: {y: {path: q}}}")
    assert compose(["a.yaml", "b.yaml"]) == {"data": {"size": 2, "sources": {"x": {"path": "p"}, "y": {"path": "q"}}}}


def test_lists_are_replaced_not_joined(write):
    write(a="run: {loggers: [csv, wandb]}", b="run: {loggers: [csv]}")
    assert compose(["a.yaml", "b.yaml"])["run"]["loggers"] == ["csv"]


def test_bases_come_before_the_file_that_names_them(write, tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "one.yaml").write_text("run: {name: one, a: 1}")
    (tmp_path / "parts" / "two.yaml").write_text("base: one\nrun: {name: two, b: 2}")
    write(main="base: [parts/two.yaml]\nrun: {name: main}")
    assert compose(["main.yaml"]) == {"run": {"name": "main", "a": 1, "b": 2}}


def test_a_base_may_be_a_packaged_config(write):
    write(main="base: model/tiny.yaml\nmodel: {compat: official}")
    model = compose(["main.yaml"])["model"]
    assert model["compat"] == "official"
    assert model["network"]["language"]["d_model"] > 0


@pytest.mark.parametrize("name", ["demo", "demo.yaml", "configs/demo.yaml"])
def test_packaged_configs_are_found_from_an_empty_directory(write, name):
    write()
    assert find_config(name) == packaged_configs() / "demo.yaml"


def test_interpolation_sees_other_files_and_the_command_line(write):
    write(a="model: {size: 32}", b="data: {size: '${model.size}', path: '${run.folder}/x'}\nrun: {folder: runs}")
    assert compose(["a.yaml", "b.yaml"])["data"] == {"size": 32, "path": "runs/x"}
    assert compose(["a.yaml", "b.yaml"], overrides("model.size=64"))["data"]["size"] == 64


def test_a_mapping_on_the_command_line_replaces_and_null_removes_a_source(write):
    write(a="data: {train: {x: {path: p, weight: 2}, y: {path: q}}}")
    assert compose(["a.yaml"], overrides("data.train={z: {path: r}}"))["data"]["train"] == {"z": {"path": "r"}}
    assert compose(["a.yaml"], overrides("data.train.x={path: r}"))["data"]["train"]["x"] == {"path": "r"}
    assert list(compose(["a.yaml"], overrides("data.train.x=null"))["data"]["train"]) == ["y"]


def test_a_later_file_may_remove_a_source_too(write):
    write(a="data: {val: {x: {path: p}, y: {path: q}}}", b="data: {val: {x: null}}")
    assert list(compose(["a.yaml", "b.yaml"])["data"]["val"]) == ["y"]


def test_yaml_merge_keys_work(write):
    write(a="model: &m {x: 1, y: 2}\nrun: {<<: *m, y: 3}")
    assert compose(["a.yaml"])["run"] == {"x": 1, "y": 3}


def test_numbers_in_scientific_notation_are_numbers_and_dates_are_text(write):
    write(a="run: {rate: 1e-4, when: 2024-01-02, id: 1e3x}")
    assert compose(["a.yaml"])["run"] == {"rate": 1e-4, "when": "2024-01-02", "id": "1e3x"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("model: {a: 1", r"a.yaml line \d+: .*fix the YAML", id="unclosed"),
        pytest.param("model: 1\nmodel: 2", "a.yaml line 2: the key model is given twice", id="twice"),
        pytest.param("- 1\n- 2", "a.yaml holds a list; expected keys such as", id="list"),
        pytest.param("base: 3", "base is 3; expected a file name", id="base"),
        pytest.param("base: nowhere/at_all", "a.yaml: base: no config file nowhere/at_all", id="absent base"),
        pytest.param("base: a.yaml", "includes itself through base: a.yaml -> a.yaml", id="circle"),
        pytest.param("run: {x: '${data.nothing}'}", "run.x: .*data.nothing", id="interpolation"),
        pytest.param("run: {x: '${a'}", r"run.x: .*expected \${a.b.c}", id="open interpolation"),
        pytest.param("run: {~: 1}", "a.yaml line 1: the key None is no name", id="nameless key"),
        pytest.param("? [a]\n: 1", "a.yaml line 1: the key .* is no name", id="list as key"),
        pytest.param("run: {x: '???'}", "run.x must be set, for example with --run.x=VALUE", id="mandatory"),
    ],
)
def test_a_bad_file_is_one_sentence(write, text, message):
    write(a=text)
    with pytest.raises(ConfigError, match=message) as caught:
        compose(["a.yaml"])
    assert "\n" not in str(caught.value)


def test_a_list_over_a_mapping_is_refused(write):
    write(a="data: {train: {x: {path: p}}}", b="data: {train: [p]}")
    with pytest.raises(ConfigError, match=r"data\.train is a list in one config file and holds keys in another"):
        compose(["a.yaml", "b.yaml"])


def test_a_missing_file_names_the_nearest_packaged_one(write):
    write()
    with pytest.raises(ConfigError, match=r"no config file configs/dmo.yaml; did you mean demo.yaml\?"):
        compose(["configs/dmo.yaml"])


def test_setting_below_a_plain_value_is_refused(write):
    write(a="model: {compat: official}")
    with pytest.raises(ConfigError, match=r"model\.compat is 'official', not a mapping"):
        compose(["a.yaml"], overrides("model.compat.preset=corrected"))


def test_a_malformed_value_on_the_command_line_is_refused():
    with pytest.raises(ConfigError, match="cannot be read as YAML"):
        parse_override("data.train", "{a: ")
    with pytest.raises(ConfigError, match="single dots"):
        parse_override("data..train", "1")
