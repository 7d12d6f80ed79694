"""Explanations of tokenizers: the steps end in the ids that encode gives, for every kind and any text; comparisons count right."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken

from pellucid.errors import UserError
from pellucid.text.compare import compare
from pellucid.text.explain import FOLDS, Explainer, what_is_lost
from pellucid.text.segmenting import Joined, Unigram
from pellucid.text.tokenizer import Kind, Tokenizer, train
from tests.text.test_tokenizer import KINDS, LINES, TRAINED, each_kind, familiar, texts

LOWERED = {kind: train(LINES, kind, 400, lowercase=True) for kind in KINDS}
ODD = "a<pad> ÄÖ 龍龍 🙂\t\n  ##the</w> \u200b\x07 unnewestest"


@each_kind
@given(st.one_of(texts, familiar))
@example("")
@example(ODD)
@example("lowest " * 30)
@example("x" * 120)  # longer than WordPiece looks at
def test_the_steps_end_in_the_ids(kind: Kind, text: str) -> None:
    for tokenizer in (TRAINED[kind], LOWERED[kind]):
        told = Explainer(tokenizer).explain(text)
        assert [*told.ids] == tokenizer.encode(text) == [i for word in told.words for i in word.told.ids]
        assert (not told.lost) == (told.decoded == text)
        for word in told.words:
            joins = [step for step in word.told.steps if isinstance(step, Joined)]
            assert len(word.told.start) - len(joins) == len(word.told.ids) or kind != "byte-bpe"
            assert all("".join(step.pair) in step.pieces or "<0x" in "".join(step.pair) for step in joins)


@pytest.mark.data
def test_the_steps_of_real_tokenizers_end_in_their_ids(corpora: Path) -> None:
    lines = (corpora / "text/tinyshakespeare.txt").read_text(encoding="utf-8").split("\n")[:400]
    for name in (
        "tokenizers/gpt2",
        "tokenizers/bert-base-uncased",
        "weights/stories260K",
        "weights/stories260K/tok512.bin",
    ):
        explainer = Explainer(Tokenizer.load(corpora / name))
        for text in (*lines, ODD, "Hund läuft, 龍!", "naïve café"):
            explainer.explain(text)


@given(familiar.filter(str.strip))
def test_unigram_tells_the_best_ways_first(text: str) -> None:
    model = Unigram(TRAINED["unigram"]._state["model"], n_best=4)
    for word in TRAINED["unigram"].words(text):
        ways = model.ways(word)
        assert [way.total for way in ways] == sorted((way.total for way in ways), reverse=True)
        assert len({way.pieces for way in ways}) == len(ways) and all("".join(way.pieces) == word for way in ways)
        assert all(abs(sum(way.scores) - way.total) < 1e-9 for way in ways)


def test_a_token_of_its_own_is_followed_or_refused() -> None:
    tokenizer = Tokenizer(train(LINES, "byte-bpe", 300).library)
    tokenizer.library.add_tokens(["TOOL"])
    told = Explainer(Tokenizer(tokenizer.library)).explain("the TOOL, TOOLs")
    assert [word.added for word in told.words].count(True) == 2
    tokenizer.library.add_tokens([AddedToken("dog", single_word=True)])
    with pytest.raises(UserError, match="more than can be told"):
        Explainer(Tokenizer(tokenizer.library)).explain("a dogma")


@pytest.mark.parametrize(
    "text, back, expected",
    [
        ("a  b", "a b", ["white space"]),
        ("Ab", "ab", ["upper and lower case"]),
        ("É x", "ex", ["white space", "upper and lower case", "accents"]),
        ("ﬁne", "fine", ["which of several ways to write a character"]),
        ("same", "same", []),
    ],
)
def test_what_is_lost_is_named(text: str, back: str, expected: list[str]) -> None:
    assert [*what_is_lost(text, back, [])] == expected and set(expected) <= set(FOLDS)
    assert "from character 2" in [*what_is_lost("abc", "axc", [])][0]
    assert "'龍'" in [*what_is_lost("龍", "", ["龍", "龍"])][0]


# ---- comparing


def test_comparisons_count_every_line_once() -> None:
    text = "the lowest of the newest\nis not the widest\n"
    found = compare(
        [TRAINED["char"], TRAINED["byte-bpe"], TRAINED["wordpiece"]], [text, "the end, yes", "  two  spaces"]
    )
    char, in_bytes, pieces = found.counts
    assert char.tokens == char.characters == in_bytes.characters == len("".join(text.split("\n"))) + 12 + 13
    assert char.lines == 4 and in_bytes.lines_back == 4 and pieces.lines_back == 3
    assert char.words == 14 and char.whole_words == 0 < in_bytes.whole_words
    for count, tokenizer in zip(
        found.counts, (TRAINED["char"], TRAINED["byte-bpe"], TRAINED["wordpiece"]), strict=True
    ):
        assert count.tokens == sum(
            len(tokenizer.encode(line)) for line in (*text.split("\n")[:2], "the end, yes", "  two  spaces")
        )


def test_equal_tokenizers_share_all_and_differ_nowhere() -> None:
    for tokenizer in TRAINED.values():
        found = compare([tokenizer, tokenizer], LINES)
        assert found.shared[0].of_first == found.shared[0].of_second == 1.0 and not found.differences


def test_pieces_are_alike_by_what_they_spell() -> None:
    lines = ["the newest"] * 9
    found = compare([train(lines, kind, 600) for kind in ("byte-bpe", "bpe", "wordpiece", "unigram", "word")], lines)
    words = {(one.first, one.second): one.alike for one in found.shared}
    assert words[0, 4] == words[1, 4] == words[2, 4] == 2  # "the" and "newest", however their kind marks them


def test_the_words_that_differ_most_come_first() -> None:
    found = compare([TRAINED["char"], TRAINED["byte-bpe"]], ["newest " * 5 + "the " * 5 + "zq zq"], n_words=2)
    first, second = found.differences
    assert (first.word, first.times, first.pieces[0]) == ("newest", 5, tuple("newest")) and second.word == "the"
