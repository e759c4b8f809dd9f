"""kill -9 in the middle of an epoch; memory of workers over a long stream."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import pytest

from mmi.batch import InterleavedBatch
from mmi.data.datamodule import InterleavedDataModule
from mmi.data.sources import SourceConfig

N_COMPARED = 500


def data(folder: Path, tokenizer: str, streaming: bool, workers: int) -> InterleavedDataModule:
    train = {
        "pairs": SourceConfig(
            "pair_tars", str(folder / "tars"), streaming=streaming, merge_probability=0.2, merge_pairs=(2, 3)
        ),
        "web": SourceConfig("mmc4", str(folder / "mmc4.jsonl"), drop_single_image_probability=0.2),
    }
    return InterleavedDataModule(
        tokenizer, train, seq_length=96, batch_size=1, image_size=8, target_size=None, tokens_per_image=3, buffer=16,
        num_workers=workers,
    )  # fmt: skip


def fingerprint(batch: InterleavedBatch) -> str:
    """Hash of everything the network sees."""
    parts = (batch.text_ids, batch.labels, batch.document_ids, batch.position_ids, batch.images, batch.image_start)
    content = b"".join(part.numpy().tobytes() for part in parts) + repr(batch.provenance).encode()
    return hashlib.sha256(content).hexdigest()


def train(folder: Path, tokenizer: str, streaming: bool) -> None:
    """Consume batches without end, noting each and saving now and then, as a run does."""
    module = data(folder, tokenizer, streaming, workers=2)
    with (folder / "consumed.txt").open("w") as log:
        for number, batch in enumerate(module.train_dataloader()):
            module.note_consumed(batch)
            log.write(fingerprint(batch) + "\n")
            log.flush()
            if number % 7 == 0:
                state = {"consumed": number + 1, "data": module.state_dict()}
                (folder / "state.tmp").write_text(json.dumps(state))
                (folder / "state.tmp").replace(folder / "state.json")


@pytest.mark.parametrize("streaming", [False, True], ids=["indexed", "streaming"])
def test_after_kill_9_the_next_500_batches_are_those_of_the_uninterrupted_run(
    world: Path, tokenizer_folder: str, tmp_path: Path, streaming: bool
) -> None:
    (tmp_path / "tars").mkdir()
    for shard in range(6):
        (tmp_path / "tars" / f"{shard}.tar").write_bytes((world / "pairs.tar").read_bytes())
    (tmp_path / "mmc4.jsonl").write_bytes((world / "mmc4.jsonl").read_bytes())
    (tmp_path / "images").symlink_to(world / "images")
    command = [sys.executable, __file__, str(tmp_path), tokenizer_folder, str(int(streaming))]
    child = subprocess.Popen(command, start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        log, deadline = tmp_path / "consumed.txt", time.monotonic() + 120
        while time.monotonic() < deadline and not (log.exists() and log.read_text().count("\n") >= 60):
            assert child.poll() is None
            time.sleep(0.05)
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    killed = log.read_text().splitlines()
    saved = json.loads((tmp_path / "state.json").read_text())
    start = saved["consumed"]
    assert 50 < start <= len(killed) + 1
    whole = data(tmp_path, tokenizer_folder, streaming, workers=0)
    expected = [fingerprint(batch) for batch in islice(whole.train_dataloader(), start + N_COMPARED)]
    assert killed[:start] == expected[: len(killed[:start])]
    resumed = data(tmp_path, tokenizer_folder, streaming, workers=0)
    resumed.load_state_dict(saved["data"])
    following = [fingerprint(batch) for batch in islice(resumed.train_dataloader(), N_COMPARED)]
    assert following == expected[start:]
    assert len(set(following)) > N_COMPARED // 2


def resident(pid: int) -> int:
    """Bytes of memory a process holds."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
@pytest.mark.parametrize("streaming", [False, True], ids=["indexed", "streaming"])
def test_memory_of_workers_is_flat_over_20_000_documents(
    world: Path, tokenizer_folder: str, tmp_path: Path, streaming: bool
) -> None:
    (tmp_path / "tars").mkdir()
    for shard in range(50):
        (tmp_path / "tars" / f"{shard}.tar").write_bytes((world / "pairs.tar").read_bytes())
    source = SourceConfig("pair_tars", str(tmp_path / "tars"), streaming=streaming)
    module = InterleavedDataModule(
        tokenizer_folder, {"pairs": source}, seq_length=256, batch_size=4, image_size=64, target_size=None,
        tokens_per_image=3, num_workers=2,
    )  # fmt: skip
    used: list[list[int]] = []
    n_documents, due = 0, 4000
    for batch in module.train_dataloader():
        module.note_consumed(batch)
        n_documents += len(batch.provenance)
        if n_documents >= due:
            workers = sorted(worker.pid or 0 for worker in multiprocessing.active_children())
            used.append([resident(pid) for pid in (os.getpid(), *workers)])
            due += 2000
        if n_documents >= 22_000:
            break
    first, last = used[0], used[-1]
    assert len(first) == 3
    for before, after in zip(first, last, strict=True):
        assert after - before < 16 << 20, f"grew by {(after - before) >> 20} MiB over {n_documents:,} documents"


if __name__ == "__main__":
    train(Path(sys.argv[1]), sys.argv[2], bool(int(sys.argv[3])))
