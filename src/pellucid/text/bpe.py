"""Byte pair encoding as the papers tell it: begin with letters, again and again join the most frequent pair.

Gage 1994 ("A New Algorithm for Data Compression") joined pairs of bytes; Sennrich, Haddow and Birch 2016 (arXiv
1508.07909) made subword units of it: only pairs inside words count, and a word's last letter carries a mark, so
that "est</w>" (newest) is not "est" (estimate). Merge for merge what the `tokenizers` library does (a test holds
that), but all pairs are counted anew for every merge: slow, and easy to follow.

Ties: of the pairs that occur most often, the one whose left symbol came first into the vocabulary, then whose
right symbol did. Symbols come in thus: letters by code point, marked last letters by code point, then what each
merge made. So the order of the text does not matter. Overlaps: "aaa" counts (a, a) twice, and joins to "aa", "a".
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

END = "</w>"
Pair = tuple[str, str]


@dataclass(frozen=True)
class Step:
    """One merge: how often each pair occurred, which was joined, and all that occurred as often, best first."""

    counts: Mapping[Pair, int]
    pair: Pair
    ties: tuple[Pair, ...]

    @property
    def joined(self) -> str:
        return "".join(self.pair)


@dataclass(frozen=True)
class Merges:
    """What was learnt: `pairs` in the order they were joined, and `symbols`: the letters, then what was made."""

    pairs: tuple[Pair, ...]
    symbols: tuple[str, ...]


def spell(word: str) -> list[str]:
    """low -> l o w</w>"""
    return [*word[:-1], word[-1] + END] if word else []


def join(symbols: list[str], pair: Pair) -> list[str]:
    """Every occurrence of the pair as one symbol, from left to right."""
    joined, at = [], 0
    while at < len(symbols):
        found = tuple(symbols[at : at + 2]) == pair
        joined.append("".join(pair) if found else symbols[at])
        at += 2 if found else 1
    return joined


def letters(words: Collection[str]) -> list[str]:
    """The symbols to begin with: every letter, then every letter that ends a word, with its mark."""
    marked = {word[-1] + END for word in words if word}
    return sorted({letter for word in words for letter in word}) + sorted(marked)


def steps(words: Mapping[str, int], min_count: int = 2) -> Iterator[Step]:
    """Each merge in turn, from words and how often each occurs, until no pair occurs `min_count` times."""
    spelled = {word: spell(word) for word in words}
    came = {symbol: place for place, symbol in enumerate(letters(words))}
    while True:
        counts: Counter[Pair] = Counter()
        for word, symbols in spelled.items():
            for pair in pairwise(symbols):
                counts[pair] += words[word]
        most = max(counts.values(), default=0)
        if most < min_count:
            return
        ties = sorted((p for p in counts if counts[p] == most), key=lambda p: (came[p[0]], came[p[1]]))
        yield Step(counts, ties[0], tuple(ties))
        came.setdefault("".join(ties[0]), len(came))
        spelled = {word: join(symbols, ties[0]) for word, symbols in spelled.items()}


def learn(
    lines: Iterable[str],
    vocab_size: int | None = None,
    n_merges: int | None = None,
    n_special: int = 4,
    split: Callable[[str], list[str]] = str.split,
) -> Merges:
    """Learn until `vocab_size` symbols and special tokens are there, `n_merges` are made, or no pair repeats.

    `split` cuts a line into words; `Tokenizer.words` of a "bpe" tokenizer cuts exactly as that one does.
    """
    words = Counter(word for line in lines for word in split(line))
    symbols = dict.fromkeys(letters(words))  # a dict as an ordered set: two merges may give one symbol
    pairs: list[Pair] = []
    for step in steps(words):
        full = vocab_size is not None and len(symbols) + n_special >= vocab_size
        if full or len(pairs) == n_merges:
            break
        pairs.append(step.pair)
        symbols.setdefault(step.joined)
    return Merges(tuple(pairs), tuple(symbols))


def apply(word: str, merges: Merges) -> list[str]:
    """The pieces of a word: again and again the pair that was learnt first is joined, the leftmost first."""
    return [*apply_steps(word, merges)][-1]


def apply_steps(word: str, merges: Merges) -> Iterator[list[str]]:
    """The word's letters, then its pieces after each merge."""
    rank = {pair: place for place, pair in enumerate(merges.pairs)}
    symbols = spell(word)
    yield symbols
    while known := [(rank[pair], at) for at, pair in enumerate(pairwise(symbols)) if pair in rank]:
        at = min(known)[1]
        symbols = [*symbols[:at], symbols[at] + symbols[at + 1], *symbols[at + 2 :]]
        yield symbols
