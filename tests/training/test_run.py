"""A run from its recipe: what it writes, what it refuses and when, and that the same recipe gives the same bytes."""

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import pellucid
from pellucid.data.pairs import PairData
from pellucid.errors import DataError, UserError
from pellucid.training import devices
from pellucid.training.recipe import Recipe, load_recipe
from pellucid.training.run import check, resume, start
from pellucid.training.verify import verify_resume
from tests.runs import copy_recipe, known_machine, text_recipe, train, write_text


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run that has ended."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    train(copy_recipe(), folder)
    return folder


def weights(folder: Path) -> bytes:
    return (folder / "model" / "model.safetensors").read_bytes()


def test_run_json_says_what_was_decided(run: Path) -> None:
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert {"format", "recipe", "seed", "model", "tokenizer", "data", "choices", "versions", "machine"} <= set(record)
    assert (record["format"], record["recipe"], record["seed"]) == (1, "tiny", 0)
    assert record["versions"]["torch"] == torch.__version__ and record["versions"]["pellucid"] == pellucid.__version__
    assert devices.Choices.from_dict(record["choices"]).precision == "float32"
    tokenizer = pellucid.load(run).tokenizer
    assert record["tokenizer"] == tokenizer.hash() and record["model"]["vocab_size"] == tokenizer.vocab_size
    assert record["model"]["eos_id"] == tokenizer.eos_id


def test_the_recipe_is_kept_and_gives_the_run_again(run: Path, tmp_path: Path) -> None:
    assert load_recipe(run / "run.toml") == copy_recipe()
    train(load_recipe(run / "run.toml"), tmp_path / "again")
    assert weights(tmp_path / "again") == weights(run)
    for a, b in zip(*(sorted(f.glob("checkpoints/*/*.safetensors")) for f in (run, tmp_path / "again")), strict=True):
        assert a.read_bytes() == b.read_bytes(), a
    train(replace(copy_recipe(), seed=1), tmp_path / "other")
    assert weights(tmp_path / "other") != weights(run)


