"""Heads: what a family says about its states. Logits tied to the embedding or free, masked words, classes."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.parts.dropout import Dropout
from pellucid.parts.embeddings import Tokens
from pellucid.parts.losses import linear_cross_entropy
from pellucid.parts.shapes import Keep, States


class Scale(nn.Module):
    """x times a fixed number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return x * self.factor

    def extra_repr(self) -> str:
        return f"{self.factor:g}"


class FreeHead(nn.Module):
    """A matrix of its own, with or without bias."""

    def __init__(self, d_model: int, vocab_size: int, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, d_model))
        self.bias = nn.Parameter(torch.zeros(vocab_size)) if bias else None
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, states: Tensor) -> Tensor:
        """[…,D] to logits […,V]."""
        return F.linear(states, self.weight, self.bias)

    def loss(self, states: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Summed cross-entropy in nats of states [N,D] for targets [N]; all logits are never held at once."""
        return linear_cross_entropy(states, self.weight, self.bias, targets, label_smoothing)


class TiedHead(nn.Module):
    """The embedding's own table, transposed (Press & Wolf 2017), with or without a bias of its own. scale: what states are multiplied
    with first."""

    def __init__(self, tokens: Tokens, bias: bool = False, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Identity() if scale == 1.0 else Scale(scale)
        self.bias = nn.Parameter(torch.zeros(tokens.weight.shape[0])) if bias else None
        self._tokens = (tokens,)  # in a tuple: the table belongs to the embedding and is listed once

    def forward(self, states: Tensor) -> Tensor:
        """[…,D] to logits […,V]."""
        return F.linear(self.scale(states), self._tokens[0].table(), self.bias)

    def loss(self, states: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Summed cross-entropy in nats of states [N,D] for targets [N]; all logits are never held at once."""
        return linear_cross_entropy(self.scale(states), self._tokens[0].table(), self.bias, targets, label_smoothing)


def make_head(tokens: Tokens, tied: bool, bias: bool, scale: float = 1.0) -> nn.Module:
    """The head a config names, for the vocabulary of `tokens`; a free one finds its own scale."""
    return TiedHead(tokens, bias, scale) if tied else FreeHead(tokens.weight.shape[1], tokens.weight.shape[0], bias)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
}


class MaskedWordHead(nn.Module):
    """BERT's: logits(norm(activation(dense(x)))), tied, with a free bias (Devlin et al. 2019). activation: that of the
    feed-forward layers."""

    def __init__(self, tokens: Tokens, norm: nn.Module, activation: Callable[[Tensor], Tensor] = F.gelu) -> None:
        super().__init__()
        self.activation = activation
        d_model = tokens.weight.shape[1]
        self.dense, self.norm, self.logits = nn.Linear(d_model, d_model), norm, TiedHead(tokens, bias=True)

    def forward(self, states: Tensor, keep: Keep | None = None) -> Tensor:
        """[…,D] to logits […,V]; what is padding does not matter to it."""
        return self.logits(self.transform(states))

    def transform(self, states: Tensor) -> Tensor:
        """What the vocabulary is compared with […,D]."""
        return self.norm(self.activation(self.dense(states)))

    def loss(self, states: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Summed cross-entropy in nats of states [N,D] for targets [N]."""
        return self.logits.loss(self.transform(states), targets, label_smoothing)


class Pooler(nn.Module):
    """tanh(dense(first token)): BERT's pooled vector of a text; with "relu" DistilBERT's."""

    def __init__(self, d_model: int, activation: str = "tanh") -> None:
        super().__init__()
        self.dense, self.activation = nn.Linear(d_model, d_model), ACTIVATIONS[activation]

    def forward(self, states: States, keep: Keep | None = None) -> Tensor:
        """[B,T,D] to [B,D], of the first token that `keep` [B,T] calls real."""
        first = (
            states[:, 0]
            if keep is None
            else states[torch.arange(len(states), device=states.device), keep.int().argmax(1)]
        )
        return self.activation(self.dense(first))


class LabelHead(nn.Module):
    """A label for a text: linear(dropout(pooled)) (Devlin et al. 2019, section 4.1)."""

    def __init__(self, d_model: int, n_labels: int, dropout: float = 0.0, activation: str = "tanh") -> None:
        super().__init__()
        self.pool, self.dropout = Pooler(d_model, activation), Dropout(dropout)
        self.classifier = nn.Linear(d_model, n_labels)

    def forward(self, states: States, keep: Keep | None = None) -> Tensor:
        """[B,T,D] to logits [B,n_labels]."""
        return self.classifier(self.dropout(self.pool(states, keep)))


class StatesHead(nn.Module):
    """No head: the states as they are."""

    def forward(self, states: States, keep: Keep | None = None) -> States:
        """[B,T,D] to the same."""
        return states


class TagHead(nn.Module):
    """A tag for each token: linear(dropout(state)) (Devlin et al. 2019, section 5.3)."""

    def __init__(self, d_model: int, n_labels: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout, self.classifier = Dropout(dropout), nn.Linear(d_model, n_labels)

    def forward(self, states: States, keep: Keep | None = None) -> Tensor:
        """[B,T,D] to logits [B,T,n_labels]; what is padding does not matter to it."""
        return self.classifier(self.dropout(states))
