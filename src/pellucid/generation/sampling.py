"""How one token is chosen: pure functions on logits, one row per text.

Randomness comes in as one uniform number per row (the inverse of the cumulative distribution turns it into a
token), so a row's choice depends on its own numbers only, never on how many texts are in the batch.
"""

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

Logits = Float[Tensor, "B V"]


def forbid(logits: Logits, ids: Sequence[int]) -> Logits:
    """Logits with -inf at `ids`: these are never chosen."""
    banned = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
    banned[list(ids)] = True
    return logits.masked_fill(banned, -torch.inf)


def penalise(logits: Logits, said: Sequence[Sequence[int]], penalty: float) -> Logits:
    """Logits in which each row's tokens that were `said` are less likely: divided by `penalty` if positive,
    else multiplied.

    Keskar et al. 2019 (CTRL), section 4.1, which divides; a negative logit has to be multiplied to become
    smaller.
    """
    width = max(map(len, said), default=0)
    if penalty == 1.0 or width == 0:
        return logits
    filled = [[*row, *[row[0]] * (width - len(row))] if row else [0] * width for row in said]
    tokens = torch.tensor(filled, device=logits.device)
    there = logits.gather(-1, tokens)
    some = torch.tensor([[bool(row)] for row in said], device=logits.device)
    less = torch.where(there > 0, there / penalty, there * penalty)
    return logits.scatter(-1, tokens, torch.where(some, less, there))


def only_top_k(logits: Logits, k: int) -> Logits:
    """Logits with -inf everywhere but at the `k` largest of each row (Fan et al. 2018); ties with the last
    stay. 0 = off.
    """
    if not 0 < k < logits.shape[-1]:
        return logits
    return logits.masked_fill(logits < logits.topk(k).values[..., -1:], -torch.inf)


def only_top_p(logits: Logits, p: float) -> Logits:
    """Logits with -inf outside the nucleus: the fewest tokens that together have probability `p` or more.

    Holtzman et al. 2020, section 3.1. At least one token stays. 1 = off.
    """
    if p >= 1.0:
        return logits
    ranked, order = logits.sort(dim=-1, descending=True, stable=True)
    probability = ranked.softmax(-1)
    outside = probability.cumsum(-1) - probability >= p
    outside[..., 0] = False
    return logits.masked_fill(torch.zeros_like(outside).scatter(-1, order, outside), -torch.inf)


def draw(logits: Logits, uniform: Float[Tensor, "B"]) -> Int[Tensor, "B"]:
    """One token per row, by its probability: the first whose cumulative probability exceeds uniform[b] in [0,
    1).
    """
    cumulative = logits.softmax(-1, dtype=_finest(logits)).cumsum(-1)
    aim = uniform.to(cumulative)[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, aim, right=True).squeeze(-1).clamp(max=logits.shape[-1] - 1)


def _finest(x: Tensor) -> torch.dtype:
    return torch.float32 if x.device.type == "mps" else torch.float64


def dice(seed: int, row: int) -> torch.Generator:
    """The random numbers of one text: a function of the run's seed and the text's place among the inputs."""
    digest = hashlib.blake2b(f"{seed} {row}".encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))
