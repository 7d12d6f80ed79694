"""Attention maps: every layer and head in small, who each word of an answer looked at, what of an image the class token sees.

The weights are worked out beside the kernel that runs (`parts.taps.record_attention`). matplotlib is imported when a picture is
made.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from pellucid.inspection.plots_style import HIDDEN, INK, WIDTH, figure, readable
from pellucid.inspection.subject import still, text_subject
from pellucid.parts.taps import record_attention

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GROUPS = {  # modules of attention -> what they are called; those a model has are drawn
    "encoder.blocks.*.attention.branch.attend": "encoder",
    "decoder.blocks.*.attention.branch.attend": "decoder",
    "decoder.blocks.*.cross.branch.attend": "cross",
    "stack.blocks.*.attention.branch.attend": "attention",
}
TITLES = {
    "encoder": "The encoder reads: every source token looks at every other",
    "decoder": "The decoder writes: every token looks back at those before it",
    "cross": "The decoder looks at the source, for every token that it writes",
    "attention": "Who looks at whom: the token of each row at those of the columns",
}
SIZE_OF_LETTERS = 7.2
ROOM = 0.107  # inches that a token's label needs
NARROWEST = 5.4  # inches that a title needs
MOST_TOKENS = 80  # of an alignment
TICKS = (0.0, 0.05, 0.2, 0.5, 1.0)


@dataclass(frozen=True)
class Maps:
    """Weights [layers, heads, Q, K] of one kind of attention; the tokens that look, and those looked at."""

    name: str
    weights: np.ndarray
    queries: tuple[str, ...]
    keys: tuple[str, ...]


def record(pipeline: Any, text: str, target: str | None = None) -> list[Maps]:
    """Run the model once on a text and keep all attention. target: of an encoder-decoder; None = its own answer."""
    model, tokenizer = pipeline.model, pipeline.tokenizer
    inputs = text_subject(model, tokenizer, text, target).inputs
    ids = {name: rows[0].tolist() for name, rows in inputs.items()}
    own = tuple(tokenizer.tokens(ids["target" if "target" in ids else "ids"]))
    sides = {"decoder": (own, own), "attention": (own, own)}
    if "source" in ids:
        read = tuple(tokenizer.tokens(ids["source"]))
        end = tokenizer.tokens([pipeline.config.eos_id or 0])
        sides |= {
            "encoder": (read, read),
            "cross": ((*own[1:], *end), read),
        }  # a row tells where it looked to say the next
    return [Maps(name, weights, *sides[name]) for name, weights in run(model, inputs).items()]


def record_image(pipeline: Any, image: np.ndarray) -> np.ndarray:
    """Weights [layers, heads, 1+P, 1+P] of a ViT on an image, uint8 [height, width, channels]."""
    from pellucid.data.images import normalise

    return run(pipeline.model, {"images": normalise(np.array(image[None]))})["attention"]


def run(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Name of `GROUPS` -> weights [layers, heads, Q, K] of one forward pass, of the first row of the inputs."""
    device = next(model.parameters()).device
    with still(model), record_attention(model) as kept:
        model(**{name: x.to(device) for name, x in inputs.items()})
    found: dict[str, list[np.ndarray]] = {}
    for name, calls in kept.items():
        pattern = ".".join("*" if part.isdigit() else part for part in name.split("."))
        found.setdefault(GROUPS[pattern], []).append(calls[-1][0].float().cpu().numpy())
    return {group: np.stack(layers) for group, layers in found.items()}


# --- pictures --------------------------------------------------------------------------------------------------------


def draw(maps: Sequence[Maps]) -> "dict[str, Figure]":
    """One picture for each kind of attention, and for an encoder-decoder the alignment."""
    pictures = {one.name if one.name == "attention" else f"attention-{one.name}": small_multiples(one) for one in maps}
    for one in maps:
        if one.name == "cross" and max(one.weights.shape[2:]) <= MOST_TOKENS:
            pictures["alignment"] = alignment(one)
    return pictures


def small_multiples(maps: Maps) -> "Figure":
    """Layers downwards, heads to the right; the tokens at the edges where there is room for them, else below."""
    n_layers, n_heads, n_query, n_key = maps.weights.shape
    cell = min((WIDTH - 1.5) / n_heads, max(1.1, n_key * ROOM * 1.25), 3.0)
    height = cell * min(1.6, max(0.6, n_query / n_key))
    labelled = n_key * ROOM <= cell and n_query * ROOM <= height
    left, below = (_longest(side) if labelled else 0.0 for side in (maps.queries, maps.keys))
    picture = figure(max(NARROWEST, cell * n_heads + 1.2 + left), max(2.2, height * n_layers + 0.9 + below))
    fields = picture.subplots(n_layers, n_heads, squeeze=False)
    for layer, row in enumerate(fields):
        for head, axes in enumerate(row):
            image = _map(axes, maps.weights[layer, head])
            if layer == 0:
                axes.set_title(f"head {head + 1}", fontsize=9, loc="center")
            if head == 0:
                axes.set_ylabel(f"layer {layer + 1}", fontsize=9)
            if labelled:
                _tokens(axes, maps.queries if head == 0 else (), maps.keys if layer == n_layers - 1 else ())
    picture.suptitle(TITLES[maps.name], fontsize=11, x=0.01, ha="left")
    _scale(picture, image, fields)
    if not labelled:
        picture.supxlabel(_legend(maps, picture.get_figwidth()), fontsize=8, x=0.01, ha="left")
    return picture


