"""The shape of a stack, in ten fields or fewer. Imports nothing heavy: the command line reads it before torch is there."""

from dataclasses import dataclass
from typing import Literal

FeedForwardKind = Literal["relu", "gelu", "gelu_tanh", "swiglu", "geglu"]


@dataclass(frozen=True)
class Dropout:
    """Where dropout acts, a rate each: after the embeddings, on attention weights, in the feed-forward's hidden layer, on residual
    branches.
    """

    embedding: float = 0.0
    attention: float = 0.0
    hidden: float = 0.0
    residual: float = 0.0


@dataclass(frozen=True)
class Norm:
    """Which norm, and the epsilon under its root."""

    kind: Literal["layer", "rms"] = "layer"
    eps: float = 1e-5


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
