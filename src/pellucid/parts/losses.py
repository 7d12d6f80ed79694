"""Cross-entropy of a vocabulary projection without ever holding all its logits."""

from typing import Any

import torch
from torch import Tensor

from pellucid.parts.norms import working_dtype

CHUNK, SLICE = 2**22, 2**19
"""Logits held at a time, and of these worked on at a time on a CPU: two megabytes, so that they stay in its cache. With a large vocabulary
rather so many that they need as much memory as the table's gradient, which each further chunk reads and writes once more.
"""


class _LinearCrossEntropy(torch.autograd.Function):
    """Forward works out the gradient as well, chunk by chunk, while the logits are at hand; backward only scales it."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, smoothing: float
    ) -> Tensor:  # type: ignore[override]
        kind = working_dtype(states)
        x, w = states.to(kind), weight.to(kind)
        wanted = any(ctx.needs_input_grad[:3])
        grad_states, grad_weight = torch.empty_like(x) if wanted else x[:0], None
        grad_bias = None if bias is None else torch.zeros_like(bias)
        total = torch.zeros((), dtype=torch.float32, device=states.device)
        for part in _parts(len(targets), weight, kind.itemsize):
            slope = x[part] @ w.T
            total += _to_slope(slope, bias, targets[part], smoothing)
            if wanted:
                torch.mm(slope, w, out=grad_states[part])
                product = slope.T @ x[part]
                grad_weight = product if grad_weight is None else grad_weight.to(weight.dtype).add_(product)
                if grad_bias is not None:
                    grad_bias += slope.sum(0)
        ctx.save_for_backward(grad_states, grad_weight, grad_bias)
        ctx.kinds = kind, weight.dtype, weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        return *map(_scaled, ctx.saved_tensors, ctx.kinds, [gradient] * 3), None, None


def _scaled(saved: Tensor | None, kind: torch.dtype, factor: Tensor) -> Tensor | None:
    """A saved gradient times the slope of what comes after, in float32 until it is rounded to `kind`."""
    if saved is None:
        return None
    wide = saved.float()
    return (wide * factor if wide is saved else wide.mul_(factor)).to(kind)


def _parts(n_rows: int, table: Tensor, bytes_each: int) -> list[slice]:
    """Rows to work on at a time; one part even of no rows, which sets the gradient to zero."""
    rows = max(CHUNK // table.shape[0], table.shape[1] * table.element_size() // bytes_each)
    return [slice(start, start + rows) for start in range(0, max(1, n_rows), rows)]


def _to_slope(logits: Tensor, bias: Tensor | None, targets: Tensor, smoothing: float) -> Tensor:
    """The summed loss of some rows; their logits [n,V] become its slope by them. Worked out in float32."""
    sliced = logits.device.type == "cpu" and not torch.compiler.is_compiling()
    size = max(1, SLICE // logits.shape[1] if sliced else len(logits))
    total = torch.zeros((), dtype=torch.float32, device=logits.device)
    for rows, right in zip(logits.split(size), targets.split(size), strict=True):
        loss, slope = _slice(rows.float(), bias, right, smoothing)
        total += loss
        rows.copy_(slope)
    return total


def _slice(logits: Tensor, bias: Tensor | None, targets: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """The summed loss of logits [n,V] in float32, and its slope by them."""
    if bias is not None:
        logits = logits + bias
    rows = torch.arange(len(targets), device=logits.device)
    right, top = logits[rows, targets], logits.amax(-1)
    even = logits.mean(-1) if smoothing else 0.0
    p = torch.softmax(logits, dim=-1)
    norm = top - p.amax(-1).log()  # the logarithm of the sum of all exponentials
    loss = norm - (1 - smoothing) * right - smoothing * even
    if smoothing:
        p.sub_(smoothing / p.shape[1])
    p[rows, targets] -= 1 - smoothing
    return loss.sum(), p


def linear_cross_entropy(
    states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """Sum of the cross-entropies of states [N,D] · weight [V,D]ᵀ + bias [V] for targets int64 [N], in nats.

    Equals `F.cross_entropy(logits, targets, reduction="sum", label_smoothing=…)` in value and gradients, in less memory and time;
    every target counts (there is no ignored one); there is no second derivative. Label smoothing: Szegedy et al. 2016, section 7.
    """
    return _LinearCrossEntropy.apply(states, weight, bias, targets, label_smoothing)
