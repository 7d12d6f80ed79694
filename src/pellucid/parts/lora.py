"""LoRA: a linear layer stays as it is and learns an update of low rank beside it (Hu et al. 2021, section 4.1).

What replaces a Linear from outside: no model knows of it. Attached to train, merged to use.
"""

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from pellucid.errors import UserError, did_you_mean
from pellucid.parts.dropout import Dropout


class Lora(nn.Module):
    """base(x) + alpha/rank · b(a(dropout(x))). `a` [rank,in] starts uniform in ±1/√in, as in the authors' code (section 4.1: Gaussian),
    `b` [out,rank] at zero: a new one changes nothing."""

    def __init__(
        self,
        base: nn.Linear,
        rank: int,
        alpha: float,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.base, self.rank, self.alpha = base, rank, alpha
        self.dropout = Dropout(dropout)
        like = {"bias": False, "device": base.weight.device, "dtype": base.weight.dtype}
        self.a: nn.Linear = nn.utils.skip_init(nn.Linear, base.in_features, rank, **like)
        self.b: nn.Linear = nn.utils.skip_init(nn.Linear, rank, base.out_features, **like)
        bound = base.in_features**-0.5
        with torch.no_grad():
            self.a.weight.copy_(torch.empty(rank, base.in_features).uniform_(-bound, bound, generator=generator))
            self.b.weight.zero_()

    @property
    def scale(self) -> float:
        """What the update is multiplied by: another rank then needs no other learning rate."""
        return self.alpha / self.rank

    def forward(self, x: Tensor) -> Tensor:
        """[…,in] to […,out]."""
        return self.base(x) + self.scale * self.b(self.a(self.dropout(x)))

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The plain layer, with the update in its weight."""
        update = self.scale * (self.b.weight.float() @ self.a.weight.float())
        self.base.weight += update.to(self.base.weight.dtype)
        return self.base


def attach(
    model: nn.Module,
    targets: Sequence[str],
    rank: int,
    alpha: float,
    dropout: float = 0.0,
    seed: int = 0,
    trained: Collection[str] = (),
) -> None:
    """Puts a `Lora` around every Linear whose name matches one of `targets` ("*.query") and freezes everything else but the parameters
    named in `trained`: new parts, which learn whole. Raises UserError naming a pattern that matches no Linear."""
    linears = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and f"{path}.weight" not in trained
    }
    chosen = _matching(linears, targets)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
    generator = torch.Generator().manual_seed(seed)
    for path in chosen:
        place(model, path, Lora(linears[path], rank, alpha, dropout, generator))


def _matching(paths: Collection[str], patterns: Sequence[str]) -> list[str]:
    for pattern in patterns:
        if not any(fnmatchcase(path, pattern) for path in paths):
            known = sorted({f"*.{path.rpartition('.')[2]}" for path in paths})
            raise UserError(f"lora.targets: no linear layer is called {pattern!r}", did_you_mean(pattern, known))
    return [path for path in paths if any(fnmatchcase(path, pattern) for pattern in patterns)]


def place(model: nn.Module, path: str, module: nn.Module) -> None:
    """Puts `module` where the model has another one."""
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


def attached(model: nn.Module) -> dict[str, Lora]:
    """Every `Lora` of a model, by the name of the Linear that it stands for."""
    return {path: module for path, module in model.named_modules() if isinstance(module, Lora)}


def merge(model: nn.Module) -> nn.Module:
    """The model with every update in the weight it belongs to and plain Linears again, in place."""
    for path, module in attached(model).items():
        place(model, path, module.merged())
    return model
