"""Norms: layer norm (Ba et al. 2016), RMS norm (Zhang & Sennrich 2019), batch norm over time that ignores padding."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.parts.config import Norm
from pellucid.parts.shapes import Keep, States


def working_dtype(x: Tensor) -> torch.dtype:
    """The precision that products with x are computed in: autocast's, or its own."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def working(x: Tensor) -> Tensor:
    """x in the precision that autocast computes products in: cast once, not by each projection that reads it."""
    return x.to(working_dtype(x))


NORMS = {"layer": nn.LayerNorm, "rms": nn.RMSNorm}


def make_norm(norm: Norm, width: int) -> nn.Module:
    """The norm a config names, over the last axis of size `width`."""
    return NORMS[norm.kind](width, eps=norm.eps)


class HeadNorm(nn.Module):
    """RMS norm of each head's queries or keys, in float32 whatever comes in: under autocast that is bf16 (Henry et al. 2020)."""

    def __init__(self, head_dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(head_dim)), eps

    def forward(self, x: Tensor) -> Tensor:
        """[…,C] to the same."""
        return F.rms_norm(x.float(), x.shape[-1:], self.weight.float(), self.eps).to(x.dtype)


class BatchNormOverTime(nn.Module):
    """Batch norm of [B,T,D] per feature over all real tokens (Ioffe & Szegedy 2015; for Transformers: Shen et al. 2020).

    Padding counts neither in the batch's statistics nor in the running ones, and stays zero. The running variance is the unbiased one,
    as in `nn.BatchNorm1d`, which this equals when nothing is padded.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, d_model: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(d_model)), nn.Parameter(torch.zeros(d_model))
        self.register_buffer("running_mean", torch.zeros(d_model))
        self.register_buffer("running_var", torch.ones(d_model))
        self.eps, self.momentum = eps, momentum

    def forward(self, x: States, keep: Keep | None = None) -> States:
        """keep [B,T] True on real tokens; None = all."""
        real = (
            torch.ones(*x.shape[:2], 1, dtype=x.dtype, device=x.device)
            if keep is None
            else keep.unsqueeze(-1).to(x.dtype)
        )
        mean, var = self._statistics(x, real) if self.training else (self.running_mean, self.running_var)
        return ((x - mean) * torch.rsqrt(var + self.eps) * self.weight + self.bias) * real

    def _statistics(self, x: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        n = real.sum().clamp(min=1)
        mean = (x * real).sum((0, 1)) / n
        var = ((x - mean).square() * real).sum((0, 1)) / n
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * n / (n - 1).clamp(min=1), self.momentum)
        return mean, var
