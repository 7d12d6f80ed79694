"""Words to settings: flags of every verb, errors in plain words, exit codes. No torch, no training."""

import argparse
import errno
import io
import sys
from pathlib import Path

import pytest

from pellucid.cli import evaluate, generate, main, overrides, train, verify_resume
from pellucid.cli.arguments import Parser, at_least, between
from pellucid.errors import DataError, UserError
from pellucid.generation.options import GenerationOptions
from pellucid.training.recipe import Recipe


def recipe(*words: str) -> Recipe:
    return overrides.recipe_from(["dates", *words], "train")[0]


def test_fields_are_flags() -> None:
    got = recipe("--seed", "7", "--training.steps=3", "--training.lr", "2e-3", "--model.stack.norm.kind", "rms")
    assert (got.seed, got.training.steps, got.training.lr, got.model.stack.norm.kind) == (7, 3, 2e-3, "rms")
    assert got.data.kind == "dates", "what is not overridden keeps the recipe's value"


def test_short_forms() -> None:
    got = recipe(
        "--data",
        "a",
        "b",
        "--data.valid",
        "c",
        "--stack.d-model",
        "64",
        "--stack.n_heads=2",
        "--stack.dropout.residual",
        "0.2",
    )
    assert got.data.train == ("a", "b") and got.data.valid == ("c",)
    assert (got.model.stack.d_model, got.model.stack.n_heads, got.model.stack.dropout.residual) == (64, 2, 0.2)


@pytest.mark.parametrize("words", [["--model.no-tied"], ["--model.tied", "false"], ["--model.tied=False"]])
def test_switches_can_be_turned_off(words: list[str]) -> None:
    got = recipe(*words, "--training.tensorboard", "true", "--data.lowercase", "--seed", "2")
    assert (got.model.tied, got.training.tensorboard, got.data.lowercase, got.seed) == (False, True, True, 2)


def test_values_that_are_none_or_tables() -> None:
    got = recipe("--stack.n-kv-heads", "2", "--model.decoder-layers", "None", "--training.betas", "0.8", "0.9")
    assert got.model.stack.n_kv_heads == 2 and got.model.decoder_layers is None and got.training.betas == (0.8, 0.9)


@pytest.mark.parametrize(
    "word, guess",
    [
        ("--steps", "did you mean --training.steps?"),
        ("--training.stpes", "did you mean '--training.steps'?"),
        ("--stack.d-modle", "did you mean '--model.stack.d-model'?"),
        ("--d_model", "did you mean --model.stack.d-model?"),
        ("--no-tied", "did you mean --model.no-tied?"),
        ("--xyzzy", "lists every field"),
    ],
)
def test_an_unknown_flag_is_one_clear_error(word: str, guess: str) -> None:
    with pytest.raises(UserError) as error:
        recipe(word, "3")
    assert guess in str(error.value) and error.value.exit_code == 2


def test_a_wrong_value_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        recipe("--seed", "x")
    assert end.value.code == 2 and "--seed" in capsys.readouterr().err


def test_a_value_that_cannot_be_meant_is_a_usage_error() -> None:
    with pytest.raises(UserError, match="training.steps is 0\n  it must be at least 1"):
        recipe("--training.steps", "0")


def test_out_is_of_the_run_not_of_the_recipe() -> None:
    assert train.take_out(["--seed", "1", "--out", "x", "--data", "y"]) == ("x", ["--seed", "1", "--data", "y"])
    assert train.take_out(["--out=x"]) == ("x", [])
    assert train.take_out([]) == (None, [])
    with pytest.raises(UserError, match="needs a folder"):
        train.take_out(["--out", "--seed"])


