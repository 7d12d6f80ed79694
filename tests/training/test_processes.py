"""Whole processes: killed at random moments, and several as one."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pellucid.training import checkpoints

CHILD = """
import os, sys, torch
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.training.conftest import Finished, toy_run, train
torch.set_num_threads(1)
if "RANK" in os.environ:
    torch.distributed.init_process_group("gloo")
print("go", flush=True)
done = Finished()
changes = dict(steps={steps}, checkpoint_every=1, ema=0.9, accumulate=2, dropout={dropout})
outcome = train(toy_run(Path(sys.argv[1]), **changes), done)
if torch.distributed.is_initialized():
    torch.distributed.destroy_process_group()
print(outcome.kind, flush=True)
"""
ROOT = str(Path(__file__).resolve().parents[2])


def start(folder: Path, steps: int, dropout: float = 0.1, **environment: str) -> subprocess.Popen[str]:
    code = CHILD.format(root=ROOT, steps=steps, dropout=dropout)
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )


def newest(folder: Path) -> Path:
    return max(checkpoints.all_steps(folder / "checkpoints").items())[1]


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path):
    """kill -9, several times in a row: the end is the same to the bit."""
    steps, moments = 60, random.Random(0)
    whole, kills = start(tmp_path / "a", steps), 0
    assert whole.communicate(timeout=120)[0].split() == ["go", "done"]
    for _ in range(30):
        child = start(tmp_path / "b", steps)
        assert child.stdout and child.stdout.readline() == "go\n"
        time.sleep(moments.uniform(0.0, 0.4))
        if kills == 5:
            assert child.communicate(timeout=120)[0].split() == ["done"]
            break
        kills += child.poll() is None
        child.kill()
        child.communicate()
        for path in checkpoints.all_steps(tmp_path / "b/checkpoints").values():
            checkpoints.verify(path)
    assert kills == 5
    for stem in ("model", "optimizer", "ema"):
        one, other = (checkpoints.read(newest(tmp_path / x), stem) for x in "ab")
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_two_ranks_are_one(tmp_path):
    """The same data in the same order; gradients summed; the weights agree within rounding."""
    alone = start(tmp_path / "a", 6, dropout=0.0)
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(random.randint(20000, 40000)), "WORLD_SIZE": "2"}
    pair = [start(tmp_path / "b", 6, dropout=0.0, RANK=str(rank), **where) for rank in range(2)]
    try:
        for process in (alone, *pair):
            assert process.communicate(timeout=400)[0].split() == ["go", "done"]
    finally:
        for process in (alone, *pair):
            process.kill()
            process.communicate()
    one, other = (checkpoints.read(newest(tmp_path / x), "model") for x in "ab")
    for name in one:
        torch.testing.assert_close(one[name], other[name], atol=1e-5, rtol=1e-4)
    states = [checkpoints.read_state(newest(tmp_path / x)) for x in "ab"]
    assert states[0]["tokens"] == states[1]["tokens"]
