"""How all questions are measured: side by side, turn by turn, medians. Imports no torch: work is done in workers (benchmarks/worker.py).

    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(module, peers(), settings)) for name, … in …}
        replies = interleave(workers, {"do": "steps", "n": 5}, rounds=4)

What a question needs to know beyond `quick` is in the environment, which the workers inherit:
OMP_NUM_THREADS and RAYON_NUM_THREADS (threads), PELLUCID_DATA (folder of corpora), PELLUCID_PEERS (a Python in which the peers are
installed), NANOGPT (a checkout of it), BENCHMARKS_ONLY (works to measure, by comma), BENCHMARKS_TOOLKITS (toolkits, by comma),
BENCHMARKS_OUT (a folder for what takes long and can be gone on with).
"""

import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.machine import limits as limits
from benchmarks.machine import machine as machine
from benchmarks.worker import ROOT as ROOT
from benchmarks.worker import Failed as Failed
from benchmarks.worker import Pipe as Pipe
from benchmarks.worker import Worker as Worker
from benchmarks.worker import serve as serve

BEGAN = time.monotonic()
Numbers = dict[str, Any]
"""{"value", "spread", "unit", …} of what was measured, or {"skipped": reason}."""


# --- what there is ------------------------------------------------------------------------------------------------------


def peers() -> str:
    """The Python in which the peers are installed, or "": then each is skipped."""
    return os.environ.get("PELLUCID_PEERS", "")


def nanogpt() -> str:
    """A checkout of github.com/karpathy/nanoGPT, or ""."""
    return os.environ.get("NANOGPT", "")


def data() -> Path | None:
    """The folder of real corpora (laid out as docs/performance.md says), or None."""
    folder = os.environ.get("PELLUCID_DATA")
    return Path(folder) if folder else None


def wanted(works: Iterable[str], unasked: Sequence[str] = ()) -> list[str]:
    """Of the works of a question those to be measured: those that --only names, else `unasked` (none = all)."""
    there, only = list(works), [name for name in os.environ.get("BENCHMARKS_ONLY", "").split(",") if name]
    if unknown := [name for name in only if name not in there]:
        sys.exit(f"there is no work {unknown[0]!r}; there are: {', '.join(there)}")
    return only or list(unasked) or there


def matches(name: str) -> bool:
    """Whether a toolkit is to be measured: BENCHMARKS_TOOLKITS, by comma, names some, or is not set and means all."""
    some = [word for word in os.environ.get("BENCHMARKS_TOOLKITS", "").split(",") if word]
    return not some or any(word.lower() in name.lower() for word in some)


def note(text: str) -> None:
    """Tells on stderr how far it has come, with the minutes since the beginning."""
    print(f"{(time.monotonic() - BEGAN) / 60:6.1f} min  {text}", file=sys.stderr, flush=True)


# --- one model for all toolkits -----------------------------------------------------------------------------------------


@contextmanager
def same_model(module: str, told: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """`told` with the "folder" of a model that a worker of ours made (its toolkit "make"); gone after the block."""
    with tempfile.TemporaryDirectory(prefix="pellucid-benchmark-") as folder:
        told = {**told, "folder": str(Path(folder) / "model")}
        with Worker(module, settings=told | {"toolkit": "make"}) as maker:
            if maker.skipped:
                raise RuntimeError(f"no model could be made: {maker.skipped}")
        yield told


@contextmanager
def opened(module: str, told: Mapping[str, Any], ways: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Worker]]:
    """A worker for each "toolkit, way", with the settings of that way; those of Pellucid run in this Python, others in the peers'."""
    with ExitStack() as stack:
        workers = {}
        for name, how in ways.items():
            toolkit = name.partition(", ")[0]
            settings = {**told, "toolkit": toolkit, **how}
            workers[name] = stack.enter_context(Worker(module, None if toolkit == "Pellucid" else peers(), settings))
        yield workers


def placed(rows: Mapping[str, Numbers], default: str) -> dict[str, Any]:
    """Rows "toolkit, way" as a work has them; `default`: which of Pellucid's has no flag."""
    ways: dict[str, dict[str, Numbers]] = {"Pellucid": {}}
    for name, numbers in rows.items():
        toolkit, _, way = name.partition(", ")
        ways.setdefault(toolkit, {})[way] = numbers
    also = ways.pop("Pellucid")
    ours = also.pop(default, {"skipped": "not asked for"})
    return {"ours": ours, "also": also, "peers": ways, "ratios": ratios(ours, ways)}


# --- measuring ----------------------------------------------------------------------------------------------------------


