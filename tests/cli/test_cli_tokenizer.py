"""`pellucid tokenizer`: a tokenizer learnt, explained and compared as a user does it."""

import json
from pathlib import Path
from typing import get_args

import pytest

from pellucid.cli.tables import pad, quoted, table, visible
from pellucid.cli.tokenizer_compare import names
from pellucid.cli.tokenizer_train import KINDS
from pellucid.text.tokenizer import Kind, Tokenizer
from tests.cli.conftest import Shell

TEXT = "".join(
    f"the {age} {animal} sees the {one}.\n"
    for age in ("old", "new")
    for animal in ("dog", "cat")
    for one in ("man", "sea")
)
TRAIN = ("tokenizer", "train", "--data", "text.txt", "--vocab-size", "300")


def test_the_kinds_are_those_that_can_be_learnt() -> None:
    assert get_args(Kind) == KINDS


def test_train_saves_a_tokenizer_and_tells_what_it_does(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    told = json.loads(shell(*TRAIN, "--specials", "<mask>", "--out", "tok", "--json").stdout)
    tokenizer = Tokenizer.load(tmp_path / "tok")
    assert told["file"] == "tok/tokenizer.json" and tokenizer.special("<mask>") == 4
    ids = tokenizer.encode(TEXT)
    assert told["vocabulary"] == tokenizer.vocab_size and told["tokens"] == len(ids) and told["unknown"] == 0
    assert told["characters_per_token"] == pytest.approx(len(TEXT) / len(ids))
    plain = shell(*TRAIN, "--kind", "word", "--lowercase", "--out", "words.json")
    assert "13 (300 were asked for; the text has no more pieces)" in plain.stdout and plain.returncode == 0
    before = (tmp_path / "tok/tokenizer.json").read_bytes()
    again = shell(*TRAIN, "--out", "tok")
    assert again.returncode == 2 and "not written over" in again.stderr
    assert (tmp_path / "tok/tokenizer.json").read_bytes() == before


def test_explain_tells_the_way_there_and_back(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    shell(*TRAIN, "--out", "tok")
    tokenizer = Tokenizer.load(tmp_path / "tok")
    said = shell("tokenizer", "explain", "tok", "the old dog", "the the").stdout
    assert "merge" in said and "(2 times)" not in said and said.count("the text as it was") == 2
    assert "ids      " + " ".join(map(str, tokenizer.encode("the old dog"))) in said
    one, two = map(json.loads, shell("tokenizer", "explain", "tok", "--json", stdin="sea, 龍\nx\n").stdout.splitlines())
    assert (
        one["ids"] == tokenizer.encode("sea, 龍") and one["same"] and one["decoded"] == "sea, 龍" and two["text"] == "x"
    )
    assert [i for word in one["words"] for i in word["ids"]] == one["ids"]
    nothing = shell("tokenizer", "explain", "nowhere", "x")
    assert nothing.returncode == 3 and "nowhere" in nothing.stderr


def test_explain_learns_as_the_paper_does(shell: Shell, tmp_path: Path) -> None:
    """Sennrich et al. 2016, figure 1's words; every merge with its count and its ties."""
    (tmp_path / "words.txt").write_text("low " * 5 + "lower " * 2 + "newest " * 6 + "widest " * 3, encoding="utf-8")
    ran = shell("tokenizer", "explain", "--learn", "words.txt", "--merges", "4", "--json", "lowest")
    *merges, applied = map(json.loads, ran.stdout.splitlines())
    assert [merge["pair"] for merge in merges] == [["e", "s"], ["es", "t</w>"], ["l", "o"], ["e", "w"]]
    assert [merge["count"] for merge in merges] == [9, 9, 7, 6] and ["n", "e"] in merges[3]["ties"]
    assert applied["steps"][-1] == ["lo", "w", "est</w>"]
    plain = shell("tokenizer", "explain", "--learn", "words.txt", "--merges", "99", "lowest").stdout
    assert "16 words, 4 different" in plain and "no pair is there twice" in plain and "as often: " in plain


def test_compare_sets_tokenizers_side_by_side(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    for kind in ("char", "byte-bpe"):
        shell(*TRAIN, "--kind", kind, "--out", kind)
    found = json.loads(shell("tokenizer", "compare", "char", "byte-bpe", "--data", "text.txt", "--json").stdout)
    char, in_bytes = found["tokenizers"]
    assert (
        char["characters_per_token"] == 1 < in_bytes["characters_per_token"] and in_bytes["lines_that_come_back"] == 1
    )
    assert found["shared"][0]["first"] == "char" and found["differences"][0]["word"] == "the"
    lines = shell("tokenizer", "compare", "char", "byte-bpe", "the old dog").stdout.split("\n")
    assert lines[0].split() == ["char", "byte-bpe"] and len({len(line) for line in lines[:9]}) == 1
    assert "t·h·e" in "\n".join(lines)
    for words, problem in [
        (("char", "byte-pbe", "a text"), "byte-pbe"),
        (("char", "byte-bpe"), "nothing to compare on"),
        (("char", "byte-bpe", "wrod", "--data", "text.txt"), "'wrod'"),
    ]:
        ran = shell("tokenizer", "compare", *words)
        assert ran.returncode == 2 and problem in ran.stderr


def test_an_unknown_part_is_named(shell: Shell) -> None:
    assert "did you mean 'compare'" in shell("tokenizer", "compair").stderr
    assert shell("tokenizer").returncode == 2 and shell("tokenizer", "--help").returncode == 0


def test_tables_align_wide_characters() -> None:
    assert table([("龍", "1"), ("abc", "22")], right={1}).split("\n") == ["龍    1", "abc  22"]
    assert pad("龍", 3) == "龍 " and visible("a b\n\x07") == "a␣b↵<U+0007>" and quoted(" a\t") == '" a⇥"'
    assert names(["runs/a", "x/gpt2/vocab.json"]) == ["a", "gpt2"] and names(["a/t", "b/t"]) == ["a/t", "b/t"]
