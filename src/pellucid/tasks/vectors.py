"""Texts as vectors: the states of a text's tokens made one."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.errors import UserError, did_you_mean


def _mean(states: Tensor, keep: Tensor) -> Tensor:
    real = keep.unsqueeze(-1)
    return (states * real).sum(1) / real.sum(1).clamp(min=1)


def _last(states: Tensor, keep: Tensor) -> Tensor:
    return states[torch.arange(len(states), device=states.device), keep.sum(1) - 1]


def _max(states: Tensor, keep: Tensor) -> Tensor:
    return states.masked_fill(~keep.unsqueeze(-1), -torch.inf).amax(1)


POOLINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": _mean,  # of all tokens (Reimers & Gurevych 2019)
    "cls": lambda states, keep: states[:, 0],  # the first token, what BERT's classifiers read
    "max": _max,  # the largest of each place
    "last": _last,  # the last token, the only one of a decoder that knows the whole text
}


def pooling_of(family: str, name: str) -> str:
    """The name, if a family's states can be pooled like that. Raises UserError."""
    if name not in POOLINGS:
        raise UserError(f"there is no pooling {name!r}", did_you_mean(name, POOLINGS))
    if name == "cls" and family != "bert":
        raise UserError(f"the first token of a {family} knows nothing of the text", "choose mean or last")
    return name


@torch.no_grad()
def vectors(model: nn.Module, ids: Tensor, keep: Tensor, pooling: str, normalised: bool = False) -> Tensor:
    """ids [B,T], padded to the right, keep [B,T] True on real tokens -> float32 [B,D], `normalised` to length 1. Of a Seq2Seq, its
    encoder's states."""
    states = model.encode(ids, keep) if hasattr(model, "encode") else model.hidden(ids, keep)  # type: ignore[operator]
    found = POOLINGS[pooling](states.float(), keep)
    return F.normalize(found, dim=-1) if normalised else found
