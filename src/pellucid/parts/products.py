"""Products of layers as they are, while nothing is learnt: float32 goes through oneDNN, which PyTorch itself asks in lower precision only.

On AMD's processors what `F.linear` calls runs at half of their speed, and with one row at half of the memory's (docs/performance.md).
The sums are those of float32 in another order; nothing is rounded. A weight that is read again and again is laid out as oneDNN reads it
fastest, in a copy of its own. That costs about as much as reading it a dozen times, so it is done when it has been read that often, and
only as long as all copies together take no more than a quarter of the memory that is free (`SHARE`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid import room
from pellucid.parts.heads import FreeHead, Scale, TiedHead

WORTH_ASKING = 2**18
"""Numbers in a weight from which a call of oneDNN, 10 µs, pays."""
WORTH_MOVING = 16
"""Calls after which a weight is laid out anew."""
SHARE = 0.25
"""Of the memory that is free when work begins, what weights laid out anew may take."""


def has_onednn() -> bool:
    """Whether this PyTorch was built with it."""
    return torch.backends.mkldnn.is_available()


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
    """x · weightᵀ + bias, through oneDNN where it is: x [...,in], weight [out,in] of the same type, as it is or `laid_out`."""
    if not has_onednn():
        return F.linear(x, weight, bias)
    out: Any = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


def laid_out(weight: Tensor) -> Tensor:
    """The weight [out,in] for `multiply` alone."""
    weight = weight.detach()
    return torch.ops.mkldnn._reorder_linear_weight(weight, None) if has_onednn() else weight  # type: ignore[no-any-return]


@contextmanager
def quick(model: nn.Module, share: float = SHARE) -> Iterator[None]:
    """Within the block, large float32 layers of the model on a CPU multiply through oneDNN where no gradient is asked for. Their weights,
    hooks and names are as ever. share: of the free memory, what copies laid out on the way may take; 0 = there are none, and which kernel
    multiplies never depends on how often it did."""
    chosen = [module for module in model.modules() if "forward" not in vars(module) and _pays(module)]
    left = int(share * (room.free() or 0)) if chosen and share else 0
    for turn, module in enumerate(chosen):
        size = 4 * weight_of(module)[0].numel()  # type: ignore[index]
        moves, left = (True, left - size) if size <= left else (False, left)
        module.forward = _InStead(module, WORTH_MOVING + turn if moves else 0)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in chosen:
            vars(module).pop("forward", None)


def _pays(module: nn.Module) -> bool:
    found = weight_of(module)
    if found is None or not has_onednn():
        return False
    weight = found[0]
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and weight.numel() >= WORTH_ASKING


class _InStead:
    """The `forward` of one module. turn: at which call its weight is laid out, each layer's a step later than the one before, so that no
    step takes long; 0 = never."""

    def __init__(self, module: nn.Module, turn: int) -> None:
        self.module, self.plain, self.scale = module, module.forward, scale_of(module)
        # several threads call this: one of them counts to 0, and each sees all of `moved` or nothing
        self.before = count(turn - 1, -1)
        self.moved: tuple[Tensor, int, Tensor] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """[...,in] to [...,out]."""
        if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or x.dtype != torch.float32:
            return self.plain(x)
        weight, bias = weight_of(self.module)  # type: ignore[misc]
        if next(self.before) == 0:
            self.moved = weight, _version(weight), laid_out(weight)
        moved = self.moved
        if moved and weight is moved[0] and _version(weight) == moved[1]:
            weight = moved[2]
        elif not weight.is_contiguous() and not weight.t().is_contiguous():
            return self.plain(x)  # a part of a larger one (GPT-2's queries): oneDNN would take a thousand times as long
        return multiply(x if self.scale == 1.0 else x * self.scale, weight, bias)


def _version(weight: Tensor) -> int:
    """How often it was changed; a tensor made in inference mode does not count."""
    return 0 if weight.is_inference() else weight._version
