"""Dropout, drawn cheaply on a CPU: sixteen random bits an element instead of a floating-point number each (Srivastava et al. 2014)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_STEPS = 2**16


def drop(x: Tensor, rate: float) -> Tensor:
    """x with each element zero with probability `rate` (rounded to 1/65536), the others divided by 1 - rate.

    Random numbers come from torch's own generator, so a seed makes it repeatable. PyTorch's kernel draws one number per element on a CPU,
    which in small models costs as much as their matrix products; here one 64-bit number serves four elements.
    """
    if rate == 0.0 or x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(x, rate)
    bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    kept = (
        bits[: x.numel()].view(x.shape).ge_(round(rate * _STEPS) - _STEPS // 2)
    )  # 0 or 1, without the slow way over bool
    return x * kept.to(x.dtype).mul_(1.0 / (1.0 - rate))


class Dropout(nn.Module):
    """`drop` while training, nothing otherwise."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return drop(x, self.rate) if self.training and self.rate else x

    def extra_repr(self) -> str:
        return f"{self.rate}"
