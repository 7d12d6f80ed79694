"""Question: how many tokens a second does a training step take, beside every peer in each of its configurations?

Command: `python -m benchmarks training [--only a,b,…] [--data FOLDER]` (works: see benchmarks/works.py; those with real sentences need
FOLDER with pairs/multi30k and pairs/tatoeba-en-fr.tsv.gz).

All see the same tokens, made by ours. A step is forward, backward, clipping and AdamW; ours is a real run with no flag given but the
sizes and AdamW, which the peers have, timed around the loop's own step; the peers get a plain loop. A second row of ours keeps the
optimizer of our recipe (Muon). Each peer comes as its README runs it, with its fused attention in bfloat16 and compiled, and tuned by
hand as well as we know: explicit attention (whose backward pass is faster here), bfloat16, compiled, one-kernel AdamW, freed memory kept,
and of Hugging Face's models with padding or hidden tokens the vocabulary only where there is a target. Value: the median over steps of the
units (tokens that are no padding; images) a second. Share: of the processor's bfloat16 peak, by the FLOPs of benchmarks/works.py.
In the JSON also "fastest", the best step, and "per_processor_second", which with --threads 1 tells even where other work runs beside.
"""

import gzip
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.measure import Numbers, Worker
from benchmarks.works import WORKS, Work, useful

ROUNDS, SECONDS, LEAST = 4, 1.2, 2
"""Turns of each worker, seconds of a turn, and the fewest steps of a turn and of the warm-up."""
SHARED = 12
SHARED_OF_CORPUS = 60
"""Batches that the peers are given."""
COMPILING = 1200.0
"""Seconds that a peer may take to be ready."""
KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_TOP_PAD_": str(2**26),
}
"""What ours asks of glibc when it begins, as variables for a peer that is tuned."""

README: dict[str, Any] = {"attention": "fused", "bf16": False, "compiled": False}
FUSED = README | {"bf16": True, "compiled": True, "fused_adamw": True, "kept": True}
HAND = FUSED | {"attention": "explicit", "targets_only": True}
EAGER = HAND | {"compiled": False}
AS_THEY_COME = {"as its README runs it": README, "fused attention, bf16, compiled": FUSED}
ALL = AS_THEY_COME | {"by hand: explicit attention, bf16, compiled": HAND}
LABEL = "Pellucid, AdamW as the peers"
RECIPES = "with the optimizer of its recipe"
PADDED = {
    "as its README runs it": README,
    "by hand: explicit attention, bf16": EAGER,
    "by hand: the same, grouped by length": EAGER | {"grouped": True},
    "by hand: the same, compiled": HAND | {"grouped": True, "dynamic": True},
}
NANOGPT = ("nanoGPT", "nanogpt", ALL)
XTRANSFORMERS = ("x-transformers", "xtransformers", ALL | {"as its README runs it": README | {"attention": "explicit"}})
LITGPT = ("LitGPT", "litgpt_", AS_THEY_COME)


def hugging(kind: str, configurations: dict[str, dict[str, Any]]) -> tuple[str, str, dict[str, dict[str, Any]]]:
    """A model of Hugging Face's."""
    return f"Hugging Face {kind}", "huggingface", {name: c | {"kind": kind} for name, c in configurations.items()}


PEERS = {
    "a": [NANOGPT, LITGPT, XTRANSFORMERS],
    "b": [NANOGPT, LITGPT, XTRANSFORMERS],
    "gpt2": [NANOGPT, hugging("GPT-2", ALL)],
    "d": [hugging("Marian", ALL), hugging("Bart", {k: v for k, v in ALL.items() if v is HAND})],
    "e": [hugging("BERT", ALL | {"by hand: explicit attention, bf16": EAGER})],
    "vit": [hugging("ViT", ALL)],
    "multi30k": [hugging("Marian", PADDED)],
    "tatoeba": [hugging("Marian", PADDED)],
}


def run(quick: bool) -> dict[str, Any]:
    """The works that are wanted, one after the other."""
    limit = measure.limits(quick)
    works = {name: one(name, WORKS[name], limit, quick) for name in measure.wanted(WORKS, ("a", "d") if quick else ())}
    return measure.result("training", works, limit, quick)


def table(result: dict[str, Any]) -> str:
    """For docs/performance.md."""
    return measure.markdown(result)


