"""What models with known answers are made of."""

import torch.nn.functional as F
from torch import Tensor, nn


class Past:
    """A cache that only counts."""

    length = 0

    def select(self, rows: Tensor) -> None:
        """Nothing to move."""


class Head(nn.Module):
    """States are logits already."""

    def forward(self, states: Tensor) -> Tensor:
        return states

    def loss(self, states: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        return F.cross_entropy(states, targets, reduction="sum", label_smoothing=label_smoothing)
