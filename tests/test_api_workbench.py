"""What a Pipeline of labels, tags or masked words answers, and what it refuses: nothing is dropped, nothing compared that differs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import pellucid
from pellucid.api import Pipeline
from pellucid.errors import DataError, UserError
from pellucid.training.recipe import load_recipe
from tests.runs import shrunk, train, write_text

WORDS = "the old new red dog cat sees a man sea".split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


def masked(folder: Path, name: str, vocab_size: int) -> Pipeline:
    recipe = shrunk(load_recipe("mlm"), length=16, batch_size=4)
    data = replace(recipe.data, train=(str(write_text(folder / "text.txt")),), vocab_size=vocab_size, holdout=0.2)
    train(replace(recipe, data=data, model=replace(recipe.model, max_length=16)), folder / name)
    return pellucid.load(folder / name)


@pytest.fixture(scope="module")
def mlm(folder: Path) -> Pipeline:
    return masked(folder, "mlm", 80)


@pytest.fixture(scope="module")
def tagger(folder: Path) -> Pipeline:
    lines = [f"{a} O\n{b} B-X\n\n" for a in WORDS for b in WORDS]
    (folder / "tags.conll").write_text("".join(lines), encoding="utf-8")
    recipe = shrunk(load_recipe("tags"), batch_tokens=64)
    data = replace(recipe.data, train=(str(folder / "tags.conll"),), vocab_size=300)
    train(replace(recipe, data=data, model=replace(recipe.model, max_length=12)), folder / "tags")
    return pellucid.load(folder / "tags")


@pytest.fixture(scope="module")
def labeller(folder: Path) -> Pipeline:
    rows = [f"{a} {b} {c}\t{'yes' if a == 'the' else 'no'}\n" for a in WORDS for b in WORDS for c in WORDS[:3]]
    (folder / "rows.tsv").write_text("text\tlabel\n" + "".join(rows), encoding="utf-8")
    recipe = shrunk(load_recipe("labels"), batch_tokens=64)
    data = replace(recipe.data, train=(str(folder / "rows.tsv"),), vocab_size=100)
    train(replace(recipe, data=data, model=replace(recipe.model, max_length=12)), folder / "labels")
    return pellucid.load(folder / "labels")


def test_every_word_of_a_long_text_is_tagged(tagger: Pipeline) -> None:
    """Longer than the model reads at once: it is read in stretches, and a short text is read whole."""
    words = WORDS * 7
    tagged = tagger.tag(" ".join(words))
    assert [word for word, _, _ in tagged] == words and {tag for _, tag, _ in tagged} <= {"O", "B-X"}
    assert all(0 <= p <= 1 for _, _, p in tagged)
    assert tagger.tag("") == []
    assert len(tagger.tag("x" * 200 + " dog")) == 2, "a word longer than the model is read as far as it goes"


def test_only_words_are_filled_in(mlm: Pipeline) -> None:
    assert mlm.fill("the old dog sees") == []
    (found,) = mlm.fill("the <mask> sees", top=10**6)
    words = [word for word, _ in found]
    assert all(words) and not any(word.startswith("<") for word in words)
    assert sum(p for _, p in found) == pytest.approx(1, abs=1e-3)
    with pytest.raises(UserError, match="stands behind the 16 tokens"):
        mlm.fill("the old dog " * 12 + "<mask>")


def test_long_texts_are_counted(mlm: Pipeline, labeller: Pipeline) -> None:
    assert mlm.n_cut(["the dog", "the dog " * 30]) == 1 and labeller.n_cut(["the"] * 3) == 0


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_vectors_do_not_depend_on_their_company(mlm: Pipeline, pooling: str) -> None:
    alone = mlm.embed("the old dog", pooling)
    among = mlm.embed(["a", "the old dog", "the new cat sees the sea"], pooling)
    np.testing.assert_allclose(among[1], alone, atol=1e-5)
    assert not np.allclose(among[0], among[2])
    assert mlm.embed([], pooling).shape == (0, 16)


def test_only_models_asked_the_same_are_compared(
    folder: Path, mlm: Pipeline, labeller: Pipeline, tagger: Pipeline
) -> None:
    assert mlm.evaluate(split="valid", compare=mlm)["compared"]["loss"]["difference"] == 0
    with pytest.raises(UserError, match="not asked the same"):
        mlm.evaluate(split="valid", compare=masked(folder, "other", 36))
    for one, other in ((mlm, labeller), (labeller, tagger), (tagger, mlm)):
        with pytest.raises(UserError, match="compare models of one task"):
            one.evaluate(compare=other)


def test_other_columns_and_unknown_labels(folder: Path, labeller: Pipeline) -> None:
    (folder / "other.tsv").write_text("body\tcat\nthe dog\tyes\nold dog\tno\n", encoding="utf-8")
    assert labeller.evaluate([str(folder / "other.tsv")], columns=["body", "cat"])["examples"] == 2
    (folder / "strange.tsv").write_text("text\tlabel\nthe dog\tmaybe\nold dog\tperhaps\n", encoding="utf-8")
    with pytest.raises(DataError, match="nothing in this data can be scored"):
        labeller.evaluate([str(folder / "strange.tsv")])


def test_confusion_counts_true_labels_in_rows(folder: Path, labeller: Pipeline) -> None:
    names, counts = labeller.confusion("train")
    judged = labeller.evaluate(split="train")
    assert names == ("no", "yes") and counts.sum() == judged["examples"]
    assert counts.trace() / counts.sum() == pytest.approx(judged["accuracy"])
    named = labeller.confusion("valid", [str(folder / "rows.tsv")])[1]
    assert named.sum() == len(WORDS) * len(WORDS) * 3, "files that are named are all there is, whatever the part"
    true_yes = sum(
        label == "yes" for label in ("yes" if a == "the" else "no" for a in WORDS for _ in WORDS for _ in WORDS[:3])
    )
    assert counts[1].sum() <= true_yes < counts[0].sum()
