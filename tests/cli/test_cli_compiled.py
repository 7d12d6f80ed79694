"""`--training.compile on`, as a user types it: the same losses, and resuming is exact."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Shell
from tests.runs import write_text

pytestmark = pytest.mark.slow

SIZES = "--stack.d-model 32 --stack.n-layers 1 --stack.n-heads 2 --stack.d-ff 64 --model.max-length 32 --data.tokenizer char"
PACE = "--training.length 16 --training.batch-size 4 --training.precision float32 --training.threads 1 --training.products plain"
STILL = "--stack.dropout.embedding 0 --stack.dropout.residual 0 --stack.dropout.hidden 0 --stack.dropout.attention 0"


def test_a_compiled_run_learns_the_same_and_resumes_to_the_bit(shell: Shell, tmp_path: Path) -> None:
    """Losses are compared without dropout, whose random numbers a compiled loss draws in another way."""
    flags = f"--data.train {write_text(tmp_path / 'text.txt')} {SIZES} {PACE}".split()
    losses = {}
    for how in ("off", "on"):
        ran = shell(
            "train", "text", *flags, *STILL.split(), "--training.steps", "8", "--training.compile", how, "--out", how
        )
        if how == "on" and "cannot be compiled" in ran.stderr:
            pytest.skip("no compiler here")
        assert ran.returncode == 0, ran.stderr
        records = map(json.loads, (tmp_path / how / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
        losses[how] = [record["loss"] for record in records if record["kind"] == "train"]
        assert json.loads((tmp_path / how / "run.json").read_text(encoding="utf-8"))["choices"]["compiled"] == (
            how == "on"
        )
    assert losses["on"] == pytest.approx(losses["off"], rel=1e-5)
    ran = shell("verify-resume", "text", "--steps", "6", *flags, "--training.compile", "on")
    assert ran.returncode == 0, ran.stdout + ran.stderr
