"""How like a query is to a key: additive, dot product, scaled dot product. Each takes [B,H,Q,C] and [B,G,K,C] and gives [B,H,Q,K].
Softmax makes weights of them.

G key heads may be fewer than H query heads (grouped queries, Ainslie et al. 2023); key head g serves the H/G queries heads g·H/G … .
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pellucid.parts.shapes import Keys, Queries, Weights


class Dot(nn.Module):
    """q·k (Luong et al. 2015, section 3.1)."""

    def scale(self, head_dim: int) -> float:
        """What q·k is multiplied with, for kernels that do it themselves."""
        return 1.0

    def forward(self, q: Queries, k: Keys) -> Weights:
        """Scores of every query for every key."""
        return products(q, k)


class ScaledDot(nn.Module):
    """q·k / √C: keeps the variance of the scores at 1 for unit-variance inputs (Vaswani et al. 2017, section 3.2.1)."""

    def scale(self, head_dim: int) -> float:
        """1 / √C."""
        return 1.0 / math.sqrt(head_dim)

    def forward(self, q: Queries, k: Keys) -> Weights:
        """Scores of every query for every key."""
        return products(q * self.scale(q.shape[-1]), k)


class Additive(nn.Module):
    """w_vᵀ tanh(W_q q + W_k k), with queries and keys of different widths (Bahdanau et al. 2015, appendix A.1.2).

    The hidden tensor [B,H,Q,K,A] is made in chunks of queries and recomputed in the backward pass: `max_elements` bounds what
    lives at once.
    """

    def __init__(self, d_query: int, d_key: int, d_hidden: int, n_heads: int = 1, max_elements: int = 2**24) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.empty(n_heads, d_query, d_hidden))
        self.key = nn.Parameter(torch.empty(n_heads, d_key, d_hidden))
        self.value = nn.Parameter(torch.empty(n_heads, d_hidden))
        self.max_elements = max_elements
        for weight in (self.query, self.key, self.value):
            nn.init.uniform_(weight, -1 / math.sqrt(weight.shape[-2]), 1 / math.sqrt(weight.shape[-2]))

    def scale(self, head_dim: int) -> None:
        """No dot product: no kernel computes it."""

    def forward(self, q: Tensor, k: Tensor) -> Weights:
        """[B,H,Q,d_query] and [B,G,K,d_key] to [B,H,Q,K]."""
        k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
        hidden_q, hidden_k = q @ self.query, k @ self.key
        per_query = k.shape[0] * q.shape[1] * k.shape[2] * self.value.shape[-1]
        chunks = hidden_q.split(max(1, self.max_elements // max(1, per_query)), dim=2)
        if len(chunks) == 1:
            return self._chunk(hidden_q, hidden_k)
        return torch.cat([checkpoint(self._chunk, chunk, hidden_k, use_reentrant=False) for chunk in chunks], dim=2)

    def _chunk(self, hidden_q: Tensor, hidden_k: Tensor) -> Tensor:
        hidden = torch.tanh(hidden_q.unsqueeze(3) + hidden_k.unsqueeze(2))  # [B,H,Q,K,A]
        return (hidden * self.value[:, None, None, :]).sum(-1)


SHORT, LANES = 64, 16


def softmax(scores: Tensor) -> Weights:
    """Each query's scores [B,H,Q,K] as weights that sum to 1.

    On a CPU few keys are worked on in float32, and made up to 16. Its kernel takes 32 numbers of bfloat16 at a time, 16 of float32, and
    what is left of a row one by one: rows as long as a sentence would take up to five times longer (docs/journal.md).
    """
    n_key = scores.shape[-1]
    if scores.device.type != "cpu" or n_key >= SHORT:
        return torch.softmax(scores, dim=-1)
    wide = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if n_key >= LANES:
        return torch.softmax(wide, dim=-1)
    return torch.softmax(F.pad(wide, (0, LANES - n_key), value=-torch.inf), dim=-1)[..., :n_key]


def products(q: Queries, k: Keys) -> Weights:
    """q·k of every query for every key of its group."""
    return (group(q, k) @ k.transpose(-1, -2)).view(*q.shape[:3], k.shape[2])


def group(q: Tensor, k: Tensor) -> Tensor:
    """[B,H,Q,C] as [B,G,H/G·Q,C]: the queries that share a key head stand in one matrix, so keys are never copied."""
    b, h, n, c = q.shape
    return q.reshape(b, k.shape[1], h // k.shape[1] * n, c)
