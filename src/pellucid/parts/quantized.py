"""Weights in few bits: what replaces a Linear or a vocabulary head from outside, in a model that is used and not trained.

A model that says one token reads all its weights, so their bytes are its time. Weights are rounded when they are put in place and laid out
for the kernel that reads them (oneDNN's, and PyTorch's for int4); of a tied head's table the embedding keeps the float32 rows, of which a
token reads one. States, norms, embeddings and attention stay float32, as saying one token is faster so than in bfloat16. What is lost, by
precision:

* float32: nothing but the order of sums. The weights are laid out as they are read fastest.
* bfloat16: weights, what comes in and what goes out have 8 significant bits; sums on the way are float32.
* int8: a weight is one of 255 steps up to its output's largest, what comes in one of 255 steps up to its token's largest (Dettmers et al.
  2022, LLM.int8, section 2.1, "vector-wise"); what goes out is float32. A token's steps are its own: its neighbours change nothing. x86
  processors without VNNI add products up in pairs of 16 bits, which would overflow: there a weight is one of 127 steps.
* int4: a weight is one of 16 steps between the least and the greatest of 32 neighbours along the input, 5 bits with what tells these; what
  comes in and what goes out is bfloat16. Fastest for one text at a time; from 16 rows on int8 is. A layer whose input is no multiple of 32
  is int8.

Logits may lie far from zero, all together, and 8 bits of such numbers tell words badly apart. So a head over a vocabulary keeps the mean of
its weights' rows in float32 beside what is left of them (`Centred`): the mean says what all words share.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.errors import UserError, did_you_mean
from pellucid.parts.heads import FreeHead, TiedHead
from pellucid.parts.lora import place
from pellucid.parts.products import has_onednn, laid_out, multiply, scale_of, weight_of

GROUP = 32
"""Neighbours that share the steps of int4."""
BLOCK = 64
"""Outputs that the kernel of int4 works out at a time."""
AT_ONCE = 4 * BLOCK
"""Outputs whose weights are rounded at a time: few enough to stay in the processor's cache."""
TINY = 1e-12
"""The largest of a row of zeros, so that nothing is divided by zero."""


@runtime_checkable
class Product(Protocol):
    """x [...,in] to x · weightᵀ + bias [...,out], both float32."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def weight(self) -> Tensor:
        """What it multiplies with, [out,in] float32: its slow twin is `F.linear(x, weight(), bias)`."""
        ...


Make = Callable[[Tensor, Tensor | None], Product]


class Packed:
    """The weight as it is, or in bfloat16, in the layout that oneDNN prefers: one row is multiplied at the speed of memory."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        self.dtype, self.bias = dtype, None if bias is None else bias.to(dtype)
        self.packed = laid_out(weight.to(dtype))

    def __call__(self, x: Tensor) -> Tensor:
        return multiply(x.to(self.dtype), self.packed, self.bias).float()

    def weight(self) -> Tensor:
        return self.packed.to_dense().float()


