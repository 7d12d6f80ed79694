"""Texts as vectors: the states of a text's tokens made one."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def _mean(states: Tensor, keep: Tensor) -> Tensor:
    real = keep.unsqueeze(-1)
    return (states * real).sum(1) / real.sum(1).clamp(min=1)


def _last(states: Tensor, keep: Tensor) -> Tensor:
    return states[torch.arange(len(states), device=states.device), keep.sum(1) - 1]


POOLINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": _mean,  # of all tokens (Reimers & Gurevych 2019)
    "cls": lambda states, keep: states[:, 0],  # the first token, what BERT's classifiers read
    "last": _last,  # the last token, the only one of a decoder that knows the whole text
}


@torch.no_grad()
def vectors(model: nn.Module, ids: Tensor, keep: Tensor, pooling: str) -> Tensor:
    """ids [B,T], padded to the right, keep [B,T] True on real tokens -> float32 [B,D]. Of a Seq2Seq, its encoder's states."""
    states = model.encode(ids, keep) if hasattr(model, "encode") else model.hidden(ids, keep)  # type: ignore[operator]
    return POOLINGS[pooling](states.float(), keep)
