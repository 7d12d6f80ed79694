"""The loss of a step as one compiled program (`torch.compile`, Ansel et al. 2024): fewer and larger operations, after half a minute of
compiling, for which a C++ compiler is needed (on a GPU: Triton).

It pays in a long run whose batches all have one shape; each new shape would be compiled anew. Evaluation and generation use the model as it
is.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from pellucid.errors import UserError
from pellucid.training.config import TrainingConfig
from pellucid.training.devices import Choices, time_steps, untouched, using

Loss = Callable[[nn.Module, Mapping[str, Tensor]], Tensor]

LONG = 600.0
"""Seconds of forward and backward passes from which on "auto" tries it."""

FEW = (0, 1, 1000)
"""Steps whose batches tell whether all have one shape."""


def program(loss: Loss, compiled: bool) -> Loss:
    """`loss`, compiled where that was chosen."""
    return torch.compile(loss, dynamic=False) if compiled else loss


def one_shape(batch: Callable[[int], Mapping[str, Tensor]], parts: int) -> bool:
    """Whether batches seem to have the same shapes at every step and fall into equal parts."""
    shapes = [{name: tensor.shape for name, tensor in batch(step).items()} for step in FEW]
    return shapes.count(shapes[0]) == len(shapes) and next(iter(shapes[0].values()))[0] % parts == 0


def decide(
    t: TrainingConfig, choices: Choices, model: nn.Module, loss: Callable[[int, bool], Tensor], fixed: bool
) -> Choices:
    """`choices`, compiled if that is asked for, or if the run is long, its batches have one shape (`fixed`) and a step is 5 % faster.

    `loss(i, compiled)`: of `model`, on a part of batch i. UserError if it is asked for and cannot be.
    """
    if t.compile == "on" and not fixed:
        raise UserError("training.compile is on, and these batches have different shapes", "training.compile = off")
    if t.compile == "off" or not fixed:
        return choices
    known = (choices.step_seconds or {}).get(choices.name)
    if t.compile == "auto" and known and known * t.steps < LONG:
        return choices  # timed already
    with using(choices):
        (plain,) = time_steps([choices], model, lambda i: loss(i, False)).values()
        if t.compile == "auto" and plain * t.steps < LONG:
            return choices
        try:
            with untouched(model), choices.autocast():
                loss(0, True).backward()
            (quick,) = time_steps([choices], model, lambda i: loss(i, True)).values()
        except torch._dynamo.exc.TorchDynamoException as error:
            problem = (str(error).strip() or type(error).__name__).splitlines()[0]
            if t.compile == "on":
                raise UserError(f"this loss cannot be compiled here: {problem}", "training.compile = off") from error
            return replace(choices, reason=f"{choices.reason}; not compiled: {problem}")
    seconds = {**(choices.step_seconds or {}), "as it is": plain, "compiled": quick}
    return replace(choices, compiled=t.compile == "on" or quick < 0.95 * plain, step_seconds=seconds)
