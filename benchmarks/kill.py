"""Question: is a run that is killed outright again and again, and resumed each time, the same to the bit as one left alone?

Command (the recipe is `copy`, small, with dropout and an average of the weights, unless you name another; flags as of `pellucid train`):

    python benchmarks/kill.py [RECIPE] [--kills 20] [--steps 240] [-- flags]

Trains once without a stop, then the same run (the same run.toml and run.json, so that this machine's choices are the same) in
processes of `pellucid resume` that are killed with kill -9 at random moments: some in the first seconds, the others a random time
after a random step, so that they land while it starts, steps, evaluates and writes checkpoints. After each kill every checkpoint that is
visible must be whole. Prints each kill, at which step the run stood and what it was doing, then EQUAL or DIFFERENT: every file of the
last checkpoint and of model/ must have the same bytes, metrics.jsonl the same records. Left out are clock
times alone: `seconds` in state.json (and so its hash in MANIFEST.json), `seconds` and `tokens_per_second` in metrics.jsonl.
Exits 0 only when equal, otherwise keeps both runs to look at. The code must not change meanwhile: a new field in a recipe differs.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from pellucid.cli.overrides import recipe_from, require_data, with_absolute_paths
from pellucid.training import checkpoints
from pellucid.training.recipe import Recipe, dump

SMALL = "--data.examples 2000 --data.held-out 40 --training.warmup 20 --training.batch-tokens 1024 --training.ema 0.98"
DROPOUT = " --stack.dropout.residual 0.1 --stack.dropout.embedding 0.1"
EARLY = 0.2  # the share of the kills that falls into the start


def resume(folder: Path) -> "subprocess.Popen[bytes]":
    """The run goes on in a process of its own; what it says is kept in FOLDER.log."""
    with folder.with_suffix(".log").open("wb") as log:
        return subprocess.Popen([sys.executable, "-m", "pellucid", "resume", str(folder)], stdout=log, stderr=log)


def records(folder: Path) -> list[dict[str, Any]]:
    """The whole lines of metrics.jsonl."""
    path = folder / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def last_step(folder: Path) -> int:
    return max((record["step"] for record in records(folder) if record["kind"] == "train"), default=0)


def saved_step(folder: Path) -> int:
    return max(checkpoints.all_steps(folder / "checkpoints"), default=0)


def wait_for_step(process: "subprocess.Popen[bytes]", folder: Path, step: int, old: int = 0) -> float:
    """Seconds until the run has done `step`; what the metrics.jsonl of inode `old` says is of the process before."""
    begin = time.perf_counter()
    while process.poll() is None and (inode(folder) == old or last_step(folder) < step):
        time.sleep(0.01)
    return time.perf_counter() - begin


def doing(folder: Path, recipe: Recipe, before: int, opened: bool) -> str:
    """What the killed process was at, from what it left; `opened`: it had come to its metrics.jsonl."""
    done, t, left = last_step(folder), recipe.training, folder / "checkpoints"
    if not opened or (done <= before and not list(left.glob(".tmp-*"))):
        return "starting"
    if list(left.glob(".tmp-*")):
        return "writing a checkpoint"
    if list(left.glob(".old-*")):
        return "removing an old checkpoint"
    judged = any(record["kind"] == "valid" and record["step"] == done for record in records(folder))
    if done % t.evaluate_every == 0 and not judged:
        return "evaluating"
    if done % t.checkpoint_every == 0 and saved_step(folder) < done:
        return "about to write a checkpoint"
    return "stepping" if done < t.steps else "finishing"


def inode(folder: Path) -> int:
    """Of metrics.jsonl, which is a new file once a process has opened it."""
    path = folder / "metrics.jsonl"
    return path.stat().st_ino if path.exists() else 0


def torture(folder: Path, recipe: Recipe, kills: int, pace: float, seed: int) -> Counter[str]:
    """Kill and resume the run `kills` times, then let it end. `pace`: seconds of a step, all told. Returns what was hit how often."""
    moments, landed, start_up = random.Random(seed), Counter[str](), 0.0
    for left in range(kills, 0, -1):
        before, file, process = saved_step(folder), inode(folder), resume(folder)
        if left == kills:  # the first kill comes with the first step, and says how long a start takes
            start_up = wait_for_step(process, folder, 1)
        elif moments.random() < EARLY:
            time.sleep(moments.uniform(0.0, start_up))
        else:  # on average all kills together bring it to the end, however busy the machine is
            ahead = moments.uniform(0.0, 2 * (recipe.training.steps - before) / (left + 1))
            wait_for_step(process, folder, before + 1 + int(ahead), file)
            time.sleep(moments.uniform(0.0, 2 * pace))
        if process.poll() is not None:
            must_be_zero(process, folder)
            print("the run ended before the next kill")
            return landed
        process.kill()
        process.wait()
        what = doing(folder, recipe, before, inode(folder) != file)
        landed[what] += 1
        for path in checkpoints.all_steps(folder / "checkpoints").values():
            checkpoints.verify(path)
        stood = f"step {last_step(folder):,} done, checkpoint {saved_step(folder):,}"
        print(f"kill {sum(landed.values())}: {stood}, {what}", flush=True)
    must_be_zero(resume(folder), folder)
    return landed


def must_be_zero(process: "subprocess.Popen[bytes]", folder: Path) -> None:
    if process.wait():
        sys.exit(f"DIFFERENT: exit code {process.returncode}\n{folder.with_suffix('.log').read_text(errors='replace')}")


def content(path: Path) -> object:
    """What must be equal of a file: its bytes, without clock times."""
    if path.name == "state.json":
        return {**json.loads(path.read_text()), "seconds": 0}
    if path.name == "MANIFEST.json":
        manifest = json.loads(path.read_text())
        manifest["files"].pop("state.json")
        return manifest
    if path.name == "README.md":  # the card tells the time, and ends on a digest of itself
        return [line for line in path.read_text(encoding="utf-8").splitlines()[:-1] if not line.startswith("| time |")]
    return path.read_bytes()


def same(whole: Path, killed: Path, steps: int) -> bool:
    """Compares the two runs and prints a line for each file."""
    equal = saved_step(whole) == saved_step(killed) == steps
    for part in (f"checkpoints/step-{steps:06d}", "model"):
        for name in sorted({path.name for run in (whole, killed) for path in (run / part).glob("*")}):
            one, other = whole / part / name, killed / part / name
            match = one.exists() and other.exists() and content(one) == content(other)
            print(f"  {part}/{name}: {'equal' if match else 'DIFFERENT'}")
            equal &= match
    clocks = ("seconds", "tokens_per_second")
    ours, theirs = (
        [{name: value for name, value in record.items() if name not in clocks} for record in records(run)]
        for run in (whole, killed)
    )
    print(f"  metrics.jsonl, {len(ours)} records: {'equal' if ours == theirs else 'DIFFERENT'}")
    return equal and ours == theirs


def main() -> int:
    words, flags = sys.argv[1:], []
    if "--" in words:
        words, flags = words[: words.index("--")], words[words.index("--") + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", metavar="RECIPE", help="a recipe's name or file (default: a small copy)")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args(words)
    own = [args.recipe] if args.recipe else ["copy", *(SMALL + DROPOUT).split()]
    recipe, name = recipe_from([*own, *flags], "train")
    require_data(recipe, name)
    often = {"evaluate_every": max(1, args.steps // 24), "checkpoint_every": max(1, args.steps // 48), "log_every": 1}
    pace_of_it = replace(recipe.training, steps=args.steps, evaluate_limit=20, patience=0, **often)
    recipe = with_absolute_paths(replace(recipe, training=pace_of_it))

    work = tempfile.mkdtemp(prefix="pellucid-kill-")
    whole, killed, file = Path(work, "whole"), Path(work, "killed"), Path(work, f"{name}.toml")
    dump(recipe, file)
    command = [sys.executable, "-m", "pellucid", "train", str(file), "--out", str(whole)]
    with whole.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    wait_for_step(process, whole, 1)
    begin = time.perf_counter()
    must_be_zero(process, whole)
    pace = (time.perf_counter() - begin) / args.steps
    print(f"uninterrupted: {args.steps} steps, {1000 * pace:.0f} ms each with evaluations and checkpoints", flush=True)
    killed.mkdir()
    for kept in ("run.toml", "run.json"):
        shutil.copy(whole / kept, killed / kept)
    landed = torture(killed, recipe, args.kills, pace, args.seed)
    counts = ", ".join(f"{what} {count}" for what, count in landed.most_common())
    print(f"{sum(landed.values())} of {args.kills} kills landed: {counts}")
    equal = same(whole, killed, args.steps)
    if equal:
        shutil.rmtree(work)
    print("EQUAL" if equal else f"DIFFERENT: see {work}")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
