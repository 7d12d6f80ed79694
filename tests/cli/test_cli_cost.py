"""`pellucid cost` as a user types it."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pellucid.cli.cost import split
from pellucid.models import storage
from tests import families

Shell = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = pytest.mark.slow


def costs(shell: Shell, *words: str) -> dict[str, Any]:
    ran = shell("cost", *words, "--json", "--no-time")
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_a_preset_at_a_length(shell: Shell) -> None:
    found = costs(shell, "gpt2", "--length", "64", "--batch", "2")
    assert found["parameters"]["total"] == 124_439_808
    d, n = 768, 2 * 64
    assert found["forward_flops"]["projections"] == 12 * 2 * n * 12 * d * d
    assert found["forward_flops"]["attention"] == 12 * 4 * n * 64 * d
    assert found["forward_flops"]["head"] == 2 * n * d * 50257
    assert found["memory_bytes"]["cache per token"] == 2 * 12 * d * 4


def test_what_if(shell: Shell) -> None:
    small = costs(shell, "llama-like-laptop", "--length", "32")
    wide = costs(shell, "llama-like-laptop", "--stack.d-model", "512", "--length", "32", "--model.vocab-size=4000")
    assert wide["parameters"]["attention"] == 4 * small["parameters"]["attention"]
    assert wide["parameters"]["embeddings"] == 4000 * 512
    muon = costs(shell, "llama-like-laptop", "--training.optimizer", "muon", "--length", "32")
    assert muon["memory_bytes"]["optimizer"] < small["memory_bytes"]["optimizer"]
    assert muon["step_flops"]["optimizer"] > 0
    half = costs(shell, "llama-like-laptop", "--precision", "bfloat16", "--length", "32")
    assert 2 * half["memory_bytes"]["cache"] == small["memory_bytes"]["cache"]


def test_a_recipe_brings_its_own_sizes(shell: Shell) -> None:
    found = costs(shell, "text")
    assert found["setting"]["length"] == 256 and found["setting"]["batch"] == 16
    assert found["setting"]["optimizer"] == "muon" and found["parameters"]["embeddings"] == 8000 * 256


def test_a_model_folder_is_not_loaded_but_counted(shell: Shell, tmp_path: Path) -> None:
    model = families.make("tutorial")
    storage.save(model, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()  # the config is all that is read
    found = costs(shell, "model", "--length", "6")
    assert found["parameters"]["total"] == sum(p.numel() for p in model.parameters())


def test_the_report_for_people(shell: Shell) -> None:
    ran = shell("cost", "original-laptop", "--length", "16", "--batch", "4")
    assert ran.returncode == 0, ran.stderr
    for words in ("16 tokens of source and as many of target", "B·N²·D", "AdamW", "at the measured peak", "tokens"):
        assert words in ran.stdout
    assert max(map(len, ran.stdout.splitlines())) <= 120


@pytest.mark.parametrize(
    "words, said",
    [
        (("gtp2",), "did you mean 'gpt2'"),
        (("gpt2", "--stack.d-model", "1000"), "not a multiple"),
        (("gpt2", "--stack.d-modle", "1000"), "did you mean '--model.stack.d-model'"),
        (("gpt2", "--stack.d-model"), "needs a value"),
        (("gpt2", "--length", "2000"), "1024 positions"),
    ],
)
def test_what_cannot_be_is_said(shell: Shell, words: tuple[str, ...], said: str) -> None:
    ran = shell("cost", *words, "--no-time")
    assert ran.returncode == 2 and said in ran.stderr and not ran.stdout


def test_fields_are_told_from_flags_in_any_order() -> None:
    words = ["--stack.d-model", "64", "gpt2", "--model.no-tied", "--batch", "2", "--model.vocab-size=9", "--json"]
    changes, rest = split(words)
    assert changes == ["--stack.d-model", "64", "--model.no-tied", "--model.vocab-size=9"]
    assert rest == ["gpt2", "--batch", "2", "--json"]
