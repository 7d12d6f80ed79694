"""The questions of the benchmark suite run and answer in one form. No timing is judged; no peer is needed, each is skipped."""

import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.__main__ import QUESTIONS, main
from benchmarks.measure import beside

ROOT = Path(__file__).resolve().parents[2]
MEASURED = {"memory": "foretold", "quality": "final"}
"""What there must be of ours, where it is not the value: no target is reached in a few steps."""
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
        measured = work["ours"].get(MEASURED.get(name, "value"))
        assert measured and min(np.atleast_1d(measured)) > 0, f"ours was not measured: {work['ours']}"
        if name == "memory":
            assert work["ours"]["imported"] > 50


def test_threads_are_those_of_every_library(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("OMP_NUM_THREADS", "RAYON_NUM_THREADS")
    for name in names:
        monkeypatch.setenv(name, "7")
    nothing = SimpleNamespace(run=lambda quick: {}, table=lambda result: "")
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(importlib, "import_module", lambda name: nothing)
    assert main(["startup", "--threads", "3"]) == 0
    assert [os.environ[name] for name in names] == ["3", "3"]


def test_memory_is_that_of_a_process_and_of_its_child() -> None:
    child = "import sys, subprocess; subprocess.run([sys.executable, '-c', 'b = b\"1\" * (3 * 10**8)'])"
    code = f"from benchmarks.text import most; alone = most(); {child}; print(alone, most())"
    alone, together = map(float, subprocess.check_output([sys.executable, "-c", code], cwd=ROOT).split())
    assert together - alone > 300


def test_an_unknown_question_is_named_with_the_nearest() -> None:
    done = benchmarks("trainig")
    assert done.returncode == 2
    assert "did you mean training?" in done.stderr


def test_an_unknown_work_is_named() -> None:
    done = benchmarks("startup", "--quick", "--only", "inport")
    assert done.returncode != 0
    assert "no work 'inport'" in done.stderr
    assert "import" in done.stderr
