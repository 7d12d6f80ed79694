"""Records that survive a kill, a live line on a terminal, plain lines in a pipe."""

import io
import json

import pytest
from rich.console import Console

from pellucid.training.log import Log, clock, truncate


def record(step: int) -> dict:
    return {"step": step, "loss": 2.0, "lr": 0.1, "grad_norm": 1.0, "tokens": 10 * step, "seconds": 0.5 * step}


@pytest.mark.parametrize("terminal", [False, True])
def test_lines(tmp_path, terminal):
    out = io.StringIO()
    log = Log(tmp_path, 4, 6e3, 1e6, console=Console(file=out, force_terminal=terminal, width=200), every=0.0)
    log.open(0)
    for step in (1, 2, 3, 4):
        log.step(record(step), 10, 0.5, True)
    log.evaluation(4, {"loss": 1.5, "bleu": float("nan"), "signature": "13a"}, ["ein Hund → a dog"], True)
    log.close()
    log.close()
    for part in ("step 4/4", "loss 2.0000", "20 tokens/s", "12% of peak", "0:00 left", "best so far", "a dog"):
        assert part in out.getvalue()
    assert terminal or "\x1b" not in out.getvalue()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["kind"] for line in lines] == ["train"] * 4 + ["valid"]
    told = {"loss": 1.5, "bleu": None, "signature": "13a", "samples": ["ein Hund → a dog"]}
    assert lines[-1] == {"kind": "valid", "step": 4, **told}


def test_records_after_the_step_and_broken_lines_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
    truncate(path, 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_clock():
    assert (clock(3723.9), clock(59), clock(0)) == ("1:02:03", "0:59", "0:00")


@pytest.mark.slow
def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    log = Log(tmp_path, 1, tensorboard=True, console=Console(quiet=True))
    log.open(0)
    log.step(record(1), 10, 0.5, True)
    log.close()
    assert list((tmp_path / "tensorboard").iterdir())
