"""x + f(x), with the norm before f or after the sum."""

from typing import Any, Literal

from torch import Tensor, nn

from pellucid.parts.dropout import Dropout
from pellucid.parts.norms import working


class Residual(nn.Module):
    """Pre-norm: x + dropout(f(norm(x))) (Xiong et al. 2020). Post-norm: norm(x + dropout(f(x))) (Vaswani et al. 2017, section 3.1).

    Under autocast the branch reads a copy in lower precision; the sum and the norm after it stay in float32. The slot
    that is not used is Identity, so forward never asks which it is.
    """

    def __init__(self, branch: nn.Module, norm: nn.Module, place: Literal["pre", "post"], dropout: float = 0.0) -> None:
        super().__init__()
        self.branch, self.dropout = branch, Dropout(dropout)
        self.norm_in = norm if place == "pre" else nn.Identity()
        self.norm_out = norm if place == "post" else nn.Identity()

    def forward(self, x: Tensor, **side: Any) -> Tensor:
        """`side` goes to the branch as it is."""
        return self.norm_out(x + self.dropout(self.branch(working(self.norm_in(x)), **side)))
