"""Whatever is wrong with a command line, the user gets one sentence, exit code 2 and no traceback."""

from __future__ import annotations

import pytest

from mmi.cli import COMMANDS, main
from mmi.data.microworld import write_world

SMOKE = ["--config", "smoke", "--run.folder=runs"]
ONLY = ["--data.val=null"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A working directory with the data of ``configs/smoke.yaml``."""
    folder = tmp_path_factory.mktemp("wrong")
    write_world(folder / "data" / "smoke-world", size=4)
    (folder / "malformed.yaml").write_text("model: {compat: official\nrun: {name: x}\n")
    (folder / "note.txt").write_text("no picture")
    picture = next((folder / "data").rglob("*.png")).read_bytes()
    (folder / "tars").mkdir()
    (folder / "tars" / "0.tar").write_bytes(b"<html>404</html>" * 100)
    (folder / "cut.png").write_bytes(picture[: len(picture) // 2])
    for name, data, caption in (("latin", picture, b"caf\xe9"), ("halves", picture[:200], b"whole")):
        (folder / name).mkdir()
        (folder / name / "a.png").write_bytes(data)
        (folder / name / "a.txt").write_bytes(caption)
    (folder / "list.yaml").write_text("data: {train: [1]}")
    (folder / "open.yaml").write_text("run: {name: '${a'}")
    (folder / "null.yaml").write_text("data: {~: 1}")
    (folder / "key.yaml").write_text("? [a]\n: 1")
    (folder / "bad.json").write_text("{")
    return folder


WRONG = {
    "no such command": (["fitt"], "unknown command", "did you mean fit?"),
    "config before the command": (["--config", "x.yaml", "fit"], 'write "mmi fit --config', "the command comes first"),
    "no config at all": (["fit"], "no config given", "--config FILE"),
    "misspelt option": (["fit", "--confg", "smoke"], "unknown option --confg", "did you mean --config?"),
    "forgotten option name": (["fit", "smoke.yaml"], "unexpected smoke.yaml", "did you mean --config smoke.yaml?"),
    "value missing": (["fit", *SMOKE, "--run.name"], "--run.name needs a value", "--run.name=VALUE"),
    "no such config": (["fit", "--config", "smok.yaml"], "no config file smok.yaml", "did you mean smoke.yaml?"),
    "malformed YAML": (["fit", "--config", "malformed.yaml"], "malformed.yaml line", "fix the YAML"),
    "misspelt root": (["fit", *SMOKE, "--modle.compat=official"], "unknown key modle", "did you mean model?"),
    "misspelt model key": (
        ["fit", *SMOKE, "--model.network.vision.imgae_size=32"],
        "unknown key model.network.vision.imgae_size",
        "did you mean image_size?",
    ),
    "misspelt data key": (["fit", *SMOKE, "--data.bach_size=2"], "unknown key data.bach_size", "batch_size?"),
    "misspelt trainer key": (["fit", *SMOKE, "--trainer.max_stps=2"], "unknown key trainer.max_stps", "max_steps"),
    "misspelt run key": (["fit", *SMOKE, "--run.nam=x"], "unknown key run.nam", "did you mean name?"),
    "wrong type": (
        ["fit", *SMOKE, "--model.network.language.d_model=wide"],
        'model.network.language.d_model is the text "wide"',
        "expected a whole number",
    ),
    "value out of range": (["fit", *SMOKE, "--run.save_every=0"], "run.save_every is 0", "expected at least 1"),
    "no number of steps": (["fit", *SMOKE, "--trainer.max_steps=-1"], "trainer.max_steps is not set", "never ends"),
    "unknown format": (["fit", *SMOKE, "--data.train.stories.format=mmc5"], 'is the text "mmc5"', "mean mmc4?"),
    "missing data": (
        ["fit", *SMOKE, "--data.train.stories.path=nowhere"],
        "data.train.stories.path is nowhere",
        "does not exist",
    ),
    "missing tokenizer": (["fit", *SMOKE, "--data.tokenizer=nowhere"], "no tokenizer.json", "Set data.tokenizer"),
    "missing weights": (
        ["fit", *SMOKE, "--model.network.vision.trunk.weights=./nowhere"],
        "vision.trunk.weights",
        "nowhere",
    ),
    "data and network differ": (
        ["fit", *SMOKE, "--model.network.language.vocab_size=600"],
        "vocabulary is 512 but the network is built for 600",
        "set both",
    ),
    "setting that lives elsewhere": (["fit", *SMOKE, "--trainer.logger=true"], "trainer.logger", "set run.loggers"),
    "class of a stranger": (
        ["fit", *SMOKE, "--trainer.callbacks=[{class_path: os.system}]"],
        "class_path is os.system",
        "may name only classes of mmi",
    ),
    "module of a stranger": (["fit", *SMOKE, "--trainer.profiler=evilmod.X"], "evilmod.X", "refused"),
    "no such profiler": (["fit", *SMOKE, "--trainer.profiler=evilmod"], "evilmod", "simple, advanced, pytorch, xla"),
    "function of a stranger": (
        [
            "fit",
            *SMOKE,
            "--trainer.callbacks=[{class_path: lightning.pytorch.callbacks.LambdaCallback, init_args: "
            "{setup: evilmod.X}}]",
        ],
        'trainer.callbacks[0].init_args.setup is the text "evilmod.X"',
        "refused",
    ),
    "class of a stranger as text": (
        ["fit", *SMOKE, "--trainer.strategy='{class_path: evilmod.X}'"],
        "trainer.strategy.class_path is evilmod.X",
        "may name only classes of mmi",
    ),
    "plugins": (["fit", *SMOKE, "--trainer.plugins=[]"], "trainer.plugins is not used", "trainer.precision"),
    "list over keys": (["fit", *SMOKE, "--config", "list.yaml"], "data.train is a list", "use the same in both"),
    "open interpolation": (["fit", *SMOKE, "--config", "open.yaml"], "run.name", "expected ${a.b.c}"),
    "key without a name": (["fit", *SMOKE, "--config", "null.yaml"], "line 1: the key None", "expected text"),
    "list as a key": (["fit", *SMOKE, "--config", "key.yaml"], "line 1: the key ['a']", "expected text"),
    "preview of missing data": (
        ["data", "preview", *SMOKE, "--data.train.stories.path=nowhere"],
        "data.train.stories.path is nowhere",
        "does not exist",
    ),
    "preview of malformed data": (
        ["data", "preview", *SMOKE, "--data.train={x: {format: coco_captions, path: bad.json, images: .}}"],
        "bad.json is not JSON",
        "rewrite",
    ),
    "data with nothing that can be read": (
        ["fit", *SMOKE, *ONLY, "--data.train={mine: {format: folder, path: latin}}"],
        "data.train.mine.path holds no records that can be read",
        "a.txt is not UTF-8 (byte 3); convert the file to UTF-8",
    ),
    "data of which the rules leave nothing": (
        ["fit", *SMOKE, *ONLY, "--data.train.pairs.min_caption_chars=999"],
        "data.train.pairs: none of 4 records can be used (4 x caption shorter than 999 characters",
        "loosen the rules of the source",
    ),
    "data without a picture that can be read": (
        ["fit", *SMOKE, *ONLY, "--data.train={mine: {format: folder, path: halves}}"],
        "no picture of the data could be read in 1 document, from a.png of source mine",
        "mmi data check --config FILE names each",
    ),
    "evaluation data of which nothing is left": (
        ["fit", *SMOKE, "--data.val.captions.min_caption_chars=999"],
        "data.val.captions: none of",
        "loosen the rules",
    ),
    "doctor of a list of sources": (["doctor", *SMOKE, "--data.train=[1]"], "data.train is [1]", "expected keys"),
    "no checkpoint to go on from": (["fit", *SMOKE, "--ckpt_path", "last"], "holds no checkpoint", "mmi fit"),
    "no run folder": (["generate", "--run", "runs/none", "--text", "a"], "runs/none", "holds no checkpoint"),
    "no config in the run folder": (["validate", "--run", "runs/none"], "runs/none is no run folder", "mmi fit wrote"),
    "empty prompt": (["generate", "--run", "runs/none"], "the prompt is empty", "--text"),
    "missing picture": (["generate", "--run", "r", "--image", "none.png"], "none.png", "check the path"),
    "no picture": (["generate", "--run", "r", "--image", "note.txt"], "note.txt is no picture", "expected PNG"),
    "truncated picture": (["generate", "--run", "r", "--image", "cut.png"], "cut.png", "damaged or truncated"),
    "wrong number": (["generate", "--run", "r", "--text", "a", "--steps", "x"], "--steps", "invalid int value"),
    "no such data command": (["data", "microwrld"], 'unknown command "data microwrld"', "mean microworld?"),
    "prepare of nothing": (["data", "prepare"], "no data set named", "--list"),
    "prepare of an unknown set": (["data", "prepare", "mmc5"], 'no data card "mmc5"', "did you mean mmc4"),
    "prepare without input": (["data", "prepare", "own", "--out", "o"], "--from is missing", "give the raw release"),
    "prepare of an address": (
        ["data", "prepare", "own", "--from", "https://x.org/a.zip", "--out", "o"],
        "--from is the address",
        "fetch the release yourself",
    ),
    "prepare with a download of files": (
        ["data", "prepare", "own", "--from", "halves", "--out", "o", "--download"],
        "--download fetches pictures whose records hold addresses, but those of halves are files",
        "leave it out",
    ),
    "prepare with a download of stories": (
        ["data", "prepare", "mmc4", "--from", "data/smoke-world/stories", "--out", "o", "--download"],
        "--download is for pairs; mmc4 has the recipe mmc4",
        "leave it out",
    ),
    "prepare of nothing but damaged tars": (
        ["data", "prepare", "own", "--from", "tars", "--out", "o"],
        "0.tar is not a complete, uncompressed tar file",
        "fetch or decompress it again",
    ),
    "prepare of an absent folder": (["data", "prepare", "own", "--from", "nowhere", "--out", "o"], "nowhere", "check"),
    "prepare into a used folder": (
        ["data", "prepare", "own", "--from", "data/smoke-world/pairs/train", "--out", "data"],
        "data holds files",
        "empty or new folder",
    ),
    "prepare without workers": (
        ["data", "prepare", "own", "--from", "data", "--out", "o", "--workers", "0"],
        "--workers is 0",
        "at least 1",
    ),
    "check of nothing": (["data", "check"], "either a folder or file", "--config FILE"),
    "check of an absent folder": (["data", "check", "nowhere"], "nowhere does not exist", "--config"),
    "check of an unknown layout": (["data", "check", "malformed.yaml"], "no layout that is known", "in a config"),
    "check against no pictures": (
        ["data", "check", "data/smoke-world/pairs/train", "--against", "runs-of-nobody"],
        "runs-of-nobody is no folder",
        "folder of pictures",
    ),
    "check of a split without a card": (["data", "check", "data", "--split", "val"], "--split", "--card"),
    "check of an unknown split": (
        ["data", "check", "data", "--card", "visdial", "--split", "test"],
        "--split is test",
        '"val"',
    ),
    "check with a wide threshold": (["data", "check", "data", "--threshold", "40"], "--threshold is 40", "0 to 16"),
    "stats of nothing": (["data", "stats"], "either the folder of a micro-world", "--config"),
    "stats of no rows": (["data", "stats", *SMOKE, "--rows", "0"], "--rows is 0", "at least 1"),
    "settings without a config": (["data", "stats", "data", "--data.seed=1"], "--data.seed", "no --config"),
    "preview of another kind of file": (["data", "preview", *SMOKE, "--out", "x.doc"], "x.doc", ".html"),
    "captions without a model": (["data", "caption", "--images", "data"], "--model", "--help"),
    "world of odd size": (["data", "microworld", "--out", "w", "--image-size", "33"], "33", "16"),
    "folder in use": (["data", "microworld", "--out", "."], "no micro-world", "choose an empty or new folder"),
    "no such benchmark": (["bench", "sampling"], 'unknown command "bench sampling"', "ops"),
    "no such shapes": (["bench", "ops", "--shapes", "lm"], '--shapes: no "lm"', "llm"),
    "no such backend": (["bench", "ops", "--backends", "cuda"], 'no method "cuda"', "reference, eager, cpu, triton"),
    "no threads": (["bench", "ops", "--threads", "0"], "--threads is 0", "at least 1"),
    "params of nothing": (["params"], "no config given", "--config"),
}


@pytest.mark.parametrize("arguments", WRONG.values(), ids=WRONG.keys())
def test_wrong_input_is_one_sentence_and_exit_code_2(world, monkeypatch, capfd, arguments):
    argv, what, way_out = arguments
    monkeypatch.chdir(world)
    # Lightning's handler still writes to the stderr of the test that imported it, which is closed by now.
    monkeypatch.setattr("logging.raiseExceptions", False)
    code = main(argv)
    err = capfd.readouterr().err
    (sentence,) = [line for line in err.splitlines() if line.startswith("mmi")]
    assert code == 2, err
    assert "Traceback" not in err
    assert what in sentence
    assert way_out in sentence
    assert not list(world.glob("runs/*/checkpoints/*")), "nothing was trained"


def test_absent_extra_is_named(world, monkeypatch, capsys):
    monkeypatch.chdir(world)
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None)
    assert main(["fit", *SMOKE, "--run.loggers=[wandb]"]) == 2
    sentence = capsys.readouterr().err
    assert 'pip install "mmi[tracking]"' in sentence
    assert "wandb" in sentence


def test_debug_adds_the_traceback(world, monkeypatch, capsys):
    monkeypatch.chdir(world)
    assert main(["params", "--config", "nowhere.yaml", "--debug"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("mmi params: no config file nowhere.yaml")


def test_a_failure_is_one_sentence_and_exit_code_1(monkeypatch, capsys):
    def fail(command, argv):
        raise RuntimeError("the disk\nis full")

    monkeypatch.setattr("mmi.commands.params.run", fail)
    assert main(["params"]) == 1
    assert capsys.readouterr().err == "mmi params: RuntimeError: the disk is full (--debug shows where).\n"


def test_ctrl_c_exits_130(monkeypatch, capsys):
    def stop(command, argv):
        raise KeyboardInterrupt

    monkeypatch.setattr("mmi.commands.params.run", stop)
    assert main(["params"]) == 130
    assert "Traceback" not in capsys.readouterr().err


# Commands that are several: each of theirs has its own help.
_GROUPS = {
    "data": ("microworld", "prepare", "check", "stats", "preview", "caption"),
    "checkpoint": ("convert", "export", "verify", "migrate"),
    "assets": ("list", "verify", "download"),
    "bench": ("ops", "data", "train", "options"),
}


def test_every_command_has_help_with_an_example(capsys):
    for name in COMMANDS:
        assert main([name, "--help"]) == 0
        shown = capsys.readouterr().out
        assert f"mmi {name} " in shown.split("usage", 1)[-1]
        assert "example" in shown or name in _GROUPS
    for group, names in _GROUPS.items():
        for name in names:
            assert main([group, name, "--help"]) == 0
            shown = capsys.readouterr().out
            assert "example" in shown
            assert f"mmi {group} {name} " in shown.split("example", 1)[1]


def test_top_level_help_lists_every_command_with_an_example(capsys):
    assert main([]) == 0
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert f"\n  {name} " in shown
        assert command.example in shown


def test_version_is_the_installed_one(capsys):
    from importlib.metadata import version

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"mmi {version('mmi')}\n"
