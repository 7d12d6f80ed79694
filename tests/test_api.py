"""`pellucid.load`: from a folder to a Pipeline, and what a Pipeline promises whatever the model."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import pellucid
from pellucid.api import Generated, Pipeline
from pellucid.errors import DataError, UserError
from pellucid.generation.options import GenerationOptions
from pellucid.models import storage
from pellucid.training.checkpoints import all_steps
from tests.families import make
from tests.runs import TEXT, copy_recipe, text_recipe, train, write_text

SOURCES = ["abc", "hello", "x", "qwertyuiopas", "hello", "zz"]
PROMPTS = ["the old", "t", "", "the new cat sees the man.\nthe red dog", "the old"]
SHORT = GenerationOptions(max_new=12)
HOW = {
    "greedy": SHORT,
    "beam": replace(SHORT, beam=3, n_best=2),
    "sampling": replace(SHORT, temperature=1.5, top_k=9, top_p=0.9, seed=4),
    "penalty": replace(SHORT, repetition_penalty=1.4),
    "stop": replace(SHORT, stop=("e", "an")),
}


@pytest.fixture(scope="session")
def copy_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run of the recipe copy."""
    folder = tmp_path_factory.mktemp("api") / "copy"
    train(copy_recipe(steps=30, lr=1e-2, evaluate_every=30, checkpoint_every=15), folder)
    return folder


