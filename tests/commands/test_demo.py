"""``mmi demo``: the page comes up, begins with the run's own prompts, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request

import pytest
from tiny_run import write_tiny_run

from mmi.cli import main
from mmi.commands.demo import _examples_of


def test_examples_are_the_first_texts_of_the_latest_panel(tmp_path):
    assert _examples_of(tmp_path) == []
    panel = tmp_path / "samples" / "step-4"
    panel.mkdir(parents=True)
    prompts = [["<image>", "What is it?", "a cat"], ["<image>"], ["Once.", "<image>"], ["Once."], ["long " * 50]]
    (panel / "answers.json").write_text(json.dumps({"samples": [{"prompt": prompt} for prompt in prompts]}))
    assert _examples_of(tmp_path) == ["What is it?", "Once."]


def test_without_the_page_library_the_extra_is_named(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["demo", "--run", "runs/toy"]) == 2
    assert 'pip install "mmi[demo]"' in capsys.readouterr().err


@pytest.mark.slow
def test_the_page_comes_up_and_leaves_nothing_behind(tmp_path):
    pytest.importorskip("gradio", reason='the page needs gradio: pip install "mmi[demo]"', exc_type=ImportError)
    write_tiny_run(tmp_path, {})
    (tmp_path / "tmp").mkdir()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path / "tmp")}
    arguments = [sys.executable, "-m", "mmi.cli", "demo", "--run", "runs/toy", "--port", "0", "--new-token"]
    with subprocess.Popen(
        arguments, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            url = re.search(r"http://127.0.0.1:\d+/\?token=\S+", line)
            assert url
            assert "No safety checker" in line
            opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
            with opener.open(url[0], timeout=60) as page:
                assert "token=" not in page.geturl()
                assert b"gradio_config" in page.read()
            assert list((tmp_path / "tmp").glob("mmi-demo-*"))
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM
        assert not list((tmp_path / "tmp").glob("mmi-demo-*"))
