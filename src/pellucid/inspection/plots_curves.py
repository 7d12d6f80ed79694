"""The curves of runs: loss and what else was measured, learning rate, norm of the gradient, speed.

Read from metrics.jsonl, whose last line may be half written while a run goes on. matplotlib is imported when a picture is made.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.errors import DataError
from pellucid.inspection.plots_style import COLOURS, WIDTH, figure, plain
from pellucid.training.kinds import kind_of
from pellucid.training.recipe import load_recipe

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Columns = dict[str, np.ndarray]
DERIVED = ("step", "loss", "perplexity", "bits_per_byte", "examples", "seconds", "tokens")
"""Of an evaluation: what is no measure of its own beside the loss."""


@dataclass(frozen=True)
class History:
    """What a run wrote: columns of its training records and of its evaluations, each with "step"; NaN where a number is missing.

    metric: what tells its best weights; smoothing: of its training loss (label smoothing);
    unit: what a target is.
    """

    name: str
    train: Columns
    valid: Columns
    metric: str = "loss"
    smoothing: float = 0.0
    unit: str = "tokens"

    def best(self, metric: str) -> tuple[int, float] | None:
        """(step, value) of the best evaluation by `metric`; the least loss, the most of anything else."""
        values = self.valid.get(metric, np.zeros(0))
        if np.isnan(values).all():
            return None
        at = int(np.nanargmin(values) if metric == "loss" else np.nanargmax(values))
        return int(self.valid["step"][at]), float(values[at])


def read(folder: Path, name: str = "") -> History:
    """The records of a run folder; lines that are not whole are left out. DataError where there are none."""
    file = folder / "metrics.jsonl"
    if not file.is_file():
        raise DataError(f"{folder} has no metrics.jsonl", "curves are of a run folder; `pellucid train` makes one")
    records = [
        record for line in file.read_text(encoding="utf-8", errors="replace").splitlines() for record in _record(line)
    ]
    train, valid = (_columns([r for r in records if r.get("kind") == kind]) for kind in ("train", "valid"))
    if not len(train["step"]) and not len(valid["step"]):
        raise DataError(f"{file} has no records yet", "wait until the run has made some steps")
    if not (folder / "run.toml").is_file():
        return History(name or folder.name, train, valid)
    recipe = load_recipe(folder / "run.toml")
    told = recipe.training.metric, recipe.training.label_smoothing, kind_of(recipe).unit
    return History(name or folder.name, train, valid, *told)


def _record(line: str) -> list[dict[str, Any]]:
    try:
        record = json.loads(line)
    except ValueError:
        return []
    return [record] if isinstance(record, dict) and isinstance(record.get("step"), int) else []


def _columns(records: list[dict[str, Any]]) -> Columns:
    def number(value: Any) -> float:
        return float(value) if isinstance(value, int | float) else math.nan

    names = dict.fromkeys(["step", *(k for r in records for k, v in r.items() if isinstance(v, int | float | None))])
    return {name: np.array([number(record.get(name)) for record in records]) for name in names}


def smooth(values: np.ndarray) -> np.ndarray:
    """The mean of each value and its neighbours: few of them early, when all moves fast, then up to a twentieth of all; NaN left out."""
    known, n = np.isfinite(values), len(values)
    sums = np.concatenate(([0.0], np.cumsum(np.where(known, values, 0.0))))
    counts = np.concatenate(([0], np.cumsum(known)))
    place = np.arange(n)
    half = np.minimum(place // 8, max(1, n // 40))
    low, high = np.maximum(place - half, 0), np.minimum(place + half + 1, n)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (sums[high] - sums[low]) / (counts[high] - counts[low])


def names_apart(folders: Sequence[Path]) -> list[str]:
    """Folder names; whole paths where two are alike."""
    last = [folder.resolve().name for folder in folders]
    return last if len(set(last)) == len(last) else [str(folder) for folder in folders]


# --- pictures --------------------------------------------------------------------------------------------------------


def draw(histories: Sequence[History]) -> "dict[str, Figure]":
    """loss; quality, where something else was measured too; training: learning rate, gradient, speed."""
    pictures = {"loss": loss(histories)}
    if measures := _measures(histories):
        pictures["quality"] = quality(histories, measures)
    if any(len(h.train["step"]) for h in histories):
        pictures["training"] = training(histories)
    return pictures


def loss(histories: Sequence[History]) -> "Figure":
    """Training loss, raw and smoothed, and that of each evaluation with the best one marked."""
    picture = figure(WIDTH, 4.2)
    axes = picture.subplots()
    single = len(histories) == 1
    for number, history in enumerate(histories):
        colour = COLOURS[number % len(COLOURS)]
        smoothed = f", label smoothing {history.smoothing:g}" if history.smoothing else ""
        label = f"training (smoothed{smoothed})" if single else ""
        _noisy(axes, history, "loss", colour, label, raw=single)
        _evaluated(axes, history, "loss", COLOURS[1] if single else colour, "held out" if single else history.name)
    kept = histories[0].best(histories[0].metric)
    if single and kept and histories[0].metric != "loss":
        told = f"weights kept: best {histories[0].metric.replace('_', ' ')}, at step {kept[0]:,}"
        axes.axvline(kept[0], color="#8c8c8c", linestyle="--", linewidth=1, label=told, zorder=1)
    _limits(axes, histories)
    _steps(axes, histories, may_be_log=True)
    axes.set_ylabel("loss (nats per target)")
    axes.set_title(plain(histories[0].name) if single else "loss: training (lines, smoothed) and held out (dotted)")
    axes.legend(loc="upper right")
    return picture


def quality(histories: Sequence[History], measures: Sequence[str]) -> "Figure":
    """The other measures of the evaluations, one field each."""
    picture = figure(WIDTH, 3.4 if len(measures) < 3 else 3.4 * -(-len(measures) // 2))
    fields = picture.subplots(-(-len(measures) // 2), min(2, len(measures)), squeeze=False).flatten()
    single = len(histories) == 1
    for measure, axes in zip(measures, fields, strict=False):
        for number, history in enumerate(histories):
            colour = COLOURS[1 if single else number % len(COLOURS)]
            _evaluated(axes, history, measure, colour, "" if single else history.name)
        _steps(axes, histories)
        axes.set_title(f"{measure.replace('_', ' ')}, held out")
        axes.legend(loc="best")
    for axes in fields[len(measures) :]:
        axes.set_visible(False)
    return picture


PACE: tuple[tuple[str, str, str], ...] = (
    ("lr", "learning rate", "linear"),
    ("grad_norm", "norm of the gradient", "log"),
    ("tokens_per_second", "{unit} per second", "linear"),
)


def training(histories: Sequence[History]) -> "Figure":
    """Learning rate, norm of the gradient and speed over the steps."""
    picture = figure(WIDTH, 6.4)
    fields = picture.subplots(3, sharex=True)
    for (column, title, scale), axes in zip(PACE, fields, strict=True):
        for number, history in enumerate(histories):
            colour, label = COLOURS[number % len(COLOURS)], history.name if len(histories) > 1 else ""
            if column == "lr":
                values = history.train.get(column, np.full(len(history.train["step"]), np.nan))
                axes.plot(history.train["step"], values, color=colour, label=plain(label) or None)
            else:
                _noisy(axes, history, column, colour, label, raw=len(histories) == 1)
        _steps(axes, histories)
        axes.set_title(title.format(unit=histories[0].unit))
        axes.set_xlabel("")
        if scale == "log" and _positive(histories, column):
            _log(axes.yaxis)
        else:
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter(_short)
    fields[-1].set_xlabel("step")
    if len(histories) > 1:
        fields[0].legend(loc="best")
    return picture


def _noisy(axes: "Axes", history: History, column: str, colour: str, label: str, raw: bool = True) -> None:
    steps = history.train["step"]
    values = history.train.get(column, np.full(len(steps), np.nan))
    mark = "o" if len(steps) == 1 else None
    if raw:
        axes.plot(steps, values, color=colour, alpha=0.22, linewidth=0.8)
    axes.plot(steps, smooth(values), color=colour, linewidth=1.6, marker=mark, label=plain(label) or None)


def _evaluated(axes: "Axes", history: History, measure: str, colour: str, label: str) -> None:
    if measure not in history.valid:
        return
    steps, values = history.valid["step"], history.valid[measure]
    best = history.best(measure)
    told = f"{plain(label)}{': ' if label else ''}best {_number(best[1])} at step {best[0]:,}" if best else None
    many = len(steps) > 40
    axes.plot(
        steps,
        values,
        color=colour,
        linestyle=":" if measure == "loss" else "-",
        linewidth=1.4,
        marker=None if many else "o",
        markersize=3.5,
    )
    if best:
        axes.plot(
            *best,
            color=colour,
            marker="*",
            markersize=13,
            markeredgecolor="white",
            linestyle="none",
            label=told,
            zorder=5,
        )


def _limits(axes: "Axes", histories: Sequence[History]) -> None:
    """The field holds the smoothed curve and the evaluations; single steps may stand out of it."""
    none = np.zeros(0)
    rows = [row for h in histories for row in (smooth(h.train.get("loss", none)), h.valid.get("loss", none))]
    values = np.concatenate(rows)
    values = values[np.isfinite(values)]
    if not len(values):
        return
    low, high = values.min(), values.max()
    if low > 0 and high / low > 30:
        _log(axes.yaxis)
        axes.set_ylim(low / 1.3, high * 1.3)
    else:
        room = 0.06 * ((high - low) or 1)
        axes.set_ylim(low - room, high + room)


def _steps(axes: "Axes", histories: Sequence[History], may_be_log: bool = False) -> None:
    """The axis of steps; logarithmic where half of what is gained is gained in the first tenth of it."""
    axes.set_xlabel("step")
    axes.grid(True)
    axes.margins(x=0.02)
    if may_be_log and all(_early(history) for history in histories):
        _log(axes.xaxis)
    else:
        axes.xaxis.set_major_formatter(lambda value, place: f"{value:,.0f}")


def _early(history: History) -> bool:
    steps, values = history.train["step"], smooth(history.train.get("loss", np.zeros(0)))
    if len(steps) < 20 or steps[0] <= 0 or not np.isfinite(values).all():
        return False
    return bool(values[len(steps) // 10] < (values[0] + values.min()) / 2)


def _log(axis: Any) -> None:
    """A logarithmic axis with its numbers written out."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    low, high = sorted(axis.get_data_interval())
    subs = (1.0, 2.0, 5.0) if low > 0 and high / low < 1001 else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(_short)
    axis.set_minor_formatter(NullFormatter())


def _short(value: float, place: int | None = None) -> str:
    return f"{value:,.0f}" if abs(value) >= 10 or value == 0 else f"{value:.3g}"


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"


def _positive(histories: Sequence[History], column: str) -> bool:
    every = np.concatenate([h.train.get(column, np.zeros(0)) for h in histories])
    every = every[np.isfinite(every)]
    return bool(len(every)) and bool((every > 0).all())


def _measures(histories: Sequence[History]) -> list[str]:
    found = dict.fromkeys(name for h in histories for name, values in h.valid.items() if not np.isnan(values).all())
    return [name for name in found if name not in DERIVED]
