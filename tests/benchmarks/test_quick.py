"""The questions of the benchmark suite run and answer in one form. No timing is judged; no peer is needed, each is skipped."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import QUESTIONS
from benchmarks.measure import beside

ROOT = Path(__file__).resolve().parents[2]
THERE = [name for name in QUESTIONS if (ROOT / "benchmarks" / f"{name}.py").exists()]


def benchmarks(*words: str) -> subprocess.CompletedProcess[str]:
    """`python -m benchmarks WORDS` on one thread, without peers."""
    without = {
        "PELLUCID_PEERS": "",
        "NANOGPT": "",
        "OMP_NUM_THREADS": "1",
        "BENCHMARKS_ONLY": "",
        "BENCHMARKS_TOOLKITS": "",
    }
    command = [sys.executable, "-m", "benchmarks", *words]
    return subprocess.run(command, cwd=ROOT, env=os.environ | without, capture_output=True, text=True, encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("name", THERE)
def test_every_question_answers_with_one_object(name: str) -> None:
    done = benchmarks(name, "--quick", "--json")
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout)
    assert {"command", "machine", "limit", "works"} <= set(result)
    assert result["command"].startswith(f"python -m benchmarks {name}")
    assert {"processor", "threads", "torch"} <= set(result["machine"])
    assert result["works"]
    for work in result["works"].values():
        assert {"ours", "peers", "ratios"} <= set(work)
        for row, numbers in beside(work):
            if "skipped" in numbers:
                assert numbers["skipped"], f"{row} is skipped without a reason"
            else:
                low, high = numbers["spread"]
                assert 0 <= low <= numbers["value"] <= high
                assert numbers["unit"]
    if name in ("training", "startup"):  # they need no data
        assert all(work["ours"]["value"] > 0 for work in result["works"].values())


def test_an_unknown_question_is_named_with_the_nearest() -> None:
    done = benchmarks("trainig")
    assert done.returncode == 2
    assert "did you mean training?" in done.stderr


def test_an_unknown_work_is_named() -> None:
    done = benchmarks("startup", "--quick", "--only", "imports")
    assert done.returncode != 0
    assert "no work 'imports'" in done.stderr
    assert "import" in done.stderr