def interleave(
    workers: Mapping[str, Worker], request: Mapping[str, Any], rounds: int
) -> dict[str, list[dict[str, Any]]]:
    """Each worker's answers to `request`, asked `rounds` times in turn, each round in another order (shuffled, always alike), so that a
    machine that warms up or slows down favours none. A worker that fails is `skipped` from then on and has no answers."""
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
    for turn in range(rounds):
        order = [name for name in workers if not workers[name].skipped]
        random.Random(turn).shuffle(order)
        for name in order:
            try:
                answers[name].append(workers[name].ask(request))
            except Failed as error:
                workers[name].skipped, answers[name] = str(error), []
    return answers


def summary(values: Sequence[float], unit: str, **more: Any) -> Numbers:
    """Median and quartiles of what was measured."""
    quartiles = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return {"value": quartiles[1], "spread": [quartiles[0], quartiles[2]], "n": len(values), "unit": unit, **more}


def ratios(
    ours: Numbers, theirs: Mapping[str, Mapping[str, Numbers]], higher_is_better: bool = True
) -> dict[str, float]:
    """How many times better ours is than each configuration of each peer, and than the "best" of all: above 1 we are ahead."""
    if "value" not in ours:
        return {}
    found = {}
    for peer, configurations in theirs.items():
        for name, numbers in configurations.items():
            if numbers.get("value"):
                ratio = ours["value"] / numbers["value"]
                found[f"{peer}, {name}"] = ratio if higher_is_better else 1 / ratio
    return found | ({"best": min(found.values())} if found else {})


def with_shares(numbers: Numbers, needed: float, limit: float) -> Numbers:
    """The same with "share": `needed` by each unit (useful FLOPs, or bytes, of a token) times units a second over `limit`."""
    return numbers | {"share": numbers["value"] * needed / limit} if limit and "value" in numbers else numbers


# --- telling ------------------------------------------------------------------------------------------------------------


def result(name: str, works: Mapping[str, Any], limit: Mapping[str, float], quick: bool = False) -> dict[str, Any]:
    """The one object that a question answers with."""
    command = f"python -m benchmarks {name}{' --quick' if quick else ''}"
    return {"command": command, "machine": machine(peers()), "limit": dict(limit), "works": dict(works)}


def beside(work: Mapping[str, Any]) -> list[tuple[str, Numbers]]:
    """(name, numbers) of all that a work measured, ours first, by the work's own label where it has one."""
    rows = [(work.get("label", "Pellucid"), work["ours"])] if work.get("ours") else []
    rows += [(f"Pellucid, {name}", numbers) for name, numbers in work.get("also", {}).items()]
    return rows + [(f"{peer}, {name}", n) for peer, all_of in work["peers"].items() for name, n in all_of.items()]


def number(value: float) -> str:
    """Three figures, and all before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def markdown(result: Mapping[str, Any]) -> str:
    """A table for docs/performance.md: a row for each thing measured, ours first, with how many times faster ours is."""
    told, limit = result["machine"], result["limit"]
    lines = [
        f"`{result['command']}`: {told.get('processor')}, {told.get('threads')} threads, torch {told.get('torch')}."
    ]
    if limit:
        lines += ["", "Limits in the same run: " + ", ".join(f"{name} {value:,.0f}" for name, value in limit.items())]
    for name, work in result["works"].items():
        unit = next((n["unit"] for _, n in beside(work) if "unit" in n), "")
        lines += ["", f"**{name}** {work.get('what', '')}".rstrip(), ""]
        lines += [f"| | {unit} | quartiles | share of the limit | ours is … times as good |", "|---|---|---|---|---|"]
        for row, numbers in beside(work):
            if "skipped" in numbers:
                lines.append(f"| {row} | not measured: {numbers['skipped']} | | | |")
                continue
            low, high = numbers["spread"]
            share = f"{numbers['share']:.2f}" if "share" in numbers else ""
            ratio = f"{work['ratios'][row]:.2f}" if row in work.get("ratios", {}) else ""
            cells = [row, number(numbers["value"]), f"{number(low)}-{number(high)}", share, ratio]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def further(result: Mapping[str, Any], heads: Mapping[str, str]) -> str:
    """A second table: of the rows that have them other numbers, each by its key and told by its head."""
    lines = ["", f"| work | | {' | '.join(heads.values())} |", "|---|" + "---|" * (len(heads) + 1)]
    for name, work in result["works"].items():
        for row, numbers in beside(work):
            if heads.keys() & numbers.keys():
                cells = [number(numbers[key]) if key in numbers else "" for key in heads]
                lines.append(f"| {name} | {row} | {' | '.join(cells)} |")
    return "\n".join(lines)
