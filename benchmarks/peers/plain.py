"""The plain training loop that every peer is given: forward, backward, clip, AdamW. Imports nothing of ours but the pipe.

Settings: `work` (its sizes), `folder` (batches.npz, which ours wrote), `attention` ("fused" or "explicit"), `bf16` (autocast), `compiled`,
`fused_adamw`, `least` (steps of warm-up and of each answer), `imported` (MB, after the peer's imports); `seconds` in each request: at least
that long.
"""

import importlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Batches = Iterator[tuple[dict[str, Tensor], int]]


def begin(
    settings: dict[str, Any],
    model: nn.Module,
    loss: Callable[[Any, dict[str, Tensor]], Tensor],
    batches: Batches,
    groups: Any = None,
) -> tuple[dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]]]:
    """Warms up and gives what `serve` needs. `loss(model, batch)`; `groups`: parameters for AdamW, None = all alike."""
    optimizer = torch.optim.AdamW(
        model.parameters() if groups is None else groups, lr=1e-4, fused=settings.get("fused_adamw") or None
    )
    called: Any = torch.compile(model, dynamic=settings.get("dynamic")) if settings["compiled"] else model
    model.train()

    def step() -> tuple[float, float, int]:
        start, cpu = time.perf_counter(), time.process_time()
        batch, n = next(batches)
        with torch.autocast("cpu", torch.bfloat16, enabled=settings["bf16"]):
            value = loss(called, batch)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        value.item()
        return time.perf_counter() - start, time.process_time() - cpu, n

    def steps(request: dict[str, Any]) -> dict[str, Any]:
        until, found = time.perf_counter() + request["seconds"], [step() for _ in range(settings["least"])]
        while time.perf_counter() < until:
            found.append(step())
        return dict(zip(("seconds", "cpu", "units"), zip(*found, strict=True), strict=True))

    steps({"seconds": 0.0})
    return {"parameters": sum(p.numel() for p in model.parameters()), "imported": settings["imported"]}, steps


def imported() -> float:
    """Million bytes that this process holds when a training's libraries are imported and nothing is built; 0 where it is not Linux.

    The first step of any optimizer of torch's imports the front of its compiler, which some libraries import at once: all do it here.
    """
    importlib.import_module("torch._dynamo")
    if sys.platform != "linux":
        return 0.0
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmRSS"))


def shared(settings: dict[str, Any]) -> list[dict[str, Tensor]]:
    """The batches that ours sees."""
    found: dict[int, dict[str, Tensor]] = {}
    with np.load(Path(settings["folder"]) / "batches.npz") as arrays:
        for name in arrays.files:
            step, _, what = name.partition(".")
            found.setdefault(int(step), {})[what] = torch.from_numpy(arrays[name])
    return [found[step] for step in sorted(found)]


def again(batches: list[dict[str, Tensor]], key: str = "ids") -> Batches:
    """These batches over and over, with their tokens (of "images": their number)."""
    while True:
        for batch in batches:
            yield batch, batch[key].shape[0] if key == "images" else batch[key].numel()
