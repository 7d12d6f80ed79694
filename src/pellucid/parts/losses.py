"""Cross-entropy of a vocabulary projection without ever holding all its logits."""

from typing import Any

import torch
from torch import Tensor

CHUNK = 2**22
"""Logits worked on at a time: a few megabytes, so that they stay in the processor's cache."""


class _LinearCrossEntropy(torch.autograd.Function):
    """Forward works out the gradient as well, chunk by chunk, while the logits are at hand; backward only scales it."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, smoothing: float
    ) -> Tensor:  # type: ignore[override]
        kind = (
            torch.get_autocast_dtype(states.device.type)
            if torch.is_autocast_enabled(states.device.type)
            else states.dtype
        )
        x, w = states.to(kind), weight.to(kind)
        wanted = any(ctx.needs_input_grad[:3])
        grad_states, grad_weight = (torch.empty_like(x), torch.zeros_like(weight)) if wanted else (x, weight)
        grad_bias = None if bias is None else torch.zeros_like(bias)
        total = torch.zeros((), dtype=torch.float32, device=states.device)
        rows = max(1, CHUNK // weight.shape[0])
        for start in range(0, len(targets), rows):
            part = slice(start, start + rows)
            loss, slope = _chunk(x[part], w, bias, targets[part], smoothing)
            total += loss
            if wanted:
                slope = slope.to(kind)
                torch.mm(slope, w, out=grad_states[part])
                grad_weight += slope.T @ x[part]
                if grad_bias is not None:
                    grad_bias += slope.sum(0)
        ctx.save_for_backward(grad_states, grad_weight, grad_bias)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        return *(None if g is None else (g.float() * gradient).to(g.dtype) for g in ctx.saved_tensors), None, None


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
