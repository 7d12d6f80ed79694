"""Question: how many tokens a second does an encoder-decoder translate with beam search, beside CTranslate2 and Hugging Face?

All have the same weights, drawn at random in Marian's shape and saved by ours in its layout, and the same sources; as such a model never
ends by itself, all say as many tokens in each answer as they are told (at least = at most). Token counted: of the best answer to each
source. Sources have the lengths of the first sentences of Multi30k's test set in 6,000 byte pairs, with <eos>. Whether the answers agree
is told beside: `agree`, the share of tokens of the best answers that are ours in float32.

Ours runs with no flag given, and in the precisions there are. CTranslate2 has as many threads in all, as one worker or as workers of one
thread each, whichever is better by its own choice of batch; Hugging Face has its fused attention. `memory` is the most that the process
held while it translated, in MB, weights and library included (Linux).
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

from benchmarks import measure
from benchmarks.measure import Worker

WORKER = "benchmarks.peers.translating"
LENGTHS = (8, 8, 9, 9, 10, 11, 12, 12, 12, 12, 14, 14, 14, 14, 14, 15, 15, 15, 16, 16, 16, 16, 16, 17, 19, 19, 20, 21)
LENGTHS += (22, 23, 31, 34)


@dataclass(frozen=True)
class Work:
    """A model's sizes, how many sources, and what is said of each: `said` tokens with so many beams."""

    what: str
    layers: int = 6
    d_model: int = 512
    heads: int = 8
    d_ff: int = 2048
    vocab: int = 32000
    sources: int = 32
    said: int = 24
    beam: int = 4

    def told(self) -> dict[str, Any]:
        """For a worker."""
        lengths = [LENGTHS[i % len(LENGTHS)] for i in range(self.sources)]
        return asdict(self) | {"lengths": lengths}

    @property
    def flops(self) -> float:
        """Needed by a token of an answer: 2 for each weight of the decoder and of the vocabulary, for each beam; the encoder's for as many
        tokens as sources have, spread over those that are said."""
        layer = 4 * self.d_model**2 + 2 * self.d_model * self.d_ff
        decoder = self.layers * (layer + 2 * self.d_model**2) + self.vocab * self.d_model
        read = sum(self.told()["lengths"]) / self.sources / self.said
        return 2.0 * (self.beam * decoder + read * self.layers * (layer + 2 * self.d_model**2))


MARIAN = Work("6+6 layers, d 512, 32,000 words: 32 sources, beam 4, 24 tokens each")
SMALL = Work("3+3 layers, d 256, 8,000 words: 256 sources, beam 5, 14 tokens each", 3, 256, 4, 1024, 8000, 256, 14, 5)
WORKS = {"marian": MARIAN, "small": SMALL}
WORKS |= {f"beam-{n}": replace(MARIAN, what=f"as marian, beam {n}", beam=n) for n in (1, 2, 8)}
WORKS |= {f"batch-{n}": replace(MARIAN, what=f"as marian, {n} sources", sources=n) for n in (1, 8, 128)}
TINY = Work("tiny", 1, 32, 2, 64, 200, 4, 5, 3)

WAYS: dict[str, dict[str, Any]] = {
    "Pellucid, float32": {},
    "Pellucid, bfloat16": {"precision": "bfloat16"},
    "Pellucid, int8": {"precision": "int8"},
    "CTranslate2, float32": {"precision": "float32"},
    "CTranslate2, float32, workers of one thread": {"precision": "float32", "workers": True},
    "CTranslate2, int8": {"precision": "int8"},
    "CTranslate2, int8, workers of one thread": {"precision": "int8", "workers": True},
    "Hugging Face, float32": {"precision": "float32"},
    "Hugging Face, bfloat16": {"precision": "bfloat16"},
}
"""Toolkit and configuration -> settings. Ours in float32 is what runs with no flag."""
CURVE = tuple(way for way in WAYS if way != "Pellucid, bfloat16" and not way.startswith("Hugging Face"))
"""What is measured of the works that vary beam and batch."""


def run(quick: bool) -> dict[str, Any]:
    """See benchmarks/measure.py."""
    works = {"marian": TINY} if quick else {name: WORKS[name] for name in measure.wanted(WORKS)}
    limit = measure.limits(quick)
    found = {name: one(name, work, limit, 2 if quick else 5) for name, work in works.items()}
    return measure.result("beam", found, limit, quick)


def one(name: str, work: Work, limit: dict[str, float], rounds: int) -> dict[str, Any]:
    """One work: everybody in turn."""
    asked = WAYS if name in ("marian", "small") else CURVE
    ways = {way: WAYS[way] for way in asked if measure.matches(way)}
    with measure.same_model(WORKER, work.told()) as told, measure.opened(WORKER, told, ways) as workers:
        answers = measure.interleave(workers, {"do": "translate"}, rounds)
        first = next((worker.ready["said"] for worker in workers.values() if not worker.skipped), [])
        rows = {way: numbers(worker, answers[way], work, limit, way, first) for way, worker in workers.items()}
    return {"what": work.what, **measure.placed(rows, "float32")}


def numbers(
    worker: Worker, answers: list[dict[str, Any]], work: Work, limit: dict[str, float], way: str, first: list[list[int]]
) -> dict[str, Any]:
    """Tokens a second, and what goes with them."""
    if worker.skipped or not answers:
        return {"skipped": worker.skipped or "no answer"}
    rates = [work.sources * work.said / answer["seconds"] for answer in answers]
    found = measure.summary(rates, "tokens/s", memory=max(answer["memory"] for answer in answers))
    found["agree"] = agreement(worker.ready["said"], first)
    return measure.with_shares(found, work.flops / 1e9, limit.get(way.split(", ")[1], 0.0))


def agreement(said: list[list[int]], first: list[list[int]]) -> float:
    """Share of tokens that are the same at the same place."""
    same = [a == b for ours, theirs in zip(said, first, strict=True) for a, b in zip(ours, theirs, strict=False)]
    return sum(same) / max(1, len(same))


def table(result: dict[str, Any]) -> str:
    """As all, then memory and agreement."""
    return (
        measure.markdown(result) + "\n" + measure.further(result, {"memory": "memory, MB", "agree": "tokens as ours"})
    )
