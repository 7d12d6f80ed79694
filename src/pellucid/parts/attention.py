"""Attention: queries look at keys and take from values, in several heads (Vaswani et al. 2017, section 3.2).

It knows no family: who may look is `Mask`; where things are comes as angles (rotary) or as a bias; how like counts is the score; what is
remembered is the cache; how it is computed is `attend`. `attend` picks the kernel, `attend_explicit` shows the weights; one contract:
q [B,H,Q,C], k [B,G,K,C], v [B,G,K,Cv] -> [B,H,Q,Cv]; a query that may look at nothing gets zeros and gives no gradient.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.parts.cache import Fixed, Growing
from pellucid.parts.dropout import drop
from pellucid.parts.masks import Mask
from pellucid.parts.positions import Angles, rotate
from pellucid.parts.scores import Dot, ScaledDot, group, softmax
from pellucid.parts.shapes import Keys, Mixed, Queries, Values, Weights

EXPLICIT_UP_TO = 256
"""Keys up to which training on a CPU goes the explicit way: the fused kernel's backward pass is several times slower there
(docs/decisions/0003-which-kernel.md).
"""

Sides = tuple[Tensor | None, Tensor | None]
"""`Angles` of the queries, and of the keys."""

OPEN = Mask()
SCALED_DOT = ScaledDot()


def attend(
    q: Queries,
    k: Keys,
    v: Values,
    mask: Mask = OPEN,
    bias: Tensor | None = None,
    score: nn.Module = SCALED_DOT,
    dropout: float = 0.0,
) -> Mixed:
    """Values mixed by attention weights, by the best kernel for this score, mask, length and device.

    bias [1|B,1|H,Q,K] is added to the scores.
    """
    n_query, n_key = q.shape[2], k.shape[2]
    scale = score.scale(q.shape[-1])  # type: ignore[operator]
    trained_on_cpu = q.device.type == "cpu" and torch.is_grad_enabled() and q.requires_grad
    if scale is None or (trained_on_cpu and n_key <= EXPLICIT_UP_TO):
        return attend_explicit(q, k, v, mask, bias, score, dropout)[0]
    causal = bias is None and mask.is_causal(n_query, n_key)
    added = None if causal else _sum(mask.bias(n_query, n_key, q), bias)
    if added is not None:
        added = added.expand(q.shape[0], -1, n_query, n_key).to(q.dtype)
    mixed = F.scaled_dot_product_attention(
        q, k, v, added, dropout, causal, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
    )
    return _blank(mixed, mask.seeing(n_query, n_key, q.device))


def attend_explicit(
    q: Queries,
    k: Keys,
    v: Values,
    mask: Mask = OPEN,
    bias: Tensor | None = None,
    score: nn.Module = SCALED_DOT,
    dropout: float = 0.0,
) -> tuple[Mixed, Weights]:
    """As `attend`, step by step, and the weights beside the result. Needs memory for [B,H,Q,K]."""
    n_query, n_key = q.shape[2], k.shape[2]
    scores = score(q, k)
    added = _sum(mask.bias(n_query, n_key, scores), bias)
    if added is not None:
        scores = scores + added
    weights = _blank(softmax(scores).to(v.dtype), mask.seeing(n_query, n_key, q.device))
    mixed = group(drop(weights, dropout) if dropout else weights, v) @ v
    return mixed.view(*q.shape[:3], v.shape[-1]), weights


def _sum(mask: Tensor | None, bias: Tensor | None) -> Tensor | None:
    """What is added to the scores. A bias of -inf becomes the mask's finite number: a row of nothing else has a softmax then."""
    if bias is not None:
        bias = bias.clamp(min=torch.finfo(bias.dtype).min / 2)
    return bias if mask is None else mask if bias is None else mask + bias


def _blank(x: Tensor, seeing: Tensor | None) -> Tensor:
    return x if seeing is None else x * seeing.to(x.dtype)  # as a number: a product with bool takes four times as long


class Attend(nn.Module):
    """`attend` as a module: the one place to look at queries, keys, values and mask from outside (see taps)."""

    def __init__(self, score: nn.Module | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        self.score, self.dropout = score or ScaledDot(), dropout

    def forward(self, q: Queries, k: Keys, v: Values, mask: Mask, bias: Tensor | None) -> Mixed:
        """See `attend`."""
        return attend(q, k, v, mask, bias, self.score, self.dropout if self.training else 0.0)


@dataclass(frozen=True)
class Widths:
    """What comes in: the widths of queries, keys and values; and that of a head, None = d_model / n_heads."""

    query: int
    key: int
    value: int
    head: int | None = None


class Attention(nn.Module):
    """Multi-head attention. Keys default to the queries (self-attention), values to the keys.

    n_kv_heads < n_heads: grouped queries; 1: multi-query (Shazeer 2019). `widths` where inputs are not d_model wide. `norm`, made for
    head_dim, is applied to queries and keys (Henry et al. 2020). bias "inputs": of queries, keys and values, not of what comes out.
    Projections are named query, key, value, out; head h owns the rows h·C … (h+1)·C.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        n_kv_heads: int | None = None,
        widths: Widths | None = None,
        bias: bool | Literal["inputs"] = True,
        score: Dot | nn.Module | None = None,
        norm: type[nn.Module] | partial | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        n_kv_heads, widths = n_kv_heads or n_heads, widths or Widths(d_model, d_model, d_model)
        if (widths.head is None and d_model % n_heads) or n_heads % n_kv_heads:
            raise ValueError(
                f"d_model {d_model} must be a multiple of n_heads {n_heads}, and that of n_kv_heads {n_kv_heads}"
            )
        self.head_dim = widths.head or d_model // n_heads
        self.query = nn.Linear(widths.query, n_heads * self.head_dim, bool(bias))
        self.key = nn.Linear(widths.key, n_kv_heads * self.head_dim, bool(bias))
        self.value = nn.Linear(widths.value, n_kv_heads * self.head_dim, bool(bias))
        self.out = nn.Linear(n_heads * self.head_dim, d_model, bias is True)
        self.norm_query, self.norm_key = (
            (norm(self.head_dim), norm(self.head_dim)) if norm else (nn.Identity(), nn.Identity())
        )
        self.attend = Attend(score, dropout)

    def forward(
        self,
        queries: Tensor,
        keys: Tensor | None = None,
        values: Tensor | None = None,
        mask: Mask = OPEN,
        bias: Tensor | None = None,
        angles: Sides = (None, None),
        cache: Growing | Fixed | None = None,
    ) -> Tensor:
        """[B,Q,d_query], [B,K,d_key], [B,K,d_value] -> [B,Q,D]. `angles` of the queries and of the keys turn them (rotary)."""
        keys = queries if keys is None else keys
        values = keys if values is None else values
        q = rotate(self.norm_query(self._split(self.query(queries))), angles[0])
        compute = partial(self._remember, keys, values, angles[1])
        k, v = compute() if cache is None else cache.recall(compute)
        return self.out(self.attend(q, k, v, mask, bias).transpose(1, 2).flatten(2))

    def _remember(self, keys: Tensor, values: Tensor, angles: Angles | None) -> tuple[Tensor, Tensor]:
        return rotate(self.norm_key(self._split(self.key(keys))), angles), self._split(self.value(values))

    def _split(self, x: Tensor) -> Tensor:
        """[B,T,heads·C] -> [B,heads,T,C]."""
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
