"""One table of initialisations: for every parameter the first line whose pattern fits its name. A parameter no line fits is an error.

"xavier": Glorot & Bengio 2010, with embeddings of standard deviation d_model^-0.5 as in the original Transformer's code (so that scaled
by √d_model
they have unit variance). "normal": standard deviation 0.02 as BERT. "gpt2": the same, and what writes into the residual stream smaller by
√(2 · n_layers) (Radford et al. 2019, section 2.3).
"""

import math
from collections.abc import Callable
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from pellucid.parts.attention import Attention
from pellucid.parts.scores import Dot

Fill = Callable[[Tensor, torch.Generator, int], object]


def _normal(std: float) -> Fill:
    return lambda w, g, n: w.normal_(0.0, std, generator=g)


def _zeros(w: Tensor, g: torch.Generator, n_layers: int) -> object:
    return w.zero_()


def _ones(w: Tensor, g: torch.Generator, n_layers: int) -> object:
    return w.fill_(1.0)


def _residual(w: Tensor, g: torch.Generator, n_layers: int) -> object:
    return w.normal_(0.0, 0.02 / math.sqrt(2 * n_layers), generator=g)


def _xavier(w: Tensor, g: torch.Generator, n_layers: int) -> object:
    return nn.init.xavier_uniform_(w.view(w.shape[0], -1), generator=g)


def _per_head(w: Tensor, g: torch.Generator, n_layers: int) -> object:
    """Glorot's bound for each head's own matrix [in,out] of an additive score, stored as [heads,in,out] (or its vector [heads,in])."""
    bound = math.sqrt(6 / (w.shape[-2] + w.shape[-1])) if w.dim() == 3 else math.sqrt(6 / (1 + w.shape[-1]))
    return w.uniform_(-bound, bound, generator=g)


def _unit_rows(w: Tensor, g: torch.Generator, n_layers: int) -> object:
    return w.normal_(0.0, w.shape[-1] ** -0.5, generator=g)


_ALWAYS: list[tuple[str, Fill]] = [
    ("*norm*.weight", _ones),
    ("*.bias", _zeros),
    ("*class_token", _zeros),
    ("*score.*", _per_head),
]

TABLE: dict[str, list[tuple[str, Fill]]] = {
    "xavier": [*_ALWAYS, ("*tokens.weight", _unit_rows), ("*positions.weight", _normal(0.02)), ("*.weight", _xavier)],
    "normal": [*_ALWAYS, ("*.weight", _normal(0.02))],
    "gpt2": [*_ALWAYS, ("*.out.weight", _residual), ("*.down.weight", _residual), ("*.weight", _normal(0.02))],
}


@torch.no_grad()
def initialise(model: nn.Module, scheme: str, n_layers: int, seed: int = 0) -> None:
    """Fills every parameter by the table's `scheme`, the same for the same seed; rows of padding tokens are zero, and where scores are not
    divided by √C the queries' weights are (as T5's, Raffel et al. 2020).

    Raises ValueError naming a parameter that no line of the table fits.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            continue
        fill = next((fill for pattern, fill in TABLE[scheme] if fnmatchcase(name, pattern)), None)
        if fill is None:
            raise ValueError(f"no line of the initialisation table {scheme!r} fits {name}")
        fill(parameter, generator, n_layers)
    for module in model.modules():
        pad = getattr(module, "pad_id", None)
        if isinstance(pad, int) and isinstance(getattr(module, "weight", None), nn.Parameter):
            module.weight[pad] = 0  # type: ignore[operator]
        if isinstance(module, Attention) and type(module.attend.score) is Dot:
            module.query.weight /= math.sqrt(module.head_dim)
