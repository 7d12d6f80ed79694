"""Question: how many tokens a second does a GPT say, greedily, and how long until the first?

A GPT-2 of 124 million parameters with random weights that ours saved in Hugging Face's layout, so that all open the same; prompts of
random tokens; nothing ends early. Two runs of each: one token, and all of them; what the others took, divided by their number, is the
steady rate, the first run the time to the first token (`first`, in ms). A work is a batch and a precision of the weights: float32 and
bfloat16 beside the same of the peers, int8 beside CTranslate2's (llama.cpp's where there is a GGUF file), int4 beside what Hugging Face
runs with no flag.

The limit of a step is reading all weights once: `share` is the bytes of the weights of blocks and head, times steps a second, over what
this memory gives in the same run. In batches the limit is arithmetic sooner or later. `length-N`: behind a cache of so many tokens.
"""

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.measure import Worker

WORKER = "benchmarks.peers.speaking"
BYTES = {"float32": 4.0, "bfloat16": 2.0, "int8": 1.0, "int4": 0.625}
"""Of a weight; int4 with the steps of its groups."""
WEIGHTS = 12 * 12 * 768**2 + 50257 * 768
"""Numbers that are read for a token: those of the blocks and of the head."""


@dataclass(frozen=True)
class Work:
    """`batch` prompts of `prompt` tokens; `new` are said behind each."""

    precision: str
    batch: int = 1
    prompt: int = 64
    new: int = 128

    @property
    def what(self) -> str:
        return f"batch {self.batch}, {self.precision}, prompt {self.prompt}, {self.new} tokens"


WORKS = {f"{p}-{b}": Work(p, b) for b in (1, 16, 64) for p in BYTES}
WORKS |= {f"{p}-batch-{b}": Work(p, b, 64, 32) for b in (2, 4, 8, 32) for p in BYTES}
WORKS |= {f"{p}-length-{n}": Work(p, 1, n - 32, 32) for n in (256, 512, 1000) for p in BYTES}
PLAIN = {"toolkit": "Hugging Face", "precision": "float32"}
PEERS: dict[str, dict[str, dict[str, Any]]] = {
    "float32": {
        "Hugging Face, float32": PLAIN,
        "Hugging Face, float32, static cache": PLAIN | {"cache": "static"},
        "nanoGPT, float32": {"toolkit": "nanoGPT", "precision": "float32"},
        "CTranslate2, float32": {"toolkit": "CTranslate2", "precision": "float32"},
    },
    "bfloat16": {
        "Hugging Face, bfloat16": PLAIN | {"precision": "bfloat16"},
        "Hugging Face, bfloat16, static cache": PLAIN | {"precision": "bfloat16", "cache": "static"},
        "nanoGPT, bfloat16": {"toolkit": "nanoGPT", "precision": "bfloat16"},
        "LitGPT, bfloat16": {"toolkit": "LitGPT", "precision": "bfloat16"},
    },
    "int8": {
        "CTranslate2, int8": {"toolkit": "CTranslate2", "precision": "int8"},
        "llama.cpp, q8_0": {"toolkit": "llama.cpp", "precision": "q8_0"},
    },
    "int4": {"Hugging Face, float32": PLAIN, "llama.cpp, q4_0": {"toolkit": "llama.cpp", "precision": "q4_0"}},
}
ONE_AT_A_TIME = ("LitGPT", "llama.cpp", "nanoGPT")
"""Not measured in batches: these take one text at a time, or read the whole text for each token."""
OURS: dict[str, dict[str, Any]] = {"no flag": {}} | {p: {"precision": p} for p in BYTES}


def run(quick: bool) -> dict[str, Any]:
    """See benchmarks/measure.py."""
    works = {f"{p}-1": Work(p, 2, 5, 4) for p in BYTES} if quick else {n: WORKS[n] for n in measure.wanted(WORKS)}
    limit = measure.limits(quick)
    with tempfile.TemporaryDirectory() as folder:
        told = {"folder": str(Path(folder) / "model"), "tiny": quick, "source": measure.nanogpt()}
        with Worker(WORKER, settings=told | {"toolkit": "make"}) as maker:
            if maker.skipped:
                raise RuntimeError(f"no model could be made: {maker.skipped}")
        found = {}
        for precision in BYTES:
            of = {name: work for name, work in works.items() if work.precision == precision}
            found |= together(of, precision, told, limit, 1 if quick else 3) if of else {}
    return measure.result("decoding", {name: found[name] for name in works}, limit, quick)


def together(
    works: dict[str, Work], precision: str, told: dict[str, Any], limit: dict[str, float], rounds: int
) -> dict[str, Any]:
    """All works of one precision, by the same processes."""
    ours = {f"Pellucid, {way}": how for way, how in OURS.items() if way == precision or precision == "float32" == way}
    ours |= {"Pellucid": OURS["no flag"]} if precision == "float32" else {}
    peers = {name: how for name, how in PEERS[precision].items() if measure.matches(name)}
    with ExitStack() as stack:
        workers = {}
        for name, how in (ours | peers).items():
            python = None if name.startswith("Pellucid") else measure.peers()
            workers[name] = stack.enter_context(Worker(WORKER, python, told | {"toolkit": "Pellucid"} | how))
        return {name: one(work, workers, limit, rounds) for name, work in works.items()}


def one(work: Work, workers: dict[str, Worker], limit: dict[str, float], rounds: int) -> dict[str, Any]:
    """One work: everybody in turn."""
    asked = {n: w for n, w in workers.items() if work.batch == 1 or not n.startswith(ONE_AT_A_TIME)}
    request = {"do": "say", "batch": work.batch, "prompt": work.prompt, "new": work.new}
    answers = measure.interleave(asked, request, rounds)
    rows = {name: numbers(work, worker, answers[name], limit) for name, worker in asked.items()}
    default = rows.pop("Pellucid", None) or rows.pop(f"Pellucid, {work.precision}")
    also = {name.removeprefix("Pellucid, "): rows.pop(name) for name in list(rows) if name.startswith("Pellucid")}
    peers: dict[str, dict[str, Any]] = {}
    for name, row in rows.items():
        toolkit, _, way = name.partition(", ")
        peers.setdefault(toolkit, {})[way] = row
    ratios = measure.ratios(default, peers)
    return {"what": f"({work.what})", "ours": default, "also": also, "peers": peers, "ratios": ratios}


def numbers(work: Work, worker: Worker, answers: list[dict[str, Any]], limit: dict[str, float]) -> dict[str, Any]:
    """Tokens a second after the first, and milliseconds until it."""
    if not answers:
        return {"skipped": worker.skipped or "no answer"}
    first = measure.summary([a["first"] for a in answers], "s")["value"]
    rates = [work.batch * (work.new - 1) / max(a["seconds"] - first, a["seconds"] / work.new) for a in answers]
    found = measure.summary(rates, "tokens/s", first=1000 * first)
    return measure.with_shares(found, WEIGHTS * BYTES[work.precision] / work.batch / 1e9, limit.get("memory", 0.0))


def table(result: dict[str, Any]) -> str:
    """As all, then the time to the first token."""
    lines = [measure.markdown(result), "", "| work | | first token, ms |", "|---|---|---|"]
    for name, work in result["works"].items():
        for row, n in measure.beside(work):
            if "first" in n:
                lines.append(f"| {name} | {row} | {n['first']:,.0f} |")
    return "\n".join(lines)
