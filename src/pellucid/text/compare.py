"""What tokenizers make of one text, in numbers that can be set side by side.

A text is read once, line by line without the line ends (some kinds keep them, others never do), and only counts are
kept. Imports no torch.
"""

import math
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, islice

from pellucid.text.tokenizer import Tokenizer, spelled
from pellucid.text.training import END_OF_WORD

LINES_AT_ONCE = 2048
WORD = re.compile(r"\w+")
BARE: dict[str, Callable[[str], str]] = {  # a piece of each kind without the mark of where in a word it stands
    "byte-bpe": spelled,
    "byte-fallback-bpe": lambda piece: piece.replace("▁", " "),
    "bpe": lambda piece: piece.removesuffix(END_OF_WORD),
    "wordpiece": lambda piece: piece.removeprefix("##"),
    "unigram": lambda piece: piece.replace("▁", " "),
    "char": str,
    "word": str,
}


@dataclass
class Count:
    """What was counted of one tokenizer on a text. `seconds`: of encoding alone, all cores."""

    vocabulary: int
    lines: int = 0
    characters: int = 0
    bytes: int = 0
    tokens: int = 0
    unknown: int = 0
    lines_back: int = 0
    seconds: float = 0.0
    words: int = 0
    whole_words: int = 0
    pieces_of: dict[str, int] = field(default_factory=dict)

    def summary(self) -> dict[str, int | float]:
        """The numbers to compare; shares between 0 and 1, NaN where there was nothing to count."""
        return {
            "vocabulary": self.vocabulary,
            "tokens": self.tokens,
            "characters_per_token": _share(self.characters, self.tokens),
            "bytes_per_token": _share(self.bytes, self.tokens),
            "unknown": _share(self.unknown, self.tokens),
            "lines_that_come_back": _share(self.lines_back, self.lines),
            "words_kept_whole": _share(self.whole_words, self.words),
            "characters_per_second": _share(self.characters, self.seconds),
        }


@dataclass(frozen=True)
class Shared:
    """How many pieces two vocabularies have in common, and which share of each that is."""

    first: int
    second: int
    alike: int
    of_first: float
    of_second: float


@dataclass(frozen=True)
class Difference:
    """A word that tokenizers cut differently: how often it is there, and its pieces in each."""

    word: str
    times: int
    pieces: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Comparison:
    """One `Count` a tokenizer, what each two vocabularies share, the words that differ most."""

    counts: tuple[Count, ...]
    shared: tuple[Shared, ...]
    differences: tuple[Difference, ...]


def compare(tokenizers: Sequence[Tokenizer], texts: Iterable[str], n_words: int = 8) -> Comparison:
    """All tokenizers on all lines of the texts, which are read once. n_words: how many differing words are told."""
    counts = [Count(tokenizer.vocab_size) for tokenizer in tokenizers]
    words: Counter[str] = Counter()
    lines = (line for text in texts for line in text.removesuffix("\n").split("\n"))
    while some := list(islice(lines, LINES_AT_ONCE)):
        words.update(word for line in some for word in WORD.findall(line))
        for tokenizer, count in zip(tokenizers, counts, strict=True):
            add_lines(count, tokenizer, some)
    for tokenizer, count in zip(tokenizers, counts, strict=True):
        add_words(count, tokenizer, words)
    return Comparison(
        tuple(counts), tuple(overlaps(tokenizers)), tuple(differences(tokenizers, counts, words, n_words))
    )


def add_lines(count: Count, tokenizer: Tokenizer, lines: list[str]) -> None:
    """Encode and decode some lines, and count."""
    began = time.perf_counter()
    ids = tokenizer.encode_batch(lines)
    count.seconds += time.perf_counter() - began
    count.lines += len(lines)
    count.characters += sum(map(len, lines))
    count.bytes += sum(len(line.encode()) for line in lines)
    count.tokens += sum(map(len, ids))
    count.unknown += 0 if tokenizer.unk_id is None else sum(row.count(tokenizer.unk_id) for row in ids)
    count.lines_back += sum(a == b for a, b in zip(lines, tokenizer.decode_batch(ids), strict=True))


def add_words(count: Count, tokenizer: Tokenizer, words: Mapping[str, int]) -> None:
    """How many pieces each word takes, at the beginning of a text or behind a space, whichever is less."""
    distinct = list(words)
    first, inside = tokenizer.encode_batch(distinct), tokenizer.encode_batch([" " + word for word in distinct])
    count.pieces_of = {word: min(len(a), len(b)) for word, a, b in zip(distinct, first, inside, strict=True)}
    known = [tokenizer.unk_id not in a for a in first]
    count.words = sum(words.values())
    count.whole_words = sum(
        words[w] for w, is_known in zip(distinct, known, strict=True) if is_known and count.pieces_of[w] == 1
    )


def overlaps(tokenizers: Sequence[Tokenizer]) -> list[Shared]:
    """For each two of them: pieces that spell the same, wherever in a word they stand; special tokens do not count."""
    spelt = [
        {BARE[t.kind](piece).strip() for piece in t.library.get_vocab() if piece not in t.specials} - {""}
        for t in tokenizers
    ]
    found = []
    for first, second in combinations(range(len(tokenizers)), 2):
        alike = len(spelt[first] & spelt[second])
        found.append(Shared(first, second, alike, _share(alike, len(spelt[first])), _share(alike, len(spelt[second]))))
    return found


def differences(
    tokenizers: Sequence[Tokenizer], counts: Sequence[Count], words: Mapping[str, int], most: int
) -> list[Difference]:
    """The words whose cutting makes the greatest difference in tokens over the text, by how often they are there."""

    def weight(word: str) -> int:
        pieces = [count.pieces_of[word] for count in counts]
        return (max(pieces) - min(pieces)) * words[word]

    chosen = sorted((word for word in words if weight(word)), key=lambda word: (-weight(word), word))[:most]
    return [Difference(word, words[word], tuple(_shortest(t, word) for t in tokenizers)) for word in chosen]


def _shortest(tokenizer: Tokenizer, word: str) -> tuple[str, ...]:
    behind, first = (tokenizer.tokens(tokenizer.encode(text)) for text in (" " + word, word))
    return tuple(behind if len(behind) <= len(first) else first)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
