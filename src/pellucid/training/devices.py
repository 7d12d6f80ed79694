"""What this machine has and what a run uses of it: device, precision, threads, kernel of float32 products;
measured once, written down, replayed on resume.

The choices change the last bits of every number, so a resumed run takes them from run.json instead of
measuring again.

float32 on CPU: the usual library (MKL) runs at half speed on AMD. oneDNN is asked for by *allowing* bfloat16
inside float32 products, which it takes up only on some processors; the permission is used only where measured
errors show that the products are still float32, and faster.
"""

import ctypes
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.errors import DataError, UserError
from pellucid.training.config import TrainingConfig


@dataclass(frozen=True)
class Choices:
    """What was decided about the machine.

    `peak_flops`: FLOP/s of a large matrix product in `precision`; `step_seconds`: what was timed to decide.

    `products`: "plain" or "onednn", how float32 matrices are multiplied on CPU; `compiled`: whether a step's loss is (see there).
    """

    device: str = "cpu"
    precision: str = "float32"
    threads: int = 1
    products: str = "plain"
    peak_flops: float = 0.0
    step_seconds: Mapping[str, float] | None = None
    reason: str = ""
    compiled: bool = False

    @property
    def name(self) -> str:
        """By which it stands in `step_seconds`."""
        return f"{self.precision}, {self.threads} threads"

    def to_dict(self) -> dict[str, Any]:
        """For run.json."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Choices":
        """From run.json. DataError if a field is unknown: the run was written by another version."""
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise DataError(f"run.json: unknown choice {min(unknown)!r}", "resume with the version that began the run")
        return cls(**values)

    def autocast(self) -> AbstractContextManager[None]:
        """The precision to compute a loss in; weights and their gradients stay float32."""
        kind = torch.device(self.device).type
        return torch.autocast(kind, torch.bfloat16, enabled=self.precision == "bfloat16")


def find(wanted: str) -> str:
    """The device for "auto" (cuda, else mps, else cpu), or the one named. UserError if it is not there."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(name for name, present in there.items() if present)
    if not there.get(wanted.split(":")[0], False):
        raise UserError(
            f"device {wanted!r} is not available here",
            "available: " + ", ".join(["auto", *(name for name, present in there.items() if present)]),
        )
    return wanted


@contextmanager
def using(choices: Choices) -> Iterator[None]:
    """Within, this process has threads and kernels as chosen; afterwards as before. UserError if the device is gone."""
    find(choices.device)
    before = torch.get_num_threads()
    if choices.threads > 0 and choices.threads != before:
        torch.set_num_threads(choices.threads)
    set_products(choices.products)
    try:
        yield
    finally:
        set_products("plain")
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


def keep_freed_memory() -> None:
    """Let this process keep memory it has freed. By default glibc hands large blocks back at once and gets them again page by page, zeroed:
    a tenth to a quarter of a step on a CPU. Other systems and C libraries are left as they are.
    """
    no_maps, trim_from, grow_by = -4, -1, -2  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # musl has no mallopt
            libc = ctypes.CDLL("libc.so.6")
            for setting, value in ((no_maps, 0), (trim_from, 2**30), (grow_by, 2**26)):
                libc.mallopt(setting, value)


def set_products(kind: str) -> None:
    """How float32 matrices are multiplied on CPU: "plain", or "onednn" where `onednn_is_exact`.

    While it is "onednn", `torch.get_float32_matmul_precision` raises: it knows no setting for one backend alone.
    """
    if torch.backends.mkldnn.is_available():
        backend: Any = torch.backends.mkldnn
        backend.matmul.fp32_precision = "bf16" if kind == "onednn" else "none"


def candidates(config: TrainingConfig, device: str) -> tuple[str, ...]:
    """The precisions of which `choose` takes the faster: the one asked for, else those that the processor has."""
    if config.precision != "auto":
        return (config.precision,)
    return ("float32", "bfloat16") if bfloat16_is_native(device) else ("float32",)


