"""Cross-entropy of a vocabulary projection without ever holding all its logits."""

from typing import Any

import torch
from torch import Tensor

from pellucid.parts.norms import working_dtype

CHUNK = 2**22
"""Logits worked on at a time: a few megabytes, so that they stay in the processor's cache. With a large vocabulary rather as many rows as
the table is wide: they need no more memory than the table's gradient, which each further chunk reads and writes once more.
"""


class _LinearCrossEntropy(torch.autograd.Function):
    """Forward works out the gradient as well, chunk by chunk, while the logits are at hand; backward only scales it."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, smoothing: float
    ) -> Tensor:  # type: ignore[override]
        kind = working_dtype(states)
        x, w = states.to(kind), weight.to(kind)
        wanted, first = any(ctx.needs_input_grad[:3]), True
        grad_states, grad_weight = (torch.empty_like(x), torch.empty_like(weight)) if wanted else (x, weight)
        grad_bias = None if bias is None else torch.zeros_like(bias)
        total = torch.zeros((), dtype=torch.float32, device=states.device)
        for part in _parts(len(targets), *weight.shape):
            loss, slope = _chunk(x[part], w, bias, targets[part], smoothing)
            total += loss
            if wanted:
                slope = slope.to(kind)
                torch.mm(slope, w, out=grad_states[part])
                (grad_weight.copy_ if first else grad_weight.add_)(slope.T @ x[part])
                first = False
                if grad_bias is not None:
                    grad_bias += slope.sum(0)
        ctx.save_for_backward(grad_states, grad_weight, grad_bias)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        return *(None if g is None else (g.float() * gradient).to(g.dtype) for g in ctx.saved_tensors), None, None


def _parts(n_rows: int, n_vocab: int, width: int) -> list[slice]:
    """Rows to work on at a time; one part even of no rows, which sets the gradient to zero."""
    rows = max(CHUNK // n_vocab, width)
    return [slice(start, start + rows) for start in range(0, max(1, n_rows), rows)]


def _chunk(x: Tensor, w: Tensor, bias: Tensor | None, targets: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """The summed loss of some rows, and its slope by their logits [n,V] in float32."""
    logits = (x @ w.T).float()
    if bias is not None:
        logits += bias
    rows, n_vocab = torch.arange(len(targets), device=x.device), w.shape[0]
    right = logits[rows, targets]
    even = logits.mean(-1) if smoothing else 0.0
    top = logits.amax(-1, keepdim=True)
    p = logits.sub_(top).exp_()
    norm = p.sum(-1, keepdim=True)
    loss = (norm.log() + top).squeeze(-1) - (1 - smoothing) * right - smoothing * even
    p.mul_(norm.reciprocal())
    if smoothing:
        p.sub_(smoothing / n_vocab)
    p[rows, targets] -= 1 - smoothing
    return loss.sum(), p


def linear_cross_entropy(
    states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """Sum of the cross-entropies of states [N,D] · weight [V,D]ᵀ + bias [V] for targets int64 [N], in nats.

    Equals `F.cross_entropy(logits, targets, reduction="sum", label_smoothing=…)` in value and gradients, in less memory and time;
    every target counts (there is no ignored one). Label smoothing: Szegedy et al. 2016, section 7.
    """
    return _LinearCrossEntropy.apply(states, weight, bias, targets, label_smoothing)
