"""Question: how good are Multi30k translations of the recipe `multi30k`, over several seeds, and what does training cost?

Command (FOLDER has train, val and test_2016_flickr in .en and .de, or .gz of them, from github.com/multi30k/dataset, data/task1/raw;
needs `pip install "pellucid[bleu]"`; --reverse translates German to English; flags as of `pellucid train` stand last):

    python benchmarks/multi30k.py --data FOLDER [--seeds 3] [--out runs/multi30k] [--json FILE] [--flags --stack.d-model 256 …]

Trains through the command line, as a user would, one run per seed in OUT-SEED, evaluates each on test_2016_flickr with beam 5, and prints
BLEU (13a, cased) with sacrebleu's signature, BLEU without case, chrF and the seconds of training of each, and mean and spread.
A run that is there is reused if it was begun by the same command; one that has not ended is gone on with.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

COLUMNS = {"bleu": "BLEU", "bleu_lowercase": "BLEU, no case", "chrf": "chrF", "loss": "loss", "seconds": "seconds"}


def pellucid(*words: str) -> str:
    """`pellucid WORDS`; what it prints. Progress goes to the terminal. Ends this script if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "pellucid", *words], stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )
    if done.returncode:
        sys.exit(f"pellucid {' '.join(words)}: exit code {done.returncode}")
    return done.stdout


def files(folder: Path, part: str, languages: tuple[str, str]) -> list[str]:
    """The two files of a part, plain or .gz."""
    found = []
    for language in languages:
        names = [folder / f"{part}.{language}", folder / f"{part}.{language}.gz"]
        there = next((name for name in names if name.exists()), None)
        if there is None:
            sys.exit(f"{names[0]} (or .gz) is missing")
        found.append(str(there))
    return found


def trained(run: Path, command: list[str]) -> None:
    """Makes sure that `run` is there, ended, and is what `command` asks for."""
    if not (run / "run.toml").exists():
        pellucid(*command)
        return
    record = run / "run.json"
    began = json.loads(record.read_text(encoding="utf-8"))["command"] if record.exists() else command
    if began != command:
        sys.exit(
            f"{run} was begun by another command:\n  {' '.join(began)}\nnot\n  {' '.join(command)}\ngive another --out"
        )
    if not (run / "model" / "model.safetensors").exists():
        pellucid("resume", str(run))


def measured(run: Path) -> dict[str, Any]:
    """The numbers of a run that has ended."""
    result = json.loads(pellucid("evaluate", str(run), "--beam", "5", "--json"))
    lines = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    last = [line for line in lines if line["kind"] == "train"][-1]
    choices = json.loads((run / "run.json").read_text(encoding="utf-8"))["choices"]
    how = {"steps": last["step"], "precision": choices["precision"], "threads": choices["threads"]}
    return {**result, "seconds": last["seconds"], **how}


def table(results: dict[int, dict[str, Any]]) -> str:
    """A line for each seed, then mean and spread (standard deviation of the sample)."""
    lines = [f"{'':8}" + "".join(f"{title:>16}" for title in COLUMNS.values())]
    for seed, result in results.items():
        lines.append(f"seed {seed:<3}" + "".join(f"{result[name]:>16,.2f}" for name in COLUMNS))
    kinds = {"mean": statistics.mean, "spread": statistics.stdev} if len(results) > 1 else {}
    for kind, of in kinds.items():
        lines.append(f"{kind:8}" + "".join(f"{of([r[name] for r in results.values()]):>16,.2f}" for name in COLUMNS))
    some = next(iter(results.values()))
    how = {(result["steps"], result["precision"], result["threads"]) for result in results.values()}
    told = "; ".join(
        f"{steps:,} steps in {precision} on {threads} threads" for steps, precision, threads in sorted(how)
    )
    return "\n".join([*lines, f"{some['examples']:,} sentences · {some['bleu_signature']}", told])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", default="runs/benchmark-multi30k", help="run folders are OUT-0, OUT-1, …")
    parser.add_argument("--reverse", action="store_true", help="German to English")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument(
        "--flags", nargs=argparse.REMAINDER, default=[], help="all that follows goes to `pellucid train`"
    )
    args = parser.parse_args()
    languages = ("de", "en") if args.reverse else ("en", "de")
    data = []
    for flag, part in (("--data", "train"), ("--data.valid", "val"), ("--data.test", "test_2016_flickr")):
        data += [flag, *files(args.data.absolute(), part, languages)]
    results: dict[int, dict[str, Any]] = {}
    for seed in range(args.seeds):
        run = Path(f"{args.out}-{seed}")
        trained(run, ["train", "multi30k", *data, "--seed", str(seed), "--out", str(run), *args.flags])
        results[seed] = measured(run)
        print(f"seed {seed}: BLEU {results[seed]['bleu']:.2f}", file=sys.stderr)
    print(table(results))
    if args.json:
        args.json.write_text(json.dumps({"flags": args.flags, "seeds": results}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
