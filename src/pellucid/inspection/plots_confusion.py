"""What a classifier takes for what: a table of true and predicted labels, as a picture. Imports no torch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pellucid.errors import DataError
from pellucid.inspection.plots_style import INK, PALE, figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUMBERS_UP_TO = 20  # labels; with more there is no room for the numbers


def draw(names: Sequence[str], matrix: np.ndarray) -> "dict[str, Figure]":
    """matrix [true, predicted] of counts; the colour is the share of a true label. DataError where nothing was counted."""
    total = int(matrix.sum())
    if not total:
        raise DataError("there are no examples to confuse", "is the held-out part of the data empty?")
    n, right = len(names), int(np.trace(matrix))
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    side = min(9.0, max(3.2, n * (0.52 if n <= NUMBERS_UP_TO else 0.2)))
    picture = figure(side + 1.8, side + 1.1)
    axes = picture.subplots()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    labels = [plain(name if len(name) <= 20 else name[:19] + "…") for name in names]
    size = 9 if n <= NUMBERS_UP_TO else max(5.0, min(9.0, side / n * 55))
    wide = max(map(len, labels)) * size / 110 > side / n  # inches of a label, of a column
    axes.set_xticks(range(n), labels, rotation=90 if wide else 0, fontsize=size)
    axes.set_yticks(range(n), labels, fontsize=size)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set(visible=True, color=PALE)
    for row, column in np.argwhere(matrix > 0) if n <= NUMBERS_UP_TO else ():
        colour = "white" if share[row, column] > 0.55 else INK
        axes.text(column, row, f"{matrix[row, column]:,}", ha="center", va="center", fontsize=8, color=colour)
    axes.set(xlabel="predicted", ylabel="true")
    picture.suptitle(f"{right / total:.1%} of {total:,} are right", fontsize=11, x=0.01, ha="left")
    bar = picture.colorbar(image, ax=axes, shrink=0.7, pad=0.02, format=lambda value, place: f"{value:.0%}")
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.set_label("of the true label", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    return {"confusion": picture}
