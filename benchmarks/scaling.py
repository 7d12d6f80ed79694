"""Question: how do time and memory grow with length, width, batch, layers, vocabulary; with beams; with the size of a corpus?

Command: `python -m benchmarks scaling [--only length,…]` (axes: see AXES). Beside each axis: the exponent of its upper half, the slope
of log(seconds) by log(size), 1 = proportional, 2 = with the square. Curves go to docs/performance/scaling-*.png (matplotlib).

A training step is that of a GPT (4 layers, width 256, 128 tokens, 8 rows, vocabulary 2,000 but for the axis): forward, backward, clipping
and AdamW as `pellucid train` makes them, in the precision this machine is faster in; memory: bytes of tensors at the step's peak, counted
in a rehearsal. Beams: tokens of a translation of 24 tokens, all hypotheses counted as one. Corpus: bytes of made-up words read by
`tokenizer.train`, and by `encode_flat` afterwards in batches, as data is prepared. Ours alone: how others grow is no question here.
"""

import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.text import PIECE, in_batches
from benchmarks.worker import ROOT, Worker, serve

STEP = {"length": 128, "width": 256, "batch": 8, "layers": 4, "vocabulary": 2000}
TINY = {"length": 16, "width": 32, "batch": 2, "layers": 1, "vocabulary": 50}


@dataclass(frozen=True)
class Axis:
    """What grows. `kind`: what is done; `sizes`: along the axis; `unit`: of the axis; `tells`: the numbers that a size gives."""

    kind: str
    sizes: tuple[int, ...]
    unit: str
    tells: tuple[str, ...] = ("seconds", "bytes")


AXES = {
    "length": Axis("step", (32, 64, 128, 256, 512, 1024, 2048), "tokens in a row"),
    "width": Axis("step", (64, 128, 256, 512, 1024), "d_model"),
    "batch": Axis("step", (1, 2, 4, 8, 16, 32, 64), "rows"),
    "layers": Axis("step", (1, 2, 4, 8, 16), "layers"),
    "vocabulary": Axis("step", (1000, 4000, 16000, 64000), "tokens known"),
    "beams": Axis("beam", (1, 2, 4, 8, 16), "hypotheses", ("seconds",)),
    "corpus": Axis("corpus", (1, 2, 4, 8, 16), "MB of text", ("seconds", "encode")),
}
NAMES = {"seconds": "time", "bytes": "memory", "encode": "encoding"}
ROUNDS = 3


def run(quick: bool) -> dict[str, Any]:
    """The axes that are wanted, and their pictures."""
    with Worker("benchmarks.scaling", settings={"fixed": TINY if quick else STEP}) as worker:
        works = {name: grow(worker, name, AXES[name], quick) for name in measure.wanted(AXES)}
    if not quick:
        draw(works, ROOT / "docs" / "performance")
    return measure.result("scaling", works, {}, quick)