@pytest.fixture(scope="session")
def text_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run of the recipe text: a Llama of characters."""
    folder = tmp_path_factory.mktemp("api") / "text"
    file = write_text(folder.with_suffix(".txt"))
    train(text_recipe(file, steps=60, lr=1e-2, evaluate_every=60, checkpoint_every=30), folder)
    return folder


@pytest.fixture(scope="module")
def copier(copy_run: Path) -> Pipeline:
    return pellucid.load(copy_run)


@pytest.fixture(scope="module")
def writer(text_run: Path) -> Pipeline:
    return pellucid.load(text_run)


# --- loading --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["copy_run", "text_run"])
def test_a_run_and_its_model_folder_say_the_same(name: str, request: pytest.FixtureRequest) -> None:
    run = request.getfixturevalue(name)
    whole, bare = pellucid.load(run), pellucid.load(run / "model")
    texts = SOURCES if name == "copy_run" else PROMPTS
    assert whole.recipe is not None and bare.recipe is None and not whole.model.training
    assert whole.generate(texts, SHORT) == bare.generate(texts, SHORT)
    assert whole.options == whole.recipe.generation and bare.options == whole.options


def test_an_unfinished_run_is_its_newest_checkpoint(copy_run: Path, tmp_path: Path) -> None:
    shutil.copytree(copy_run, tmp_path / "run")
    (tmp_path / "run" / "model" / "model.safetensors").unlink()
    (tmp_path / "run" / "model" / "config.json").unlink()
    steps = all_steps(tmp_path / "run" / "checkpoints")
    assert max(steps) == 30
    last = pellucid.load(tmp_path / "run")
    shutil.rmtree(steps[30])
    before = pellucid.load(tmp_path / "run")
    one, two = (p.model.state_dict() for p in (last, before))
    assert any(not torch.equal(one[name], two[name]) for name in one)
    finished = pellucid.load(copy_run).model.state_dict()  # judged once, at its last step
    assert all(torch.equal(one[name], finished[name]) for name in one)
    assert last.generate("abc", SHORT).text == pellucid.load(copy_run).generate("abc", SHORT).text
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(DataError, match="has no model yet"):
        pellucid.load(tmp_path / "run")


def test_dtype_is_as_asked(copy_run: Path) -> None:
    half = pellucid.load(copy_run, dtype=torch.bfloat16)
    assert {p.dtype for p in half.model.parameters()} == {torch.bfloat16}
    assert half.generate("abc", SHORT).finished in (True, False)
    np.testing.assert_allclose(half.alignment("abc")[2].sum(1), 1, atol=1e-5)


# --- generating -----------------------------------------------------------------------------------------------------


def ranked(one: Generated) -> list[Generated]:
    """An answer and the next best, flat."""
    return [replace(one, others=()), *one.others]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", ["copier", "writer"])
def test_company_changes_nothing(name: str, how: str, request: pytest.FixtureRequest) -> None:
    """Laws 2 and 4: a text alone, or among others in any order, is answered alike."""
    pipeline, options = request.getfixturevalue(name), HOW[how]
    texts = SOURCES if name == "copier" else PROMPTS
    together = [ranked(one) for one in pipeline.generate(texts, options)]
    assert [len(answers) for answers in together] == [options.n_best] * len(texts)
    for i, (text, answers) in enumerate(zip(texts, together, strict=True)):
        alone = ranked(pipeline.generate([text], options, first_index=i)[0])
        assert [one.text for one in alone] == [one.text for one in answers]
        assert [one.score for one in alone] == pytest.approx([one.score for one in answers], abs=1e-4)
        if not options.temperature:
            assert pipeline.generate(text, options).text == answers[0].text, "a text that is no list is one answer"
    if not options.temperature:
        mixed = pipeline.generate(texts[::-1], options)
        assert [one.text for one in mixed[::-1]] == [answers[0].text for answers in together]


@pytest.mark.parametrize("name", ["copier", "writer"])
def test_n_best_and_seeds(name: str, request: pytest.FixtureRequest) -> None:
    pipeline = request.getfixturevalue(name)
    text, sampling = ("abc", "the old")[name == "writer"], HOW["sampling"]
    assert pipeline.generate(text, sampling) == pipeline.generate(text, sampling)
    assert len({pipeline.generate(text, replace(sampling, seed=seed)).text for seed in range(8)}) > 1
    best = ranked(pipeline.generate(text, replace(SHORT, beam=4, n_best=4)))
    scores = [one.score for one in best]
    assert scores == sorted(scores, reverse=True), "the best first"
    assert len({one.text for one in best}) == 4
    assert pipeline.generate([], SHORT) == []


@pytest.mark.parametrize("name", ["copier", "writer"])
def test_a_prefix_is_how_each_answer_begins(name: str, request: pytest.FixtureRequest) -> None:
    pipeline = request.getfixturevalue(name)
    for options in (SHORT, HOW["beam"]):
        answers = pipeline.generate(["abc", "the"], options, prefix="red")
        assert all(one.text.startswith("red") for one in answers)
    free = pipeline.generate("abc", SHORT).text
    forced = pipeline.generate("abc", replace(SHORT, max_new=10), prefix=free[:2])
    assert forced.text == free, "forced to what it wanted"


@pytest.mark.parametrize("prefix", ["", "a"])
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", ["copier", "writer"])
def test_pieces_join_to_the_text(name: str, how: str, prefix: str, request: pytest.FixtureRequest) -> None:
    pipeline, options = request.getfixturevalue(name), replace(HOW[how], n_best=1)
    for text in ("abc", "the old"):
        pieces = list(pipeline.stream(text, options, prefix=prefix))
        assert "".join(pieces) == pipeline.generate(text, options, prefix=prefix).text
        assert "" not in pieces


def test_a_completion_does_not_repeat_its_prompt_and_may_outgrow_the_model(writer: Pipeline) -> None:
    long = writer.generate(TEXT[:100], replace(SHORT, max_new=60))
    assert not long.finished and len(long.text) == 60, "32 positions, 160 tokens"


# --- looking inside -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [None, "", "hello"])
def test_an_alignment_is_a_distribution_over_the_source(copier: Pipeline, target: str | None) -> None:
    source, said, weights = copier.alignment("qwerty", target)
    assert source == list("qwerty") and weights.shape == (len(said), 6) and (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)
    assert "".join(said[:-1]) == (copier.generate("qwerty").text if target is None else target)
    assert said[-1] == "<eos>", "the end, too, was said after a look"


# --- measuring ------------------------------------------------------------------------------------------------------


def test_evaluate_a_translator(copier: Pipeline, tmp_path: Path) -> None:
    test, valid = copier.evaluate(), copier.evaluate(split="valid", limit=5, beam=2)
    assert {"loss", "perplexity", "bits_per_byte", "exact_match", "examples", "groups"} <= set(test)
    assert test["examples"] == 12 and valid["examples"] == 5
    assert 0 <= test["exact_match"] <= 1 and test["perplexity"] == pytest.approx(np.exp(test["loss"]))
    (tmp_path / "own.tsv").write_text("abc\tabc\nhello\thello\n", encoding="utf-8")
    own = copier.evaluate([str(tmp_path / "own.tsv")])
    assert own["examples"] == 2 and "groups" not in own


def test_evaluate_a_writer(writer: Pipeline, text_run: Path, tmp_path: Path) -> None:
    result = writer.evaluate()
    assert set(result) == {"loss", "perplexity", "bits_per_byte", "examples", "intervals"}
    assert result["bits_per_byte"] == pytest.approx(result["loss"] / np.log(2)), "a character is a byte here"
    own = write_text(tmp_path / "own.txt", repeat=2)
    whole = writer.evaluate([str(own)])
    assert whole["examples"] == len(TEXT) * 2, "every character, the first one as well"
    bare = pellucid.load(text_run / "model").evaluate([str(own)])
    assert bare["examples"] == whole["examples"]


# --- in plain words -------------------------------------------------------------------------------------------------


def test_what_cannot_be_loaded_is_said(copy_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copy_run.parent)
    with pytest.raises(DataError, match="is no folder"):
        pellucid.load("none")
    with pytest.raises(DataError, match="has no config.json"):
        pellucid.load(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "run.toml").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="runs here: runs.mine"):
        pellucid.load("none")


def test_a_model_without_a_tokenizer(tmp_path: Path) -> None:
    storage.save(make("llama"), tmp_path)
    pipeline = pellucid.load(tmp_path)
    with pytest.raises(DataError, match="has no tokenizer.json"):
        pipeline.generate("abc")


def test_what_a_model_cannot_do_is_said(copier: Pipeline, writer: Pipeline, copy_run: Path) -> None:
    with pytest.raises(UserError, match="needs an encoder-decoder, this is a gpt"):
        writer.alignment("the old")
    with pytest.raises(UserError, match="does not know its data"):
        pellucid.load(copy_run / "model").evaluate()
    with pytest.raises(UserError, match="no part 'tests'.*|tests"):
        copier.evaluate(split="tests")
    with pytest.raises(UserError, match="tests"):
        writer.evaluate(split="tests")


# --- in the hands of others -----------------------------------------------------------------------------------------


@pytest.mark.reference
def test_transformers_goes_on_with_our_folder(text_run: Path, writer: Pipeline) -> None:
    """The model folder of a run opens without this library: same ids, same text."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    theirs = AutoModelForCausalLM.from_pretrained(text_run / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(text_run / "model")
    assert type(theirs).__name__ == "LlamaForCausalLM"
    for prompt in ("the old ", "red"):
        ids = tokenizer(prompt)["input_ids"]
        assert ids == writer.tokenizer.encode(prompt)
        said = theirs.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False)[0, len(ids) :]
        assert tokenizer.decode(said, skip_special_tokens=True) == writer.generate(prompt, SHORT).text


@pytest.mark.data
def test_a_foreign_model_tells_a_story(corpora: Path) -> None:
    story = pellucid.load(corpora / "weights" / "stories260K")
    said = story.generate("Once upon a time", GenerationOptions(max_new=60)).text
    assert said.startswith(", there was a little girl named Lily.") and story.model.config.family == "gpt"
    assert "".join(story.stream("Once upon a time", GenerationOptions(max_new=60))) == said


@pytest.mark.data
@pytest.mark.reference
def test_it_is_the_story_that_transformers_tells(corpora: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = corpora / "weights" / "stories260K"
    story = pellucid.load(folder)
    theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = [1, *story.tokenizer.encode("Once upon a time")]
    said = theirs.generate(torch.tensor([ids]), max_new_tokens=100, do_sample=False)[0].tolist()
    begun = len(story.tokenizer.decode(ids))
    assert (
        story.generate("Once upon a time", GenerationOptions(max_new=100)).text == story.tokenizer.decode(said)[begun:]
    )


def test_a_model_card_comes_along(text_run: Path) -> None:
    config = json.loads((text_run / "model" / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert "transformers" in (text_run / "model" / "README.md").read_text(encoding="utf-8")
