"""Question: how many seconds of training until a model is as good as asked, ours with no flag given, beside the peers?

Command (hours; goes on where it stopped): `python -m benchmarks quality --data FOLDER --out FOLDER [--only shakespeare,…]`

* shakespeare: nanoGPT's CPU setting, to a loss of 1.88 on the whole validation part, beside nanoGPT as its README runs it and by hand.
* multi30k: to BLEU 35 on the validation part, beside Hugging Face's Marian of the same sizes; `final` is BLEU on test_2016_flickr, beam 5.
* sst2: to an accuracy of 0.80 on GLUE's development set, beside Hugging Face's BERT of the same sizes, from scratch.

Where a target is reached is told by evaluations on the way, every so many steps and alike for all; their time does not count. The
target of sst2 is judged on the part that the end is judged on, for all alike: it tells speed, and no weights are chosen by it that count.
Hugging Face's learning rates are tuned, of sst2 also the steps over which they fall: each is trained to the end for seed 0, and the one
that is first at the target (else best at the end) for the other seeds. No peer is compiled. A finished run is a line of
OUT/quality.jsonl and is not made again.
"""

import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.measure import Failed, Numbers, Worker
from benchmarks.multi30k import trained

HOURS = 6 * 3600.0


@dataclass(frozen=True)
class Goal:
    """A training and what it is to reach. `measure`: which number of an evaluation; `flags`: of ours, only about how it is judged; `steps`,
    `batch`, `sizes` (d_model, d_ff, layers, heads): of the peer; `columns`: the peer's, each with its settings, which go before."""

    what: str
    measure: str
    target: float
    higher: bool
    every: int
    flags: str
    peer: str
    steps: int
    batch: int
    sizes: tuple[int, int, int, int]
    columns: dict[str, dict[str, Any]]
    corpus: dict[str, tuple[str, ...]]
    seeds: int = 3

    def reached(self, curve: list[list[float]]) -> float:
        """Seconds of training to the target; infinity if never."""
        there = (s for _, s, quality in curve if (quality >= self.target if self.higher else quality <= self.target))
        return next(there, math.inf)


RATES = {f"AdamW at {lr:g}": {"lr": lr} for lr in (5e-4, 1e-3, 2e-3)}
FALLS = {f"{how}, {n} steps": rate | {"steps": n} for n in (300, 600) for how, rate in RATES.items()}
PAIRS = "pairs/multi30k/{}.{}.gz"
GOALS = {
    "shakespeare": Goal(
        "to a validation loss of 1.88, nanoGPT's CPU setting",
        "loss",
        1.88,
        False,
        100,
        "",
        "nanoGPT",
        2000,
        12,
        (128, 512, 4, 4),
        {"as its README runs it": {"tuned": False}, "by hand: explicit attention, bf16": {"tuned": True}},
        {"train": ("text/tinyshakespeare.txt",)},
    ),
    "multi30k": Goal(
        "English to German, to BLEU 35 on the validation part",
        "bleu",
        35.0,
        True,
        250,
        "--training.metric bleu --generation.beam 1",
        "Hugging Face Marian",
        5000,
        128,
        (128, 256, 4, 4),
        RATES,
        {
            part: (PAIRS.format(name, "en"), PAIRS.format(name, "de"))
            for part, name in (("train", "train"), ("valid", "val"), ("test", "test_2016_flickr"))
        },
    ),
    "sst2": Goal(
        "SST-2 from scratch, to an accuracy of 0.80",
        "accuracy",
        0.80,
        True,
        20,
        "",
        "Hugging Face BERT",
        600,
        256,
        (128, 256, 4, 4),
        FALLS,
        {"train": ("labels/sst2/train.tsv.gz",), "test": ("labels/sst2/test.tsv.gz",)},
    ),
}