def table(result: Mapping[str, Any]) -> str:
    """For docs/performance.md: a row for each axis."""
    lines = [
        f"`{result['command']}`: {result['machine'].get('processor')}, {result['machine'].get('threads')} threads."
    ]
    lines += ["", "| grows | from … to | of | takes | grows as | over |", "|---|---|---|---|---|---|"]
    for name, work in result["works"].items():
        sizes = work.get("sizes", [])
        for what, values in work.get("curves", {}).items():
            power, low = work["exponents"][what], sizes[min(len(sizes) // 2, len(sizes) - 2)]
            ends = f"{told(what, values[0])} … {told(what, values[-1])}"
            grows = f"{work['unit']}^{power:.2f}"
            lines.append(f"| {name} | {sizes[0]:,} … {sizes[-1]:,} | {NAMES[what]} | {ends} | {grows} | from {low:,} |")
        if "skipped" in work["ours"]:
            lines.append(f"| {name} | not measured: {work['ours']['skipped']} | | | | |")
    return "\n".join(lines)


def told(what: str, value: float) -> str:
    """A number with its unit."""
    return f"{value / 1e6:,.0f} MB" if what == "bytes" else f"{1000 * value:,.1f} ms"


def grow(worker: Worker, name: str, axis: Axis, quick: bool) -> dict[str, Any]:
    """Each size of an axis, in turn, the median of some rounds."""
    if worker.skipped:
        return {"ours": {"skipped": worker.skipped}, "peers": {}, "ratios": {}}
    sizes = axis.sizes[:2] if quick else axis.sizes
    measure.note(f"{name}: {', '.join(map(str, sizes))}")
    found: dict[str, list[list[float]]] = {what: [[] for _ in sizes] for what in axis.tells}
    for _ in range(1 if quick else ROUNDS):
        for place, size in enumerate(sizes):
            answer = worker.ask({"do": axis.kind, "axis": name, "size": size})
            for what in axis.tells:
                found[what][place].append(answer[what])
    curves = {what: [statistics.median(values) for values in of] for what, of in found.items()}
    half = min(len(sizes) // 2, len(sizes) - 2)
    powers = {
        what: exponent(sizes[half:] if half else sizes, values[half:] if half else values)
        for what, values in curves.items()
    }
    last = measure.summary(found[axis.tells[0]][-1], "s")
    return {
        "what": axis.unit,
        "unit": name,
        "sizes": list(sizes),
        "curves": curves,
        "exponents": powers,
        "ours": last,
        "peers": {},
        "ratios": {},
    }


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The slope of a straight line through (log size, log value), least squares; NaN of a single point."""
    if len(sizes) < 2:
        return math.nan
    return statistics.linear_regression([math.log(s) for s in sizes], [math.log(max(v, 1e-12)) for v in values]).slope


# --- the worker ---------------------------------------------------------------------------------------------------------


def start(settings: dict[str, Any]) -> tuple[dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]]]:
    """What `serve` needs."""
    from pellucid import room
    from pellucid.training import devices

    devices.keep_freed_memory()
    room.keep_few_kernels()
    kinds = {"step": one_step, "beam": one_beam, "corpus": one_corpus}
    return {}, lambda request: kinds[request["do"]](request["axis"], request["size"], settings["fixed"])


def one_step(axis: str, size: int, fixed: dict[str, int]) -> dict[str, float]:
    """Seconds and bytes of a training step, one number other than as it is fixed."""
    import torch

    from pellucid.models.build import build
    from pellucid.models.config import ModelConfig
    from pellucid.parts.config import StackConfig
    from pellucid.tasks.language import loss
    from pellucid.training.config import TrainingConfig
    from pellucid.training.devices import Choices, bfloat16_is_native
    from pellucid.training.loop import clip
    from pellucid.training.optimizers import Optimizer
    from pellucid.training.rehearsal import rehearse

    s = fixed | {axis: size}
    stack = StackConfig(d_model=s["width"], n_layers=s["layers"], n_heads=max(1, s["width"] // 64), d_ff=4 * s["width"])
    model = build(ModelConfig("gpt", stack, s["vocabulary"], s["length"], "learned")).train()
    choices = Choices("cpu", "bfloat16" if bfloat16_is_native("cpu") else "float32")
    t = TrainingConfig(precision=choices.precision)  # type: ignore[arg-type]
    optimizer = Optimizer(model, t, choices.precision)
    ids = torch.randint(s["vocabulary"], (s["batch"], s["length"]))
    batch, parameters = {"ids": ids, "targets": ids}, list(model.parameters())

    def step() -> None:
        with choices.autocast():
            value = loss(model, batch) / ids.numel()
        value.backward()
        clip(parameters, t.clip)
        optimizer.step(1.0)

    seconds = timed(step)
    watch = rehearse(model, loss, batch, lambda part: part["ids"].numel(), t, choices)
    return {"seconds": seconds, "bytes": sum(p.nbytes for p in model.parameters()) + watch.peak}


def one_beam(axis: str, size: int, fixed: dict[str, int]) -> dict[str, float]:
    """Seconds a token of translations with `size` hypotheses: 8 sentences, 24 tokens each."""
    import torch

    from pellucid.generation.options import GenerationOptions
    from pellucid.generation.search import generate
    from pellucid.models.build import build
    from pellucid.models.config import ModelConfig
    from pellucid.parts.config import StackConfig

    width, ids = fixed["width"], {"pad_id": 0, "bos_id": 1, "eos_id": 2}
    stack = StackConfig(d_model=width, n_layers=fixed["layers"], n_heads=max(1, width // 64), d_ff=4 * width)
    model = build(ModelConfig("seq2seq", stack, fixed["vocabulary"], 128, "sinusoidal", **ids)).eval()  # type: ignore[arg-type]
    rows = torch.randint(3, fixed["vocabulary"], (8, 24), generator=torch.Generator().manual_seed(0)).tolist()
    options = GenerationOptions(beam=size, max_new=24)
    return {"seconds": timed(lambda: generate(model, rows, options)) / (8 * 24)}


def one_corpus(axis: str, size: int, fixed: dict[str, int]) -> dict[str, float]:
    """Seconds to learn a tokenizer of 4,000 tokens from `size` MB (quick: KB) of words as often as words are, and to encode them."""
    from pellucid.text.tokenizer import train

    dice, letters = random.Random(0), "etaoinshrdlu"
    words = ["".join(dice.choices(letters, k=dice.randint(2, 9))) for _ in range(20000)]
    weights = [1 / rank for rank in range(1, 20001)]
    n_bytes = size * (1000 if fixed == TINY else 1_000_000)
    lines = [" ".join(dice.choices(words, weights, k=12)) for _ in range(n_bytes // 60)]
    text = "\n".join(lines)
    pieces = [text[i : i + PIECE] for i in range(0, len(text), PIECE)]
    begin = time.perf_counter()
    tokenizer = train(iter(lines), "byte-bpe", 300 if fixed == TINY else 4000)
    learnt = time.perf_counter()
    in_batches(tokenizer.encode_flat, pieces)
    return {"seconds": learnt - begin, "encode": time.perf_counter() - learnt}


def timed(work: Callable[[], object], seconds: float = 0.5) -> float:
    """The median of a few times, after one to warm up."""
    work()
    times: list[float] = []
    while not times or (sum(times) < seconds and len(times) < 20):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


# --- pictures -----------------------------------------------------------------------------------------------------------


def draw(works: Mapping[str, Any], folder: Path) -> list[Path]:
    """A picture for each axis: each number by its size, both logarithmic, and beside it the straight line that was fitted."""
    from pellucid.inspection.plots_style import COLOURS, WIDTH, figure, save, style

    saved = []
    for name, work in works.items():
        if "curves" not in work:
            continue
        with style():
            picture = figure(WIDTH, 3.2)
            for place, (what, values) in enumerate(work["curves"].items()):
                axes = picture.add_subplot(1, len(work["curves"]), place + 1)
                curve(axes, work, what, values, COLOURS[place])
            saved += save(picture, folder / f"scaling-{name}", ["png"])
    return saved


def curve(axes: Any, work: Mapping[str, Any], what: str, values: Sequence[float], colour: str) -> None:
    """One number along the axis."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    sizes, power = work["sizes"], work["exponents"][what]
    shown = [value / 1e6 for value in values] if what == "bytes" else [1000 * value for value in values]
    half = len(sizes) // 2
    middle = math.exp(statistics.fmean(math.log(v) for v in shown[half:]))
    centre = math.exp(statistics.fmean(math.log(s) for s in sizes[half:]))
    line = [middle * (s / centre) ** power for s in sizes]
    axes.loglog(
        sizes, line, color="#999999", linewidth=1.2, linestyle=(0, (4, 3)), label=f"fitted: {work['unit']}^{power:.2f}"
    )
    axes.loglog(sizes, shown, color=colour, marker="o", markersize=4, linewidth=1.8, label=NAMES[what])
    axes.set_title(f"{NAMES[what]}, {'MB' if what == 'bytes' else 'ms'}")
    axes.set_xlabel(work["what"])
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,.10g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(min(shown) / 2, max(shown) * 2)
    axes.grid(True, which="major")
    axes.legend(loc="upper left")


if __name__ == "__main__":
    serve(start)