def choose(config: TrainingConfig, model: nn.Module, loss: Callable[[int], Tensor]) -> Choices:
    """Decide for a new run. `loss(i)`: of `model`, on its device, on a part of batch i, as training will compute it.

    bfloat16 is taken where a forward and backward pass is at least 5 % faster with it; of the numbers of threads (all, half, … one) the
    smallest that is not 5 % slower than the best. Weights, buffers, modes and the random state are afterwards as before.
    """
    device, threads = find(config.device), config.threads or torch.get_num_threads()
    seconds: dict[str, float] = {}
    with using(Choices(device, threads=threads)):
        products = config.products
        if products == "auto":
            products = "onednn" if device == "cpu" and onednn_is_exact() else "plain"
        elif products == "onednn" and not onednn_is_exact(and_faster=False):
            raise UserError("training.products: onednn does not keep float32's precision here", "choose plain or auto")
        set_products(products)
        kinds = candidates(config, device)
        chosen = kinds[0]
        reason = "this processor has no bfloat16" if config.precision == "auto" else "asked for"
        if len(kinds) > 1:
            seconds = time_steps([Choices(device, kind, threads) for kind in kinds], model, loss)
            float32, bfloat16 = seconds.values()
            chosen, reason = ("bfloat16" if bfloat16 < 0.95 * float32 else "float32"), "the faster of two timed steps"
        if device == "cpu" and threads > 1 and not config.threads:
            counts = [threads >> i for i in range(threads.bit_length())]
            times = time_steps([Choices(device, chosen, n) for n in counts], model, loss)
            threads = min(n for n, t in zip(counts, times.values(), strict=True) if t <= 1.05 * min(times.values()))
            seconds |= times
        peak = measure_peak(device, chosen)
    return Choices(device, chosen, threads, products if chosen == "float32" else "plain", peak, seconds or None, reason)


def bfloat16_is_native(device: str) -> bool:
    """Whether the processor multiplies bfloat16 itself; emulation would be slower than float32."""
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device == "cpu" and torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def time_steps(
    candidates: Sequence[Choices], model: nn.Module, loss: Callable[[int], Tensor], most: float = 8.0
) -> dict[str, float]:
    """Seconds of one forward and backward pass by "precision, threads": the best of up to four, taken in turn, within about `most`
    seconds.
    """
    best = {c.name: float("inf") for c in candidates}
    begin = time.perf_counter()
    with untouched(model):
        for turn in range(5):
            for name, candidate in zip(best, candidates, strict=True):
                torch.set_num_threads(candidate.threads)
                start = time.perf_counter()
                with candidate.autocast():
                    value = loss(turn)
                value.backward()
                _wait(candidate.device)
                if turn > 0 or start - begin > most / 4:  # the first pass also warms up
                    best[name] = min(best[name], time.perf_counter() - start)
                model.zero_grad()
            if time.perf_counter() - begin > most / 2 and max(best.values()) < float("inf"):
                break
    return best


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Within, the model may be run and differentiated; afterwards weights, buffers, modes and the random
    state are as before.
    """
    modes = {module: module.training for module in model.modules()}
    kept = {name: tensor.detach().clone() for name, tensor in model.named_buffers()}
    with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_available() else []):
        model.train()
        try:
            yield
        finally:
            model.zero_grad()
            for name, tensor in model.named_buffers():
                if name in kept and kept[name].shape == tensor.shape:  # others are tables that grew
                    tensor.detach().copy_(kept[name])
            for module, mode in modes.items():
                module.training = mode


def measure_peak(device: str, precision: str, seconds: float = 0.15) -> float:
    """FLOP/s of a large square matrix product, the best seen in about `seconds`: what the machine can do, not
    what it says.
    """
    size = 1024 if device == "cpu" else 8192
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a = torch.ones(size, size, device=device, dtype=dtype)
    return 2 * size**3 / _best_time(lambda: a @ a, device, seconds)


def onednn_is_exact(and_faster: bool = True) -> bool:
    """Whether the permission behind `products="onednn"` keeps float32's precision here, at every one of a
    spread of shapes, and pays.
    """
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.backends.mkldnn, "matmul"):
        return False
    random = torch.Generator().manual_seed(0)
    times = {"plain": 0.0, "onednn": 0.0}
    try:
        for batch, m, k, n in (
            (0, 64, 64, 64),
            (0, 768, 128, 512),
            (0, 512, 1024, 384),
            (0, 1024, 384, 65),
            (8, 64, 32, 64),
        ):
            lead = (batch,) if batch else ()
            a, b = torch.randn(*lead, m, k, generator=random), torch.randn(*lead, k, n, generator=random)
            truth = a.double() @ b.double()
            for kind in times:
                set_products(kind)
                if ((a @ b - truth).abs().max() / truth.abs().max()).item() > 1e-5:  # float32: < 2e-6, bfloat16: > 1e-3
                    return False
                times[kind] += _best_time(partial(torch.matmul, a, b), "cpu", 0.01)
    finally:
        set_products("plain")
    return not and_faster or times["onednn"] < 0.9 * times["plain"]


def _best_time(work: Callable[[], object], device: str, seconds: float) -> float:
    best, begin = float("inf"), time.perf_counter()
    work()
    while time.perf_counter() - begin < seconds or best == float("inf"):
        start = time.perf_counter()
        work()
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return best


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    elif device == "mps":
        torch.mps.synchronize()
