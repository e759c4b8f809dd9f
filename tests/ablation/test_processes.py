"""Children are started, watched and stopped together; a lock is held as long as any of its holders lives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mmi.ablation.processes import Call, Crew, Ended, Lock, Work, start, tail


def chain(log: Path, *scripts: str, heard: list[Ended], **of_call: object) -> Work:
    """Work that is one small script after the other."""
    for script in scripts:
        heard.append((yield Call(("-c", script), log, **of_call)))  # type: ignore[arg-type]


def run_all(crew: Crew, works: list[Work]) -> None:
    crew.run(lambda: works.pop(0) if works else None, lambda: bool(works))


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def test_calls_of_one_work_follow_each_other_and_two_works_run_together(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    meet = "import pathlib, time\npathlib.Path({own!r}).touch()\n"
    meet += "while not pathlib.Path({other!r}).exists(): time.sleep(.01)"
    heard: list[Ended] = []
    works = [
        chain(tmp_path / "log", meet.format(own=str(a), other=str(b)), "raise SystemExit(3)", heard=heard)
        for a, b in ((first, second), (second, first))
    ]
    run_all(Crew(2), works)
    assert sorted(ended.code for ended in heard) == [0, 0, 3, 3]


def test_a_child_that_takes_too_long_is_stopped_and_told_apart(tmp_path: Path) -> None:
    heard: list[Ended] = []
    run_all(Crew(1), [chain(tmp_path / "log", "import time; time.sleep(60)", heard=heard, seconds=0.5)])
    (ended,) = heard
    assert ended.out_of_time
    assert ended.code == -signal.SIGTERM
    assert ended.seconds < 20


def test_ctrl_c_asks_children_to_save_and_begins_nothing_more(tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        import os, pathlib, signal, time
        def save(*_):
            pathlib.Path({str(tmp_path / "saved")!r}).touch()
            raise SystemExit(130)
        signal.signal(signal.SIGTERM, save)
        os.kill(os.getppid(), signal.SIGINT)
        time.sleep(60)
        """
    )
    heard: list[Ended] = []
    works = [chain(tmp_path / "log", script, "print('never')", heard=heard), chain(tmp_path / "log", "", heard=heard)]
    before = signal.getsignal(signal.SIGINT)  # ignored where tests run in the background of a script
    with pytest.raises(KeyboardInterrupt):
        run_all(Crew(1), works)
    assert (tmp_path / "saved").is_file()
    assert heard == []
    assert len(works) == 1
    assert signal.getsignal(signal.SIGINT) is before


def test_a_lock_has_one_holder_and_is_free_when_that_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    held, other = Lock(path), Lock(path)
    assert held.take()
    assert not other.take()
    held.give_back()
    assert other.take()
    other.give_back()
    holder = "import sys, time; from pathlib import Path; from mmi.ablation.processes import Lock; "
    holder += "assert Lock(Path(sys.argv[1])).take(); print('mine', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", holder, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"mine\n"
        assert not held.take()
        process.kill()
    assert held.take(), "a killed process holds nothing"


def test_a_child_holds_the_lock_after_its_command_has_let_go(tmp_path: Path) -> None:
    lock, go = Lock(tmp_path / "a.lock"), tmp_path / "go"
    assert lock.take()
    script = f"import pathlib, time\nwhile not pathlib.Path({str(go)!r}).exists(): time.sleep(.01)"
    child = start(Call(("-c", script), tmp_path / "log", (lock,)))
    lock.give_back()
    assert not Lock(lock.path).take()
    go.touch()
    assert child.wait(20) == 0
    assert Lock(lock.path).take()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere a child runs to its end")
def test_a_child_is_asked_to_end_when_its_command_is_killed(tmp_path: Path) -> None:
    child = f"""
import os, pathlib, signal, time
folder = pathlib.Path({str(tmp_path)!r})
signal.signal(signal.SIGTERM, lambda *_: ((folder / "saved").touch(), os._exit(130)))
(folder / "ready").touch()
time.sleep(60)
"""
    command = "import sys, time; from pathlib import Path; from mmi.ablation.processes import Call, start; "
    command += "start(Call(('-c', sys.argv[1]), Path(sys.argv[2]))); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", command, child, str(tmp_path / "log")])
    wait_for((tmp_path / "ready").exists)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_for((tmp_path / "saved").exists)


def test_the_end_of_a_log_is_its_last_lines_without_empty_ones(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert tail(log) == ""
    log.write_text("a\nb\n\n10%\r50%\rc  \n\n")
    assert tail(log, 3) == "10%\n50%\nc"


def test_one_slurm_task_lets_the_trainer_start_a_process_for_each_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    log = tmp_path / "log"
    script = "import os; print('SLURM_NTASKS' in os.environ, os.environ['SLURM_JOB_ID'], os.environ['OWN'])"
    assert start(Call(("-c", script), log, environment={"OWN": "x"})).wait(20) == 0
    assert log.read_text() == "False 7 x\n"
