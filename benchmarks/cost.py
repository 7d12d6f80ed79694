"""Does `pellucid cost` foretell what happens? Predicted beside measured: time of a forward pass and of a training step, memory autograd
keeps; and the FLOPs of a trace beside those torch.profiler counts.

    python benchmarks/cost.py [--threads 1]

The machine is measured anew before each line, because what else it does changes its speed from minute to minute.
"""

import argparse
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from pellucid.inspection.cost import Setting, cost, kept_for_backward, loss
from pellucid.inspection.machine import best, measure
from pellucid.inspection.subject import random_subject, still
from pellucid.inspection.tell import count, duration, size
from pellucid.inspection.trace import trace
from pellucid.models.build import build
from pellucid.models.presets import PRESETS
from pellucid.training import devices
from pellucid.training.config import TrainingConfig
from pellucid.training.optimizers import Optimizer

CASES = (
    ("original-laptop", 8, 1),
    ("original-laptop", 32, 32),
    ("llama-like-laptop", 64, 1),
    ("llama-like-laptop", 256, 8),
    ("bert-laptop", 128, 8),
    ("vit-laptop", 1, 32),
    ("llama-like", 512, 2),
    ("gpt2", 128, 1),
)
HEAD = ("model", "N", "B", "forward", "predicted", "", "step", "predicted", "", "kept", "predicted")
LINE = "{:18}{:>5}{:>4}{:>10}{:>10}{:>6}{:>10}{:>10}{:>6}{:>10}{:>10}"


def main() -> None:
    """Prints two tables."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(flags.parse_args().threads)
    devices.keep_freed_memory()
    print(LINE.format(*HEAD))
    for name, length, batch in CASES:
        print(compare(name, length, batch), flush=True)
    print(
        f"\n{'model':18}{'trace':>12}{'profiler':>12}   FLOPs of a forward pass with gradients on: the same operations, seen twice"
    )
    for name, length, batch in CASES:
        print(flops(name, min(length, 128), batch), flush=True)


def compare(name: str, length: int, batch: int) -> str:
    """A line: measured, predicted, their quotient."""
    setting = Setting(length, batch)
    predicted, machine = cost(PRESETS[name], setting), measure("cpu", "float32")
    model, inputs = build(PRESETS[name]), random_subject(PRESETS[name], length, batch).inputs
    with still(model):
        forward = best(lambda: model(**inputs), "cpu", 1.0)
    model.train()
    optimizer = Optimizer(model, TrainingConfig())
    with kept_for_backward(model) as kept:
        value = loss(model, inputs)
    value.backward()

    def step() -> None:
        loss(model, inputs).backward()
        optimizer.step(1.0)

    step()
    measured, told = best(step, "cpu", 2.0), predicted.seconds(machine)
    return LINE.format(
        name,
        length,
        batch,
        duration(forward),
        duration(told["forward"]),
        f"{told['forward'] / forward:.2f}",
        duration(measured),
        duration(told["step"]),
        f"{told['step'] / measured:.2f}",
        size(kept()),
        size(predicted.memory["activations"]),
    )


def flops(name: str, length: int, batch: int) -> str:
    """A line: FLOPs of one forward pass, as traced and as the profiler has them."""
    config = replace(PRESETS[name], stack=replace(PRESETS[name].stack, n_layers=2))
    model: Any = build(config).eval()
    inputs: dict[str, Tensor] = random_subject(config, length, batch).inputs
    ours = trace(model, **inputs).totals["flops"]
    with profile(activities=[ProfilerActivity.CPU], with_flops=True) as seen:
        model(**inputs)
    products = ("aten::mm", "aten::addmm", "aten::bmm", "aten::conv2d")
    theirs = sum(event.flops for event in seen.key_averages() if event.key in products)
    return f"{name:18}{count(ours):>12}{count(theirs):>12}"


if __name__ == "__main__":
    main()