def test_law_6_holds_for_a_whole_run(tmp_path: Path) -> None:
    """Without dropout, micro-batches change the last bits of each step's loss only."""
    losses = []
    for parts in (1, 3):
        recipe = copy_recipe(accumulate=parts, evaluate_every=0)
        still = replace(recipe.model.stack, dropout=replace(recipe.model.stack.dropout, residual=0.0))
        train(replace(recipe, model=replace(recipe.model, stack=still)), tmp_path / str(parts))
        lines = (tmp_path / str(parts) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        losses.append([record["loss"] for record in map(json.loads, lines) if record["kind"] == "train"])
    assert len(losses[0]) == 6 and losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of `copy_recipe` that Ctrl-C stopped in its third step."""
    batch, begun = PairData.batch, []

    def interrupted(data: PairData, step: int) -> Any:
        begun.append(step)
        if begun[-3:] == [0, 1, 2]:
            signal.raise_signal(signal.SIGINT)
        return batch(data, step)

    with monkeypatch.context() as patch, known_machine():
        patch.setattr(PairData, "batch", interrupted)
        outcome = start(copy_recipe(), tmp_path / "stopped")
    assert (outcome.kind, outcome.step) == ("stopped", 3)
    return tmp_path / "stopped"


def test_stopped_and_resumed_is_uninterrupted(run: Path, stopped: Path) -> None:
    assert not (stopped / "model" / "model.safetensors").exists()
    assert resume(stopped).kind == "done"
    assert weights(stopped) == weights(run)
    assert resume(stopped).kind == "done" and weights(stopped) == weights(run), (
        "resuming what has ended changes nothing"
    )


def test_a_changed_tokenizer_is_refused(run: Path, stopped: Path) -> None:
    file = stopped / "model" / "tokenizer.json"
    state = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = state["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    file.write_text(json.dumps(state), encoding="utf-8")
    changed = file.read_bytes()
    with pytest.raises(DataError, match="tokenizer.json has changed"):
        resume(stopped)
    assert json.loads(file.read_bytes()) == json.loads(changed), "a refusal changes nothing"


def test_another_format_is_refused(stopped: Path) -> None:
    file = stopped / "run.json"
    file.write_text(file.read_text(encoding="utf-8").replace('"format": 1', '"format": 99'), encoding="utf-8")
    with pytest.raises(DataError, match="format 99, this version reads 1"):
        resume(stopped)


def test_changed_data_is_refused(tmp_path: Path) -> None:
    file = write_text(tmp_path / "text.txt")
    train(text_recipe(file), tmp_path / "run")
    kept = weights(tmp_path / "run")
    write_text(file, repeat=6)
    with pytest.raises(DataError, match="training data has changed"):
        resume(tmp_path / "run")
    write_text(file)
    assert resume(tmp_path / "run").kind == "done" and weights(tmp_path / "run") == kept
    file.unlink()
    with pytest.raises(DataError, match="text.txt"):
        resume(tmp_path / "run")


# --- refusals, before any work --------------------------------------------------------------------------------------


def with_(recipe: Recipe, **changes: Any) -> Recipe:
    """The recipe with `table__field` changed."""
    for name, value in changes.items():
        table, _, field = name.rpartition("__")
        changed = replace(getattr(recipe, table), **{field: value}) if table else value
        recipe = replace(recipe, **{table or field: changed})
    return recipe


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model__family": "gpt"}, "needs model.family = 'seq2seq', not 'gpt'"),
        ({"task": "language-model"}, "needs model.family = 'gpt', not 'seq2seq'"),
        ({"task": "language-model", "model__family": "gpt"}, "cannot learn from data.kind = 'copy'"),
        ({"data__kind": "text"}, "cannot learn from data.kind = 'text'"),
        (
            {"task": "language-model", "model__family": "gpt", "data__kind": "text"},
            "'exact_match' is not for the task 'language-model'",
        ),
        ({"training__device": "abacus"}, "'abacus' is not available here"),
    ],
)
def test_what_cannot_work_together_is_refused_first(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    recipe = with_(copy_recipe(), **changes)
    for refuse in (check, lambda recipe: start(recipe, tmp_path / "run")):
        with pytest.raises(UserError, match=said):
            refuse(recipe)  # type: ignore[operator]
    assert not (tmp_path / "run").exists()


def test_a_vocabulary_that_is_too_small_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the tokenizer has 30 tokens, model.vocab_size is 20"):
        start(with_(copy_recipe(), model__vocab_size=20), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    train(with_(copy_recipe(), model__vocab_size=32), tmp_path / "run")
    assert pellucid.load(tmp_path / "run").model.config.vocab_size == 32


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "no such file"), (b"", "is empty"), (b"\xff\xfa", "is not UTF-8"), (b"ab", "a window needs")],
)
def test_bad_text_leaves_nothing_behind(content: bytes | None, said: str, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match=said):
        start(text_recipe(file), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_windows_longer_than_the_model_are_refused(tmp_path: Path) -> None:
    recipe = text_recipe(write_text(tmp_path / "text.txt"), length=33)
    with pytest.raises(UserError, match="training.length 33 is more than the model's 32 tokens"):
        start(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_pairs_that_do_not_fit_the_model_are_refused_or_left_out(tmp_path: Path) -> None:
    """Few long ones are left out, also of what is held out: a run does not die at its first evaluation."""
    own = {"data__kind": "pairs", "data__train": (str(tmp_path / "pairs.tsv"),), "model__max_length": 16}
    recipe = with_(copy_recipe(), **own, model__positions="learned")
    lines = [f"{i} a\tb {i}" for i in range(200)]
    (tmp_path / "pairs.tsv").write_text("\n".join(line + "x" * 20 for line in lines), encoding="utf-8")
    with pytest.raises(DataError, match="longer than the model's 16 positions"):
        start(recipe, tmp_path / "none")
    assert not (tmp_path / "none").exists()
    (tmp_path / "pairs.tsv").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "valid.tsv").write_text(f"1 a\tb 1\n2 {'a' * 20}\tb 2\n3 a\tb {'3' * 16}\n", encoding="utf-8")
    train(with_(recipe, data__valid=(str(tmp_path / "valid.tsv"),)), tmp_path / "run")


# --- the proof ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_verify_resume_proves_it(tmp_path: Path) -> None:
    report = verify_resume(copy_recipe(evaluate_every=0), tmp_path, 30)
    assert report.equal and sum("killed" in line for line in report.lines) == 2
    equal = {line.split(",")[0] for line in report.lines if line.endswith("equal")}
    assert {"model.safetensors", "optimizer.safetensors"} <= equal
