"""Several processes as one: each takes its rows of the same global batch, gradients are summed.

One process is the same code with nothing to do.

Data parallelism in its plainest form (`torchrun`, torch.distributed): the global batch is a pure function of
the step, so N ranks see the same data in the same order as one, and the sum of their gradients differs from
one process's only by rounding.
"""

from collections.abc import Iterable, Mapping

import torch
import torch.distributed as distributed
from torch import Tensor, nn


def rank() -> int:
    """This process's number; 0 when there is only one."""
    return distributed.get_rank() if active() else 0


def world() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if active() else 1


def active() -> bool:
    """Whether `torch.distributed` has been initialised."""
    return distributed.is_available() and distributed.is_initialized()


def rows(batch: Mapping[str, Tensor], index: int, count: int) -> dict[str, Tensor]:
    """Rows index, index + count, … of every tensor [B, …]; with B < count some parts have no rows."""
    return dict(batch) if count == 1 else {name: tensor[index::count] for name, tensor in batch.items()}


def n_rows(batch: Mapping[str, Tensor]) -> int:
    """B, the rows of a batch of tensors [B, …]."""
    return next(iter(batch.values())).shape[0]


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its sum over the ranks; a rank without rows adds zeros."""
    if active():
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            distributed.all_reduce(parameter.grad)


def sum_numbers(*numbers: float, device: torch.device) -> list[float]:
    """Each number's sum over the ranks, in one exchange; as given when alone."""
    if not active():
        return list(numbers)
    together = torch.tensor(numbers, dtype=torch.float32, device=device)
    distributed.all_reduce(together)
    return together.tolist()


def wait() -> None:
    """Until all ranks are here."""
    if active():
        distributed.barrier()


def from_first(value: dict[str, float]) -> dict[str, float]:
    """Rank 0's value, so that all ranks decide alike; the others wait for it."""
    if not active():
        return value
    box = [value]
    distributed.broadcast_object_list(box)
    return box[0]
