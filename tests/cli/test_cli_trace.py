"""`pellucid trace` as a user types it."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pellucid.models import storage
from pellucid.text.tokenizer import train
from tests import families

Shell = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of an encoder-decoder with a tokenizer of letters."""
    folder = tmp_path_factory.mktemp("translator") / "model"
    tokenizer = train(["abcdefghijklm"], "char", 17)
    assert tokenizer.vocab_size <= families.VOCABULARY
    storage.save(families.make("original"), folder, tokenizer)
    return folder


def test_a_preset_is_told_with_random_ids(shell: Shell) -> None:
    ran = shell("trace", "llama-like-laptop", "--length", "5", "--batch", "2")
    assert ran.returncode == 0 and "random weights" in ran.stdout and "ids     random: " in ran.stdout
    lines = ran.stdout.splitlines()
    assert any("blocks.1 … blocks.3" in line and "3 × Block, the same" in line for line in lines)
    assert any(line.startswith("  head") and "[batch 2, tokens 5, vocab 8000]" in line for line in lines)
    assert "4,950,272" in ran.stdout and "causal" in ran.stdout and "untraced" in ran.stdout


def test_a_text_is_shown_as_tokens_and_the_target_is_the_models_own_or_given(shell: Shell, translator: Path) -> None:
    own = shell("trace", str(translator), "abc")
    assert own.returncode == 0 and "source  'a' " in own.stdout and "own greedy answer" in own.stdout
    given = shell("trace", str(translator), "abc", "--target", "cab", "--depth", "1")
    assert "target  '<bos>' 1  'c'" in given.stdout and "[batch 1, tokens 4, vocab 17]" in given.stdout
    assert "keys, left to right: <bos> c a b" in given.stdout and "blocks.0 " not in given.stdout


def test_json_holds_everything(shell: Shell, translator: Path) -> None:
    ran = shell("trace", str(translator), "abc", "--target", "cab", "--json")
    story = json.loads(ran.stdout)
    assert story["inputs"]["tokens"] == {"source": ["a", "b", "c"], "tokens": ["<bos>", "c", "a", "b"]}
    assert story["totals"]["flops"] == sum(step["flops"] for step in story["steps"]["steps"])
    assert story["steps"]["outputs"][0] == {
        "shape": [1, 4, 17],
        "axes": ["batch", "tokens", "vocab"],
        "dtype": "float32",
        "bytes": 272,
    }
    assert len(story["masks"]) == 3 and story["clash"] is None


def test_an_image_is_read(shell: Shell, tmp_path: Path) -> None:
    pictures = pytest.importorskip("PIL.Image")
    pictures.fromarray(np.arange(400, dtype=np.uint8).reshape(20, 20)).save(tmp_path / "grey.png")
    ran = shell("trace", "vit-laptop", "grey.png", "--ops", "--depth", "2")
    assert ran.returncode == 0 and "grey.png, as [1, 1, 28, 28]" in ran.stdout
    assert "patch rows 4, patch columns 4" in ran.stdout and "convolution" in ran.stdout


@pytest.mark.parametrize(
    "words, said",
    [
        (("gpt-2",), "did you mean 'gpt2'"),
        (("vit-laptop", "no.png"), "no.png"),
        (("gpt2", "hello"), "no tokenizer"),
        (("bert-laptop", "--target", "x"), "encoder-decoder"),
        (("bert-laptop", "--length", "300"), "256 positions"),
        (("nowhere/at/all",), "no folder"),
    ],
)
def test_what_cannot_be_is_said(shell: Shell, words: tuple[str, ...], said: str) -> None:
    ran = shell("trace", *words)
    assert ran.returncode in (2, 3) and said in ran.stderr and not ran.stdout


@pytest.mark.data
def test_a_published_model_is_traced(shell: Shell, corpora: Path) -> None:
    ran = shell("trace", str(corpora / "weights" / "stories260K"), "Once upon a time")
    assert ran.returncode == 0 and "' Once' 403" in ran.stdout and "260,032" in ran.stdout
    assert "[batch 1, tokens 5, vocab 512]" in ran.stdout and "reads embed.tokens.weight" in ran.stdout
