"""What a run tells while it runs: one live line on a terminal, plain lines in a pipe, metrics.jsonl for
programs, TensorBoard if asked.

Everything for people goes to standard error, so that standard output stays free for results. metrics.jsonl
has one object a line: {"kind": "train", "step", "loss", "lr", "grad_norm", "tokens", "tokens_per_second",
"seconds"} and {"kind": "valid", "step", one key per metric, "samples"}. Loss is in nats per target, tokens
are targets.
"""

import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from pellucid import progress
from pellucid.errors import UserError
from pellucid.training import ranks

Record = dict[str, Any]


class Log:
    """Progress of one run. `flops_per_target` (forward and backward) over `peak_flops` of the machine is the
    share of its matrix-product speed.

    `every`: seconds between plain lines where there is no terminal; `unit`: what a target is called. Ranks other than the first say and
    write nothing.
    """

    def __init__(
        self,
        folder: Path,
        steps: int,
        flops_per_target: float = 0.0,
        peak_flops: float = 0.0,
        tensorboard: bool = False,
        console: Console | None = None,
        every: float = 10.0,
        unit: str = "tokens",
    ) -> None:
        self.folder, self.steps, self.every, self.unit = folder, steps, every, unit
        self.cost_share = flops_per_target / peak_flops if peak_flops else 0.0
        self.console = console or Console(stderr=True, quiet=ranks.rank() > 0, soft_wrap=True)
        self.wants_board = tensorboard
        self.board: Any = None
        self.file: TextIO | None = None
        self.live: Live | None = None
        self.smooth = Smooth()
        self.shown, self.waited, self.done = 0.0, 0.0, 0

    def open(self, step: int) -> None:
        """Begin, or go on from `step`: records after it are dropped, with a line that a kill cut short."""
        self.began, progress.shown = time.perf_counter(), False
        if ranks.rank() > 0:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        truncate(self.folder / "metrics.jsonl", step)
        self.file = (self.folder / "metrics.jsonl").open("a", encoding="utf-8")
        if self.wants_board:
            self.board = _board(self.folder, step + 1)
        if self.console.is_terminal:
            self.live = Live(console=self.console, auto_refresh=False, transient=True)
            self.live.start()

    def close(self) -> None:
        """End the live line and close the files. May be called twice."""
        for thing in (self.file, self.board):
            if thing is not None:
                thing.close()
        if self.live is not None:
            self.live.stop()
        self.file = self.live = self.board = None

    def sync(self) -> None:
        """Flush the records to disk: a checkpoint must not be newer than they are."""
        if self.file is not None:
            self.file.flush()
            os.fsync(self.file.fileno())

    def step(self, record: Record, tokens: int, seconds: float, write: bool) -> None:
        """After a step of `tokens` targets that took `seconds`; `record` is also written down if `write`."""
        loss = self.smooth.loss.add(record["loss"])
        speed = self.smooth.tokens.add(tokens) / max(1e-9, self.smooth.seconds.add(seconds))
        self.done += 1
        if write:
            self._write({"kind": "train", **record, "tokens_per_second": round(speed, 1)})
        now = time.perf_counter()
        if now - self.shown < (0.25 if self.live else self.every) and record["step"] < self.steps:
            return
        self.shown = now
        left = (now - self.began) / self.done * (self.steps - record["step"])
        share = f" · {self.cost_share * speed:.0%} of peak" if self.cost_share else ""
        line = f"step {record['step']:,}/{self.steps:,} · loss {loss:.4f} · {speed:,.0f} {self.unit}/s{share}"
        line += f" · {clock(left)} left"
        if self.live:
            self.live.update(Text(line), refresh=True)
        else:
            self.note(line)

    def evaluation(self, step: int, metrics: Mapping[str, Any], samples: Sequence[str], best: bool) -> None:
        """After an evaluation: what came out, and some of what the model says now."""
        self._write({"kind": "valid", "step": step, **metrics, "samples": list(samples)})
        numbers = {name: value for name, value in metrics.items() if isinstance(value, float)}
        told = " · ".join(f"{name} {value:.4f}" for name, value in numbers.items())
        self.note(f"step {step:,}: {told}{' · best so far' if best else ''}")
        for sample in samples:
            self.note(f"    {sample}")

    def note(self, text: str) -> None:
        """One plain line, above the live one."""
        self.console.print(Text(text))

    def _write(self, record: Record) -> None:
        record = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
        if self.file is not None:
            self.file.write(json.dumps(record, ensure_ascii=False) + "\n")
            self.file.flush()
        if self.board is not None:
            for name, value in record.items():
                if isinstance(value, float):
                    self.board.add_scalar(f"{record['kind']}/{name}", value, record["step"])


class Smooth:
    """Running means for display only; a resumed run starts them anew."""

    def __init__(self) -> None:
        self.loss, self.tokens, self.seconds = Running(), Running(), Running()


class Running:
    """An exponential mean, free of its start: weights 0.95^age, normed."""

    def __init__(self) -> None:
        self.total = self.weight = 0.0

    def add(self, value: float) -> float:
        """Take in a value; returns the mean."""
        self.total, self.weight = 0.95 * self.total + 0.05 * value, 0.95 * self.weight + 0.05
        return self.total / self.weight


def truncate(path: Path, step: int) -> None:
    """Keep the records of metrics.jsonl up to `step`; replaced as a whole, so a kill cannot lose them."""
    if not path.exists():
        return
    kept = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if _step(line) <= step]
    temporary = path.with_name(f".metrics-{os.getpid()}")
    temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
    temporary.replace(path)


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def clock(seconds: float) -> str:
    """Seconds as 1:02:03, or 2:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _board(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError(
            "training.tensorboard: TensorBoard is not installed", "pip install 'pellucid[tensorboard]'"
        ) from None
    return SummaryWriter(folder / "tensorboard", purge_step=step)
