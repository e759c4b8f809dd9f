"""``mmi serve``: wrong options are a sentence; the server answers and stops when it is told to."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from tiny_run import write_tiny_run

from mmi.cli import main

RUN = ["--run", "runs/toy"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    write_tiny_run(folder, {})
    (folder / "token.txt").write_text("correct-horse-battery\n")
    (folder / "short.txt").write_text("secret")
    return folder


@pytest.mark.parametrize("command", ["serve"])
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "--run"),
        ([*RUN, "--max-queue-length", "0"], "queue_length is 0"),
        ([*RUN, "--token-file", "short.txt"], "is no token"),
        ([*RUN, "--token-file", "token.txt", "--new-token"], "exclude each other"),
        ([*RUN, "--wording", "no mark"], "{question}"),
        ([*RUN, "--port", "70000"], "choose another --host or --port"),
        (["--run", "nowhere"], "nowhere"),
        ([*RUN, "--safety-checker", "token.txt"], "safety_checker"),
        ([*RUN, "--max-new-token", "3"], "did you mean --max-new-tokens"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) and value else "",
)
def test_a_wrong_option_is_one_sentence(workplace, monkeypatch, capsys, command, options, says):
    monkeypatch.chdir(workplace)
    assert main([command, *options, *([] if "--port" in options else ["--port", "0"])]) == 2
    told = capsys.readouterr().err
    assert says in told
    assert len(told.strip().splitlines()) == 1


def test_a_token_that_was_left_empty_opens_nothing(workplace, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("MMI_TOKEN", "")
    assert main(["serve", *RUN, "--port", "0"]) == 2
    assert "the token of MMI_TOKEN is no token" in capsys.readouterr().err


def test_a_port_that_is_taken_is_named(workplace, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    with socket.create_server(("127.0.0.1", 0)) as own:
        port = own.getsockname()[1]
        assert main(["serve", *RUN, "--port", str(port)]) == 2
    assert f"can't listen at 127.0.0.1:{port}" in capsys.readouterr().err


@pytest.mark.slow
def test_it_serves_until_it_is_told_to_stop(workplace):
    arguments = [sys.executable, "-m", "mmi.cli", "serve", *RUN, "--port", "0", "--token-file", "token.txt"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        arguments, cwd=workplace, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert "No safety checker" in line
            url = re.search(r"http://127.0.0.1:\d+", line)
            assert url
            body = json.dumps({"messages": [{"role": "user", "content": "hello"}], "max_images": 0}).encode()
            headers = {"Content-Type": "application/json", "Authorization": "Bearer correct-horse-battery"}
            asked = urllib.request.Request(f"{url[0]}/v1/chat/completions", body, headers)
            with urllib.request.urlopen(asked, timeout=60) as answer:
                assert json.load(answer)["choices"][0]["message"]["role"] == "assistant"
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(f"{url[0]}/v1/models", timeout=60)
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