class Int8:
    """Whole numbers times whole numbers, added up exactly, then scaled by the step of the output and that of the token."""

    def __init__(self, weight: Tensor, bias: Tensor | None, steps: int | None = None) -> None:
        largest = torch.cat([part.abs().amax(1) for part in weight.split(AT_ONCE)]).clamp_(min=TINY)
        step = largest / (steps or whole_steps())
        whole = torch.empty(weight.shape, dtype=torch.int8)
        for part, steps, into in zip(*(x.split(AT_ONCE) for x in (weight, step[:, None], whole)), strict=True):
            into.copy_(torch.div(part, steps).round_())
        self.packed = torch.ops.onednn.qlinear_prepack(whole, None)
        self.step, self.zero = step / 127, torch.zeros(len(step), dtype=torch.int32)  # 127: of what comes in
        self.middle = torch.tensor(128.5)  # it comes in without a sign: 128 is zero, and the half rounds
        self.bias = torch.zeros(1) if bias is None else bias.clone()

    def __call__(self, x: Tensor) -> Tensor:
        largest = x.abs().amax(-1, keepdim=True).clamp_(min=TINY)
        whole = torch.addcmul(self.middle, x, largest.reciprocal(), value=127).to(torch.uint8)
        product = torch.ops.onednn.qlinear_pointwise(
            whole, 1.0, 128, self.packed, self.step, self.zero, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return torch.addcmul(self.bias, product, largest)

    def weight(self) -> Tensor:
        return (self(torch.eye(self.packed.shape[0])) - self.bias).T


@cache
def whole_steps() -> int:
    """Of a weight in int8, on either side of zero: 127, or 63 where the processor's sums of two products 255 · 127 overflow 16 bits."""
    return 127 if _is_right(partial(Int8, steps=127)) else 63


class Int4:
    """Steps q of 0 … 15 in groups: weight = (q - 8) · step + middle. `weight` [out,in], in a multiple of GROUP."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.n_out, self.n_in = weight.shape
        parts = [_in_groups(part) for part in weight.split(AT_ONCE)]
        self.packed, self.groups = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts], 1)
        self.bias = None if bias is None else bias.clone()

    def __call__(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, self.n_in).bfloat16()
        product = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self.packed, GROUP, self.groups)
        product = product[:, : self.n_out].float().view(*x.shape[:-1], self.n_out)
        return product if self.bias is None else product.add_(self.bias)

    def weight(self) -> Tensor:
        found = self(torch.eye(self.n_in))
        return (found if self.bias is None else found - self.bias).T


def _in_groups(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Some outputs, packed for the kernel, and (step, middle) bfloat16 [in/GROUP,out,2] of their groups."""
    grouped = F.pad(weight, (0, 0, 0, -len(weight) % BLOCK)).unflatten(1, (-1, GROUP))
    least, greatest = grouped.aminmax(dim=-1, keepdim=True)
    groups = torch.cat((greatest.sub_(least).div_(15), least.add_(greatest, alpha=8)), -1).bfloat16()
    step, middle = groups.float().split(1, -1)
    q = grouped.sub(middle).div_(step.clamp_(min=TINY)).add_(8).round_().clamp_(0, 15).to(torch.int32).flatten(1)
    return torch.ops.aten._convert_weight_to_int4pack_for_cpu(q, 1), groups.transpose(0, 1).contiguous()


class Centred:
    """A product whose outputs' mean is kept in float32: x · meanᵀ + x · (weight - mean)ᵀ + bias."""

    def __init__(self, make: Make, weight: Tensor, bias: Tensor | None) -> None:
        self.mean = weight.mean(0)
        self.rest = make(weight - self.mean, bias)

    def __call__(self, x: Tensor) -> Tensor:
        return self.rest(x).add_((x @ self.mean).unsqueeze(-1))

    def weight(self) -> Tensor:
        return self.rest.weight() + self.mean


PRECISIONS: dict[str, Make] = {
    "float32": partial(Packed, dtype=torch.float32),
    "bfloat16": partial(Packed, dtype=torch.bfloat16),
    "int8": Int8,
    "int4": Int4,
}


class Quantized(nn.Module):
    """A Linear, or a head over a vocabulary, that is used and neither trained nor saved."""

    def __init__(self, product: Product, precision: str) -> None:
        super().__init__()
        self.product, self.precision = product, precision

    @property
    def weight(self) -> Tensor:
        """What it multiplies with, worked out anew: [out,in] float32."""
        return self.product.weight()

    def forward(self, x: Tensor) -> Tensor:
        """[...,in] to [...,out]. Raises UserError where a gradient is asked for."""
        if x.requires_grad and torch.is_grad_enabled():
            raise UserError(f"weights in {self.precision} pass no gradients on", "load the model without precision=")
        return self.product(x)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Quantized":
        return Quantized(self.product, self.precision)  # which nothing changes

    def loss(self, states: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """As a head's: summed cross-entropy in nats of states [N,D] for targets [N], some rows at a time."""
        parts = zip(states.split(64), targets.split(64), strict=True)
        return sum(
            (F.cross_entropy(self(x), y, reduction="sum", label_smoothing=label_smoothing) for x, y in parts),
            states.new_zeros(()),
        )

    def extra_repr(self) -> str:
        return self.precision


def check_precision(precision: str, device: str | torch.device = "cpu") -> None:
    """Raises UserError where there is no such precision, or none on that device, in this PyTorch or on this processor."""
    if precision not in PRECISIONS:
        raise UserError(f"there is no precision {precision!r}", did_you_mean(precision, PRECISIONS))
    if torch.device(device).type != "cpu":
        raise UserError(
            f"weights in {precision} are read by kernels of the CPU, not on {device}",
            'use device="cpu", or dtype=torch.bfloat16 there',
        )
    if precision != "float32" and not has_onednn():
        raise UserError(
            f"this PyTorch was built without oneDNN, which reads weights in {precision}",
            "use float32, or another build",
        )
    if not _is_right(PRECISIONS[precision]):
        other = "float32" if precision == "int8" else "int8"
        raise UserError(f"this processor has no kernel for weights in {precision}", f"use {other}")


def _is_right(make: Make) -> bool:
    """Whether a kernel works out what it should, of the largest numbers."""
    try:
        return bool((make(torch.ones(64, 64), None)(torch.ones(2, 64)) - 64).abs().max() < 1)
    except RuntimeError:
        return False


@torch.no_grad()
def quantize(model: nn.Module, precision: str) -> nn.Module:
    """The model, in place, with every Linear and vocabulary head `Quantized`; what is left becomes float32 and takes no gradient. Raises
    UserError as `check_precision`, and for a model that is quantised already."""
    if is_quantized(model):
        raise UserError("this model is quantised already", "load it anew")
    check_precision(precision, next(model.parameters()).device)
    for path, module in list(model.named_modules()):
        if (found := _of(module)) is not None:
            weight, bias = found[0].detach().float(), None if found[1] is None else found[1].detach().float()
            chosen = "int8" if precision == "int4" and weight.shape[1] % GROUP else precision
            make = PRECISIONS[chosen]
            if chosen != "float32" and isinstance(module, FreeHead | TiedHead):
                make = partial(Centred, make)
            place(model, path, Quantized(make(weight, bias), chosen))
    return model.float().requires_grad_(False)


def _of(module: nn.Module) -> tuple[Tensor, Tensor | None] | None:
    """As `weight_of`, with the scale in the weight."""
    found = weight_of(module)
    return found if found is None or scale_of(module) == 1.0 else (found[0] * scale_of(module), found[1])


def is_quantized(model: nn.Module) -> bool:
    """Whether weights of it have been put away: such a model can be neither saved nor trained."""
    return any(isinstance(module, Quantized) for module in model.modules())