def one(name: str, work: Work, limit: dict[str, float], quick: bool) -> dict[str, Any]:
    """Ours and the peers' steps of one work, in turn."""
    work = work.tiny() if quick else work
    told: dict[str, Any] = {"what": work.what, "label": LABEL, "peers": {}, "ratios": {}}
    if work.corpus and not measure.data():
        return told | {"ours": {"skipped": "PELLUCID_DATA names no folder with real sentences"}}
    with tempfile.TemporaryDirectory(prefix="pellucid-benchmark-") as folder, ExitStack() as stack:
        if work.corpus:
            write_pairs(work.corpus, Path(folder))
        settings = {"work": work.told(), "folder": folder}
        settings |= {"least": 1 if quick else LEAST, "source": measure.nanogpt()}
        measure.note(f"{name}: {work.what}")
        mine = {key: stack.enter_context(worker) for key, worker in ours(name, work, settings)}
        lengths = [mine["ours"].ready.get(side, 0.0) for side in ("source", "target")]
        needed, peak = useful(work, *lengths), 1e9 * limit.get("bfloat16", 0.0)
        answers: dict[str, list[dict[str, Any]]] = {key: [] for key in mine}
        peers = [(peer, module, chosen(peer, its, quick)) for peer, module, its in PEERS[name]]
        peers = [] if mine["ours"].skipped else [peer for peer in peers if peer[2]]
        for peer, module, configurations in peers or [("nobody", "", {})]:
            with ExitStack() as group:  # one toolkit at a time beside ours: less memory
                its = theirs(f"benchmarks.peers.{module}", configurations, settings)
                workers = {how: group.enter_context(worker) for how, worker in its}
                measure.note(
                    f"{peer}: {sum(not worker.skipped for worker in workers.values())} of {len(workers)} ready"
                )
                found = turns(mine | workers, quick)
                for key in mine:
                    answers[key] += found[key]
                if workers:
                    told["peers"][peer] = {k: numbers(work, w, found[k], needed, peak) for k, w in workers.items()}
    found_of = {key: numbers(work, worker, answers[key], needed, peak) for key, worker in mine.items()}
    told |= {"ours": found_of.pop("ours"), "also": found_of}
    return told | {"ratios": measure.ratios(told["ours"], told["peers"]), "useful_flops": needed}


def turns(workers: dict[str, Worker], quick: bool) -> dict[str, list[dict[str, Any]]]:
    """All answers of workers that step in turn."""
    return measure.interleave(workers, {"do": "steps", "seconds": 0.0 if quick else SECONDS}, 1 if quick else ROUNDS)


def ours(name: str, work: Work, settings: dict[str, Any]) -> Iterator[tuple[str, Worker]]:
    """Pellucid with AdamW, and with the optimizer of the recipe where that is another (not of a GPT-2: memory)."""
    flags = {"ours": "--training.optimizer adamw"} | (
        {} if work.recipe == "pairs" or name == "gpt2" or settings["least"] == 1 else {RECIPES: ""}
    )
    for key, more in flags.items():
        if key != "ours" and not measure.matches(f"Pellucid, {key}"):
            continue
        share = (SHARED_OF_CORPUS if work.corpus else SHARED) if key == "ours" else 0
        yield (
            key,
            Worker(
                "benchmarks.peers.ours",
                settings=settings | {"name": key.replace(" ", "-"), "flags": more, "share": share},
            ),
        )


def chosen(peer: str, configurations: dict[str, dict[str, Any]], quick: bool) -> dict[str, dict[str, Any]]:
    """The configurations that are to be measured; the first where it is quick."""
    wanted = {how: c for how, c in configurations.items() if measure.matches(f"{peer}, {how}")}
    return dict(list(wanted.items())[:1]) if quick else wanted


def theirs(
    module: str, configurations: dict[str, dict[str, Any]], settings: dict[str, Any]
) -> Iterator[tuple[str, Worker]]:
    """A peer in each of its configurations."""
    for how, configuration in configurations.items():
        environment = KEEP_MEMORY if configuration.get("kept") else {}
        yield how, Worker(module, measure.peers(), settings | configuration, COMPILING, environment)


def numbers(work: Work, worker: Worker, answers: list[dict[str, Any]], needed: float, peak: float) -> Numbers:
    """Units a second of one worker, over all its steps."""
    if worker.skipped:
        return {"skipped": worker.skipped}
    speeds, by_cpu = (
        [n / s for answer in answers for n, s in zip(answer["units"], answer[clock], strict=True)]
        for clock in ("seconds", "cpu")
    )
    more = {key: worker.ready[key] for key in ("parameters", "chosen") if key in worker.ready}
    more |= {"fastest": max(speeds), "per_processor_second": statistics.median(by_cpu)}
    return measure.with_shares(measure.summary(speeds, work.unit, **more), needed, peak)


def write_pairs(corpus: str, folder: Path) -> None:
    """source.txt and target.txt: about 29,000 pairs of real sentences, one a line."""
    corpora = (measure.data() or Path()) / "pairs"
    if corpus == "tatoeba":
        lines = read(corpora / "tatoeba-en-fr.tsv.gz")[::6]
        sides = [[line.split("\t")[i] for line in lines] for i in (0, 1)]
    else:
        sides = [read(corpora / f"multi30k/train.{side}.gz") for side in ("en", "de")]
    for name, side in zip(("source", "target"), sides, strict=True):
        (folder / f"{name}.txt").write_text("\n".join(side) + "\n", encoding="utf-8")


def read(path: Path) -> list[str]:
    """The lines of a .gz."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return file.read().rstrip("\n").split("\n")
