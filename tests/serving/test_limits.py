"""Limits are positive, and what is measured is what Prometheus reads."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from mmi.commands.served_model import _LIMITS
from mmi.config import ConfigError
from mmi.serving.limits import Limits
from mmi.serving.measurements import Measurements


def test_a_limit_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="queue_length is 0"):
        Limits(queue_length=0)


def test_the_options_of_the_commands_say_the_limits_own_defaults():
    own = {field.name: field.default for field in fields(Limits)}
    assert {name: default for name, (default, _) in _LIMITS.items()} == own


def test_every_limit_stands_in_the_table_of_the_document():
    document = (Path(__file__).parents[2] / "docs" / "serve.md").read_text(encoding="utf-8")
    table = "".join(line for line in document.splitlines() if line.startswith("| `--max-"))
    assert set(re.findall(r"`--max-([a-z-]+)`", table)) == {field.name.replace("_", "-") for field in fields(Limits)}


def test_measurements_are_written_as_prometheus_reads_them():
    measured = Measurements()
    measured.count("requests", labels={"route": 'a"b\n', "status": "200"})
    measured.count("requests", 2, {"route": "c", "status": "200"})
    measured.took("answer_seconds", 0.3)
    measured.took("answer_seconds", 400)
    measured.watch("depth", "How deep.", lambda: 7)
    text = measured.text()
    line = re.compile(r'(# (HELP|TYPE) \w+ .+|\w+(\{\w+="([^"\\\n]|\\.)*"(,\w+="([^"\\\n]|\\.)*")*\})? \S+)')
    assert all(line.fullmatch(each) for each in text.splitlines())
    assert r'mmi_requests_total{route="a\"b\n",status="200"} 1' in text
    assert measured.total("requests", {"status": "200"}) == 3
    buckets = [int(n) for n in re.findall(r"mmi_answer_seconds_bucket\S+ (\d+)", text)]
    assert buckets == sorted(buckets)
    assert (buckets[0], buckets[-2], buckets[-1]) == (0, 1, 2)
    assert "mmi_depth 7" in text
    with pytest.raises(KeyError, match="no counter"):
        measured.count("typo")
