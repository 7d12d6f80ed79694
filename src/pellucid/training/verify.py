"""The proof that resuming is exact on this machine: a run left alone and one that is killed on the way end with the same bytes."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pellucid.errors import DataError
from pellucid.training.recipe import Recipe, dump
from pellucid.training.run import resume, start


@dataclass(frozen=True)
class Report:
    """Whether two runs ended the same, and what was compared."""

    equal: bool
    lines: list[str]


def verify_resume(recipe: Recipe, workdir: Path, steps: int) -> Report:
    """Trains `steps` steps at once, and again in processes that are killed twice on the way; compares the last checkpoints bit for bit."""
    pace = replace(
        recipe.training, steps=steps, checkpoint_every=max(1, steps // 5), log_every=1, patience=0, average=0
    )
    recipe = replace(recipe, training=replace(pace, evaluate_every=max(1, steps // 2)))  # one lies between two kills
    whole, parts = workdir / "uninterrupted", workdir / "killed"
    start(recipe, whole)
    parts.mkdir()
    dump(recipe, parts / "run.toml")
    shutil.copy(whole / "run.json", parts / "run.json")
    lines = [_kill_at(parts, step) for step in sorted({max(1, steps // 3), max(1, 2 * steps // 3)})]
    resume(parts)
    compared = {"metrics.jsonl without times": _metrics(whole) == _metrics(parts)}
    for path in sorted((whole / "checkpoints" / f"step-{steps:06d}").glob("*.safetensors")):
        twin = parts / "checkpoints" / path.parent.name / path.name
        compared[f"{path.name}, {path.stat().st_size:,} bytes"] = path.read_bytes() == twin.read_bytes()
    lines += [f"{what}: {'equal' if same else 'DIFFERENT'}" for what, same in compared.items()]
    return Report(all(compared.values()), lines)


def _metrics(folder: Path) -> list[dict[str, Any]]:
    """What a run logged, but for how long it took."""
    records = map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [{name: value for name, value in record.items() if "second" not in name} for record in records]


def _kill_at(folder: Path, step: int) -> str:
    """Resumes the run in another process and kills that one outright once `step` steps are done.

    Raises DataError where it ended by itself: then nothing is proven.
    """
    code = f"from pathlib import Path; from pellucid.training.run import resume; resume(Path({str(folder)!r}))"
    metrics_file = folder / "metrics.jsonl"
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=said, stderr=said)
        try:
            while process.poll() is None and not (metrics_file.exists() and _steps(metrics_file) >= step):
                time.sleep(0.002)
        finally:
            ended = process.poll()
            process.kill()
            process.wait()
        said.seek(0)
        last = said.read().decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
    if ended == 0:
        raise DataError(f"the second run was done before it could be killed after step {step}", "give more --steps")
    if ended is not None:
        raise DataError(
            f"the second run ended by itself with exit code {ended}: {last[0]}", "run `pellucid train` alone"
        )
    return f"killed after step {step}, resumed"


def _steps(metrics_file: Path) -> int:
    return metrics_file.read_bytes().count(b'"train"')
