"""`pellucid verify`: a table, one JSON object, and an exit code that can be trusted."""

import json
from pathlib import Path

import pytest

from pellucid.models import storage
from tests.cli.conftest import Shell
from tests.families import make
from tests.inspection.test_parity import with_tokenizer

pytestmark = [pytest.mark.reference, pytest.mark.slow]


def test_equal_as_lines_and_as_json(shell: Shell, tmp_path: Path) -> None:
    storage.save(make("llama"), tmp_path / "model")
    ran = shell("verify", "model", "--against", "transformers")
    lines = ran.stdout.splitlines()
    assert (
        ran.returncode == 0 and lines[-1] == "equal: the two libraries say the same" and "DIFFERENT" not in ran.stdout
    )
    assert [line.split("  ")[0] for line in lines[1:7]] == [
        "embedding", "block 0", "block 1", "final states", "logits", "loss"
    ]  # fmt: skip
    told = shell("verify", "model", "--json")
    (line,) = told.stdout.splitlines()
    found = json.loads(line)
    assert told.returncode == 0 and found["equal"] and found["tokens_equal"] and found["tokenizer_equal"] is None
    assert found["max_abs_difference"] == max(stage["max_abs_difference"] for stage in found["stages"]) < 1e-5
    assert all(stage["equal"] for stage in found["stages"]) and len(found["stages"]) == 6
    assert found["architecture"] == "LlamaForCausalLM" and set(found["versions"]) == {
        "pellucid",
        "transformers",
        "torch",
    }


def test_different_is_exit_code_3(shell: Shell, tmp_path: Path) -> None:
    with_tokenizer(tmp_path / "model")
    ran = shell("verify", "model", "--text", "the <eos> dog")
    lines = ran.stdout.splitlines()
    assert ran.returncode == 3 and lines[-1] == "NOT EQUAL" and "tokenizer      DIFFERENT" in lines
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"architectures": ["LlamaModel"]}))
    ran = shell("verify", "model")
    assert ran.returncode == 0 and "note: config.json names LlamaModel; LlamaForCausalLM has what is read" in ran.stdout


def test_what_is_not_there(shell: Shell, tmp_path: Path) -> None:
    storage.save(make("alibi"), tmp_path / "own")
    ran = shell("verify", "own")
    assert ran.returncode == 3 and "no class for this model" in ran.stderr
    assert shell("verify", "nothing/here").returncode == 3
    assert shell("verify", "own", "--against", "something").returncode == 2


@pytest.mark.data
def test_real_weights(shell: Shell, corpora: Path) -> None:
    ran = shell("verify", str(corpora / "weights" / "stories260K"), "--json")
    found = json.loads(ran.stdout)
    assert ran.returncode == 0 and found["equal"] and found["tokens_equal"], found
