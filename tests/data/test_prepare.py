"""Tokenised once, reused while nothing changed, made anew when something did; no part leaks into another."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.data.config import DataConfig
from pellucid.data.files import read_pairs
from pellucid.data.images import prepare_images
from pellucid.data.pairs import Edges, PairData
from pellucid.data.prepare import prepare_pairs, prepare_text, texts_for_tokenizer
from pellucid.data.tokenised import Writer, cached, open_ragged
from pellucid.errors import DataError
from pellucid.text.tokenizer import Tokenizer, train
from tests.data.fakes import Letters


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokenised"


class Counting(Letters):
    """Counts how often it is asked."""

    asked = 0

    def encode_batch(self, texts):
        self.asked += 1
        return super().encode_batch(texts)


@given(st.lists(st.lists(st.integers(0, 99_999), max_size=5), max_size=9), st.sampled_from([100_000, 1 << 16]))
def test_ragged_round_trip(tmp_path_factory, lists, vocab_size):
    lists = [[i % vocab_size for i in ids] for ids in lists]
    folder = tmp_path_factory.mktemp("r")
    with Writer(folder, "x", vocab_size) as writer:
        writer.extend(lists[:2])
        writer.extend(lists[2:])
    ragged = open_ragged(folder, "x")
    assert ragged.tokens.dtype == (np.uint16 if vocab_size == 1 << 16 else np.uint32)
    assert [r.tolist() for r in ragged] == lists and ragged.lengths.tolist() == [len(x) for x in lists]


def test_cache_is_reused_and_broken_ones_are_made_anew(cache):
    made = []

    def fill(folder):
        made.append(folder)
        (folder / "data").write_text("0123456789")

    first = cached({"a": 1}, fill)
    assert cached({"a": 1}, fill) == first and len(made) == 1
    assert cached({"a": 2}, fill) != first and len(made) == 2
    (first / "data").write_text("short")
    assert cached({"a": 1}, fill) == first and len(made) == 3 and (first / "data").read_text() == "0123456789"
    (first / "meta.json").write_text("{")
    assert cached({"a": 1}, fill) == first and len(made) == 4
    assert not list(cache.glob(".*"))


def test_a_failure_leaves_nothing_and_says_what_to_do(cache, monkeypatch, tmp_path):
    with pytest.raises(ZeroDivisionError):
        cached({"a": 1}, lambda folder: 1 / 0)  # type: ignore[arg-type,return-value]
    assert not list(cache.iterdir())
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match="set PELLUCID_CACHE"):
        cached({"a": 1}, lambda folder: None)


def test_runs_side_by_side(cache):
    def fill(folder):
        (folder / "data").write_text("x" * 1000)

    for key in range(20):
        with ThreadPoolExecutor(8) as pool:
            found = set(pool.map(lambda _, key=key: cached({"k": key}, fill), range(8)))
        assert len(found) == 1 and (found.pop() / "data").read_text() == "x" * 1000
    assert not list(cache.glob(".*"))


def pairs_file(folder, n=400):
    """Every source has two translations."""
    file = folder / "pairs.tsv"
    file.write_text("".join(f"source {i // 2}\ttarget {i}\n" for i in range(n)))
    return file


def test_pairs_are_tokenised_once(tmp_path):
    file, tokenizer = pairs_file(tmp_path), Counting()
    config = DataConfig(kind="pairs", train=(str(file),), holdout=0.1)
    parts = prepare_pairs(config, tokenizer, seed=0)
    asked = tokenizer.asked
    again = prepare_pairs(config, tokenizer, seed=1)
    assert tokenizer.asked == asked and np.array_equal(again["train"].sources.tokens, parts["train"].sources.tokens)
    file.write_text(file.read_text() + "one\tmore\n")
    prepare_pairs(config, tokenizer, seed=0)
    assert tokenizer.asked > asked


@given(n=st.integers(3, 200), holdout=st.floats(0.001, 0.3))
def test_parts_are_disjoint_by_source_and_complete(tmp_path_factory, n, holdout):
    file = pairs_file(tmp_path_factory.mktemp("p"), 2 * n)
    config = DataConfig(kind="pairs", train=(str(file),), holdout=holdout)
    try:
        parts = prepare_pairs(config, Letters(), seed=0)
    except DataError as error:  # by chance of the hashes a handful may all be held out
        assert "no pairs are left" in str(error) and n < 12
        return
    sources = {part: {e.source for e in found.examples()} for part, found in parts.items()}
    assert sorted(sources) == ["test", "train", "valid"] and all(sources.values())
    assert sum(len(s) for s in sources.values()) == len(set.union(*sources.values())) == n
    seen = set(list(texts_for_tokenizer(config))[::2])
    assert seen == sources["train"]
    assert sum(len(found.sources) for found in parts.values()) == 2 * n
    for found in parts.values():
        for i, example in enumerate(found.examples()):
            assert Letters().decode(found.sources[i]) == example.source
            assert Letters().decode(found.targets[i]) == example.target


def test_given_files_are_taken_whole(tmp_path):
    file = pairs_file(tmp_path)
    valid = tmp_path / "valid.tsv"
    valid.write_text("a\tb\nc\t\n")
    config = DataConfig(kind="pairs", train=(str(file),), valid=(str(valid),), holdout=0.0)
    parts = prepare_pairs(config, Letters(), seed=0)
    assert list(parts) == ["train", "valid"] and len(parts["train"].sources) == 400
    assert [tuple(e) for e in parts["valid"].examples()] == [("a", "b", "")] and "line 2" in parts["valid"].notes[1]


def test_too_few_pairs(tmp_path):
    file = tmp_path / "one.tsv"
    file.write_text("a\tb\n")
    with pytest.raises(DataError, match="no pairs are left for train"):
        prepare_pairs(DataConfig(kind="pairs", train=(str(file),)), Letters(), seed=0)


def test_made_pairs():
    config = DataConfig(kind="dates", examples=50, held_out=20)
    parts = prepare_pairs(config, Letters(1 << 20), seed=3)
    assert [len(p.sources) for p in parts.values()] == [50, 20, 20]
    assert (
        len(parts["train"].examples()) == 50
        and len(parts["test"].examples(5)) == 5
        and all(e.group for e in parts["test"].examples())
    )
    with pytest.raises(DataError, match="holdout"):
        prepare_pairs(DataConfig(kind="copy", holdout=0.7), Letters(), seed=0)


def test_text_is_cut_as_tiny_shakespeare_is(tmp_path):
    text = "".join(f"line {i} of a play, ö\n" for i in range(30_000))
    (tmp_path / "a.txt").write_text(text, encoding="utf-8", newline="\n")
    config = DataConfig(kind="text", train=(str(tmp_path / "a.txt"),), holdout=0.1)
    parts = prepare_text(config, Letters())
    assert list(parts) == ["train", "valid"]
    cut = int(len(text) * 0.9)
    assert Letters().decode(parts["train"].tokens) == "|" + text[:cut] == "|" + "".join(texts_for_tokenizer(config))
    assert Letters().decode(parts["valid"].tokens) == text[cut:]
    assert parts["valid"].n_bytes == len(text[cut:].encode()) and not parts["valid"].notes


def test_documents_begin_with_eos(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(name * 3)
    config = DataConfig(kind="text", train=(str(tmp_path / "*.txt"),), holdout=0.0)
    assert Letters().decode(prepare_text(config, Letters())["train"].tokens) == "|aaa|bbb"
    without = prepare_text(config, Letters(eos_id=None))["train"]
    assert Letters().decode(without.tokens) == "aaabbb"
    small = prepare_text(config, Letters(ord("b") + 4))["train"]
    assert "37.50% of the tokens of train are unknown" in small.notes[0]


@pytest.mark.data
def test_multi30k(corpora):
    folder = corpora / "pairs" / "multi30k"
    config = DataConfig(
        kind="pairs",
        train=(str(folder / "train.de.gz"), str(folder / "train.en.gz")),
        valid=(str(folder / "val.de.gz"), str(folder / "val.en.gz")),
        test=(str(folder / "test_2016_flickr.de.gz"), str(folder / "test_2016_flickr.en.gz")),
    )
    parts = prepare_pairs(config, Letters(), seed=0)
    assert [len(p.sources) for p in parts.values()] == [29_000, 1014, 1000]
    assert json.dumps(parts["test"].examples(1)[0]).startswith('["Ein Mann mit einem orangefarbenen Hut')
    train = parts["train"]
    data = PairData(train.sources, train.targets, Edges(0, [1], 2), batch_tokens=16_384)
    assert data.buckets.padding() < 0.08


@pytest.mark.slow
@pytest.mark.data
def test_tatoeba_has_no_sentence_on_both_sides(corpora):
    files = (str(corpora / "pairs" / "tatoeba-en-fr.tsv.gz"),)
    config = DataConfig(kind="pairs", train=files, holdout=0.01)
    n = sum(1 for _ in read_pairs(config.train))
    parts = prepare_pairs(config, Letters(), seed=0)
    assert sum(len(p.sources) for p in parts.values()) == n
    test, valid = ({e.source for e in parts[p].examples()} for p in ("test", "valid"))
    train = set(list(texts_for_tokenizer(config))[::2])
    assert not test & train and not valid & train and not test & valid
    assert 0.008 < len(parts["test"].sources) / n < 0.012


def test_columns_of_pairs_are_passed_on_and_part_of_the_key(tmp_path):
    (tmp_path / "a.csv").write_text("id,prompt,answer\n1,p,a\n2,q,b\n")
    for columns, first in [((), ("p", "a")), (("id", "answer"), ("1", "a")), (("answer", "id"), ("a", "1"))]:
        config = DataConfig(kind="pairs", train=(str(tmp_path / "a.csv"),), holdout=0.0, columns=columns)
        train = prepare_pairs(config, Letters(), 0)["train"]
        assert train.examples(1)[0][:2] == first and "header" in train.notes[0]
        assert next(texts_for_tokenizer(config)) == first[0]


@pytest.mark.parametrize("kind", ["text", "images", "copy"])
def test_columns_where_there_are_none_are_refused(tmp_path, kind):
    (tmp_path / "a.txt").write_text("text")
    config = DataConfig(kind=kind, train=(str(tmp_path / "a.txt"),), columns=("a", "b"))
    prepared = (
        lambda: next(texts_for_tokenizer(config)),
        lambda: prepare_images(config, 8, 1, 0) if kind == "images" else prepare_text(config, Letters()),
    )
    for prepare in prepared:
        with pytest.raises(DataError, match=f"data.columns is a b, and data.kind '{kind}' has no columns"):
            prepare()


@pytest.mark.parametrize(
    ("kind", "data", "said"),
    [
        ("labels", "text,label\n", "has a header and no rows"),
        ("labels", "text,label\na,x\n", "no texts are left for train"),
        ("labels", "text,label\n" + "pos,a\nneg,b\n" * 20, "no texts are left for train(?s:.*)few different ones"),
        ("labels", "text,label\n" + ",\n" * 20, "all 20 rows have no text or no label"),
        ("pairs", "a,b\n", "no pairs are left for train"),
        ("tags", "a b\n", "no sentences are left for train"),
    ],
)
def test_a_tokenizer_is_not_trained_on_nothing(tmp_path, kind, data, said):
    (tmp_path / "a.csv").write_text(data)
    with pytest.raises(DataError, match=said):
        list(texts_for_tokenizer(DataConfig(kind=kind, train=(str(tmp_path / "a.csv"),))))


def test_the_fast_engine_writes_the_same_tokens(tmp_path, monkeypatch):
    pytest.importorskip("gigatoken", reason="gigatoken, the fast engine, is not installed")
    text = "".join(f"line {i} of a play, ö\n" for i in range(20_000))
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(name + text, encoding="utf-8", newline="\n")
    config = DataConfig(kind="text", train=(str(tmp_path / "*.txt"),), holdout=0.1)
    tokenizer = train([text[:9000]], "byte-bpe", 300)
    before = {}
    for pays in (1, 10**9):
        monkeypatch.setattr("pellucid.text.bulk.PAYS", pays)
        monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / f"cache-{pays}"))
        parts = prepare_text(config, Tokenizer(tokenizer.library))
        tokens = {part: found.tokens.tolist() for part, found in parts.items()}
        assert pays == 1 or tokens == before
        before = tokens
    assert tokens["train"][0] == tokenizer.eos_id and tokens["train"].count(tokenizer.eos_id) == 2
    assert tokenizer.decode(tokens["train"] + tokens["valid"]) == f"a{text}b{text}"
