"""Tagged words: what files hold, which piece carries the tag, batches with targets where words begin."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pellucid.data.config import DataConfig
from pellucid.data.conll import read_sentences
from pellucid.data.prepare import texts_for_tokenizer
from pellucid.data.tagged import TagData, prepare_tags, word_pieces
from pellucid.data.text import IGNORE
from pellucid.data.tokenised import Ragged
from pellucid.errors import DataError
from pellucid.text.tokenizer import train
from tests.data.fakes import Letters

WORD = st.text("abcde.'Ä", min_size=1, max_size=6)
SENTENCES = st.lists(st.lists(st.tuples(WORD, st.sampled_from("xyz")), min_size=1, max_size=6), min_size=1, max_size=12)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))


def conll(path, sentences, between="\t"):
    path.write_text("".join("".join(f"{w}{between}{t}\n" for w, t in s) + "\n" for s in sentences), encoding="utf-8")
    return (str(path),)


def plain(sentences):
    return [tuple(zip(*sentence, strict=True)) for sentence in sentences]


@given(SENTENCES, st.sampled_from(["\t", " ", " NN I-NP "]))
def test_conll_and_jsonl_hold_the_same(tmp_path_factory, sentences, between):
    folder = tmp_path_factory.mktemp("t")
    assert list(map(tuple, read_sentences(conll(folder / "a.conll", sentences, between)))) == plain(sentences)
    lines = (json.dumps({"tokens": words, "ner_tags": tags}) + "\n" for words, tags in plain(sentences))
    (folder / "a.jsonl").write_text("".join(lines))
    assert list(map(tuple, read_sentences([str(folder / "a.jsonl")]))) == plain(sentences)


def test_comments_numbers_and_columns(tmp_path):
    (tmp_path / "a.txt").write_text("-DOCSTART- -X- O\n\n# id = 1\n1 a DET\n# # SYM\n\n\n2 b c NOUN\n")
    files = [str(tmp_path / "a.txt")]
    assert list(read_sentences(files)) == [(("1", "#"), ("DET", "SYM")), (("2",), ("NOUN",))]
    assert list(read_sentences(files, ("2", "1"))) == [(("a", "#"), ("1", "#")), (("b",), ("2",))]
    (tmp_path / "a.jsonl").write_text('{"words": ["a", "b"], "labels": [3, 0]}\n{"words": [], "labels": []}\n')
    notes: list[str] = []
    assert list(read_sentences([str(tmp_path / "a.jsonl")], (), notes)) == [(("a", "b"), ("3", "0"))]
    assert "1 sentences" in notes[0] and notes[1].endswith("a.jsonl: 'words' is the words, 'labels' the tags")
    read_tags: list[str] = []
    list(read_sentences(files, (), read_tags))
    assert read_tags == [f"{files[0]}: words and tags are columns 1 and the last"]


def test_conll_u(tmp_path):
    lines = [("1-2", "im", "_"), ("1", "in", "ADP"), ("2", "dem", "DET"), ("3", "Haus", "NOUN"), ("3.1", "ist", "VERB")]
    rows = "".join(f"{n}\t{word}\t{word}\t{tag}\tX\t_\t0\troot\t_\tSpaceAfter=No\n" for n, word, tag in lines)
    (tmp_path / "a.conllu").write_text(f"# text = im Haus\n{rows}\n{rows}")
    notes: list[str] = []
    files = [str(tmp_path / "a.conllu")]
    assert list(read_sentences(files, (), notes)) == [(("in", "dem", "Haus"), ("ADP", "DET", "NOUN"))] * 2
    assert notes == [f"{files[0]}: CoNLL-U; words and tags are columns 2 and 4"]
    assert next(read_sentences(files, ("1", "5"))) == (("1", "2", "3"), ("X", "X", "X"))


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"id": ["0"], "tokens": [["a", "b"]], "ner_tags": [[3, 0]]})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert list(read_sentences([str(tmp_path / "a.parquet")])) == [(("a", "b"), ("3", "0"))]


@pytest.mark.parametrize(
    ("name", "data", "columns", "said"),
    [
        ("a.conll", "a\tx\nb\n", (), r"a\.conll line 2: a word and its tag are needed: 'b'"),
        ("a.conll", "a\tx\nb\t\n", (), "line 2: a word and its tag"),
        ("a.conll", "a x\n", ("1", "4"), "line 1: a word and its tag"),
        ("a.conll", "a x\n", ("word", "tag"), "numbers, from 1"),
        ("a.conll", "\n-DOCSTART- x\n", (), "has no tagged words"),
        ("a.jsonl", '{"tokens": ["a"], "tags": []}', (), "line 1: 1 tokens, 0 tags"),
        ("a.jsonl", '{"tokens": ["a", " "], "tags": [1, 2]}', (), "line 1: number 2 of 'tokens' is empty"),
        ("a.jsonl", '{"tokens": "a", "tags": "x"}', (), "line 1: 'tokens' is no list"),
        ("a.jsonl", '{"a": ["a"], "b": ["x"], "c": [1]}', (), "which column is the words, which the tags"),
        ("a.jsonl", '{"a": ["a"], "b": ["x"]}', (), "which column is the words(?s:.*)There are: a, b"),
        ("a.jsonl", "{", (), "line 1 is not JSON"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, name, data, columns, said):
    (tmp_path / name).write_text(data)
    with pytest.raises(DataError, match=said):
        list(read_sentences([str(tmp_path / name)], columns))


@pytest.mark.parametrize("kind", ["byte-bpe", "bpe", "wordpiece", "unigram", "char", "word"])
def test_words_by_themselves_are_the_pieces_of_the_sentence(kind):
    lines = ["the old dog sees the new cat", "a cat sees another dog", "no dog saw them"] * 3
    tokenizer = train(lines, kind, 300 if kind == "byte-bpe" else 80)
    sentences = [line.split() for line in lines]
    for line, pieces in zip(lines, word_pieces(tokenizer, sentences), strict=True):
        assert [i for word in pieces for i in word] == tokenizer.encode(line)
        assert len(pieces) == len(line.split()) and all(pieces)


def test_a_word_of_which_nothing_is_left_is_unknown():
    class Forgetful(Letters):
        def encode_batch(self, texts):
            return [ids if text != "?" else [] for text, ids in zip(texts, super().encode_batch(texts), strict=True)]

        kind = "wordpiece"

    assert word_pieces(Forgetful(), [["a", "?"], [], ["?"]]) == [[[ord("a") + 4], [3]], [], [[3]]]


@given(SENTENCES)
def test_the_first_piece_carries_the_tag(tmp_path_factory, sentences):
    files = conll(tmp_path_factory.mktemp("t") / "a.conll", sentences)
    config = DataConfig(kind="tags", train=files, holdout=0.0)
    names = ("x", "y", "z")
    found = prepare_tags(config, Letters(), 0, names)["train"]
    assert list(map(tuple, found.examples())) == plain(sentences)
    assert list(texts_for_tokenizer(config)) == [" ".join(words) for words, _ in plain(sentences)]
    for i, (words, tags) in enumerate(plain(sentences)):
        assert Letters().decode(found.ids[i]) == " ".join(words)
        assert [names[k] for k in found.tags[i] if k != IGNORE] == list(tags)
        at = np.cumsum([0, len(words[0]), *(len(word) + 1 for word in words[1:])])[:-1]
        assert np.flatnonzero(found.tags[i] != IGNORE).tolist() == at.tolist()


def test_unseen_tags_and_parts(tmp_path):
    train_files = conll(tmp_path / "a", [[(f"w{i}", "O"), ("x", "B")] for i in range(60)])
    config = DataConfig(
        kind="tags", train=train_files, test=conll(tmp_path / "b", [[("w", "Q"), ("v", "O")]]), holdout=0.1
    )
    sets = prepare_tags(config, Letters(), 0)
    assert sets["train"].names == ("B", "O") and sets["test"].tags[0].tolist() == [-1, 1, IGNORE]
    assert "1 words of test have a tag that training never shows ('Q')" in sets["test"].notes[-1]
    assert "always saying 'B' is right 50.0% of the time" in sets["train"].notes[-1]
    words = [{" ".join(e.words) for e in sets[part].examples()} for part in ("train", "valid")]
    assert not words[0] & words[1] and len(words[0] | words[1]) == 60
    some = sets["train"].first(5)
    assert len(some.ids) == len(some.tags) == len(some.examples()) == 5
    data = TagData(sets["test"].ids, sets["test"].tags, pad_id=0, bos_id=1, eos_id=2, batch_tokens=50)
    assert data.batch(0)["targets"].tolist() == [[IGNORE, IGNORE, 1, IGNORE, IGNORE]]
    (judged,) = data.sequential()
    assert judged["targets"].tolist() == [[IGNORE, -1, 1, IGNORE, IGNORE]]


@given(
    st.lists(st.lists(st.sampled_from([IGNORE, -1, 0, 1]), min_size=1, max_size=9), min_size=1, max_size=20),
    st.sampled_from([None, 5, 8]),
    st.integers(0, 100),
)
def test_batches_of_tags(tags, max_length, seed):
    def made():
        ids = Ragged.of([[10 * i + 4 + j for j in range(len(row))] for i, row in enumerate(tags)])
        options = {"pad_id": 0, "bos_id": 1, "eos_id": 2, "batch_tokens": 20}
        return TagData(ids, Ragged.of(tags), **options, seed=seed, max_length=max_length)

    data, longest = made(), None if max_length is None else max_length - 2
    learnt = [i for i, row in enumerate(tags) if max(row[:longest]) >= 0]
    judged = list(data.sequential())
    assert sorted(torch.cat([batch["rows"] for batch in judged]).tolist()) == list(range(len(tags)))
    read, lost = (sum(t != IGNORE for row in rows for t in row) for rows in ([r[:longest] for r in tags], tags))
    assert sum(int((batch["targets"] != IGNORE).sum()) for batch in judged) == read
    assert data.notes == [] or f": {lost - read} of their words are not read" in data.notes[0]
    for batch in judged:
        for ids, keep, targets, row in zip(
            *(batch[name].tolist() for name in ("ids", "keep", "targets", "rows")), strict=True
        ):
            cut = tags[row][:longest]
            assert [t for t, real in zip(targets, keep, strict=True) if real] == [IGNORE, *cut, IGNORE]
            assert [i for i, real in zip(ids, keep, strict=True) if real] == [1, *data.ids[row][:longest], 2]
            assert set(ids[sum(keep) :]) <= {0} and set(targets[sum(keep) :]) <= {IGNORE}
    if not learnt:
        return
    steps = range(3 * data.steps_per_epoch, 4 * data.steps_per_epoch)
    assert sorted(np.concatenate([data.rows(step) for step in steps]).tolist()) == learnt and len(data) == len(learnt)
    other = made()
    for step in reversed(steps):
        assert all(torch.equal(value, other.batch(step)[name]) for name, value in data.batch(step).items())
        assert (data.batch(step)["targets"] >= 0).any() and not (data.batch(step)["targets"] == -1).any()
