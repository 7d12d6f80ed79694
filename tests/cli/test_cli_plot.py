"""`pellucid plot`: pictures of a run as a user asks for them, also while it runs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pellucid.cli.plot import KINDS
from pellucid.inspection import plots
from tests.cli.conftest import Shell, make_shell
from tests.runs import copy_recipe, train

PNG, SVG = b"\x89PNG\r\n", b"<?xml"


slow = pytest.mark.slow


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shell, Path]:
    """A run of a few steps, and a command line beside it."""
    folder = tmp_path_factory.mktemp("plots")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PELLUCID_CACHE", str(folder / "cache"))
        train(copy_recipe(), folder / "copy")
    return make_shell(folder), folder / "copy"


def test_the_kinds_are_those_that_can_be_drawn() -> None:
    assert tuple(plots.KINDS) == KINDS


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom pellucid.cli.main import main\n"
        "for words in ['plot'], ['tokenizer'], *(['tokenizer', part] for part in ('train', 'explain', 'compare')):\n"
        "    assert main([*words, '--help']) == 0\n"
        "assert not {'torch', 'numpy', 'matplotlib', 'rich', 'tokenizers'} & set(sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr


@slow
def test_all_pictures_of_a_run(copied: tuple[Shell, Path]) -> None:
    shell, run = copied
    ran = shell("plot", "copy", "--text", "abc", PYTHONWARNINGS="error::UserWarning")
    assert ran.returncode == 0, ran.stderr
    names = [
        "loss",
        "quality",
        "training",
        "attention-encoder",
        "attention-decoder",
        "attention-cross",
        "alignment",
        "positions",
    ]
    assert ran.stdout.split() == [f"copy/plots/{name}.png" for name in names]
    assert all((run / "plots" / f"{name}.png").read_bytes().startswith(PNG) for name in names)
    assert "no confusion: " in ran.stderr
    held_out = json.loads(shell("plot", "copy", "--only", "attention", "--out", "own", "--json").stdout)
    assert held_out["files"][-1] == "own/alignment.png" and not held_out["skipped"]


@slow
def test_a_run_in_progress_and_several_runs(copied: tuple[Shell, Path]) -> None:
    shell, run = copied
    going = run.parent / "going"
    going.mkdir()
    (going / "run.toml").write_bytes((run / "run.toml").read_bytes())
    (going / "metrics.jsonl").write_bytes((run / "metrics.jsonl").read_bytes() + b'{"kind": "train", "st')
    ran = shell("plot", "going", "--json", "--format", "both")
    told = json.loads(ran.stdout)
    assert "going/plots/loss.svg" in told["files"] and set(told["skipped"]) == {"attention", "positions", "confusion"}
    assert (going / "plots" / "loss.svg").read_bytes().startswith(SVG)
    both = shell("plot", "copy", "going", "--out", "both")
    assert both.stdout.split() == [f"both/compare-{name}.png" for name in ("loss", "quality", "training")]


@slow
def test_what_cannot_be_drawn_is_said(copied: tuple[Shell, Path]) -> None:
    shell, _ = copied
    for words, code, problem in [
        (("nowhere",), 3, "nowhere is no folder"),
        (("copy", "--only", "confusion"), 2, "gives no labels"),
        (("copy", "copy", "--only", "positions"), 2, "several were given"),
        (("copy", "--only", "curve"), 2, "curve"),
    ]:
        ran = shell("plot", *words)
        assert ran.returncode == code and problem in ran.stderr, ran.stderr
