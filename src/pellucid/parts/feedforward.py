"""The position-wise feed-forward network: two layers (Vaswani et al. 2017, section 3.3), or gated (Shazeer 2020)."""

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.parts.config import FeedForwardKind
from pellucid.parts.dropout import Dropout
from pellucid.parts.shapes import States

Activation = Callable[[Tensor], Tensor]


class MLP(nn.Module):
    """down(dropout(activation(up(x))))."""

    def __init__(
        self, d_model: int, d_ff: int, activation: Activation, bias: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.up = nn.Linear(d_model, d_ff, bias)
        self.down = nn.Linear(d_ff, d_model, bias)
        self.activation, self.dropout = activation, Dropout(dropout)

    def forward(self, x: States) -> States:
        """[B,T,D] to [B,T,D], each token for itself."""
        return self.down(self.dropout(self.activation(self.up(x))))


class GatedMLP(nn.Module):
    """down(dropout(activation(gate(x)) * up(x))): SwiGLU with SiLU, GEGLU with GELU."""

    def __init__(
        self, d_model: int, d_ff: int, activation: Activation, bias: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.gate = nn.Linear(d_model, d_ff, bias)
        self.up = nn.Linear(d_model, d_ff, bias)
        self.down = nn.Linear(d_ff, d_model, bias)
        self.activation, self.dropout = activation, Dropout(dropout)

    def forward(self, x: States) -> States:
        """[B,T,D] to [B,T,D], each token for itself."""
        return self.down(self.dropout(self.activation(self.gate(x)) * self.up(x)))


FEED_FORWARDS: dict[str, Callable[..., nn.Module]] = {
    "relu": partial(MLP, activation=F.relu),
    "gelu": partial(MLP, activation=F.gelu),
    "gelu_tanh": partial(MLP, activation=partial(F.gelu, approximate="tanh")),
    "silu": partial(MLP, activation=F.silu),
    "swiglu": partial(GatedMLP, activation=F.silu),
    "geglu": partial(GatedMLP, activation=F.gelu),
    "geglu_tanh": partial(GatedMLP, activation=partial(F.gelu, approximate="tanh")),
}


def make_feedforward(
    kind: FeedForwardKind, d_model: int, d_ff: int, bias: bool = True, dropout: float = 0.0
) -> nn.Module:
    """The network a config names."""
    return FEED_FORWARDS[kind](d_model, d_ff, bias=bias, dropout=dropout)
