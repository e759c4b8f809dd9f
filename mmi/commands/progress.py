"""How far a run is: a live bar on a terminal, plain lines anywhere else, both counted in optimizer steps."""

from __future__ import annotations

import sys
import time
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class RunProgress(ProgressBar):
    """Show step, losses, speed and the time that remains.

    Args:
        live: A bar that redraws itself; by default where stderr is a terminal. Otherwise one line for every
            ``log_every_n_steps`` steps, so that a log file shows that the run is alive.
    """

    def __init__(self, live: bool | None = None) -> None:
        super().__init__()
        self._live = sys.stderr.isatty() if live is None else live
        self._enabled = True
        self._bars: Progress | None = None
        self._task: Any = None
        self._first_step, self._began = 0, 0.0
        self._lost = 0.0
        self._printed_step = -1

    def disable(self) -> None:
        """Show nothing; Lightning calls this on all ranks but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Show again."""
        self._enabled = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print above a live bar."""
        if self._bars is not None:
            self._bars.console.print(*args)
        else:
            print(*args, file=sys.stderr)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start counting where the run goes on."""
        self._first_step, self._began = trainer.global_step, time.perf_counter()
        total = trainer.max_steps if trainer.max_steps > 0 else None
        self._open("training", total, trainer.global_step)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Show the step just done: only now are its values known."""
        self._show_step(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say that steps wait for a validation; its time does not count as training time."""
        self._validation_began = time.perf_counter()
        if trainer.state.fn != "fit":
            self._open("measuring", None)
        elif self._bars is not None:
            self._bars.update(self._task, description="validating")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on with training."""
        self._lost += time.perf_counter() - self._validation_began
        if trainer.state.fn != "fit":
            self._close()
        elif self._bars is not None:
            self._bars.update(self._task, description="training")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count batches where nothing is trained."""
        if trainer.state.fn != "fit":
            self._advance(batch_idx)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start counting batches."""
        self._open("measuring", None)

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Count a batch."""
        self._advance(int(args[2]))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop counting."""
        self._close()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start counting batches."""
        self._open("measuring", None)

    def on_predict_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Count a batch."""
        self._advance(int(args[2]))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop counting."""
        self._close()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the last state of the bar on the screen."""
        self._show_step(trainer, pl_module)
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the terminal back."""
        self._close()

    def _open(self, title: str, total: int | None, done: int = 0) -> None:
        self._close()
        if not (self._live and self._enabled):
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[values]}"),
        )
        self._bars = Progress(*columns, console=Console(stderr=True), redirect_stdout=False)
        self._task = self._bars.add_task(title, total=total, completed=done, values="")
        self._bars.start()

    def _show_step(self, trainer: Trainer, pl_module: LightningModule) -> None:
        step = trainer.global_step
        if self._bars is not None:
            self._bars.update(self._task, completed=step, values=self._values(trainer, pl_module))
            return
        due = step % max(int(getattr(trainer, "log_every_n_steps", 1)), 1) == 0 or step == trainer.max_steps
        if self._enabled and due and step not in (self._first_step, self._printed_step):
            self._printed_step = step
            print(self._line(trainer, pl_module), file=sys.stderr, flush=True)

    def _advance(self, batch_idx: int) -> None:
        if self._bars is not None:
            self._bars.update(self._task, completed=batch_idx + 1)

    def _close(self) -> None:
        bars, self._bars = self._bars, None
        if bars is not None:
            bars.stop()

    def _values(self, trainer: Trainer, pl_module: LightningModule) -> str:
        shown = {k: v for k, v in self.get_metrics(trainer, pl_module).items() if k != "v_num"}
        return "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items())

    def _line(self, trainer: Trainer, pl_module: LightningModule) -> str:
        done = trainer.global_step - self._first_step
        rate = done / max(time.perf_counter() - self._began - self._lost, 1e-9)
        parts = [f"step {trainer.global_step}" + (f"/{trainer.max_steps}" if trainer.max_steps > 0 else "")]
        parts += [self._values(trainer, pl_module), f"{rate:.2f} steps/s"]
        if trainer.max_steps > 0 and rate > 0:
            left = round((trainer.max_steps - trainer.global_step) / rate)
            parts.append(f"{left // 60}:{left % 60:02d} left")
        return "  ".join(part for part in parts if part)
