"""Question: at nanoGPT's own CPU setting, how good and how fast are nanoGPT and Pellucid, each as it comes?

Command (the text is tiny Shakespeare; --nanogpt is a checkout of github.com/karpathy/nanoGPT, whose model.py is imported from there):

    python benchmarks/shakespeare.py --text input.txt --nanogpt nanoGPT --threads 2 --json out.json
    python benchmarks/shakespeare.py --text input.txt --nanogpt nanoGPT --best -- --training.lr 3e-3    flags as of `pellucid train`

Prints a table, a median over the seeds and the number of each seed, of three columns, trained in turn within each seed: nanoGPT as its
README runs it on a CPU (float32, eager), nanoGPT tuned by hand (explicit attention, bfloat16), and the recipe `shakespeare` with no
flag but --data and --seed. `--best` adds a fourth: the recipe with your flags, trained no longer than the README's nanoGPT of
that seed took.

What is measured: every model is judged by the same code on the whole validation part (the last tenth of the characters) in
windows of 64, each character but the first once, in float32, with the best weights of its evaluations (both toolkits keep those).
All are evaluated every 100 steps on that whole part, in the precision they train in: from this comes the time to the loss that
nanoGPT's README promises, and it does not count as training. `everything`: all a user waits for, with these evaluations,
checkpoints and start-up. GPUs are hidden.
"""

import argparse
import json
import math
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import nanogpt
import torch
from nanogpt import EVERY, PROMISED, README, TUNED, Result, score

import pellucid
from pellucid.cli.overrides import override, with_absolute_paths
from pellucid.training.recipe import Recipe, load_recipe
from pellucid.training.run import start

OURS, BEST = "Pellucid", "Pellucid, --best"


def ours(recipe: Recipe, valid: str, result: Result, budget: float = math.inf) -> Result:
    """A recipe trained by Pellucid; evaluations after `budget` seconds of training do not count."""
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="pellucid-benchmark-") as folder:
        start(replace(recipe, training=replace(recipe.training, evaluate_every=EVERY, evaluate_limit=0)), Path(folder))
        lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
        choices = json.loads((Path(folder) / "run.json").read_text())["choices"]
        result.everything = time.perf_counter() - begin
        pipeline = pellucid.load(folder)
    trained = {line["step"]: line for line in lines if line["kind"] == "train"}
    result.how = f"{choices['precision']}, {choices['threads']} threads"
    result.seconds, result.tokens = trained[max(trained)]["seconds"], trained[max(trained)]["tokens"]
    result.curve = [(v["step"], trained[v["step"]]["seconds"], v["loss"]) for v in lines if v["kind"] == "valid"]
    if result.seconds > budget:  # the weights kept may be later ones: what was seen in time counts
        result.curve = [point for point in result.curve if point[1] <= budget]
        result.loss = min((loss for _, _, loss in result.curve), default=math.nan)
        result.how += f", {result.seconds:.1f} s: the best evaluation within {budget:.1f} s"
        return result
    ids = pipeline.tokenizer.encode(valid)
    if len(ids) != len(valid) or pipeline.tokenizer.unk_id in ids:
        sys.exit("the last tenth of the text has characters that the rest has not: choose another text")
    result.loss = score(pipeline.model, torch.tensor(ids))
    return result


def seconds_per_step(recipe: Recipe) -> float:
    """Of a short trial."""
    trial = replace(
        recipe.training, steps=60, warmup=min(20, recipe.training.warmup), log_every=20, evaluate_limit=1, average=0
    )
    with tempfile.TemporaryDirectory(prefix="pellucid-benchmark-") as folder:
        start(replace(recipe, training=trial), Path(folder))
        lines = map(json.loads, (Path(folder) / "metrics.jsonl").read_text().splitlines())
        clock = {line["step"]: line["seconds"] for line in lines if line["kind"] == "train"}
    return (clock[60] - clock[20]) / 40