def test_runs_are_numbered_and_never_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert train.choose_folder("dates", None) == Path("runs/dates")
    for name in ("dates", "dates-2", "full"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    (tmp_path / "runs" / "full" / "run.toml").touch()
    assert train.choose_folder("dates", None) == Path("runs/dates-3")
    assert train.choose_folder("dates", "runs/dates") == Path("runs/dates"), "an empty folder holds nothing to lose"
    with pytest.raises(UserError, match="never written over\n  .*pellucid resume runs/full"):
        train.choose_folder("dates", "runs/full")


@pytest.mark.parametrize("name", ["multi30k", "shakespeare"])
def test_a_recipe_without_its_data_says_which_flag(name: str) -> None:
    with pytest.raises(UserError, match=f"--data is missing\n  example: pellucid train {name} --data "):
        train.run([name])


def test_data_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert overrides.with_absolute_paths(recipe("--data", "a*.txt")).data.train == (str(tmp_path / "a*.txt"),)


def test_the_recipe_comes_first() -> None:
    with pytest.raises(UserError, match="the recipe comes first"):
        train.run(["--seed", "3", "dates"])


def test_steps_of_verify_resume() -> None:
    assert verify_resume.take_steps(["dates", "--steps", "8", "--seed", "1"]) == (8, ["dates", "--seed", "1"])
    assert verify_resume.take_steps(["dates", "--steps=8"]) == (8, ["dates"])
    for words in (["--steps", "x"], ["--steps"], ["--steps", "1"]):
        with pytest.raises(UserError, match="--steps must be"):
            verify_resume.take_steps(words)


def test_flags_and_words_in_any_order() -> None:
    args = generate.parser().parse(["M", "--beam", "5", "one", "--stop", ".", "two", "--stop", "!", "--json"])
    assert (args.model, args.text, args.beam, args.stop, args.json) == ("M", ["one", "two"], 5, [".", "!"], True)
    assert generate.parser().parse(["M", "--", "-text"]).text == ["-text"]


@pytest.mark.parametrize(
    "words, says",
    [
        (["M", "--bema", "3"], "did you mean '--beam'?"),
        (["M", "--beam", "0"], "must be a whole number, 1 or more, not '0'"),
        (["M", "--top-p", "1.5"], "must be a number from 0 to 1"),
        (["M", "--temperature", "nan"], "must be a number"),
        ([], "MODEL"),
    ],
)
def test_wrong_flags_of_generate(words: list[str], says: str) -> None:
    with pytest.raises(UserError) as error:
        generate.parser().parse(words)
    assert says in str(error.value)


def test_too_many_words() -> None:
    parser = Parser("doctor", "…")
    with pytest.raises(UserError, match="one word too many: 'x'"):
        parser.parse(["x"])


def merged(defaults: GenerationOptions, *words: str) -> GenerationOptions:
    return generate.merge(defaults, generate.parser().parse(["M", *words]))


def test_what_is_not_given_comes_from_the_recipe() -> None:
    defaults = GenerationOptions(beam=5, max_new=7, length_penalty=0.6)
    assert merged(defaults) == defaults
    assert merged(defaults, "--max-new", "9", "--stop", "a").max_new == 9
    assert merged(defaults, "--temperature", "1").beam == 1, "asking for sampling turns the recipe's beams off"
    assert merged(GenerationOptions(temperature=0.8), "--beam", "4").temperature == 0, "and the reverse"
    assert merged(GenerationOptions(temperature=0.8), "--n-best", "3") == GenerationOptions(beam=3, n_best=3)
    assert merged(GenerationOptions(), "--top-p", "0.9").temperature == 1, "top-p without sampling would do nothing"
    assert merged(GenerationOptions(temperature=0.7), "--top-p", "0.9").temperature == 0.7


def test_types_of_flags() -> None:
    assert at_least(2)("3") == 3 and between(0, 1)("0.5") == 0.5
    with pytest.raises(argparse.ArgumentTypeError):
        at_least(2)("x")


def test_table_of_an_evaluation() -> None:
    groups = {"en_GB": 1.0, "cs": 0.5, "de": 0.75, "fr": 0.875}
    text = evaluate.table({"loss": 1.23456, "bits_per_byte": 2.0, "examples": 12345, "groups": groups})
    assert text.splitlines() == [
        "loss               1.2346",
        "bits per byte      2.0000",
        "examples           12,345",
        "worst groups   cs 0.500, de 0.750, fr 0.875 (of 4)",
    ]


# --- endings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error, code, says",
    [
        (UserError("wrong", "do this"), 2, "error: wrong\n  do this"),
        (DataError("broken"), 3, "error: broken"),
        (KeyboardInterrupt(), 130, "stopped"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "the disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "runs/x"), 3, "runs/x: Permission denied"),
        (MemoryError(), 1, "out of memory"),
        (ValueError("odd"), 1, "PELLUCID_DEBUG=1"),
    ],
)
def test_every_ending_is_plain_words(
    error: BaseException, code: int, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(argv: list[str]) -> int:
        raise error

    monkeypatch.setattr(main, "dispatch", fail)
    monkeypatch.delenv("PELLUCID_DEBUG", raising=False)
    assert main.main(["x"]) == code
    said = capsys.readouterr().err
    assert says in said and "Traceback" not in said
    monkeypatch.setenv("PELLUCID_DEBUG", "1")
    main.main(["x"])
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupted_run_can_be_resumed_once_its_recipe_is_there(tmp_path: Path) -> None:
    def interrupt() -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train.finish(tmp_path, interrupt)
    (tmp_path / "run.toml").touch()
    assert train.finish(tmp_path, interrupt) == 75
    assert train.finish(tmp_path, lambda: "stopped") == 75
    assert train.finish(tmp_path, lambda: "done") == 0


def test_output_is_utf8_wherever_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    windows = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", windows)
    main.speak_utf8()
    windows.write("漢字 ▓ \ud800")
    windows.flush()
    assert windows.buffer.getvalue() == "漢字 ▓ \\ud800".encode()  # type: ignore[attr-defined]
