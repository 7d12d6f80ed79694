"""How long a list of operations takes on this machine: each at the speed of its matrix products or of the memory it moves, plus what any
operation costs. Speeds are measured, in about two seconds; what is assumed is said.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F

from pellucid.inspection.recorder import Recorder, Step
from pellucid.models.build import build
from pellucid.models.config import ModelConfig
from pellucid.parts.config import StackConfig
from pellucid.training.devices import measure_peak

UTILISATION = 0.8
"""The share of the measured peak that matrix products of a model are assumed to reach: they are smaller than the one measured."""

LARGE = 2**25
"""Bytes of a result from which on no cache holds it, and memory comes fresh from the system, page by page, where it is not kept (see
`devices.keep_freed_memory`)."""

SLOW = ("gelu", "_softmax", "_log_softmax", "tanh", "exp", "exp_", "log", "sin", "cos", "pow", "silu", "random_")
"""Operations that compute more than they move (their backward passes too)."""

TINY = ModelConfig("gpt", StackConfig(d_model=8, n_layers=4, n_heads=2, d_ff=8), 8, 8, "learned")


@dataclass(frozen=True)
class Machine:
    """What it can do.

    peak: FLOP/s of a large matrix product. bandwidth, large: bytes/s of a sum of small and of LARGE tensors; slow: of a GELU; cold: of
    reading what no cache holds, as weights are read. forward, step: seconds an operation costs in a forward pass and in a training step
    when there is nothing to compute.
    """

    peak: float
    bandwidth: float
    large: float
    slow: float
    cold: float
    forward: float
    step: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"utilisation": UTILISATION}

    def seconds(self, operations: Iterable[Step], overhead: float) -> float:
        """The time of some operations, one after the other."""
        return sum(overhead + max(o.flops / (UTILISATION * self.peak), o.moved / self._speed(o)) for o in operations)

    def _speed(self, operation: Step) -> float:
        if operation.outputs and operation.outputs[0].bytes >= LARGE:
            return self.large
        if operation.flops:
            return self.cold
        return self.slow if operation.path.removesuffix("_backward").removesuffix("_data") in SLOW else self.bandwidth


def measure(device: str, precision: str) -> Machine:
    """This machine, now, with the threads torch is using."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    small = torch.ones(2**19, device=device, dtype=dtype)
    large = torch.ones(LARGE // dtype.itemsize, device=device, dtype=dtype)
    twice = torch.cat((large, large))
    moved = 3 * small.numel() * small.itemsize
    return Machine(
        measure_peak(device, precision),
        moved / best(lambda: small + small, device),
        3 * LARGE / best(lambda: large + large, device),
        moved * 2 / 3 / best(lambda: F.gelu(small), device),
        2 * LARGE / best(lambda: torch.sum(twice), device),
        *_overheads(device),
    )


def best(work: Callable[[], object], device: str, seconds: float = 0.2) -> float:
    """The shortest time of `work` in about `seconds`."""
    found, begin = float("inf"), time.perf_counter()
    while time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        work()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        found = min(found, time.perf_counter() - start)
    return found


def _overheads(device: str) -> tuple[float, float]:
    """Seconds per operation of a model too small to compute anything: forward, and forward with backward."""
    model = build(TINY).to(device)
    ids = torch.zeros(1, 2, dtype=torch.long, device=device)

    @torch.no_grad()
    def forward() -> None:
        model(ids)

    def step() -> None:
        model(ids).sum().backward()

    found = []
    for work in (forward, step):
        recorder = Recorder(model)
        with recorder:
            work()
        found.append(best(work, device) / sum(1 for top in recorder.top.steps for _ in top.operations()))
    return found[0], found[1]
