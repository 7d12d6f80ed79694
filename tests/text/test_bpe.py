"""Byte pair encoding by hand, and merge for merge the library's."""

import json
from collections import Counter

from hypothesis import example, given
from hypothesis import strategies as st

from pellucid.errors import UserError
from pellucid.text import bpe
from pellucid.text.tokenizer import Tokenizer, train

# Few letters and long words make ties, overlaps ("aaa") and symbols that can be made in two ways.
crowded = st.lists(st.text(alphabet="ab ", min_size=1, max_size=60), min_size=1, max_size=4)
mixed = st.lists(st.text(alphabet="abcdeé春眠 <>/w\n", min_size=1, max_size=60), min_size=1, max_size=6)


def library_merges(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    return [(left, right) for left, right in json.loads(tokenizer.library.to_str())["model"]["merges"]]


def trained(lines: list[str], vocab_size: int) -> Tokenizer | None:
    """The library's, or None where the lines hold no word or more letters than fit."""
    try:
        return train(lines, "bpe", vocab_size)
    except UserError:
        return None


@given(st.one_of(crowded, mixed), st.integers(8, 90))
@example(["aaaa aaa aaaaaaa"], 30)
@example(["abab baba ab ba"], 30)
@example(["<pad>x <pad>x </w> x</w>y x</w>y"], 60)
def test_merges_and_pieces_equal_the_librarys(lines: list[str], vocab_size: int) -> None:
    library = trained(lines, vocab_size)
    if library is None:
        return
    merges = bpe.learn(lines, vocab_size, split=library.words)
    assert list(merges.pairs) == library_merges(library)
    assert list(merges.symbols) == [library.library.id_to_token(i) for i in range(4, library.vocab_size)]
    for line in [*lines, "abba baab aaaaa ab"]:
        words = [word for word in library.words(line) if set(bpe.spell(word)) <= set(merges.symbols)]
        for word in words:
            assert bpe.apply(word, merges) == library.tokens(library.encode(word))


def test_the_papers_example() -> None:
    words = {"low": 5, "lower": 2, "newest": 6, "widest": 3}
    taken = [step.pair for step, _ in zip(bpe.steps(words), range(4), strict=False)]
    # Sennrich et al., algorithm 1, with the mark on the last letter, and our ties: (e, s) and (s, t</w>) both 9 times
    assert taken[:2] == [("e", "s"), ("es", "t</w>")]
    assert ("l", "o") in taken


def test_ties_go_to_the_symbol_that_came_first() -> None:
    step = next(bpe.steps({"zx": 2, "xz": 2, "ab": 2}))
    assert step.ties == (("a", "b</w>"), ("x", "z</w>"), ("z", "x</w>"))
    assert step.pair == step.ties[0] and step.counts[step.pair] == 2 and step.joined == "ab</w>"


def test_it_stops_where_no_pair_repeats_or_enough_is_learnt() -> None:
    assert bpe.learn(["abc def"]).pairs == ()
    lines = ["banana banana bandana"]
    everything = bpe.learn(lines)
    assert bpe.learn(lines, n_merges=2).pairs == everything.pairs[:2]
    assert len(bpe.learn(lines, vocab_size=4 + 6).symbols) == 6
    assert bpe.learn(lines, vocab_size=1).pairs == ()
    assert bpe.learn([]).symbols == ()


def test_joining_goes_from_left_to_right() -> None:
    assert bpe.join(list("aaaaa"), ("a", "a")) == ["aa", "aa", "a"]
    assert bpe.join(list("abab"), ("a", "b")) == ["ab", "ab"]


def test_applying_tells_every_step() -> None:
    merges = bpe.learn(["low low lower newest newest widest"])
    told = list(bpe.apply_steps("lowest", merges))
    assert told[0] == ["l", "o", "w", "e", "s", "t</w>"] and told[-1] == bpe.apply("lowest", merges)
    assert [len(pieces) for pieces in told] == list(range(6, 6 - len(told), -1))
    assert bpe.apply("", merges) == []


def test_the_order_of_the_lines_does_not_matter() -> None:
    lines = ["so it is", "it was so", "that is it", "it sat"]
    assert bpe.learn(lines) == bpe.learn(lines[::-1])
    assert Counter(library_merges(train(lines, "bpe", 60))) == Counter(library_merges(train(lines[::-1], "bpe", 60)))
