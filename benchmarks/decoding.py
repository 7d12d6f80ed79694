"""Question: how many tokens a second does a GPT say, greedily, and how long until the first?

Command: `python -m benchmarks decoding [--only float32-1,…,quality] [--data FOLDER]`

A GPT-2 of 124 million parameters with random weights that ours saved in Hugging Face's layout, so that all open the same (LitGPT and
nanoGPT have their own of the same shape); prompts of random tokens; nothing ends early. Two runs of each: one token, and all of them; what
the others took, divided by their number, is the steady rate, the first run the time to the first token (`first`, in ms). A work is a batch
and a precision of the weights: float32 and bfloat16 beside the same of the peers, int8 beside CTranslate2's and llama.cpp's q8_0, int4
beside llama.cpp's q4_0 and what Hugging Face runs with no flag. `quality`: bits per byte of a trained model on real text (see QUALITY),
and what each precision adds to them.

The limit of a step is reading all weights once: `share` is the bytes of the weights of blocks and head, times steps a second, over what
this memory gives in the same run. In batches the limit is arithmetic sooner or later. `length-N`: behind a cache of so many tokens.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.measure import Worker
from benchmarks.training import read

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
HUGGING_FACE = {"Hugging Face, float32": {"precision": "float32"}}
PEERS: dict[str, dict[str, dict[str, Any]]] = {
    "float32": HUGGING_FACE
    | {
        "Hugging Face, float32, static cache": {"precision": "float32", "cache": "static"},
        "nanoGPT, float32": {"precision": "float32"},
        "LitGPT, float32": {"precision": "float32"},
        "CTranslate2, float32": {"precision": "float32"},
        "llama.cpp, f32": {"precision": "f32"},
    },
    "bfloat16": {
        "Hugging Face, bfloat16": {"precision": "bfloat16"},
        "Hugging Face, bfloat16, static cache": {"precision": "bfloat16", "cache": "static"},
        "nanoGPT, bfloat16": {"precision": "bfloat16"},
        "LitGPT, bfloat16": {"precision": "bfloat16"},
        "llama.cpp, bf16": {"precision": "bf16"},
    },
    "int8": {"CTranslate2, int8": {"precision": "int8"}, "llama.cpp, q8_0": {"precision": "q8_0"}},
    "int4": HUGGING_FACE | {"llama.cpp, q4_0": {"precision": "q4_0"}},
}
ONE_AT_A_TIME = ("LitGPT", "llama.cpp", "nanoGPT")
"""Not measured in batches: these take one text at a time, or read the whole text for each token."""
QUALITY = ("weights/stories260K", "pairs/multi30k/val.en.gz")
"""A model trained on children's stories, and 1,014 captions that it never saw, both in the folder of corpora. So small a model loses more
by coarse weights than a large one."""


def run(quick: bool) -> dict[str, Any]:
    """See benchmarks/measure.py."""
    names = measure.wanted([*WORKS, "quality"], [f"{p}-1" for p in BYTES] if quick else ())
    works = {name: WORKS[name] for name in names if name in WORKS}
    works = {name: Work(work.precision, 1, 5, 4) for name, work in works.items()} if quick else works
    limit, found = measure.limits(quick), {}
    with measure.same_model(WORKER, {"tiny": quick, "source": measure.nanogpt()}) as told:
        for precision in BYTES:
            of = {name: work for name, work in works.items() if work.precision == precision}
            found |= together(of, precision, told, limit, 1 if quick else 3) if of else {}
    found |= {"quality": quality(quick)} if "quality" in names else {}
    return measure.result("decoding", {name: found[name] for name in names}, limit, quick)


def together(
    works: dict[str, Work], precision: str, told: dict[str, Any], limit: dict[str, float], rounds: int
) -> dict[str, Any]:
    """All works of one precision, by the same processes. Of ours also what runs with no flag, where that may be another."""
    ways: dict[str, dict[str, Any]] = {f"Pellucid, {precision}": {"precision": precision}}
    ways |= {"Pellucid, no flag": {}} if precision == "float32" else {}
    ways |= {name: how for name, how in PEERS[precision].items() if measure.matches(name)}
    with measure.opened(WORKER, told, ways) as workers:
        return {name: one(work, workers, limit, rounds) for name, work in works.items()}


def one(work: Work, workers: dict[str, Worker], limit: dict[str, float], rounds: int) -> dict[str, Any]:
    """One work: everybody in turn."""
    asked = {n: w for n, w in workers.items() if work.batch == 1 or not n.startswith(ONE_AT_A_TIME)}
    request = {"do": "say", "batch": work.batch, "prompt": work.prompt, "new": work.new}
    answers = measure.interleave(asked, request, rounds)
    rows = {name: numbers(work, worker, answers[name], limit) for name, worker in asked.items()}
    default = "no flag" if work.precision == "float32" else work.precision
    return {"what": f"({work.what})", **measure.placed(rows, default)}


def numbers(work: Work, worker: Worker, answers: list[dict[str, Any]], limit: dict[str, float]) -> dict[str, Any]:
    """Tokens a second after the first, and milliseconds until it."""
    if not answers:
        return {"skipped": worker.skipped or "no answer"}
    first = measure.summary([a["first"] for a in answers], "s")["value"]
    rates = [work.batch * (work.new - 1) / max(a["seconds"] - first, a["seconds"] / work.new) for a in answers]
    found = measure.summary(rates, "tokens/s", first=1000 * first)
    return measure.with_shares(found, WEIGHTS * BYTES[work.precision] / work.batch / 1e9, limit.get("memory", 0.0))


def quality(quick: bool) -> dict[str, Any]:
    """Bits per byte in each precision, by `pellucid evaluate`, and how many more than in float32."""
    told: dict[str, Any] = {"what": f"({' on '.join(QUALITY)})", "also": {}, "peers": {}, "ratios": {}}
    model, text = ((measure.data() or Path("nowhere")) / path for path in QUALITY)
    if not (model.exists() and text.exists()):
        return told | {"ours": {"skipped": f"PELLUCID_DATA names no folder with {' and '.join(QUALITY)}"}}
    with tempfile.TemporaryDirectory(prefix="pellucid-benchmark-") as folder:
        (file := Path(folder, "text.txt")).write_text("\n".join(read(text)), encoding="utf-8")
        asked = [sys.executable, "-m", "pellucid", "evaluate", str(model), "--data", str(file), "--json"]
        asked += ["--limit", "2"] if quick else []
        bits = {}
        for precision in BYTES:
            done = subprocess.run([*asked, "--precision", precision], capture_output=True, text=True, check=True)
            bits[precision] = json.loads(done.stdout)["bits_per_byte"]
    rows = {p: measure.summary([b], "bits per byte", lost=b - bits["float32"]) for p, b in bits.items()}
    return told | {"ours": rows.pop("float32"), "also": rows}


def table(result: dict[str, Any]) -> str:
    """As all, then the time to the first token."""
    return (
        measure.markdown(result)
        + "\n"
        + measure.further(result, {"first": "first token, ms", "lost": "bits per byte lost"})
    )
