"""A table of names: one row says which of our tensors one of theirs is made of. Read forwards to load, backwards to save."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
import torch.nn.functional as F
from torch import Tensor

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Form:
    """How a tensor is laid out in their file: our tensor made of theirs, and theirs made of ours."""

    ours: Callable[[Tensor], Tensor]
    theirs: Callable[[Tensor], Tensor]


SAME = Form(lambda t: t, lambda t: t)
TRANSPOSED = Form(lambda t: t.T, lambda t: t.T)  # a product written x·W: [in, out]
IN_ONE_ROW = Form(lambda t: t.squeeze(0), lambda t: t.unsqueeze(0))  # [1, …]


def behind(n: int) -> Form:
    """A table that begins behind n rows that are not used."""
    return Form(lambda t: t[n:], lambda t: F.pad(t, (0, 0, n, 0)))


@dataclass(frozen=True)
class Row:
    """`theirs` holds `ours`, stacked along the first axis if several, in this form. {i} = the layer's number."""

    theirs: str
    ours: tuple[str, ...]
    form: Form = SAME


def row(theirs: str, *ours: str, form: Form = SAME) -> Row:
    """A `Row`, shorter to write."""
    return Row(theirs, ours, form)


def both(theirs: str, ours: str, form: Form = SAME) -> list[Row]:
    """Weight and bias of a part; only the weight has another form."""
    return [row(f"{theirs}.weight", f"{ours}.weight", form=form), row(f"{theirs}.bias", f"{ours}.bias")]


def per_layer(rows: list[Row], n_layers: int) -> list[Row]:
    """Every row with {i} once per layer."""
    return [
        Row(r.theirs.replace("{i}", str(i)), tuple(name.replace("{i}", str(i)) for name in r.ours), r.form)
        for r in rows
        for i in range(n_layers if "{i}" in r.theirs else 1)
    ]


def to_ours(
    rows: list[Row], theirs: Mapping[str, Tensor], shapes: Shapes, order: Tensor | None = None, views: bool = False
) -> dict[str, Tensor]:
    """Their tensors under our names; `shapes` are those of our model, by which packed tensors are cut; `order`: see `ordered`. views: what
    is cut or turned is only looked at in another way, not copied."""
    ours: dict[str, Tensor] = {}
    for r in rows:
        if r.theirs not in theirs:
            continue
        tensor = r.form.ours(theirs[r.theirs])
        parts = tensor.split([shapes[name][0] for name in r.ours]) if len(r.ours) > 1 else (tensor,)
        for name, part in zip(r.ours, parts, strict=True):
            alone = part if views or len(parts) == 1 else part.clone(memory_format=torch.contiguous_format)
            ours[name] = ordered(name, alone if views else alone.contiguous(), order)
    return ours


def to_theirs(rows: list[Row], ours: Mapping[str, Tensor], order: Tensor | None = None) -> dict[str, Tensor]:
    """Our tensors under their names. `order` is that of `to_ours`."""
    back = None if order is None else torch.argsort(order)
    theirs = {}
    for r in rows:
        parts = [ordered(name, ours[name], back) for name in r.ours]
        theirs[r.theirs] = r.form.theirs(torch.cat(parts) if len(parts) > 1 else parts[0]).contiguous()
    return theirs


def shapes_of_theirs(rows: list[Row], shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """The shapes their tensors must have to fit a model of ours."""
    found = {}
    for r in rows:
        first = sum(
            shapes[name][0] for name in r.ours
        )  # torch.cat on the meta device would do, after seconds of imports
        packed = torch.empty((first, *shapes[r.ours[0]][1:]) if len(r.ours) > 1 else shapes[r.ours[0]], device="meta")
        found[r.theirs] = tuple(r.form.theirs(packed).shape)
    return found


_D_MODEL: tuple[tuple[str, int], ...] = (  # the axis of a parameter that is d_model wide
    ("*norm_query.*", -1),  # -1: none
    ("*norm_key.*", -1),
    ("*norm*", 0),
    ("*tokens.weight", 1),
    ("*positions.weight", 1),
    ("*segments.weight", 1),
    ("head.weight", 1),
    ("*.out.*", 0),
    ("*.down.*", 0),
    ("*.query.weight", 1),
    ("*.key.weight", 1),
    ("*.value.weight", 1),
    ("*.up.weight", 1),
    ("*.gate.weight", 1),
    ("*", -1),
)


def ordered(name: str, tensor: Tensor, order: Tensor | None) -> Tensor:
    """Our parameter `name` with the places of d_model rearranged: place i of the result is place order[i]. None = as it is."""
    if order is None:
        return tensor
    axis = next(axis for pattern, axis in _D_MODEL if fnmatchcase(name, pattern))
    return tensor if axis < 0 else tensor.index_select(axis, order)