def run(quick: bool) -> dict[str, Any]:
    """What has been measured, and now what has not."""
    with tempfile.TemporaryDirectory(prefix="pellucid-benchmark-") as scratch:
        out = Path(scratch if quick else os.environ.get("BENCHMARKS_OUT", "runs/benchmark-quality")).absolute()
        out.mkdir(parents=True, exist_ok=True)
        works = {
            name: one(name, GOALS[name], out, quick)
            for name in measure.wanted(GOALS, ("shakespeare",) if quick else ())
        }
    return measure.result("quality", works, {}, quick)


def table(result: dict[str, Any]) -> str:
    """For docs/performance.md: the seconds, then how good all were in the end."""
    lines = [
        measure.markdown(result),
        "",
        "| at the end | seconds | quality of each seed |",
        "|---|---|---|",
    ]
    for name, work in result["works"].items():
        for row, numbers in measure.beside(work):
            if "final" in numbers:
                each = " ".join(f"{quality:.4g}" for quality in numbers["final"])
                lines.append(f"| {name}: {row} | {numbers['seconds']:,.1f} | {each} |")
    return "\n".join(lines)


def one(name: str, goal: Goal, out: Path, quick: bool) -> dict[str, Any]:
    """All seeds of ours and of the peer's columns."""
    told: dict[str, Any] = {"what": goal.what, "target": goal.target, "peers": {}, "ratios": {}}
    corpora = made_up(out) if quick and name == "shakespeare" else measure.data() or Path("nowhere")
    files = {part: [str(corpora / path) for path in paths] for part, paths in goal.corpus.items()}
    if not all(Path(path).exists() for paths in files.values() for path in paths):
        return told | {"ours": {"skipped": "PELLUCID_DATA names no folder with this corpus"}}
    if quick:
        first = {column: settings | {"steps": 4} for column, settings in list(goal.columns.items())[:1]}
        goal = replace(goal, steps=4, every=2, batch=8, seeds=1, columns=first)
    done, seeds = Finished(out / "quality.jsonl", name), range(goal.seeds)
    mine = [
        done.get("ours", seed) or done.add("ours", seed, ours(name, goal, files, seed, out, quick)) for seed in seeds
    ]
    found = {"ours": numbers(goal, mine)}
    settings = {"work": name, "files": {**files, "text": files["train"][0]}, "source": measure.nanogpt()}
    settings |= {"limit": 8 if quick else None}
    settings |= {"tokenizer": str(out / f"{name}-0" / "model" / "tokenizer.json")}
    for column, seed in columns(goal, done):
        if not done.get(column, seed):
            line = done.add(column, seed, theirs(goal, settings | goal.columns[column] | {"seed": seed}))
            found[column] = {"skipped": line.get("skipped", "")}
    for column in goal.columns:
        if lines := [line for seed in seeds if (line := done.get(column, seed))]:
            found[column] = numbers(goal, lines)
    told["peers"][goal.peer] = {column: found[column] for column in goal.columns}
    return told | {"ours": found["ours"], "ratios": measure.ratios(found["ours"], told["peers"], False)}


def made_up(folder: Path) -> Path:
    """A folder with a text instead of Shakespeare's, for a quick look."""
    path = folder / GOALS["shakespeare"].corpus["train"][0]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"the mouse counts {i} of {i * i} grains\n" for i in range(500)), encoding="utf-8")
    return folder


class Finished:
    """The lines of a file, one for each finished run of a work."""

    def __init__(self, path: Path, work: str) -> None:
        self.path, self.work = path, work

    def get(self, column: str, seed: int) -> dict[str, Any] | None:
        """The run, if it is there."""
        every = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        key = {"work": self.work, "column": column, "seed": seed}
        return next((line for line in map(json.loads, every) if key.items() <= line.items()), None)

    def add(self, column: str, seed: int, found: dict[str, Any]) -> dict[str, Any]:
        """Writes it down at once, if it did not fail."""
        line = {"work": self.work, "column": column, "seed": seed, **found}
        if "skipped" not in line:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(
                f"{self.work}, {column}, seed {seed}: {found['seconds']:.1f} s, {found['final']:.4g}", file=sys.stderr
            )
        return line


