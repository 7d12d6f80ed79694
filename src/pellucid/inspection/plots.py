"""All pictures of a run: curves, attention, positions, confusions; each kind by itself, with the reason where there is none."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.data.images import ImageSet, read_image
from pellucid.data.prepare import TextSet
from pellucid.errors import DataError, UserError
from pellucid.inspection import plots_attention, plots_confusion, plots_curves, plots_positions
from pellucid.inspection.plots_style import save, style, without_glyphs
from pellucid.training.kinds import kind_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXAMPLE = range(8, 17)  # tokens of a held-out example that are few enough to be read in a picture
SEARCHED = 200  # held-out examples


@dataclass
class Asked:
    """The runs, and how their model is loaded, when one is needed. text: what the model is to look at; of a ViT, an image file."""

    folders: Sequence[Path]
    load: Callable[[Path], Any]
    text: str | None = None
    notes: list[str] = field(default_factory=list)

    def pipeline(self) -> Any:
        """The model of the one run. UserError for several."""
        if len(self.folders) > 1:
            raise UserError("this picture is of one model, and several were given", "give one RUN, or --only curves")
        return self.load(self.folders[0])


@dataclass(frozen=True)
class Plotted:
    """The files written; of each kind without pictures the reason; what a person should be told."""

    files: list[Path]
    skipped: dict[str, str]
    notes: list[str]


def plot(asked: Asked, out: Path, only: Sequence[str] = (), formats: Sequence[str] = ("png",)) -> Plotted:
    """Draw and save. only: of `KINDS`, and then a picture that cannot be made is an error; otherwise it is left out.

    Raises UserError without matplotlib, and where no picture at all can be made.
    """
    for folder in asked.folders:
        if not folder.is_dir():
            raise DataError(f"{folder} is no folder", "give a run folder; `pellucid train` makes one")
    asked.load = cache(asked.load)
    wanted = list(dict.fromkeys(only)) or list(KINDS if len(asked.folders) == 1 else ["curves"])
    prefix = "compare-" if len(asked.folders) > 1 else ""
    files: list[Path] = []
    skipped: dict[str, str] = {}
    for kind in wanted:
        with style():
            try:
                pictures = KINDS[kind](asked)
            except UserError as error:
                if only:
                    raise
                skipped[kind] = error.problem
                continue
            files += [path for name, one in pictures.items() for path in save(one, out / f"{prefix}{name}", formats)]
    if not files:
        raise DataError("there is nothing to draw: " + "; ".join(f"{kind}: {why}" for kind, why in skipped.items()))
    return Plotted(files, skipped, asked.notes)


def curves(asked: Asked) -> "dict[str, Figure]":
    """Loss, other measures, learning rate, gradient and speed of one run, or of several in one picture."""
    names = plots_curves.names_apart(asked.folders)
    return plots_curves.draw(
        [plots_curves.read(folder, name) for folder, name in zip(asked.folders, names, strict=True)]
    )


def attention(asked: Asked) -> "dict[str, Figure]":
    """What the model looks at in the text, or in a held-out example of its own data."""
    pipeline = asked.pipeline()
    if pipeline.config.family == "vit":
        size = pipeline.config.image_size, pipeline.config.channels
        image = read_image(Path(asked.text), *size) if asked.text is not None else held_out_image(pipeline)
        return {"attention-image": plots_attention.class_token(plots_attention.record_image(pipeline, image), image)}
    maps = plots_attention.record(pipeline, held_out_text(pipeline) if asked.text is None else asked.text)
    if missing := without_glyphs([token for one in maps for token in (*one.queries, *one.keys)]):
        asked.notes.append(f"no font here shows {missing}; install one that does, such as Noto Sans CJK")
    return plots_attention.draw(maps)


def positions(asked: Asked) -> "dict[str, Figure]":
    """How the model knows where things are."""
    pipeline = asked.pipeline()
    length = 0 if pipeline.config.family == "vit" else pipeline.config.max_length
    pictures = plots_positions.draw(pipeline.model, length)
    if not pictures:
        raise UserError("this model has no positions of its own")
    return pictures


def confusion(asked: Asked) -> "dict[str, Figure]":
    """What a classifier takes for what, on held-out examples."""
    pipeline = asked.pipeline()
    confused = getattr(pipeline, "confusion", None)
    if confused is None or not pipeline.config.labels:
        raise UserError("this model gives no labels")
    return plots_confusion.draw(*confused())


KINDS: dict[str, Callable[[Asked], "dict[str, Figure]"]] = {
    "curves": curves,
    "attention": attention,
    "positions": positions,
    "confusion": confusion,
}


# --- something to look at --------------------------------------------------------------------------------------------


def held_out(pipeline: Any) -> Any:
    """The part of a run's own data that was held out: test, else valid. UserError for a model folder, which knows no data."""
    if pipeline.recipe is None:
        raise UserError(
            "this model folder does not know its data", "say what to look at: --text TEXT (of a ViT: an image file)"
        )
    parts = kind_of(pipeline.recipe).parts(pipeline.recipe, pipeline._tokenizer, pipeline.config)
    return next(parts[name] for name in ("test", "valid", "train") if name in parts)


def held_out_image(pipeline: Any) -> np.ndarray:
    """The first held-out image, uint8 [height, width, channels]."""
    part: ImageSet = held_out(pipeline)
    return np.array(part.pixels[0])


def held_out_text(pipeline: Any) -> str:
    """The first held-out example of readable length; of running text, its beginning."""
    part, tokenizer = held_out(pipeline), pipeline.tokenizer
    if isinstance(part, TextSet):
        return tokenizer.decode(part.tokens[: EXAMPLE[-1]].tolist())
    firsts = [first for first, _, *_ in part.examples(SEARCHED)]
    texts = [first if isinstance(first, str) else " ".join(first) for first in firsts]
    fitting = (text for text in texts if len(tokenizer.encode(text)) in EXAMPLE)
    return next(fitting, min(texts, key=len))
