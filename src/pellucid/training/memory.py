"""What a run will take of memory, told before it takes it; and a polite no to what cannot fit.

Tensors are counted by `rehearsal`; what they do not tell (libraries, what an allocator loses between blocks) is in `ASIDE`, measured by
`python -m benchmarks memory`. How much there is comes from `room`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from pellucid import room
from pellucid.errors import UserError
from pellucid.models.build import count
from pellucid.models.config import ModelConfig
from pellucid.training import checkpoints, devices, ranks
from pellucid.training.config import TrainingConfig
from pellucid.training.contracts import Batch, Data, Task
from pellucid.training.devices import Choices
from pellucid.training.recompute import recompute
from pellucid.training.rehearsal import Watch, rehearse

MB, GB = 10**6, 10**9
ERROR = 1.15
"""How many times too high a prediction may be: only what would not fit even then is refused."""


@dataclass(frozen=True)
class Aside:
    """What tensors do not tell. libraries: bytes that kernels, threads and their buffers take once they run; blocks: how many blocks of
    the usual size (`Watch.block`) are lost between others, that no other fits into."""

    libraries: int
    blocks: int


ASIDE = {
    ("cpu", "float32"): Aside(90 * MB, 16),
    ("cpu", "bfloat16"): Aside(130 * MB, 16),
    ("cuda", "float32"): Aside(600 * MB, 4),
    ("cuda", "bfloat16"): Aside(600 * MB, 4),
}
"""By kind of device and precision; of other devices as of a CPU. On a CPU as glibc 2.36 does."""

PARTS = (2, 4, 8, 16, 32)
"""Values of `accumulate` that are tried where a run does not fit."""


@dataclass(frozen=True)
class Forecast:
    """Bytes. need: the most that the process (on a GPU: the run) will hold; free: what it may hold, None where nobody knows; where that is
    not `measured`: all that there is."""

    need: int
    free: int | None
    measured: bool = True

    @property
    def fits(self) -> bool:
        """Whether it may go well."""
        return self.free is None or self.need / ERROR <= self.free

    def __str__(self) -> str:
        told = f"this run will need about {size(self.need)} of memory"
        if self.free is None:
            return told
        return f"{told}, {self.room()}" + ("" if self.need <= self.free else ": it may not fit")

    def room(self) -> str:
        """What there is, in words."""
        return f"{size(self.free or 0)} are free" if self.measured else f"this machine has {size(self.free or 0)}"


def size(n: int) -> str:
    """Bytes as people say them: 430 MB, 2.1 GB."""
    return f"{n / GB:,.1f} GB" if n >= GB else f"{round(n, -7) / MB:,.0f} MB"


def check_weights(config: ModelConfig, t: TrainingConfig) -> None:
    """Before a new model is made: UserError if not even its weights, their gradients and a momentum in float32 fit."""
    need, free = 3 * 4 * count(config), room.available(devices.find(t.device), ranks.world())
    if free is not None and need > free and t.memory == "refuse":
        found = Forecast(need, free, room.is_measured(devices.find(t.device)))
        needs = f"weights, gradients and optimizer of this model alone need {size(need)} of memory, {found.room()}"
        raise UserError(needs, "make the model smaller; to try all the same: --training.memory warn")


def foresee(model: nn.Module, task: Task, data: Data, t: TrainingConfig, choices: Choices | None = None) -> str:
    """What training will take, told before any of it is allocated. choices: of a run that has begun. Raises UserError, with what would fit,
    where it cannot and `t.memory` does not let it try."""
    try:
        found = forecast(model, task, data, t, choices)
    except UserError:  # of the data: as true without a forecast
        raise
    except Exception as error:
        return f"how much memory this run will need cannot be foretold: {type(error).__name__}: {error}".splitlines()[0]
    if t.memory == "warn" or found.fits:
        return str(found)
    ways = [f"{flags} (about {size(other.need)})" for flags, other in leaner(model, task, data, t)]
    remedy = "this would fit: " + ", or ".join(ways) if ways else "make the model or its batch smaller"
    needs = f"this run needs about {size(found.need)} of memory, {found.room()}"
    raise UserError(needs, f"{remedy}; to try all the same: --training.memory warn")


def forecast(model: nn.Module, task: Task, data: Data, t: TrainingConfig, choices: Choices | None = None) -> Forecast:
    """For the widest batches of an epoch, in each precision that will be tried."""
    device = choices.device if choices else devices.find(t.device)
    precisions = (choices.precision,) if choices else devices.candidates(t, device)
    kind = torch.device(device).type
    weights = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    now = weights if kind == "cuda" else room.resident() or weights
    phases = [at_the_end(model, t, kind)]
    for batch in widest(data):
        for precision in precisions:
            watch = rehearse(model, task.loss, batch, task.count, t, Choices(device, precision))
            phases.append(held(watch, kind, precision))
    return Forecast(now + max(phases), room.available(device, ranks.world()), room.is_measured(device))


def held(watch: Watch, kind: str, precision: str) -> int:
    """Bytes that a step of these tensors takes, all told."""
    aside = ASIDE.get((kind, precision), ASIDE["cpu", precision])
    return watch.peak + aside.libraries + aside.blocks * watch.block


def at_the_end(model: nn.Module, t: TrainingConfig, kind: str) -> int:
    """Bytes beside the weights when those of the last checkpoints are averaged, on the CPU: their sum in float64, and of the one at hand
    both file and copy."""
    if kind == "cuda" or not t.average:
        return 0
    saved = sum(tensor.nbytes for tensor in checkpoints.weights(model).values())
    return 4 * saved + (saved if t.ema else 0) + ASIDE["cpu", "float32"].libraries


def widest(data: Data) -> Iterator[Batch]:
    """The batches that ask for most: of rows grouped by length those of most ids and of the longest rows, else any."""
    inner: Any = getattr(data, "data", data)
    buckets = getattr(inner, "buckets", None) or getattr(inner, "_buckets", None)
    for step in buckets.widest() if buckets else (0,):
        yield data.batch(step)


def leaner(model: nn.Module, task: Task, data: Data, t: TrainingConfig) -> Iterator[tuple[str, Forecast]]:
    """Flags with which the run would fit, and what it needs then: the fewest parts, recomputation, or both. Not a way back: blocks of the
    model may be recomputed afterwards."""
    most = max(ranks.n_rows(batch) for batch in widest(data)) // ranks.world()
    parts: list[Mapping[str, Any]] = [{"accumulate": n} for n in PARTS if t.accumulate < n <= most]
    timed = devices.candidates(t, devices.find(t.device))
    found = list(_first(model, task, data, t, [{"precision": timed[-1]}])) if len(timed) > 1 else []
    found += _first(model, task, data, t, parts)
    if not t.recompute:
        found += _first(recompute(model), task, data, t, [{"recompute": True, **part} for part in ({}, *parts)])
    yield from found


def _first(
    model: nn.Module, task: Task, data: Data, t: TrainingConfig, changes: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, Forecast]]:
    """The first of the changes that fits."""
    for change in changes:
        with suppress(Exception):  # what cannot be foretold is not offered
            found = forecast(model, task, data, replace(t, **change))
            if found.fits:
                yield " ".join(f"--training.{name} {str(value).lower()}" for name, value in change.items()), found
                return
