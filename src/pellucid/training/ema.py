"""An average of the weights over time: steadier than the weights of any one step (Polyak & Juditsky 1992).

`Ema` follows along during training, `mean` averages checkpoints afterwards (Vaswani et al. 2017, section 6.1:
the last 5). Both average parameters; buffers are the model's own. What is not trained is its own average.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pellucid.errors import DataError


class Ema:
    """average ← d · average + (1 - d) · weights after each step, d = min(decay, (1 + n) / (10 + n)) at update
    n, so that the start is soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors = {name: p.detach().clone() for name, p in _trained(model)}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after the update made at `step`: a pure function of the step and the weights so
        far.
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        weights = [p.detach() for _, p in _trained(model)]
        torch._foreach_lerp_(list(self.tensors.values()), weights, 1 - decay)

    def load(self, tensors: Mapping[str, Tensor], source: str) -> None:
        """Take over a saved average. DataError, naming `source`, if it has other names."""
        if set(tensors) != set(self.tensors):
            raise DataError(
                f"{source} does not hold the average of this model's weights",
                "resume with the config that the run began with",
            )
        for name, tensor in tensors.items():
            self.tensors[name].copy_(tensor)

    @contextmanager
    def used_by(self, model: nn.Module) -> Iterator[None]:
        """Within, the model holds the average; afterwards its own weights again, bit for bit."""
        own = {name: p.detach().clone() for name, p in _trained(model)}
        put(model, self.tensors)
        try:
            yield
        finally:
            put(model, own)


def _trained(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]


@torch.no_grad()
def put(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy the values into the parameters they name, in place: tied weights stay tied."""
    own = dict(model.named_parameters())
    for name, tensor in tensors.items():
        own[name].copy_(tensor)


def mean(models: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of several sets of weights with the same names, summed in float64.

    One set is in memory at a time.
    """
    total: dict[str, Tensor] = {}
    count = 0
    for tensors in models:
        count += 1
        for name, tensor in tensors.items():
            total[name] = total[name].add_(tensor) if name in total else tensor.to(torch.float64, copy=True)
        del tensors
    return {name: (total.pop(name) / count).float() for name in list(total)}
