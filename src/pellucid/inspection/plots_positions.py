"""How a model knows where things are, as pictures: tables of positions, rotary frequencies, biases by distance.

What is drawn is what the model's own parts give (`parts.positions`). matplotlib is imported when a picture is made.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.inspection.plots_style import COLOURS, WIDTH, figure
from pellucid.parts.positions import Alibi, Learned, Rotary, Sinusoidal, Sinusoidal2d, T5Bias

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONGEST = 256  # positions that are drawn
FARTHEST = 128  # tokens of distance that are drawn
Picture = Callable[[Any, int, str], "Figure"]


@torch.no_grad()
def draw(model: nn.Module, max_length: int) -> "dict[str, Figure]":
    """Each kind of positions a model has, once: name -> picture. max_length: of the model, in tokens; 0 = it sees patches of images."""
    found: dict[str, tuple[Picture, Any, str]] = {}
    for name, part in model.named_modules():
        if type(part) in PICTURES:
            side = next((side for side in ("encoder", "decoder") if name.startswith(side)), "")
            own = side if isinstance(part, T5Bias) else ""  # the other kinds are the same on both sides
            picture = patches if name == "embed.positions" and max_length == 0 else PICTURES[type(part)]
            found.setdefault(f"positions-{own}" if own else "positions", (picture, part, own))
    return {name: picture(part, max_length, side) for name, (picture, part, side) in found.items()}


def table(part: "Sinusoidal | Learned", max_length: int, side: str = "") -> "Figure":
    """The vectors themselves, and how like each other they are (cosine)."""
    n = min(LONGEST, part.weight.shape[0] if isinstance(part, Learned) else max_length)
    vectors = part(torch.arange(n, device=_device(part)).unsqueeze(0))[0].float().cpu()
    picture = figure(WIDTH, 3.9)
    left, right = picture.subplots(1, 2)
    kind = "learned" if isinstance(part, Learned) else "sinusoidal"
    limit = float(vectors.abs().quantile(0.995)) or 1.0
    image = _heat(left, vectors.T, "RdBu_r", -limit, limit)
    left.set(xlabel="position", ylabel="dimension", title=f"{kind} positions: each column a vector")
    picture.colorbar(image, ax=left, shrink=0.85, pad=0.02).outline.set_visible(False)  # type: ignore[operator]
    image = _heat(right, _likeness(vectors), "RdBu_r", -1, 1)
    right.set(xlabel="position", ylabel="position", title="how alike they are (cosine)")
    picture.colorbar(image, ax=right, shrink=0.85, pad=0.02).outline.set_visible(False)  # type: ignore[operator]
    return picture


def patches(part: "Learned | Sinusoidal2d", max_length: int, side: str = "") -> "Figure":
    """Patches of an image: for each its likeness (cosine) to all others, laid out as they lie (Dosovitskiy et al. 2021, figure 7)."""
    if isinstance(part, Learned):
        vectors = part.weight[1:].float().cpu()  # the first is the class token's
        width = math.isqrt(len(vectors))
    else:
        width = part.width
        vectors = part(torch.arange(width * width, device=_device(part)).unsqueeze(0))[0].float().cpu()
    height = len(vectors) // width
    alike = _likeness(vectors).numpy().reshape(height, width, height, width)
    framed = np.full((height, height + 1, width, width + 1), np.nan)
    framed[:, :height, :, :width] = alike.transpose(0, 2, 1, 3)
    mosaic = framed.reshape(height * (height + 1), width * (width + 1))[:-1, :-1]
    picture = figure(6.0, 5.6)
    axes = picture.subplots()
    axes.grid(False)
    image = axes.imshow(mosaic, cmap="viridis", vmin=float(alike.min()), vmax=1, interpolation="nearest")
    axes.set_xticks([at * (width + 1) + (width - 1) / 2 for at in range(width)], [f"{at + 1}" for at in range(width)])
    axes.set_yticks(
        [at * (height + 1) + (height - 1) / 2 for at in range(height)], [f"{at + 1}" for at in range(height)]
    )
    axes.tick_params(length=0)
    axes.set(
        xlabel="column of the patch",
        ylabel="row of the patch",
        title="positions: each patch compared with all (cosine)",
    )
    _frame(axes, False)
    picture.colorbar(image, ax=axes, shrink=0.8, pad=0.02).outline.set_visible(False)  # type: ignore[operator]
    return picture


def rotary(part: Rotary, max_length: int, side: str = "") -> "Figure":
    """How many tokens each pair of dimensions takes for a turn, and how far it is turned over the first positions."""
    frequencies = part.frequencies(_device(part)).cpu().double()
    picture = figure(WIDTH, 3.9)
    left, right = picture.subplots(1, 2)
    pairs = np.arange(len(frequencies))
    left.semilogy(pairs, (2 * math.pi / frequencies).numpy(), color=COLOURS[0], marker="o", markersize=4)
    left.axhline(max_length, color=COLOURS[1], linestyle="--", label=f"the model's longest text, {max_length:,}")
    left.yaxis.set_major_formatter(lambda value, place: f"{value:,.0f}")
    left.grid(True)
    left.legend(loc="upper left")
    left.set(
        xlabel="pair of dimensions", ylabel="tokens for a whole turn", title=f"rotary positions, base {part.base:,.0f}"
    )
    left.xaxis.get_major_locator().set_params(integer=True)
    n = min(64, max_length)
    turned = torch.cos(torch.arange(n).double().unsqueeze(0) * frequencies.unsqueeze(1))
    image = _heat(right, turned, "RdBu_r", -1, 1)
    right.set(xlabel="distance (tokens)", ylabel="pair of dimensions", title="cosine of the angle between two tokens")
    right.yaxis.get_major_locator().set_params(integer=True)
    picture.colorbar(image, ax=right, shrink=0.85, pad=0.02).outline.set_visible(False)  # type: ignore[operator]
    return picture


def bias(part: "Alibi | T5Bias", max_length: int, side: str = "") -> "Figure":
    """What is added to the score of a key so many tokens away, for each head."""
    reach = min(FARTHEST, max_length - 1)
    both = isinstance(part, T5Bias) and part.bidirectional
    keys = torch.arange(2 * reach + 1 if both else reach + 1, device=_device(part)).unsqueeze(0)
    curves = part(torch.tensor([[reach]], device=keys.device), keys)[0, :, 0].float().cpu().numpy()
    offsets = (keys[0].cpu() - reach).numpy()
    picture = figure(WIDTH, 3.9)
    axes = picture.subplots()
    steps = "steps-mid" if isinstance(part, T5Bias) else "default"  # buckets of distances share a bias
    for head, curve in enumerate(curves):
        colour = _colour(head, len(curves))
        axes.plot(offsets, curve, color=colour, linewidth=1.6, drawstyle=steps, label=f"head {head + 1}")
    kind = "ALiBi" if isinstance(part, Alibi) else "T5's relative bias"
    axes.set_title(f"{kind}{f' of the {side}' if side else ''}: added to the score by distance")
    axes.set(xlabel="the key's place, seen from the query (tokens)", ylabel="added to the score")
    axes.grid(True)
    axes.margins(x=0.01)
    axes.axhline(0, color="#8c8c8c", linewidth=0.8)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), ncols=1 + (len(curves) > 12))
    return picture


PICTURES: dict[type[nn.Module], Picture] = {
    Sinusoidal: table,
    Learned: table,
    Sinusoidal2d: patches,
    Rotary: rotary,
    Alibi: bias,
    T5Bias: bias,
}


def _device(part: nn.Module) -> torch.device:
    return next((parameter.device for parameter in part.parameters()), torch.device("cpu"))


def _likeness(vectors: Tensor) -> Tensor:
    unit = vectors / vectors.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    return unit @ unit.T


def _heat(axes: "Axes", values: Tensor, colours: str, low: float, high: float) -> Any:
    axes.grid(False)
    _frame(axes, True)
    return axes.imshow(values.numpy(), cmap=colours, vmin=low, vmax=high, aspect="auto", interpolation="nearest")


def _frame(axes: "Axes", visible: bool) -> None:
    for spine in axes.spines.values():
        spine.set_visible(visible)


def _colour(head: int, n_heads: int) -> Any:
    """Heads have an order (slopes), so their colours do too; few heads get colours that are easy to tell apart."""
    if n_heads <= len(COLOURS):
        return COLOURS[head]
    from matplotlib import colormaps

    return colormaps["viridis"](head / max(1, n_heads - 1) * 0.92)