def alignment(maps: Maps) -> "Figure":
    """Who each written token looked at: the mean of the heads of the last layer, large."""
    weights = maps.weights[-1].mean(0)
    n_query, n_key = weights.shape
    cell = min(0.42, max(ROOM * 1.5, (WIDTH - 1.5 - _longest(maps.queries)) / n_key))
    width, height = n_key * cell + 1.5 + _longest(maps.queries), n_query * cell + 1.1 + _longest(maps.keys)
    picture = figure(max(NARROWEST, width), max(2.6, height))
    axes = picture.subplots()
    image = _map(axes, weights)
    _tokens(axes, maps.queries, maps.keys, size=9)
    axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.set_title("looked at →", fontsize=9, loc="center")
    axes.set_ylabel("written ↓", fontsize=9)
    picture.suptitle("Where each written token looked (last layer, mean of the heads)", fontsize=11, x=0.01, ha="left")
    _scale(picture, image, axes)
    return picture


def class_token(weights: np.ndarray, image: np.ndarray) -> "Figure":
    """What the class token of a ViT looks at. weights [layers, heads, 1+P, 1+P]; image uint8 [height, width, channels].

    Left the image, as bright as the mean of the layer's heads looks at it; then the heads, over the grid of patches.
    """
    n_layers, n_heads = weights.shape[:2]
    side = round((weights.shape[-1] - 1) ** 0.5)
    seen = weights[:, :, 0, 1:].reshape(n_layers, n_heads, side, side)
    cell = min(1.6, max(0.7, (WIDTH - 1.5) / (n_heads + 1)))
    picture = figure(cell * (n_heads + 1) + 1.5, max(2.0, cell * n_layers + 0.7))
    fields = picture.subplots(n_layers, n_heads + 1, squeeze=False)
    shown = np.repeat(image, 3, -1)[..., :3] / 255 if image.shape[-1] == 1 else image / 255
    for layer, row in enumerate(fields):
        mean = seen[layer].mean(0)
        scale = -(-shown.shape[0] // side)
        light = np.kron(mean / max(mean.max(), 1e-9), np.ones((scale, scale)))[: shown.shape[0], : shown.shape[1]]
        row[0].imshow(np.clip(shown * (0.4 + 0.6 * light[..., None]), 0, 1), interpolation="nearest")
        row[0].set_ylabel(f"layer {layer + 1}", fontsize=9)
        for head, axes in enumerate(row[1:]):
            drawn = _map(axes, seen[layer, head], hides=False)
            if layer == 0:
                axes.set_title(f"head {head + 1}", fontsize=9, loc="center")
    fields[0, 0].set_title("image · mean", fontsize=9, loc="center")
    for axes in fields.flatten():
        axes.set(xticks=[], yticks=[])
    picture.suptitle("What the class token looks at", fontsize=11, x=0.01, ha="left")
    _scale(picture, drawn, fields)
    return picture


def _map(axes: "Axes", weights: np.ndarray, hides: bool = True) -> Any:
    """One map; what the mask hides (exactly 0) is grey, what is only little is white."""
    from matplotlib import colormaps
    from matplotlib.colors import PowerNorm

    colours = colormaps["BuPu"].with_extremes(bad=HIDDEN)
    shown = np.ma.masked_equal(weights, 0.0) if hides else weights
    image = axes.imshow(
        shown, cmap=colours, norm=PowerNorm(0.5, 0, 1), aspect="auto" if hides else "equal", interpolation="nearest"
    )
    for spine in axes.spines.values():
        spine.set(visible=True, color="#c8c8c8", linewidth=0.6)
    axes.set(xticks=[], yticks=[])
    return image


def _tokens(axes: "Axes", queries: Sequence[str], keys: Sequence[str], size: float = SIZE_OF_LETTERS) -> None:
    axes.tick_params(length=0)
    axes.set_yticks(range(len(queries)), [readable(token) for token in queries], fontsize=size)
    axes.set_xticks(range(len(keys)), [readable(token) for token in keys], fontsize=size, rotation=90)


def _scale(picture: "Figure", image: Any, axes: Any) -> None:
    """The legend of the colours: the root of the weight is shown, so that little is to be seen too."""
    bar = picture.colorbar(image, ax=axes, shrink=min(1.0, 2.4 / picture.get_figheight()), aspect=18, pad=0.02)
    bar.set_ticks(TICKS, labels=[f"{tick:.0%}" for tick in TICKS])
    bar.ax.tick_params(labelsize=8, color=INK)
    bar.outline.set_visible(False)  # type: ignore[operator]


def _longest(tokens: Sequence[str]) -> float:
    """Inches that the longest label takes."""
    return max(_inches(readable(token)) for token in tokens) * 1.25


def _inches(text: str, size: float = 8.0) -> float:
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    return text_to_path.get_text_width_height_descent(text, FontProperties(size=size), ismath=False)[0] / 72


def _legend(maps: Maps, width: float) -> str:
    """The tokens below a picture without room for them at its edges, folded to its width in inches."""
    sides: Mapping[str, Sequence[str]] = {"rows": maps.queries, "columns": maps.keys}
    if maps.queries == maps.keys:
        sides = {"rows and columns": maps.keys}
    lines: list[str] = []
    for side, tokens in sides.items():
        line = f"{side}:"
        for token in tokens:
            longer = f"{line} {readable(token)}"
            if _inches(longer) * 1.06 > width - 0.2:  # a screen rounds letters up
                lines.append(line)
                longer = f"    {readable(token)}"
            line = longer
        lines.append(line)
    return "\n".join(lines if len(lines) <= 12 else [*lines[:11], "    …"])
