"""Question: does a run in bfloat16 learn as one in float32 does?

Command (the text is tiny Shakespeare):

    python benchmarks/precision.py --text input.txt --seeds 3 --out FOLDER
    pellucid plot FOLDER/float32-0 FOLDER/bfloat16-0 --out PICTURES

Trains the recipe `shakespeare` in both precisions from the same weights on the same batches and prints, for each seed, the loss of the
whole validation part at several steps; then how far the precisions are apart beside how far seeds are, both as root mean squares.
"""

import argparse
import json
import math
import statistics
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from pellucid.cli.overrides import override, with_absolute_paths
from pellucid.training.recipe import load_recipe
from pellucid.training.run import start

KINDS = ("float32", "bfloat16")


def curve(text: Path, kind: str, seed: int, folder: Path) -> dict[int, float]:
    """Validation losses of one run, by step."""
    flags = ["--data.train", str(text), "--training.precision", kind, "--seed", str(seed)]
    recipe = with_absolute_paths(override(load_recipe("shakespeare"), flags, "benchmark"))
    start(replace(recipe, training=replace(recipe.training, evaluate_every=250, evaluate_limit=0)), folder)
    lines = map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return {line["step"]: line["loss"] for line in lines if line["kind"] == "valid"}


def main() -> None:
    """Trains, then prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    seeds = range(asked.seeds)
    curves = {(k, s): curve(asked.text, k, s, asked.out / f"{k}-{s}") for s in seeds for k in KINDS}
    steps = sorted(curves["float32", 0])
    print("| step | " + " | ".join(f"{k}, seed {s}" for s in seeds for k in KINDS) + " |")
    print("|---" * (1 + len(curves)) + "|")
    for step in steps:
        print(f"| {step:,} | " + " | ".join(f"{curves[k, s][step]:.4f}" for s in seeds for k in KINDS) + " |")
    between = [curves["float32", s][step] - curves["bfloat16", s][step] for s in seeds for step in steps]
    among = [
        (curves[k, a][step] - curves[k, b][step]) / math.sqrt(2)
        for k in KINDS
        for a, b in combinations(seeds, 2)
        for step in steps
    ]
    print(f"\nfloat32 less bfloat16: mean {statistics.mean(between):+.4f}, root mean square {rms(between):.4f} nats")
    print(f"a seed from the mean of seeds: root mean square {rms(among):.4f} nats" if among else "")


def rms(values: list[float]) -> float:
    """The root of the mean of squares."""
    return math.sqrt(statistics.fmean(value * value for value in values))


if __name__ == "__main__":
    main()