def columns(goal: Goal, done: Finished) -> Iterator[tuple[str, int]]:
    """(column, seed) of the peer's runs: rates are tried with seed 0, and the best goes on; other columns have all seeds."""
    tuned = all("lr" in settings for settings in goal.columns.values())
    yield from ((column, 0) for column in goal.columns)
    of_first = {column: line for column in goal.columns if (line := done.get(column, 0))}
    best = sorted(of_first, key=lambda column: rank(goal, of_first[column]))[:1] if tuned else list(goal.columns)
    yield from ((column, seed) for seed in range(1, goal.seeds) for column in best)


def rank(goal: Goal, line: dict[str, Any]) -> tuple[float, float]:
    """Lower is better: sooner there, else better in the end."""
    return goal.reached(line["curve"]), -line["final"] if goal.higher else line["final"]


def ours(name: str, goal: Goal, files: dict[str, list[str]], seed: int, out: Path, quick: bool) -> dict[str, Any]:
    """A run of the recipe through the command line; one that was stopped is gone on with."""
    folder, begin = out / f"{name}-{seed}", time.perf_counter()
    flags = f"{goal.flags} --training.evaluate-every {goal.every} --training.log-every {goal.every} --training.evaluate-limit 0"
    data = ["--data", *files["train"]]
    for part, flag in (("valid", "--data.valid"), ("test", "--data.test")):
        given = files.get(part) or (files["test"] if part == "valid" and "test" in files else [])
        data += [flag, *given] if given else []
    flags += f" --training.steps {goal.steps} --training.warmup 1 --training.evaluate-limit 8" if quick else ""
    new = not (folder / "run.toml").exists()
    trained(folder, ["train", name, *data, "--seed", str(seed), "--out", str(folder), *flags.split()])
    found = read(folder, goal)
    if new:
        found["everything"] = time.perf_counter() - begin
    return found | ({"final": bleu(folder)} if name == "multi30k" and not quick else {})


def read(folder: Path, goal: Goal) -> dict[str, Any]:
    """The curve of a run, from its records."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    seconds = {line["step"]: line["seconds"] for line in lines if line["kind"] == "train"}
    curve = [[line["step"], seconds[line["step"]], line[goal.measure]] for line in lines if line["kind"] == "valid"]
    best = (max if goal.higher else min)(quality for _, _, quality in curve)
    choices = json.loads((folder / "run.json").read_text(encoding="utf-8"))["choices"]
    how = f"{choices['precision']}, {choices['threads']} threads"
    return {"curve": curve, "final": best, "seconds": max(seconds.values()), "how": how}


def bleu(folder: Path) -> float:
    """Of the test part, with beam 5."""
    from benchmarks.multi30k import pellucid

    return float(json.loads(pellucid("evaluate", str(folder), "--beam", "5", "--json"))["bleu"])


def theirs(goal: Goal, settings: dict[str, Any]) -> dict[str, Any]:
    """One training of a peer, in its own process."""
    settings = {"steps": goal.steps, "every": goal.every, "batch": goal.batch, "sizes": goal.sizes} | settings
    begin, kept = time.perf_counter(), {"MALLOC_TOP_PAD_": str(2**26), "MALLOC_TRIM_THRESHOLD_": str(2**30)}
    with Worker("benchmarks.peers.quality", measure.peers(), settings, HOURS, kept) as worker:
        if worker.skipped:
            return {"skipped": worker.skipped}
        try:
            return worker.ask({"do": "train"}) | {"everything": time.perf_counter() - begin}
        except Failed as error:
            return {"skipped": str(error)}


def numbers(goal: Goal, lines: list[dict[str, Any]]) -> Numbers:
    """Seconds to the target over the seeds, and the ends."""
    reached = [goal.reached(line["curve"]) for line in lines]
    more = {"final": [line["final"] for line in lines], "how": lines[0]["how"], "seeds": len(lines)}
    more |= {"seconds": sum(line["seconds"] for line in lines) / len(lines), "each": reached}
    if math.inf in reached:
        return {"skipped": f"{reached.count(math.inf)} of {len(lines)} seeds never got there", **more}
    return measure.summary(reached, "seconds", **more)
