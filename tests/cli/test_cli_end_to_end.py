"""Train, look, resume, generate, as a user types it: tiny models, real files, every verb."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pellucid.cli.alignment import columns
from pellucid.training.recipe import load_recipe

Shell = Callable[..., subprocess.CompletedProcess[str]]
Workshop = tuple[Shell, Path]

pytestmark = pytest.mark.slow

SMALL = ["--stack.d-model", "16", "--stack.n-layers", "1", "--stack.n-heads", "2", "--stack.d-ff", "32"]
BRIEF = ["--training.warmup", "2", "--training.precision", "float32", "--training.checkpoint-every", "5"]
DATES = ["--data.examples", "300", "--data.held-out", "12", *SMALL, *BRIEF]
SENTENCES = [
    f"the {a} {b} sees the {c}" for a in ("old", "new", "red") for b in ("dog", "cat", "bird") for c in ("man", "sea")
]


@pytest.fixture(scope="module")
def dates(workshop: Workshop) -> Path:
    """A run of the recipe dates, of eight steps."""
    shell, folder = workshop
    ran = shell("train", "dates", "--training.steps", "8", "--seed", "3", *DATES)
    assert ran.returncode == 0, ran.stderr
    return folder / "runs" / "dates"


@pytest.fixture(scope="module")
def gpt(workshop: Workshop) -> Path:
    """A run of the recipe shakespeare on a file of our own."""
    shell, folder = workshop
    (folder / "my text.txt").write_text("\n".join(SENTENCES * 20), encoding="utf-8")
    sizes = [*SMALL, *BRIEF, "--training.length", "32", "--training.steps", "8"]
    ran = shell("train", "shakespeare", "--data", "my text.txt", "--out", "a run/gpt", *sizes)
    assert ran.returncode == 0, ran.stderr
    return folder / "a run" / "gpt"


def test_a_run_has_what_is_promised(dates: Path) -> None:
    recipe = load_recipe(dates / "run.toml")
    assert (recipe.seed, recipe.training.steps, recipe.model.stack.d_model, recipe.data.kind) == (3, 8, 16, "dates")
    for name in ("run.json", "metrics.jsonl", "model/config.json", "model/model.safetensors", "model/tokenizer.json"):
        assert (dates / name).is_file(), name
    assert "format" in json.loads((dates / "run.json").read_text(encoding="utf-8"))
    assert any((dates / "checkpoints").glob("step-*"))


def test_a_run_is_never_written_over(workshop: Workshop, dates: Path) -> None:
    shell, folder = workshop
    before = sorted((path, path.stat().st_mtime_ns) for path in dates.rglob("*"))
    ran = shell("train", "dates", "--out", "runs/dates", "--training.steps", "1", *DATES)
    assert ran.returncode == 2 and "pellucid resume runs/dates" in ran.stderr
    assert before == sorted((path, path.stat().st_mtime_ns) for path in dates.rglob("*"))
    assert shell("train", "dates", "--training.steps", "1", *DATES).returncode == 0
    assert (folder / "runs" / "dates-2" / "model" / "model.safetensors").is_file()


def test_evaluate(workshop: Workshop, dates: Path) -> None:
    shell, _ = workshop
    table = shell("evaluate", "runs/dates")
    assert table.returncode == 0 and "exact match" in table.stdout and "perplexity" in table.stdout
    ran = shell("evaluate", "runs/dates", "--json", "--limit", "5", "--split", "valid", "--beam", "2")
    result = json.loads(ran.stdout)
    assert {"loss", "perplexity", "bits_per_byte", "exact_match", "examples"} <= set(result) and result["examples"] == 5


def test_generate_answers_in_order(workshop: Workshop, dates: Path) -> None:
    shell, _ = workshop
    texts = ["May 3, 1999", "3.5.1999", "1 June 2020"]
    words = [json.loads(line) for line in shell("generate", "runs/dates", *texts, "--json").stdout.splitlines()]
    lines = shell("generate", "runs/dates", "--json", stdin="\r\n".join(texts)).stdout.splitlines()
    assert [one["input"] for one in words] == texts and words == [json.loads(line) for line in lines]
    assert set(words[0]) == {"input", "text", "score", "finished"}
    plain = shell("generate", "runs/dates", stdin="\n".join(texts) + "\n").stdout
    assert plain == "".join(one["text"] + "\n" for one in words), "one line in, one line out"


def test_fewer_bits(workshop: Workshop, dates: Path) -> None:
    shell, _ = workshop
    said = shell("generate", "runs/dates", "May 3", "1 June 2001", "--precision", "int8")
    assert said.returncode == 0 and len(said.stdout.splitlines()) == 2, said.stderr
    exact, rounded = (
        json.loads(shell("evaluate", "runs/dates", "--json", "--limit", "5", *words).stdout)
        for words in ([], ["--precision", "int8"])
    )
    assert rounded.keys() == exact.keys() and rounded["loss"] == pytest.approx(exact["loss"], rel=0.05)
    wrong = shell("generate", "runs/dates", "May 3", "--precision", "int-8")
    assert wrong.returncode == 2 and "did you mean 'int8'" in wrong.stderr


def test_generate_many_answers_and_a_prefix(workshop: Workshop, dates: Path) -> None:
    shell, _ = workshop
    best = shell("generate", "runs/dates", "May 3", "May 4", "--n-best", "3", "--json").stdout.splitlines()
    assert [json.loads(line)["input"] for line in best] == ["May 3"] * 3 + ["May 4"] * 3
    scores = [json.loads(line)["score"] for line in best]
    assert scores[:3] == sorted(scores[:3], reverse=True)
    assert shell("generate", "runs/dates", "May 3", "--prefix", "19", "--max-new", "4").stdout.startswith("19")


def test_an_alignment_is_drawn(workshop: Workshop, dates: Path) -> None:
    shell, _ = workshop
    ran = shell("generate", "runs/dates", "3 May 1999", "--align", "--max-new", "5")
    assert ran.returncode == 0 and "attention" in ran.stdout and "\x1b" not in ran.stdout
    assert max(map(columns, ran.stdout.splitlines())) <= 80


def test_a_finished_run_resumes_to_nothing(workshop: Workshop, dates: Path) -> None:
    shell, _ = workshop
    model = (dates / "model" / "model.safetensors").read_bytes()
    assert shell("resume", "runs/dates").returncode == 0
    assert (dates / "model" / "model.safetensors").read_bytes() == model


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to stop by")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_by_a_signal_and_resumed(workshop: Workshop, number: int) -> None:
    shell, folder = workshop
    run = folder / f"stopped-{number}"
    command = [sys.executable, "-m", "pellucid.cli.main", "train", "dates", "--out", str(run)]
    steps = ["--training.steps", "300", "--training.log-every", "1", *DATES, "--training.evaluate-every", "0"]
    process = subprocess.Popen(
        [*command, *steps],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    metrics, deadline = run / "metrics.jsonl", time.monotonic() + 120
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(number)
    err = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 75 and f"pellucid resume {run}" in err and "Traceback" not in err
    assert '"step": 300,' not in metrics.read_text(encoding="utf-8")
    assert shell("generate", str(run), "May 3", "--max-new", "3").returncode == 0, "a stopped run can be looked at"
    assert shell("resume", str(run)).returncode == 0
    assert '"step": 300,' in metrics.read_text(encoding="utf-8")


def test_verify_resume(shell: Shell) -> None:
    ran = shell("verify-resume", "dates", "--steps", "6", *DATES)
    assert ran.returncode == 0 and "equal: resuming is exact here" in ran.stdout


def test_a_gpt_goes_on_with_a_text(workshop: Workshop, gpt: Path) -> None:
    shell, _ = workshop
    words = ["generate", "a run/gpt", "the old ", "--max-new", "12"]
    plain = shell(*words).stdout
    assert plain.startswith("the old ") and plain == shell(*words).stdout, "the same seed, the same text"
    assert plain != shell(*words, "--seed", "5", "--temperature", "1.5").stdout
    one = json.loads(shell(*words, "--json").stdout)
    assert one["input"] + one["text"] + "\n" == plain
    assert shell("generate", "a run/gpt", "--align", "the").returncode == 2
    from_nothing = shell("generate", "a run/gpt", "", "--max-new", "3", "--json")
    assert json.loads(from_nothing.stdout)["input"] == ""


def test_a_gpt_is_evaluated_on_other_files(workshop: Workshop, gpt: Path) -> None:
    shell, folder = workshop
    (folder / "other.txt").write_text("\n".join(SENTENCES * 10), encoding="utf-8")
    result = json.loads(shell("evaluate", "a run/gpt", "--data", "other.txt", "--json").stdout)
    assert {"loss", "perplexity", "bits_per_byte", "examples"} <= set(result)


def test_pairs_from_a_file_of_two_columns(workshop: Workshop) -> None:
    shell, folder = workshop
    rows = [f"{text}\t{text.upper()}" for text in SENTENCES * 10]
    (folder / "pairs.tsv").write_text("\n".join(rows), encoding="utf-8")
    sizes = [*SMALL, *BRIEF, "--training.steps", "4", "--training.batch-tokens", "500"]
    ran = shell("train", "pairs", "--data", "pairs.tsv", "--out", "pairs", *sizes)
    assert ran.returncode == 0, ran.stderr
    ran = shell("generate", "pairs", "the old dog", "--align", "--max-new", "5")
    assert ran.returncode == 0 and "attention" in ran.stdout


@pytest.mark.parametrize(
    "name, content, says",
    [
        ("none.txt", None, "none.txt"),
        ("empty.txt", b"", "empty.txt"),
        ("binary.txt", bytes(range(256)) * 20, "binary.txt"),
    ],
)
def test_bad_data_is_named_before_a_run_begins(
    shell: Shell, tmp_path: Path, name: str, content: bytes | None, says: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    ran = shell("train", "text", "--data", name)
    assert ran.returncode == 3 and says in ran.stderr and not (tmp_path / "runs").exists()


def test_a_damaged_model_is_named(workshop: Workshop, dates: Path) -> None:
    shell, folder = workshop
    damaged = folder / "damaged"
    shutil.copytree(dates / "model", damaged)
    (damaged / "model.safetensors").write_bytes((dates / "model" / "model.safetensors").read_bytes()[:1000])
    ran = shell("generate", "damaged", "May 3")
    assert ran.returncode == 3 and "model.safetensors" in ran.stderr
    assert shell("generate", "no such model", "May 3").returncode == 3
    assert shell("evaluate", "cache").returncode == 3


def test_lines_that_are_no_text(workshop: Workshop, dates: Path) -> None:
    shell, _ = workshop
    ran = shell("generate", "runs/dates", stdin=b"May 3\n\xff\xfe\n")
    assert ran.returncode == 3 and "stdin, line 2" in ran.stderr


def test_doctor(shell: Shell) -> None:
    found = json.loads(shell("doctor", "--json").stdout)
    assert found["cores"] >= 1 and found["matmul_gflops"]["float32"] > 0 and found["used"]["device"]
    text = shell("doctor").stdout
    assert "will be used" in text and all(name in text for name in found["extras"])
