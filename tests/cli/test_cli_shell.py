"""The command line as a user types it, in a process of its own: help, errors, exit codes, speed of starting."""

import re
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from pellucid.cli.main import VERBS
from pellucid.training.recipe import fields, list_recipes

Shell = Callable[..., subprocess.CompletedProcess[str]]


def test_help_names_every_verb(shell: Shell) -> None:
    ran = shell("--help")
    assert ran.returncode == 0 and ran.stderr == "" and all(f"  {verb} " in ran.stdout for verb in VERBS)
    assert shell().returncode == 2


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb(shell: Shell, verb: str) -> None:
    ran = shell(verb, "--help")
    assert ran.returncode == 0 and ran.stderr == "" and f"usage: pellucid {verb}" in ran.stdout


def test_help_of_train_lists_the_recipes_and_a_recipe_its_fields(shell: Shell) -> None:
    general = shell("train", "--help").stdout
    assert all(f"  {name} " in general and line in general for name, line in list_recipes().items())
    one = shell("train", "dates", "--help").stdout
    assert len(re.findall(r"^  --", one, flags=re.M)) == len(fields())
    assert re.search(r"--model.stack.d-model +128 +a whole number", one)
    assert re.search(r"--seed +0 +a whole number", one)


@pytest.mark.parametrize(
    "words", [["--help"], ["train", "--help"], ["generate", "--help"], ["train", "dates", "--help"]]
)
def test_help_is_quick(shell: Shell, words: list[str]) -> None:
    """The promise is 0.2 s; the test compares with starting Python itself, so that a busy machine does not fail it."""
    code = [sys.executable, "-c", "import argparse, dataclasses"]
    bare, ours = [], []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run(code, check=True)
        bare.append(time.perf_counter() - start)
        start = time.perf_counter()
        shell(*words)
        ours.append(time.perf_counter() - start)
    assert min(ours) < 0.2 or min(ours) < 10 * min(bare)


@pytest.mark.parametrize(
    "words, code, says",
    [
        (["trian"], 2, "did you mean 'train'?"),
        (["train", "daets"], 2, "did you mean 'dates'?"),
        (["train", "dates", "--steps", "3"], 2, "--training.steps"),
        (["train", "multi30k"], 2, "--data"),
        (["resume", "runs/none"], 3, "runs/none does not exist"),
        (["evaluate"], 2, "MODEL"),
        (["generate", "runs/none", "x", "--align", "--json"], 2, "choose one"),
    ],
)
def test_errors_are_plain_words(shell: Shell, words: list[str], code: int, says: str) -> None:
    ran = shell(*words)
    assert ran.returncode == code and says in ran.stderr and ran.stdout == "" and "Traceback" not in ran.stderr


def test_a_reader_that_has_seen_enough(shell: Shell) -> None:
    command = f"{sys.executable} -m pellucid.cli.main train dates --help | head -1"
    ran = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert ran.stderr == "" and "usage" in ran.stdout


def test_version(shell: Shell) -> None:
    assert shell("--version").stdout.startswith("pellucid 0.")
