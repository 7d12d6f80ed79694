"""Question: how often is the recipe `sst2`, trained from nothing but its own data, right about a film review, and what does it cost?

Command (FOLDER has train, dev and test as .tsv or .tsv.gz with the columns sentence and label; test is GLUE's dev set, 872 sentences;
flags as of `pellucid train` stand last):

    python benchmarks/sst2.py --data FOLDER [--seeds 3] [--out runs/benchmark-sst2] [--json FILE] [--flags --training.steps 500 …]

Trains through the command line, as a user would, one run per seed in OUT-SEED, and evaluates each on the test part. The dev part tells
which of a run's weights are kept. The settings of the recipe were chosen without the test part as well: whole sentences of train and dev
were set apart, every phrase of four words or more that occurs in one of them was taken out of training, and the settings best on those
sentences were taken (the dev part itself is no guide: its phrases are parts of the same sentences as those of train). Printed for each
seed: accuracy with a 95 % interval (bootstrap over the sentences), accuracy on the dev part, seconds of training, and seconds of
everything a user waits for, tokenizer and evaluations included (only where the run was made by this call; a run that is there is reused
if it was begun by the same command).
"""

import argparse
import json
import math
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from multi30k import pellucid, trained

COLUMNS = {"accuracy": "{:.4f}", "between": "{}", "dev": "{:.4f}", "loss": "{:.4f}"}
COLUMNS |= {"seconds": "{:.1f}", "everything": "{:.1f}", "steps": "{:,}", "threads": "{}"}


def there(folder: Path, name: str) -> str:
    """The file, plain or .gz."""
    found = [folder / f"{name}{end}" for end in ("", ".gz") if (folder / f"{name}{end}").exists()]
    if not found:
        sys.exit(f"{folder / name} (or .gz) is missing")
    return str(found[0].absolute())


def run(recipe: str, data: list[str], seeds: int, out: str, flags: list[str]) -> dict[int, dict[str, Any]]:
    """A run for each seed, and its numbers."""
    results = {}
    for seed in range(seeds):
        folder = Path(f"{out}-{seed}")
        new, begin = not (folder / "run.toml").exists(), time.perf_counter()
        trained(folder, ["train", recipe, *data, "--seed", str(seed), "--out", str(folder), *flags])
        everything = time.perf_counter() - begin if new else math.nan
        results[seed] = measured(folder) | {"everything": everything}
        print(f"seed {seed}: {results[seed]['accuracy']:.4f}", file=sys.stderr)
    return results


def measured(folder: Path) -> dict[str, Any]:
    """The numbers of a classifier's run that has ended."""
    result = json.loads(pellucid("evaluate", str(folder), "--json"))
    held = json.loads(pellucid("evaluate", str(folder), "--split", "valid", "--json"))
    lines = map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    last = [line for line in lines if line["kind"] == "train"][-1]
    choices = json.loads((folder / "run.json").read_text(encoding="utf-8"))["choices"]
    low, high = result["intervals"]["accuracy"]
    told = {"between": f"{low:.3f}-{high:.3f}", "dev": held["accuracy"], "seconds": last["seconds"]}
    return {**result, **told, "steps": last["step"], "threads": choices["threads"], "precision": choices["precision"]}


def table(results: dict[int, dict[str, Any]]) -> str:
    """A line for each seed, then mean and spread (standard deviation of the sample) of the accuracy."""
    lines = [f"{'':8}" + "".join(f"{name:>14}" for name in COLUMNS)]
    for seed, result in results.items():
        lines.append(f"seed {seed:<3}" + "".join(f"{form.format(result[name]):>14}" for name, form in COLUMNS.items()))
    all_of = [result["accuracy"] for result in results.values()]
    spread = f", spread {statistics.stdev(all_of):.4f}" if len(all_of) > 1 else ""
    some = next(iter(results.values()))
    told = f"mean accuracy {statistics.mean(all_of):.4f}{spread}, lowest {min(all_of):.4f}"
    return "\n".join([*lines, f"{told}; {some['examples']:,} test examples, {some['precision']}"])


def arguments(doc: str | None, seeds: int, out: str) -> argparse.Namespace:
    """The flags of a benchmark of a classifier."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--out", default=out, help="run folders are OUT-0, OUT-1, …")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument(
        "--flags", nargs=argparse.REMAINDER, default=[], help="all that follows goes to `pellucid train`"
    )
    return parser.parse_args()


def report(results: dict[int, dict[str, Any]], args: argparse.Namespace) -> None:
    """The table, and the JSON file if one is asked for."""
    print(table(results))
    if args.json:
        args.json.write_text(json.dumps({"flags": args.flags, "seeds": results}, indent=1), encoding="utf-8")


def main() -> None:
    args = arguments(__doc__, 3, "runs/benchmark-sst2")
    parts = [there(args.data, f"{part}.tsv") for part in ("train", "dev", "test")]
    data = ["--data", parts[0], "--data.valid", parts[1], "--data.test", parts[2]]
    report(run("sst2", data, args.seeds, args.out, args.flags), args)


if __name__ == "__main__":
    main()
