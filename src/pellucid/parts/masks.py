"""Mask: who may look at whom. True = may look. One object for every convention of the field.

A mask stays data until the kernel, so a purely causal one keeps the kernel's own flag and nothing quadratic is built. All fields
constrain independently and are combined with `and`; `a & b` is the mask that satisfies both. The last query lines up with the last
key, so the same mask is right with and without a cache (PyTorch's `is_causal` lines up the first ones instead).
"""

from dataclasses import dataclass, field, fields

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Mask:
    """Who may look at whom; every field left at its default allows everything.

    causal: a query sees keys up to its own place. window: only keys fewer than `window` places away, itself included.
    keep [B,K]: True on real keys. query_keep [B,Q]: queries that are False see nothing. segments [B,K]: only keys with the same number
    (packed documents). prefix [B]: causal, but the first `prefix` keys are open to all (prefix language model). pairs [B|1,Q,K]: anything.
    """

    causal: bool = False
    window: int | None = None
    keep: Tensor | None = None
    query_keep: Tensor | None = None
    segments: Tensor | None = None
    prefix: Tensor | None = None
    pairs: Tensor | None = None
    _memo: dict = field(default_factory=dict, repr=False, init=False)

    def __post_init__(self) -> None:
        if self.window is not None and self.window < 1:
            raise ValueError(f"a window holds at least the query itself: {self.window} is less than 1")

    # -- constructors from the field's conventions

    @classmethod
    def lengths(cls, lengths: Tensor, n_key: int) -> "Mask":
        """Valid lengths: per row [B], or per row and query [B,Q] (Dive into Deep Learning's `valid_lens`)."""
        allowed = torch.arange(n_key, device=lengths.device) < lengths.unsqueeze(-1)
        return cls(keep=allowed) if lengths.dim() == 1 else cls(pairs=allowed)

    @classmethod
    def ones_keep(cls, keys: Tensor | None = None, *, pairs: Tensor | None = None) -> "Mask":
        """1 or True = may look (Hugging Face's attention_mask, SDPA's boolean attn_mask): of keys [B,K], of pairs [Q,K], [B,Q,K] or
        [B,1,Q,K]."""
        if keys is not None and keys.dim() != 2:
            raise ValueError(f"a mask of keys is [B,K], this one has shape {list(keys.shape)}; is it one of pairs=?")
        return cls(
            keep=None if keys is None else keys.bool(), pairs=None if pairs is None else _three_axes(pairs).bool()
        )

    @classmethod
    def ones_masked(cls, keys: Tensor | None = None, *, pairs: Tensor | None = None) -> "Mask":
        """1 or True = must not look (`nn.MultiheadAttention`: key_padding_mask is one of keys, a boolean attn_mask one of pairs)."""
        turned = [None if mask is None else ~mask.bool() for mask in (keys, pairs)]
        return cls.ones_keep(turned[0], pairs=turned[1])

    @classmethod
    def additive(cls, keys: Tensor | None = None, *, pairs: Tensor | None = None) -> "Mask":
        """0 = may look, a large negative number (-1e9, -inf) = must not, to be added to scores."""
        if any(mask is not None and not mask.is_floating_point() for mask in (keys, pairs)):
            raise ValueError(
                "an additive mask holds floating-point numbers; for 0/1 masks use ones_keep or ones_masked"
            )
        allowed = [None if mask is None else mask > -1e4 for mask in (keys, pairs)]
        return cls.ones_keep(allowed[0], pairs=allowed[1])

    # -- combination

    def __and__(self, other: "Mask") -> "Mask":
        """Both must allow it."""
        return Mask(
            causal=self.causal or other.causal,
            window=_both(self.window, other.window, min),
            keep=_both(self.keep, other.keep, torch.logical_and),
            query_keep=_both(self.query_keep, other.query_keep, torch.logical_and),
            segments=_both(
                self.segments, other.segments, lambda a, b: (a - a.min()) * (b.max() - b.min() + 1) + b - b.min()
            ),
            prefix=_both(self.prefix, other.prefix, torch.minimum),
            pairs=_both(self.pairs, other.pairs, torch.logical_and),
        )

    # -- what kernels ask

    @property
    def constraints(self) -> set[str]:
        """Names of the fields that constrain anything."""
        return {name for name in _FIELDS if getattr(self, name) is not None and getattr(self, name) is not False}

    def is_open(self, n_query: int) -> bool:
        """Nothing is forbidden (a single last query sees every key even when causal)."""
        return not self.constraints or (n_query == 1 and self.constraints == {"causal"})

    def is_causal(self, n_query: int, n_key: int) -> bool:
        """Exactly what a kernel's causal flag means: purely causal (a window may be as wide as the text), as many queries as keys."""
        wide = {"window"} if self.window is not None and self.window >= n_key else set()
        return self.constraints - wide == {"causal"} and n_query == n_key

    def dense(self, n_query: int, n_key: int, device: torch.device | str | None = None) -> Tensor:
        """Bool [1|B, 1, Q, K], True = may look."""
        allowed = self._broadcast(n_query, n_key, device)
        return allowed.expand(allowed.shape[0], 1, n_query, n_key)

    def bias(self, n_query: int, n_key: int, like: Tensor) -> Tensor | None:
        """The mask as numbers to add to scores, in `like`'s dtype: [1|B, 1, 1|Q, K], or None when nothing is forbidden. Made once."""
        if self.is_open(n_query):
            return None
        key = ("bias", n_query, n_key, like.dtype, like.device)
        if key not in self._memo:
            forbidden = ~self._broadcast(n_query, n_key, like.device)
            zero = torch.zeros(forbidden.shape, dtype=like.dtype, device=like.device)
            self._memo[key] = zero.masked_fill_(forbidden, torch.finfo(like.dtype).min / 2)
        return self._memo[key]

    def seeing(self, n_query: int, n_key: int, device: torch.device | str | None = None) -> Tensor | None:
        """Bool [1|B, 1, 1|Q, 1]: False on queries that may look at nothing. None when every query surely sees something."""
        if self.constraints <= {"causal", "window", "prefix"} and n_query <= n_key:
            return None
        key = ("seeing", n_query, n_key, device)
        if key not in self._memo:
            self._memo[key] = self._broadcast(n_query, n_key, device).any(-1, keepdim=True)
        return self._memo[key]

    def _broadcast(self, n_query: int, n_key: int, device: torch.device | str | None) -> Tensor:
        """As `dense`, but axes along which nothing changes have size 1."""
        query = torch.arange(n_key - n_query, n_key, device=device).view(1, 1, n_query, 1)
        key = torch.arange(n_key, device=device).view(1, 1, 1, n_key)
        terms = [torch.ones(1, 1, 1, n_key, dtype=torch.bool, device=device)]
        if self.causal:
            terms.append(key <= query)
        if self.window is not None:
            terms.append((query - key).abs() < self.window)
        if self.keep is not None:
            terms.append(_fits(self.keep, "keep", n_key)[:, None, None, :])
        if self.query_keep is not None:
            terms.append(_fits(self.query_keep, "query_keep", n_query)[:, None, :, None])
        if self.segments is not None:
            segments = _fits(self.segments, "segments", n_key)[:, None]
            terms.append(segments[:, :, n_key - n_query :, None] == segments[:, :, None, :])
        if self.prefix is not None:
            terms.append((key <= query) | (key < self.prefix.view(-1, 1, 1, 1)))
        if self.pairs is not None:
            terms.append(_fits(self.pairs, "pairs", n_key)[:, None])
        allowed = terms[0]
        for term in terms[1:]:
            allowed = allowed & term
        return allowed

    def draw(self, n_query: int, n_key: int) -> str:
        """A picture: rows are queries, columns keys, ■ may look, · must not; one picture per row of the batch."""
        pictures = self.dense(n_query, n_key)[:, 0].tolist()
        return "\n\n".join(
            "\n".join(" ".join("■" if x else "·" for x in row) for row in picture) for picture in pictures
        )

    def __str__(self) -> str:
        keys = [t.shape[-1] for t in (self.keep, self.segments, self.pairs) if t is not None]
        queries = [t.shape[1] for t in (self.query_keep, self.pairs) if t is not None]
        n_key = keys[0] if keys else queries[0] if queries else 8
        return self.draw(queries[0] if queries else n_key, n_key)


_FIELDS = tuple(f.name for f in fields(Mask) if not f.name.startswith("_"))


def _both(a, b, combine):  # type: ignore[no-untyped-def]
    return b if a is None else a if b is None else combine(a, b)


def _three_axes(pairs: Tensor) -> Tensor:
    """[Q,K], [B,Q,K] or [B,1,Q,K] as [B|1,Q,K]."""
    if pairs.dim() == 4 and pairs.shape[1] == 1:
        return pairs[:, 0]
    if pairs.dim() not in (2, 3):
        raise ValueError(f"a mask of pairs is [Q,K], [B,Q,K] or [B,1,Q,K]; this one has shape {list(pairs.shape)}")
    return pairs if pairs.dim() == 3 else pairs.unsqueeze(0)


def _fits(tensor: Tensor, name: str, size: int) -> Tensor:
    if tensor.shape[-1] != size:
        raise ValueError(f"mask.{name} has {tensor.shape[-1]} places on its last axis, attention has {size}")
    return tensor
