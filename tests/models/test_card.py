"""The model card: programs can read it, its numbers are the run's own, resumed or not, its code runs, and what somebody wrote stays."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.models import storage
from pellucid.models.build import build
from pellucid.models.card import HERE, Trained, card_of, is_edited
from pellucid.models.pretrained.families import home
from pellucid.text.tokenizer import train
from tests.cli.conftest import Shell, make_shell
from tests.families import ALL
from tests.runs import TEXT, write_text

LLAMA = ALL["llama"]
COMPLETE = Trained(
    "mine", 7, "mit", "From my own diary.", ("en", "no"), metrics={"loss": 1.5}, split="x", dataset="text"
)
SIZES = (
    "--stack.d-model 16 --stack.n-layers 1 --stack.n-heads 2 --stack.n-kv-heads 1 --stack.d-ff 32 --data.tokenizer char"
)
PACE = (
    "--training.steps 8 --training.warmup 1 --training.length 16 --training.batch-size 4 --training.checkpoint-every 4"
)
EXACT = "--training.precision float32 --training.threads 1 --training.evaluate-every 4 --training.log-every 1 --seed 5"


def front_matter(card: str) -> dict[str, Any]:
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load(card.split("---\n")[1])


def rows(card: str) -> dict[str, str]:
    """All tables of a card in one."""
    return dict(re.findall(r"^\| (\S.*?) \| (.*) \|$", card, re.MULTILINE))


# --- the text -----------------------------------------------------------------------------------------------------------


@pytest.mark.reference
@given(st.text(max_size=30), st.text(max_size=30), st.lists(st.sampled_from(["en", "no", "on", "zh", "y"])))
def test_programs_can_read_it_whatever_people_say(name: str, license: str, language: list[str]) -> None:
    from huggingface_hub import ModelCard

    facts = replace(COMPLETE, name=name, license=license, language=tuple(language))
    card = card_of(LLAMA, "LlamaForCausalLM", None, trained=facts)
    found = front_matter(card)
    assert found.get("language", []) == language  # "no" is Norwegian, not false
    assert found["library_name"] == "transformers" and found["pipeline_tag"] == "text-generation"
    assert bool(license) == ("license" in found) and re.fullmatch(r"[a-z0-9.+-]+", found.get("license", "x"))
    data = ModelCard(card, ignore_metadata_errors=False).data
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_value, result.task_type) == ("loss", 1.5, "text-generation")


@pytest.mark.parametrize(
    ("changes", "warned"),
    [
        ({}, []),
        ({"license": ""}, ["licence"]),
        ({"said": ""}, ["source of the data"]),
        ({"license": "", "said": ""}, ["licence", "source of the data"]),
    ],
)
def test_what_is_missing_is_warned_of(changes: dict[str, Any], warned: list[str]) -> None:
    card = card_of(LLAMA, "", None, trained=replace(COMPLETE, **changes))
    assert re.findall(r"^> \*\*No (.*) is stated\*\*", card, re.MULTILINE) == warned
    assert ("license:" in card) == ("licence" not in warned)


def test_a_shape_of_its_own_says_which_setting_made_it_so() -> None:
    card = card_of(LLAMA, "", None, ["positions = 'alibi'"])
    assert "- positions = 'alibi'" in card and 'library_name: "pellucid"' in card and "from transformers" not in card


@given(st.integers(0, 10**6), st.sampled_from(["x", " ", "\n", "é"]))
def test_a_card_that_somebody_touched_is_theirs(place: int, letter: str) -> None:
    import tempfile

    card = card_of(LLAMA, "", None, trained=COMPLETE)
    place %= card.index("<!--")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "README.md"
        assert not is_edited(path)
        path.write_text(card, encoding="utf-8")
        assert not is_edited(path)
        path.write_text(card[:place] + letter + card[place:], encoding="utf-8")
        assert is_edited(path)


@pytest.mark.reference
@pytest.mark.parametrize("name", ALL)
def test_its_code_runs(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Image.effect_noise((8, 8), 50).save("picture.png")
    tokenizer = train([*TEXT.splitlines(), "…"], "char", 150, specials=["<mask>"])
    config = replace(ALL[name], vocab_size=tokenizer.vocab_size)
    labels = ("good", "bad", "B-x")[: config.n_labels]
    config = replace(config, labels=labels, decoder_vocab_size=config.decoder_vocab_size and tokenizer.vocab_size)
    storage.save(build(config, 3).eval(), tmp_path, tokenizer)
    blocks = re.findall(r"```python\n(.*?)```", (tmp_path / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == (2 if home(config)[0] else 1)
    for block in blocks:
        assert len(block.splitlines()) <= 4
        exec(block.replace(HERE, str(tmp_path)), {})
        assert capsys.readouterr().out.strip() or "generate" in block  # an untrained model may have nothing to say


# --- of a run -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shell, Path, str]:
    """A real run through the command line, and what it said."""
    folder = tmp_path_factory.mktemp("workshop")
    shell = make_shell(folder)
    write_text(folder / "my text.txt")
    said = ["--card.license", "CC-BY-4.0", "--card.language", "en", *f"{SIZES} {PACE} {EXACT}".split()]
    ran = shell("train", "text", "--data", "my text.txt", "--data.holdout", "0.2", "--out", "mine", *said)
    assert ran.returncode == 0, ran.stderr
    return shell, folder / "mine", ran.stderr


@pytest.mark.slow
def test_its_facts_are_the_runs(run: tuple[Shell, Path, str]) -> None:
    _, folder, told = run
    card = (folder / "model" / "README.md").read_text(encoding="utf-8")
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    last = [line for line in lines if line["kind"] == "train"][-1]
    best = min((line for line in lines if line["kind"] == "valid"), key=lambda line: line["loss"])
    found, table = front_matter(card), rows(card)
    (result,) = found["model-index"][0]["results"]
    assert {one["type"]: one["value"] for one in result["metrics"]} == {
        name: value for name, value in best.items() if isinstance(value, float)
    }
    assert table["steps"] == f"{last['step']} of 8" and table["seed"] == str(record["seed"]) == "5"
    assert table["learned from"].startswith(f"{last['tokens']:,} tokens") and table["batch"] == "4 × 16 tokens"
    assert table["versions"] == ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    assert table["precision"] == "float32, cpu, 1 threads" and f"step {best['step']}" in card
    assert table["files"] == "my text.txt" and str(folder.parent) not in card  # where it lay is nobody's business
    n_tokens = sum(int(table[part].split()[0].replace(",", "")) for part in ("train", "valid"))
    assert n_tokens >= len((folder.parent / "my text.txt").read_text(encoding="utf-8"))
    assert (found["license"], found["language"]) == ("cc-by-4.0", ["en"])
    assert "No source of the data" in card and "No licence" not in card
    assert "no source of the data is stated: --card" in told and "no licence" not in told


@pytest.mark.slow
def test_a_resumed_run_has_the_same_card_but_for_the_clock(run: tuple[Shell, Path, str]) -> None:
    shell, folder, _ = run
    stopped = folder.with_name("stopped")
    shutil.copytree(folder, stopped)
    for path in (stopped / "checkpoints").glob("step-*8"):
        shutil.rmtree(path)
    (stopped / "model" / "README.md").unlink()
    ran = shell("resume", "stopped")
    assert ran.returncode == 0 and "going on from step 4" in ran.stderr and "--card" not in ran.stderr
    once, again = ((f / "model" / "README.md").read_text(encoding="utf-8") for f in (folder, stopped))
    assert {**rows(once), "time": ""} == {**rows(again), "time": ""} and front_matter(once) == front_matter(again)


@pytest.mark.slow
def test_what_somebody_wrote_stays_and_what_nobody_touched_is_renewed(run: tuple[Shell, Path, str]) -> None:
    shell, folder, _ = run
    path = folder / "model" / "README.md"
    written = path.read_text(encoding="utf-8")
    assert shell("resume", "mine").returncode == 0 and path.read_text(encoding="utf-8") == written
    path.write_text(written + "\nMy own words.\n", encoding="utf-8")
    assert shell("resume", "mine").returncode == 0
    assert path.read_text(encoding="utf-8").endswith("My own words.\n")
