"""A private folder that goes with its process, or, where that was killed, when the next one starts.

A process holds a lock on a file in its folder for as long as it lives, which the system lets go of however it ends; a
folder whose lock can be had belongs to nobody any more.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = "mmi-demo-"
LOCK = ".lock"
_FILES = "files"


@contextmanager
def owned_folder() -> Iterator[Path]:
    """Give a new folder that nobody else may read; deleted at the end, as those of killed processes are before."""
    parent = Path(tempfile.gettempdir())
    clear_left_behind(parent)
    own = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    lock = _locked(own)
    files = own / _FILES
    files.mkdir(mode=0o700)
    try:
        yield files
    finally:
        shutil.rmtree(own, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def clear_left_behind(parent: Path) -> None:
    """Delete folders of processes of this user that were killed.

    What is a link, belongs to another user, has no lock, or whose process lives stays; links inside are not followed.
    """
    if sys.platform == "win32":
        return
    with contextlib.suppress(OSError):
        names = [name for name in os.listdir(parent) if name.startswith(PREFIX)]
        for name in names:
            # A folder may go meanwhile, or hold something that cannot be deleted; the others are looked at anyway.
            with contextlib.suppress(OSError):
                _clear(parent / name)


def _clear(path: Path) -> None:
    if sys.platform == "win32":
        return
    import fcntl

    # Everything from here on is said of the folder that is open, whatever its name comes to mean.
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(folder).st_uid != os.getuid():
            return
        lock = os.open(LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        try:
            if not stat.S_ISREG(os.fstat(lock).st_mode):
                return
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # an OSError if its process lives
            # The lock last: what is left half-way is found again.
            for name in sorted(os.listdir(folder), key=lambda name: name == LOCK):
                if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                    shutil.rmtree(name, dir_fd=folder)
                else:
                    os.unlink(name, dir_fd=folder)
            os.rmdir(path)
        finally:
            os.close(lock)
    finally:
        os.close(folder)


def _locked(folder: Path) -> int | None:
    """Lock a folder until the process ends; None where the system has no such locks."""
    if sys.platform == "win32":
        return None
    import fcntl

    # Under its name only when it is locked, so that nobody finds it free in between.
    draft = folder / f"{LOCK}-draft"
    lock = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # a file system without locks
        os.close(lock)
        return None
    draft.rename(folder / LOCK)
    return lock