def table(results: list[Result]) -> str:
    """Medians over the seeds, and each seed's number."""
    columns = list(dict.fromkeys(result.column for result in results))
    rows: dict[str, tuple[str, Callable[[Result], float]]] = {
        "validation loss": ("{:.4f}", lambda r: r.loss),
        "seconds of training": ("{:.1f}", lambda r: r.seconds),
        "tokens a second": ("{:,.0f}", lambda r: r.tokens / r.seconds),
        f"seconds to a loss of {PROMISED}": ("{:.1f}", lambda r: r.reached),
        "everything, seconds": ("{:.1f}", lambda r: r.everything),
    }
    lines = ["".join([f"{'median (each seed)':26}", *(f"{column:>34}" for column in columns)])]
    for name, (form, value) in rows.items():
        cells = []
        for column in columns:
            numbers = [value(result) for result in results if result.column == column]
            each = " ".join(map(form.format, numbers))
            cells.append(f"{form.format(statistics.median(numbers))} ({each})".replace("inf", "never"))
        lines.append(f"{name:26}" + "".join(f"{cell:>34}" for cell in cells))
    return "\n".join([*lines, *(f"{r.column}, seed {r.seed}: {r.how}" for r in results)])


def main() -> None:
    words, flags = sys.argv[1:], []
    if "--" in words:
        words, flags = words[: words.index("--")], words[words.index("--") + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="tiny Shakespeare's input.txt")
    parser.add_argument("--nanogpt", type=Path, required=True, help="a checkout of nanoGPT")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="other than nanoGPT's 2000 and the recipe's own")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--best", action="store_true", help="also Pellucid with the flags after --, in nanoGPT's time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all numbers and curves")
    args = parser.parse_args(words)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before anything asks for a GPU
    torch.set_num_threads(args.threads)

    source = nanogpt.load(args.nanogpt)
    text = args.text.read_text(encoding="utf-8")
    characters = {character: i for i, character in enumerate(sorted(set(text)))}
    ids, cut = torch.tensor([characters[character] for character in text]), int(0.9 * len(text))

    def recipe(seed: int, more: list[str]) -> Recipe:
        own = ["--data", str(args.text), "--seed", str(seed)]
        length = ["--training.steps", str(args.steps)] if args.steps else []
        changed = override(load_recipe("shakespeare"), [*own, *length, *more], "pellucid train shakespeare")
        return with_absolute_paths(changed)

    results: list[Result] = []
    for seed in range(1337, 1337 + args.seeds):
        order = [README, TUNED, OURS]
        random.Random(seed).shuffle(order)  # a machine that warms up or slows down favours no column
        for column in order:
            print(f"{column}, seed {seed}", file=sys.stderr)
            new = Result(column, seed)
            if column == OURS:
                results.append(ours(recipe(seed, []), text[cut:], new))
            else:
                results.append(nanogpt.train(source, ids[:cut], ids[cut:], len(characters), args.steps or 2000, new))
        if args.best:
            budget = next(result.seconds for result in reversed(results) if result.column == README)
            best = recipe(seed, flags)
            if not any(flag.startswith("--training.steps") for flag in flags):
                steps = max(EVERY, int(0.95 * budget / seconds_per_step(best)))
                best = replace(best, training=replace(best.training, steps=steps))
            results.append(ours(best, text[cut:], Result(BEST, seed), budget))
    results.sort(key=lambda result: ([README, TUNED, OURS, BEST].index(result.column), result.seed))
    print(table(results))
    if args.json:
        numbers = [
            asdict(r) | {"tokens_per_second": r.tokens / r.seconds, "seconds_to_promised": r.reached} for r in results
        ]
        found = {"threads": args.threads, "torch": torch.__version__, "flags_of_best": flags, "results": numbers}
        args.json.write_text(
            json.dumps(found, indent=1).replace("Infinity", "null").replace("NaN", "null"), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
