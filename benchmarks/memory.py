"""Question: how much memory does a training take at its peak, beside the peers at the same work and precision?

Command: `python -m benchmarks memory [--only a,b,…]` (works: see benchmarks/works.py). Linux only, which tells the most a process held.

The workers are those of `training`, one after the other, none compiled: a compiler's own memory is another matter. Value: the most that a
process held, less what it held when its libraries were imported, the model's class included, and nothing was built (what ours imports
later counts); `whole` is all of it. Ours is a real run with no flag given but AdamW, which the peers have, from its data to its steps, and
beside it what it foretold. Peers come in float32 and bfloat16, with explicit attention (fast here) and fused (lean), and by hand with the
vocabulary only where there is a target, where that is less.
"""

import re
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from benchmarks import measure
from benchmarks.measure import Numbers, Worker
from benchmarks.training import LABEL, PEERS, README, SHARED
from benchmarks.works import WORKS, Work

ASKED = ("a", "b", "d", "e", "gpt2")
MB = 10**6
BFLOAT16 = README | {"bf16": True, "fused_adamw": True}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "float32, fused attention": README,
    "float32, explicit attention": README | {"attention": "explicit"},
    "bfloat16, fused attention": BFLOAT16,
    "bfloat16, explicit attention": BFLOAT16 | {"attention": "explicit"},
    "bfloat16, fused attention, vocabulary at the targets": BFLOAT16 | {"targets_only": True},
}
ADAMW = "--training.optimizer adamw"
OURS = {
    "ours": "",
    "float32": "--training.precision float32",
    "bfloat16": "--training.precision bfloat16",
    "bfloat16, recompute": "--training.precision bfloat16 --training.recompute true",
    "bfloat16, accumulate 4": "--training.precision bfloat16 --training.accumulate 4",
}
FORETOLD = re.compile(r"will need about ([\d.,]+) (GB|MB)")


def run(quick: bool) -> dict[str, Any]:
    """The works that are wanted, one after the other."""
    if sys.platform != "linux":
        return measure.result("memory", {}, {}, quick)
    works = {
        name: one(name, WORKS[name].tiny() if quick else WORKS[name], quick)
        for name in measure.wanted(ASKED, ("a", "d", "e") if quick else ())
    }
    return measure.result("memory", works, {}, quick)


def table(result: dict[str, Any]) -> str:
    """For docs/performance.md."""
    lines = [measure.markdown(result)]
    for name, work in result["works"].items():
        rows = [(row, n) for row, n in measure.beside(work) if "foretold" in n]
        told = "; ".join(f"{row}: {n['foretold']:,.0f} of {n['whole']:,.0f} MB" for row, n in rows)
        lines += [f"{name}, foretold of what the whole process then took: {told}"] if told else []
    return "\n\n".join(lines)


def one(name: str, work: Work, quick: bool) -> dict[str, Any]:
    """Ours and the peers of one work."""
    with tempfile.TemporaryDirectory(prefix="pellucid-benchmark-") as folder:
        base = {"work": work.told(), "folder": folder, "least": 1 if quick else 3, "source": measure.nanogpt()}
        mine = {key: numbers(*workers) for key, workers in ours(base, quick)}
        peers: dict[str, dict[str, Numbers]] = {}
        for peer, module, configurations in PEERS[name]:
            module = f"benchmarks.peers.{module}"
            kind = {key: value for key, value in next(iter(configurations.values())).items() if key == "kind"}
            peers[peer] = {}
            for how, configuration in list(CONFIGURATIONS.items())[: 1 if quick else None]:
                settings = base | configuration | kind
                if measure.matches(f"{peer}, {how}") and (work.family == "bert" or "targets_only" not in configuration):
                    peers[peer][how] = numbers(module, measure.peers(), settings)
                    measure.note(f"{name}: {peer}, {how}: {peers[peer][how]}")
        ratios = {how: r for how, r in measure.ratios(mine["ours"], peers, higher_is_better=False).items()}
        ratios |= {f"{p}, {how}": r for p, how, r in alike(mine, peers)}
    told = {"what": work.what, "label": LABEL, "ours": mine.pop("ours")}
    return told | {"also": mine, "peers": peers, "ratios": ratios}


def alike(mine: dict[str, Numbers], peers: dict[str, dict[str, Numbers]]) -> Iterator[tuple[str, str, float]]:
    """How many times leaner ours is in the precision of each configuration."""
    for peer, found in peers.items():
        for how, theirs in found.items():
            own = mine.get(how.partition(",")[0], {})
            if "value" in own and "value" in theirs:
                yield peer, how, theirs["value"] / own["value"]


def ours(base: dict[str, Any], quick: bool) -> Iterator[tuple[str, tuple[str, None, dict[str, Any]]]]:
    """Pellucid in each of its ways; the first writes down the batches that the peers are given."""
    for number, (key, flags) in enumerate(OURS.items()):
        if (quick or not measure.matches(f"Pellucid, {key}")) and number:
            continue
        settings = base | {"name": f"run-{number}", "flags": f"{ADAMW} {flags}", "share": 0 if number else SHARED}
        yield key, ("benchmarks.peers.ours", None, settings)


def numbers(module: str, python: str | None, settings: dict[str, Any]) -> Numbers:
    """The peak of one worker after a few steps."""
    with Worker(module, python, settings) as worker:
        if worker.skipped or worker.process is None:
            return {"skipped": worker.skipped}
        worker.ask({"do": "steps", "seconds": 0.0})
        most = peak(worker.process.pid)
        worker.printed.seek(0)
        foretold = FORETOLD.search(worker.printed.read().decode("utf-8", "replace"))
    imported = worker.ready["imported"]
    found = measure.summary([most - imported], "MB") | {"whole": most, "imported": imported}
    if foretold:
        found["foretold"] = float(foretold[1].replace(",", "")) * (1000 if foretold[2] == "GB" else 1)
    return found


def peak(process: int) -> float:
    """MB that a process held at most."""
    with open(f"/proc/{process}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 / MB for line in file if line.startswith("VmHWM"))
