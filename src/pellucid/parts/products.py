"""Products of layers as they are, while nothing is learnt: float32 goes through oneDNN, which PyTorch itself asks in lower precision only.

On AMD's processors what `F.linear` calls runs at half of their speed, and with one row at half of the memory's (docs/performance.md).
The sums are those of float32 in another order; nothing is rounded. A weight that is read again and again is laid out as oneDNN reads it
fastest: that costs about as much as reading it a dozen times, so it is done when it has been read that often.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.parts.heads import FreeHead, Scale, TiedHead

WORTH_ASKING = 2**18
"""Numbers in a weight from which a call of oneDNN, 10 µs, pays."""
WORTH_MOVING = 16
"""Calls after which a weight is laid out anew."""


def weight_of(module: nn.Module) -> tuple[Tensor, Tensor | None] | None:
    """Weight [out,in] and bias [out] of a Linear or a head over a vocabulary, whose scale is left out; None of anything else."""
    if isinstance(module, nn.Linear | FreeHead):
        return module.weight, module.bias
    return (module._tokens[0].weight, module.bias) if isinstance(module, TiedHead) else None


def scale_of(module: nn.Module) -> float:
    """What a tied head multiplies states with; 1 of anything else."""
    scale = getattr(module, "scale", None)
    return scale.factor if isinstance(scale, Scale) else 1.0


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x · weightᵀ + bias through oneDNN: x [...,in], weight [out,in] of the same type, as it is or `laid_out`."""
    out: Any = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


def laid_out(weight: Tensor) -> Tensor:
    """The weight [out,in] for `multiply` alone."""
    packed: Any = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)
    return packed


@contextmanager
def quick(model: nn.Module) -> Iterator[None]:
    """Within the block, large float32 layers of the model on a CPU multiply through oneDNN where no gradient is asked for. Their weights,
    hooks and names are as ever."""
    chosen = [module for module in model.modules() if "forward" not in vars(module) and _pays(module)]
    for turn, module in enumerate(chosen):
        module.forward = _InStead(module, WORTH_MOVING + turn)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in chosen:
            vars(module).pop("forward", None)


def _pays(module: nn.Module) -> bool:
    found = weight_of(module)
    if found is None or not torch.backends.mkldnn.is_available():
        return False
    weight = found[0]
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and weight.numel() >= WORTH_ASKING


class _InStead:
    """The `forward` of one module. `calls`: after how many its weight is laid out, each layer's a step later than the one before: no step
    takes long."""

    def __init__(self, module: nn.Module, calls: int) -> None:
        self.module, self.plain, self.scale, self.calls = module, module.forward, scale_of(module), calls
        self.source, self.version, self.packed = torch.empty(0), 0, torch.empty(0)

    def __call__(self, x: Tensor) -> Tensor:
        """[...,in] to [...,out]."""
        if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or x.dtype != torch.float32:
            return self.plain(x)
        weight, bias = weight_of(self.module)  # type: ignore[misc]
        self.calls -= 1
        if self.calls == 0:
            self.source, self.version, self.packed = weight, weight._version, laid_out(weight)
        if weight is self.source and weight._version == self.version:
            weight = self.packed
        elif not weight.is_contiguous() and not weight.t().is_contiguous():
            return self.plain(x)  # a part of a larger one (GPT-2's queries): oneDNN would take a thousand times as long
        return multiply(x if self.scale == 1.0 else x * self.scale, weight, bias)
