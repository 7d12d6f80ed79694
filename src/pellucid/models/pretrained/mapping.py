"""A table of names: one row says which of our tensors one of theirs is made of. Read forwards to load, backwards to save."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Shapes = Mapping[str, torch.Size]


@dataclass(frozen=True)
class Row:
    """`theirs` holds `ours`, stacked along the first axis if several; transposed if they store [in, out]. {i} = the layer's number."""

    theirs: str
    ours: tuple[str, ...]
    transposed: bool = False


def row(theirs: str, *ours: str, transposed: bool = False) -> Row:
    """A `Row`, shorter to write."""
    return Row(theirs, ours, transposed)


def per_layer(rows: list[Row], n_layers: int) -> list[Row]:
    """Every row with {i} once per layer."""
    return [
        Row(r.theirs.replace("{i}", str(i)), tuple(name.replace("{i}", str(i)) for name in r.ours), r.transposed)
        for r in rows
        for i in range(n_layers if "{i}" in r.theirs else 1)
    ]


def to_ours(rows: list[Row], theirs: Mapping[str, Tensor], shapes: Shapes) -> dict[str, Tensor]:
    """Their tensors under our names; `shapes` are those of our model, by which packed tensors are cut."""
    ours: dict[str, Tensor] = {}
    for r in rows:
        if r.theirs not in theirs:
            continue
        tensor = theirs[r.theirs].T if r.transposed else theirs[r.theirs]
        parts = tensor.split([shapes[name][0] for name in r.ours]) if len(r.ours) > 1 else (tensor,)
        ours |= {name: part.contiguous() for name, part in zip(r.ours, parts, strict=True)}
    return ours


def to_theirs(rows: list[Row], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors under their names."""
    theirs = {}
    for r in rows:
        tensor = torch.cat([ours[name] for name in r.ours]) if len(r.ours) > 1 else ours[r.ours[0]]
        theirs[r.theirs] = (tensor.T if r.transposed else tensor).contiguous()
    return theirs


def shapes_of_theirs(rows: list[Row], shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """The shapes their tensors must have to fit a model of ours."""
    expected = {}
    for r in rows:
        first = sum(shapes[name][0] for name in r.ours)
        shape = (first, *shapes[r.ours[0]][1:])
        expected[r.theirs] = shape[::-1] if r.transposed else shape
    return expected
