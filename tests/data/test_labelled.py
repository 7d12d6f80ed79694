"""Labelled texts: names, what is said of the labels, batches of <bos> text <eos>; no text on both sides of a split."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pellucid.data.config import DataConfig
from pellucid.data.labelled import LabelData, prepare_labels
from pellucid.data.prepare import texts_for_tokenizer
from pellucid.data.tokenised import Ragged
from pellucid.errors import DataError
from tests.data.fakes import Letters

ROWS = st.lists(st.tuples(st.integers(0, 12), st.integers(-1, 2)), min_size=1, max_size=60)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))


def table(folder, name, rows):
    """A CSV of texts and labels."""
    (folder / name).write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    return (str(folder / name),)


def told(sets, part="train"):
    return "\n".join(sets[part].notes)


def made(rows, **options) -> LabelData:
    texts = Ragged.of([[100 * i + 4 + j for j in range(n)] for i, (n, _) in enumerate(rows)])
    labels = np.array([label for _, label in rows])
    return LabelData(texts, labels, pad_id=0, bos_id=1, eos_id=2, **({"batch_tokens": 40, "seed": 1} | options))


# ---- files to sets


def test_names_are_sorted_and_known_ones_are_kept(tmp_path):
    train = table(tmp_path, "a.csv", [(f"t{i}", ("b", "a")[i % 2]) for i in range(40)])
    test = table(tmp_path, "b.csv", [("x", "a"), ("y", "c"), ("z", "b"), ("u", "c"), ("v", "d")])
    config = DataConfig(kind="labels", train=train, test=test, holdout=0.0)
    sets = prepare_labels(config, Letters(), 0)
    assert list(sets) == ["train", "test"] and sets["train"].names == ("a", "b")
    assert sets["test"].labels.tolist() == [0, -1, 1, -1, -1]
    assert "3 texts of test have a label that training never shows ('c', 'd'): they will count as wrong" in told(
        sets, "test"
    )
    assert [tuple(e[:2]) for e in sets["test"].examples(2)] == [("x", "a"), ("y", "c")]
    assert Letters().decode(sets["test"].texts[2]) == "z"
    only = replace(config, train=(), test=test)
    known = prepare_labels(only, Letters(), 0, names=("b", "a", "c"))["test"]
    assert known.labels.tolist() == [1, 2, 0, 2, -1] and known.names == ("b", "a", "c")
    with pytest.raises(DataError, match="which labels there are(?s:.*)--data.train"):
        prepare_labels(only, Letters(), 0)


def test_whole_numbers_are_sorted_by_value_and_are_places_of_known_names(tmp_path):
    rows = [(f"t{i}", i % 12) for i in range(48)]
    config = DataConfig(kind="labels", train=table(tmp_path, "a.csv", rows), holdout=0.0)
    sets = prepare_labels(config, Letters(), 0)
    assert sets["train"].names == tuple(map(str, range(12)))
    assert sets["train"].labels.tolist() == [label for _, label in rows]
    names = tuple("abcdefghijkl")
    known = prepare_labels(config, Letters(), 0, names)["train"]
    assert known.names == names and known.labels.tolist() == [label for _, label in rows]
    assert "labels are numbers here" in "\n".join(known.notes)
    assert (prepare_labels(config, Letters(), 0, names[:5])["train"].labels == -1).all()  # 11 is no place of five


@given(st.lists(st.integers(0, 30), min_size=20, max_size=80), st.floats(0.01, 0.3))
def test_copies_of_a_text_are_on_one_side(tmp_path_factory, which, holdout):
    rows = [(f"text {i}" if n % 2 else f" TEXT {i}", "ab"[n % 2]) for n, i in enumerate(which)]
    train = table(tmp_path_factory.mktemp("l"), "a.csv", rows)
    config = DataConfig(kind="labels", train=train, holdout=holdout)
    try:
        sets = prepare_labels(config, Letters(), 0)
    except DataError as error:  # by chance of the hashes, a handful of texts may all be held out
        assert len(set(which)) < 12, error
        return
    texts = {part: {e.source.casefold() for e in found.examples()} for part, found in sets.items()}
    assert sum(map(len, texts.values())) == len(set.union(*texts.values())) == len(set(which))
    assert sum(len(found.labels) for found in sets.values()) == len(which)
    assert {text.casefold() for text in texts_for_tokenizer(config)} == texts["train"]


def test_what_is_said_of_the_labels(tmp_path):
    rows = [(f"t{i}", "x" if i % 50 else "y") for i in range(200)] + [("t", ""), ("", "x")]
    config = DataConfig(kind="labels", train=table(tmp_path, "a.csv", rows), holdout=0.0)
    said = told(prepare_labels(config, Letters(), 0))
    assert "200 texts to learn 2 labels from: 'x' 98.0%, 'y' 2.0%; always saying 'x' is right 98.0% of the time" in said
    assert "'y' is 49 times rarer: consider --training.class-weight balanced" in said
    assert "2 rows with no text or no label were skipped, the first at" in said and "a.csv line 202" in said
    fair = table(tmp_path, "b.csv", [(f"t{i}", "xy"[i % 2]) for i in range(20)])
    assert "rarer" not in told(prepare_labels(replace(config, train=fair), Letters(), 0))
    assert "no training example has the label 'z'" in told(prepare_labels(config, Letters(), 0, ("x", "y", "z")))


def test_many_labels_are_learnt_and_what_looks_missing_is_said(tmp_path):
    rows = [(f"t{i}", f"l{i % 2000}") for i in range(5000)]
    config = DataConfig(kind="labels", train=table(tmp_path, "a.csv", rows), holdout=0.0)
    sets = prepare_labels(config, Letters(), 0)
    assert len(sets["train"].names) == 2000 and "more than 1,000 labels; are the columns" in told(sets)
    assert "if it says" not in told(sets)
    half = [(f"t{i}", f"l{max(i, 5)}") for i in range(12)]  # six of twelve have a label of their own
    assert len(prepare_labels(replace(config, train=table(tmp_path, "b.csv", half)), Letters(), 0)["train"].names) == 7
    missing = [(f"t{i}", ("x", "NaN", "None", "x")[i % 4]) for i in range(8)]
    said = told(prepare_labels(replace(config, train=table(tmp_path, "c.csv", missing)), Letters(), 0))
    assert "2 texts have the label 'NaN': if it says that there is none, leave the cell empty" in said
    assert "2 texts have the label 'None'" in said and "label 'x':" not in said


def test_texts_of_test_files_that_training_has_too_are_counted(tmp_path):
    train = table(tmp_path, "a.csv", [(f"t{i}", "xy"[i % 2]) for i in range(40)])
    test = table(tmp_path, "b.csv", [("T3 ", "x"), ("new", "y"), ("t5", "x")])
    sets = prepare_labels(DataConfig(kind="labels", train=train, test=test, holdout=0.1), Letters(), 0)
    train_texts = {e.source for e in sets["train"].examples()}
    n = len({"t3", "t5"} & train_texts)
    assert n and f"{n} of 3 texts of test are also in training" in told(sets, "test")
    assert "also in training" not in told(sets, "valid") + told(sets)


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        ([(f"t{i}", "x") for i in range(9)], {}, "all 9 texts for training have the label 'x'"),
        ([(f"t{i}", f"l{i}") for i in range(9)], {}, "9 different labels in 9 texts: 'l0', 'l1'(?s:.*)the right ones"),
        ([(f"t{i}", f"l{max(i, 5)}") for i in range(13)], {}, "8 different labels in 13 texts"),
        ([("t", "x"), ("u", "y"), ("v", "y")], {"holdout": 0.4}, "no texts are left for train"),
        ([("t", "x")], {"columns": ("text", "lab")}, "no column 'lab'"),
        ([("t", "")], {}, "all 1 rows have no text or no label"),
    ],
)
def test_what_cannot_be_learnt_is_refused(tmp_path, rows, options, said):
    config = DataConfig(kind="labels", train=table(tmp_path, "a.csv", rows), **({"holdout": 0.0} | options))
    with pytest.raises(DataError, match=said):
        prepare_labels(config, Letters(), 0)


def test_other_columns_are_other_data(tmp_path):
    rows = "".join(f"a{i}\tb{i}\t{'xy'[i % 2]}\n" for i in range(9))
    (tmp_path / "a.tsv").write_text("text\ttitle\tlabel\n" + rows)
    config = DataConfig(kind="labels", train=(str(tmp_path / "a.tsv"),), holdout=0.0)
    first = [
        prepare_labels(replace(config, columns=columns), Letters(), 0)["train"].examples(1)[0].source
        for columns in ((), ("title", "label"), ("text", "label"))
    ]
    assert first == ["a0", "b0", "a0"]


def test_the_first_n_are_spread_over_a_sorted_file(tmp_path):
    rows = [(f"t{i}", "ab"[i // 50]) for i in range(100)]
    sets = prepare_labels(DataConfig(kind="labels", train=table(tmp_path, "a.csv", rows), holdout=0.0), Letters(), 0)
    some = sets["train"].first(10)
    assert some.labels.tolist() == [0] * 5 + [1] * 5 and len(some.texts) == 10
    assert [e.source for e in some.examples()] == [Letters().decode(some.texts[i]) for i in range(10)]
    assert some.examples(2) == some.examples()[:2]
    assert sets["train"].first(0) is sets["train"] and sets["train"].first(1000) is sets["train"]


# ---- sets to batches


@given(ROWS, st.integers(10, 90), st.integers(-5, 2**40), st.integers(0, 30))
def test_known_labels_come_once_per_epoch_and_all_when_judged(rows, batch_tokens, seed, epoch):
    data = made(rows, batch_tokens=batch_tokens, seed=seed)
    known = [i for i, (_, label) in enumerate(rows) if label >= 0]
    judged = [batch["rows"] for batch in data.sequential()]
    assert sorted(torch.cat(judged).tolist()) == list(range(len(rows)))
    if not known:
        with pytest.raises(DataError, match="no example has a label"):
            data.batch(0)
        return
    steps = range(epoch * data.steps_per_epoch, (epoch + 1) * data.steps_per_epoch)
    assert sorted(np.concatenate([data.rows(step) for step in steps]).tolist()) == known and len(data) == len(known)
    again = made(rows, batch_tokens=batch_tokens, seed=seed)
    for step in reversed(steps):
        one, other = data.batch(step), again.batch(step)
        assert all(torch.equal(one[name], other[name]) for name in one)


@given(ROWS.filter(lambda rows: rows[0][1] >= 0), st.sampled_from([None, 3, 6, 14]))
def test_what_a_batch_holds(rows, max_length):
    data = made(rows, max_length=max_length)
    n_cut = sum(max_length is not None and n + 2 > max_length for n, _ in rows)
    assert data.notes == (
        [f"{n_cut} of {len(rows)} texts are cut to the first {max_length - 2} tokens"] if n_cut else []
    )
    for batch, places in [(data.batch(0), data.rows(0)), *((b, b["rows"].numpy()) for b in data.sequential(50))]:
        assert batch["ids"].dtype == batch["labels"].dtype == torch.int64 and batch["keep"].dtype == torch.bool
        assert batch["ids"].shape[1] == batch["keep"].sum(1).max()
        for at, row in enumerate(places.tolist()):
            ids = [1, *data.ids[row].tolist()[: None if max_length is None else max_length - 2], 2]
            assert batch["ids"][at].tolist() == ids + [0] * (batch["ids"].shape[1] - len(ids))
            assert batch["keep"][at].tolist() == [True] * len(ids) + [False] * (batch["ids"].shape[1] - len(ids))
            assert batch["labels"][at] == rows[row][1]


def test_a_model_with_no_room():
    with pytest.raises(DataError, match="no room"):
        made([(3, 0)], max_length=2)


@pytest.mark.data
def test_sst2(corpora):
    folder = corpora / "labels" / "sst2"
    files = {
        part: (str(folder / f"{name}.tsv.gz"),)
        for part, name in (("train", "train"), ("valid", "dev"), ("test", "test"))
    }
    sets = prepare_labels(DataConfig(kind="labels", **files), Letters(), 0)  # type: ignore[arg-type]
    assert [len(found.texts) for found in sets.values()] == [60_614, 6735, 872]
    assert sets["test"].names == ("0", "1") and np.bincount(sets["test"].labels).tolist() == [428, 444]
    assert "always saying '1' is right 55.8% of the time" in told(sets)
    data = LabelData(sets["train"].texts, sets["train"].labels, pad_id=0, bos_id=1, eos_id=2, batch_tokens=16_384)
    assert data.buckets.padding() < 0.04
