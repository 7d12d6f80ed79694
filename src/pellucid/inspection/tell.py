"""A story as lines: for a pipe, for a terminal (rich), for programs. Imports rich only to draw on a terminal."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from pellucid.inspection.recorder import Step

HEADER = ("step", "what", "gives", "type", "parameters", "FLOPs", "ms", "bytes")
RIGHT = (4, 5, 6, 7)  # columns of numbers
STYLES = ("bold", "cyan", "", "dim", "magenta", "green", "yellow", "blue")
LESS = (3, 7, 1, 4)  # what a narrow terminal does without, first to last: type, bytes, what, parameters
DEPTH = 4
Row = tuple[str, ...]


def plain(story: Any, depth: int | None = None, operations: bool = False, every: bool = False) -> str:
    """The whole story as aligned lines: steps, masks, totals, and the clash if there was one."""
    lines = [HEADER, *rows(story.root, depth, operations, every)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADER))]
    table = [
        "  ".join(
            f"{cell:>{width}}" if i in RIGHT else f"{cell:{width}}" for i, (cell, width) in enumerate(pairs)
        ).rstrip()
        for pairs in (list(zip(line, widths, strict=True)) for line in lines)
    ]
    return "\n".join([*table, "", *after(story)])


def rich_table(lines: list[Row], width: int) -> Any:
    """The lines of `rows` as a rich table of at most `width` columns of a terminal; what does not fit is left out, by LESS."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    kept = list(range(len(HEADER)))
    widths = [max(len(line[i]) for line in [HEADER, *lines]) for i in kept]
    for i in LESS:
        if sum(widths[k] + 3 for k in kept) > width:
            kept.remove(i)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i in kept:
        table.add_column(HEADER[i], style=STYLES[i], justify="right" if i in RIGHT else "left", overflow="fold")
    for line in lines:
        table.add_row(*(Text(line[i]) for i in kept))
    return table


def after(story: Any) -> list[str]:
    """What comes below the steps: masks, ties, totals or the clash."""
    totals, largest = story.totals, story.totals["largest"]
    lines = [line for picture in story.masks for line in (*str(picture).splitlines(), "")]
    lines += [f"{name} is {first}: counted once" for name, first in story.tied.items()]
    if story.clash:
        return [*lines, str(story.clash)]
    where = f"{largest['value']} in {largest['module'] or 'the model itself'} ({largest['operation']})"
    return [
        *lines,
        f"parameters          {totals['parameters']:,}",
        f"FLOPs               {count(totals['flops'])} in matrix products, a multiply-add counted as 2",
        f"time                {duration(totals['seconds'])} in {totals['operations']:,} operations",
        f"largest activation  {size(largest['bytes'])}: {where}",
    ]


def rows(root: Step, depth: int | None = None, operations: bool = False, every: bool = False) -> list[Row]:
    """The table's lines. depth: levels of modules (default 4; all with `operations`); every: also the layers that are like the first."""
    deepest = depth if depth is not None else 10**6 if operations else DEPTH
    return list(_rows(root, "", 0, deepest, operations, every))


def _rows(step: Step, above: str, level: int, deepest: int, operations: bool, every: bool) -> Iterator[Row]:
    label = step.path if step.is_operation else step.path.removeprefix(above + ".") or step.kind
    yield _row("  " * level + label, [step])
    shown = [inner for inner in step.steps if (operations if inner.is_operation else level < deepest)]
    shown = [inner for inner in shown if inner.is_operation or inner.parameters or next(inner.operations(), None)]
    for _, alike in groupby(shown, key=_signature):
        same = list(alike)
        listed = same if every or same[0].is_operation or not same[0].steps else same[:1]
        for inner in listed:
            yield from _rows(inner, step.path, level + 1, deepest, operations, every)
        if len(listed) < len(same):
            label = same[1].path.removeprefix(step.path + ".")
            label += "" if len(same) == 2 else " … " + same[-1].path.removeprefix(step.path + ".")
            yield _row("  " * (level + 1) + label, same[1:])


def _row(label: str, steps: list[Step]) -> Row:
    """One line for a step, or for several alike."""
    step = steps[0]
    what = step.kind if len(steps) == 1 else f"{len(steps)} × {step.kind}, the same"
    what += f", reads {', '.join(step.reads)}" if step.reads else ""
    what += ", called again" if step.again else ""
    value = step.outputs[0] if step.outputs else None
    made = sum(value.bytes for one in steps for value in one.outputs)
    return (
        label,
        what,
        str(value) if value else "" if step.ended else "(did not end)",
        value.dtype if value else "",
        f"{sum(one.parameters for one in steps):,}" if step.parameters else "",
        count(sum(one.flops for one in steps)) if step.flops else "",
        f"{sum(one.seconds for one in steps) * 1e3:.3f}",
        "view" if step.view else size(made) if made else "",
    )


def _signature(step: Step) -> Any:
    """Equal for numbered modules made of the same modules on the same shapes; all others are different."""
    return _shape(step) if step.path.rpartition(".")[2].isdigit() else id(step)


def _shape(step: Step) -> Any:
    inside = tuple(_shape(inner) for inner in step.steps if not inner.is_operation)
    return step.kind, step.parameters, tuple(value.shape for value in step.outputs), inside


def step_to_dict(step: Step) -> dict[str, Any]:
    """A step and those inside it for JSON."""
    outputs = [{"shape": v.shape, "axes": v.axes, "dtype": v.dtype, "bytes": v.bytes} for v in step.outputs]
    fields = {
        "name": step.path,
        "kind": step.kind or "operation",
        "outputs": outputs,
        "parameters": step.parameters,
        "flops": step.flops,
        "seconds": step.seconds,
    }
    if step.is_operation:
        return fields | {"view": step.view}
    return fields | {"reads": step.reads, "again": step.again, "steps": [step_to_dict(inner) for inner in step.steps]}


def count(number: float) -> str:
    """1234567 as "1.23 M"."""
    return _scaled(number, 1000, ("", " k", " M", " G", " T", " P", " E"))


def size(number: float) -> str:
    """Bytes as "1.18 MiB"."""
    return _scaled(number, 1024, (" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"))


def duration(seconds: float) -> str:
    """Seconds as "1.23 ms"."""
    if seconds >= 100:
        return f"{seconds:,.0f} s"
    scale, unit = (1, "s") if seconds >= 1 else (1e3, "ms") if seconds >= 1e-3 else (1e6, "µs")
    return f"{seconds * scale:.3g} {unit}"


def _scaled(number: float, base: int, units: tuple[str, ...]) -> str:
    """Three digits and a unit."""
    place = 0
    while round(number) >= base and place < len(units) - 1:
        number, place = number / base, place + 1
    digits = 0 if place == 0 or number >= 99.95 else 1 if number >= 9.995 else 2
    return f"{number:.{digits}f}{units[place]}"
