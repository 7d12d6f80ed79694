"""The names of axes, right also where sizes collide (64 tokens, d_model 64).

A size alone does not tell what an axis is. So the same computation is run a second time by a *twin*, on tensors without memory, in which
everything that has a name has a size of its own; an axis is what its size in the twin says: batch·heads where the twin has the product of
both. The name is taken only where it also gives the real size.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from math import prod

from pellucid.inspection.recorder import Step, Value

PLACES = ("tokens", "source", "1+patches", "patches")
"""Axes along which things stand one after the other. Where a tensor has two, the first holds the queries, the second the keys."""


@dataclass(frozen=True)
class Sizes:
    """What each name means: its size in the twin, and the real one."""

    twin: Mapping[str, int]
    real: Mapping[str, int]

    def __post_init__(self) -> None:
        found: dict[int, tuple[str, ...]] = {}
        for count in (3, 2, 1):  # fewer names last: they win
            for names in combinations(self.twin, count):
                found[prod(self.twin[name] for name in names)] = names
        object.__setattr__(self, "_names", found)

    def name(self, twin: int, real: int) -> str:
        """The name of an axis of size `real` that has size `twin` in the twin; "" where it has none."""
        names: tuple[str, ...] = self._names.get(twin, ())  # type: ignore[attr-defined]
        if names and prod(self.real[name] for name in names) == real:
            return "·".join(names)
        for name, size in self.twin.items():
            if twin != real and twin % size == 0 and twin // size * self.real[name] == real:
                return f"{twin // size}·{name}"
        return ""

    def names(self, twin: tuple[int, ...], real: tuple[int, ...]) -> tuple[str, ...]:
        """The names of a tensor's axes."""
        if len(twin) != len(real):
            return ()
        found = [self.name(a, b) for a, b in zip(twin, real, strict=True)]
        places = [axis for axis, name in enumerate(found) if _place(name)]
        if len(places) == 2:
            for axis, new in zip(places, ("query", "key"), strict=True):
                found[axis] = found[axis].replace(_place(found[axis]), new)
        return tuple(found)


def name_axes(real: Step, twin: Step, sizes: Sizes) -> None:
    """Writes the names into every value of `real`, step by step beside the same computation of the twin.

    Steps are the same where their order is; where a kernel was chosen otherwise, only modules are compared.
    """
    _name_values(real.inputs, twin.inputs, sizes)
    _name_values(real.outputs, twin.outputs, sizes)
    ours, theirs = [[_label(step) for step in one.steps] for one in (real, twin)]
    n = min(len(ours), len(theirs))
    if ours[:n] == theirs[:n]:
        pairs = list(zip(real.steps, twin.steps, strict=False))
    else:
        modules = {(s.path, s.again): s for s in twin.steps if not s.is_operation}
        pairs = [(s, modules[s.path, s.again]) for s in real.steps if (s.path, s.again) in modules]
    for ours_, theirs_ in pairs:
        name_axes(ours_, theirs_, sizes)


def _name_values(real: list[Value], twin: list[Value], sizes: Sizes) -> None:
    for ours, theirs in zip(real, twin, strict=False):
        ours.axes = sizes.names(theirs.shape, ours.shape) or ours.axes


def _label(step: Step) -> tuple[str, str]:
    return step.path, step.kind


def _place(name: str) -> str:
    """The part of a name that is a place: "tokens" of "batch·tokens", "" of "batch"."""
    return next((part for part in name.split("·") if part in PLACES), "")
