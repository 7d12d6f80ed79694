"""The shape of a stack, in ten fields or fewer. Imports nothing heavy: the command line reads it before torch is there."""

import math
from dataclasses import dataclass
from typing import Literal

from pellucid.errors import UserError

FeedForwardKind = Literal["relu", "gelu", "gelu_tanh", "silu", "swiglu", "geglu", "geglu_tanh"]


@dataclass(frozen=True)
class Dropout:
    """Where dropout acts, a rate each: after the embeddings, on attention weights, in the feed-forward's hidden layer, on residual
    branches.
    """

    embedding: float = 0.0
    attention: float = 0.0
    hidden: float = 0.0
    residual: float = 0.0

    def __post_init__(self) -> None:
        """UserError that names the rate if it is none."""
        for name, rate in vars(self).items():
            if not 0.0 <= rate < 1.0:
                raise UserError(f"dropout.{name} is {rate}", "it must be at least 0 and less than 1")


@dataclass(frozen=True)
class Norm:
    """Which norm, and the epsilon under its root."""

    kind: Literal["layer", "rms"] = "layer"
    eps: float = 1e-5

    def __post_init__(self) -> None:
        """UserError if epsilon is none."""
        if not 0.0 < self.eps < math.inf:
            raise UserError(f"norm.eps is {self.eps}", "it must be a number above 0")


@dataclass(frozen=True)
class Heads:
    """How attention heads are made where it is not the usual way. width: of a head (None = d_model / n_heads); bias: in which projections
    (None = as stack.bias, "inputs" = of queries, keys and values only); norm: over each head's queries and keys (Henry et al. 2020);
    score: dot products as they are, or divided by √width."""

    width: int | None = None
    bias: Literal["none", "inputs", "all"] | None = None
    norm: Literal["none", "rms"] = "none"
    score: Literal["scaled_dot", "dot"] = "scaled_dot"

    def __post_init__(self) -> None:
        """UserError if the width is none."""
        if self.width is not None and self.width < 1:
            raise UserError(f"heads.width is {self.width}", "it must be at least 1")


@dataclass(frozen=True)
class StackConfig:
    """What every family has in common. `n_kv_heads` None = as many as queries; `bias` = biases in every linear layer."""

    d_model: int = 256
    n_layers: int = 4
    n_heads: int = 4
    n_kv_heads: int | None = None
    d_ff: int = 1024
    feedforward: FeedForwardKind = "gelu"
    norm: Norm = Norm()
    residual: Literal["pre", "post"] = "pre"
    bias: bool = True
    dropout: Dropout = Dropout()

    def __post_init__(self) -> None:
        """UserError that names the field if sizes do not fit together."""
        for name in ("d_model", "n_layers", "n_heads", "d_ff"):
            if getattr(self, name) < 1:
                raise UserError(f"stack.{name} is {getattr(self, name)}", "it must be at least 1")
        n_kv_heads = self.n_heads if self.n_kv_heads is None else self.n_kv_heads
        if n_kv_heads < 1 or self.n_heads % n_kv_heads:
            raise UserError(f"stack.n_heads {self.n_heads} is not a multiple of stack.n_kv_heads {n_kv_heads}")
