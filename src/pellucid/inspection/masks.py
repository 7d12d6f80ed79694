"""The masks a forward pass used, each once, as a picture."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pellucid.inspection.recorder import MaskUse, Step

LARGEST = 24
"""Rows and columns of a picture; a larger mask is shrunk to so many."""


@dataclass(frozen=True)
class Picture:
    """A mask: rows are queries, columns keys, ■ may look, · must not, ▒ in part (where it was shrunk).

    drawings: one per different row of the batch, none where everything may be seen. users: the attentions it was given to; constraints:
    the fields of Mask that constrain; biased: a bias on the scores came with it.
    """

    n_query: int
    n_key: int
    constraints: tuple[str, ...]
    biased: bool
    users: tuple[str, ...]
    drawings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def __str__(self) -> str:
        what = " and ".join(self.constraints) or "everything may be seen"
        bias = ", with a bias on the scores" if self.biased else ""
        head = f"mask of {self.n_query} queries and {self.n_key} keys: {what}{bias}\n  used by {folded(self.users)}"
        more = f"\n\n  … and {len(self.drawings) - 3} more rows of the batch" if len(self.drawings) > 3 else ""
        return "\n".join([head, *("\n" + drawing for drawing in self.drawings[:3])]) + more


def pictures(uses: list[MaskUse], root: Step, labels: dict[str, list[str]]) -> list[Picture]:
    """One picture per different mask, in the order of first use. labels: axis -> words for its places."""
    steps = {step.path: step for step in root.walk() if not step.is_operation}
    found: list[tuple[Tensor, MaskUse, list[str]]] = []
    for use in uses:
        try:
            allowed = use.mask.dense(use.n_query, use.n_key, use.device)[:, 0]
        except ValueError:  # it does not fit, which the clash tells
            continue
        same = [users for other, first, users in found if torch.equal(other, allowed) and first.biased == use.biased]
        if same:
            same[0].append(use.path)
        else:
            found.append((allowed, use, [use.path]))
    result = []
    for allowed, use, users in found:
        words = [_words(steps.get(use.path), side, labels) for side in (0, 1)]
        drawings = () if allowed.all() else tuple(dict.fromkeys(draw(row, *words) for row in allowed.cpu()))
        constraints = tuple(sorted(use.mask.constraints))
        result.append(Picture(use.n_query, use.n_key, constraints, use.biased, tuple(dict.fromkeys(users)), drawings))
    return result


def draw(allowed: Tensor, rows: list[str] | None = None, columns: list[str] | None = None) -> str:
    """A picture of [Q,K], True = may look; more than LARGEST rows or columns are shrunk, words stand by when they are not."""
    n_query, n_key = allowed.shape
    size = (min(n_query, LARGEST), min(n_key, LARGEST))
    numbers = allowed[None].float()
    some, every = F.adaptive_max_pool2d(numbers, size)[0], -F.adaptive_max_pool2d(-numbers, size)[0]
    words = rows if rows and len(rows) == n_query == size[0] else [""] * size[0]
    width = min(12, max(map(len, words), default=0))
    lines = [
        f"  {word[:width]:>{width}} " + " ".join("■" if e else "▒" if s else "·" for s, e in zip(a, b, strict=True))
        for word, a, b in zip(words, some.tolist(), every.tolist(), strict=True)
    ]
    if columns and len(columns) == n_key == size[1]:
        lines.append(f"  {'':{width}} keys, left to right: {' '.join(columns)}")
    if size != (n_query, n_key):
        lines.append(f"  (shrunk: a cell stands for about {-(-n_query // size[0])} × {-(-n_key // size[1])} places)")
    return "\n".join(lines)


def _words(step: Step | None, side: int, labels: dict[str, list[str]]) -> list[str] | None:
    """The words for queries (side 0) or keys (side 1), by the name of the axis they stand on."""
    axes = step.inputs[side].axes if step and len(step.inputs) > side else ()
    return labels.get(axes[2]) if len(axes) == 4 else None


def folded(paths: tuple[str, ...]) -> str:
    """Paths that differ in numbers only, as one: "stack.blocks.0…11.attention.branch.attend"."""
    groups: dict[tuple[str, ...], list[list[str]]] = {}
    for path in paths:
        parts = path.split(".")
        groups.setdefault(tuple("#" if part.isdigit() else part for part in parts), []).append(parts)
    shown = []
    for pattern, members in groups.items():
        first, last = members[0], members[-1]
        pairs = zip(pattern, first, last, strict=True)
        shown.append(".".join(a if p != "#" or a == b else f"{a}…{b}" for p, a, b in pairs))
    return ", ".join(shown)
