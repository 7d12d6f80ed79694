"""How each kind of tokenizer cuts one word into pieces, told step by step: the slow twin of the library's models.

BPE joins the pair that was learnt first, again and again (Sennrich et al. 2016, arXiv 1508.07909); WordPiece takes the
longest piece it knows from the left (Schuster and Nakajima 2012); unigram takes the likeliest of all ways to cut the word
(Kudo 2018, arXiv 1804.10959; the search is Viterbi's); characters and words are looked up. A model is read from the
"model" of a tokenizer.json, whoever made it. Imports no torch.
"""

from collections.abc import Callable
from itertools import groupby, pairwise
from typing import Any, NamedTuple

Ids = list[int]
UNKNOWN_COSTS = 10.0  # nats that a character without a piece is below the worst piece, as in SentencePiece


class Joined(NamedTuple):
    """One merge of BPE: `rank` 1 was learnt first; `pieces` is the word after it."""

    rank: int
    pair: tuple[str, str]
    pieces: tuple[str, ...]


class Matched(NamedTuple):
    """One step of WordPiece: of what was left of the word, the longest piece known; `longer` that are longer were not.

    piece None: not even its first letter is known, and so the word is not.
    """

    left: str
    piece: str | None
    longer: int


class Way(NamedTuple):
    """One way to cut a word: its pieces with their log-probabilities (nats), and the sum."""

    pieces: tuple[str, ...]
    scores: tuple[float, ...]
    total: float


class Told(NamedTuple):
    """A word as ids, with what it began as (`start`), what was done, and for unigram the best ways to cut it."""

    ids: Ids
    start: tuple[str, ...]
    steps: tuple[Joined | Matched, ...] = ()
    ways: tuple[Way, ...] = ()


class BPE:
    """Merges over letters or bytes; without merges, a table of characters."""

    def __init__(self, model: dict[str, Any], show: Callable[[str], str] = str) -> None:
        self.ids: dict[str, int] = model["vocab"]
        self.show = {i: show(piece) for piece, i in self.ids.items()}
        self.prefix, self.suffix = model["continuing_subword_prefix"] or "", model["end_of_word_suffix"] or ""
        self.unknown = self.ids.get(model["unk_token"] or "")
        self.fuses, self.in_bytes, self.whole = model["fuse_unk"], model["byte_fallback"], model["ignore_merges"]
        pairs = [pair.split(" ", 1) if isinstance(pair, str) else pair for pair in model["merges"]]
        self.merges = {
            (self.ids[left], self.ids[right]): (rank, self.ids[left + right[len(self.prefix) :]])
            for rank, (left, right) in enumerate(pairs, 1)
        }

    def tell(self, word: str) -> Told:
        """The word's symbols, then each merge: of the pairs that can be joined the one learnt first, the leftmost first."""
        if self.whole and word in self.ids:
            return Told([self.ids[word]], self._named([self.ids[word]]))
        symbols, steps = self.symbols(word), []
        start = self._named(symbols)
        while known := [(self.merges[p][0], at) for at, p in enumerate(pairwise(symbols)) if p in self.merges]:
            rank, at = min(known)
            left, right = symbols[at : at + 2]
            symbols = [*symbols[:at], self.merges[left, right][1], *symbols[at + 2 :]]
            steps.append(Joined(rank, (self.show[left], self.show[right]), self._named(symbols)))
        return Told(symbols, start, tuple(steps))

    def symbols(self, word: str) -> Ids:
        """What the word is spelled in before anything is joined: a letter not known is spelled in bytes, or is unknown."""
        found: Ids = []
        for at, letter in enumerate(word):
            name = (self.prefix if at else "") + letter + (self.suffix if at == len(word) - 1 else "")
            spelled = [f"<0x{byte:02X}>" for byte in name.encode()] if self.in_bytes else []
            if name in self.ids:
                found.append(self.ids[name])
            elif spelled and all(byte in self.ids for byte in spelled):
                found += [self.ids[byte] for byte in spelled]
            elif self.unknown is not None and not (self.fuses and found[-1:] == [self.unknown]):
                found.append(self.unknown)
        return found

    def _named(self, ids: Ids) -> tuple[str, ...]:
        return tuple(self.show[i] for i in ids)


class WordPiece:
    """A list of pieces; those that go on in a word carry a mark, "##"."""

    def __init__(self, model: dict[str, Any]) -> None:
        self.ids: dict[str, int] = model["vocab"]
        self.mark, self.longest = model["continuing_subword_prefix"], model["max_input_chars_per_word"]
        self.unknown = self.ids[model["unk_token"]]

    def tell(self, word: str) -> Told:
        """Each step takes the longest piece that is known; where there is none, the whole word is unknown."""
        ids, steps, at = [], [], 0
        while at < len(word) <= self.longest:
            mark = self.mark if at else ""
            ends = range(len(word), at, -1)
            end = next((end for end in ends if mark + word[at:end] in self.ids), None)
            piece = None if end is None else mark + word[at:end]
            steps.append(Matched(word[at:], piece, len(word) - (end or at)))
            if end is None or piece is None:
                return Told([self.unknown], (word,), tuple(steps))
            ids.append(self.ids[piece])
            at = end
        return Told(ids if len(word) <= self.longest else [self.unknown], (word,), tuple(steps))


class Unigram:
    """Pieces with log-probabilities. `n_best`: how many ways to cut a word are told."""

    def __init__(self, model: dict[str, Any], n_best: int = 3) -> None:
        self.scores: dict[str, float] = dict(model["vocab"])
        self.ids = {piece: i for i, (piece, _) in enumerate(model["vocab"])}
        self.unknown, self.in_bytes, self.n_best = model["unk_id"], model["byte_fallback"], n_best
        self.longest = max(map(len, self.ids))
        self.penalty = min(self.scores.values()) - UNKNOWN_COSTS

    def tell(self, word: str) -> Told:
        """The best way to cut the word, and those that come next."""
        ways = self.ways(word)
        return Told([i for piece in self._fused(ways[0]) for i in self._look_up(piece)], (word,), (), tuple(ways))

    def ways(self, word: str) -> list[Way]:
        """The `n_best` likeliest ways. Of equal ones the first is that whose last piece is longest, as in the library."""
        best: list[list[Way]] = [[Way((), (), 0.0)]] + [[] for _ in word]
        for start in range(len(word)):
            ends = range(start + 1, min(len(word), start + self.longest) + 1)
            known = [end for end in ends if word[start:end] in self.scores]
            for end in known if start + 1 in known else [start + 1, *known]:
                piece = word[start:end]
                score = self.scores.get(piece, self.penalty)
                for way in best[start]:
                    best[end].append(Way((*way.pieces, piece), (*way.scores, score), way.total + score))
            best[start + 1] = sorted(best[start + 1], key=lambda way: -way.total)[: self.n_best]
        return best[-1]

    def _fused(self, way: Way) -> list[str]:
        """Neighbours that are unknown are one piece."""
        runs = groupby(way.pieces, lambda piece: self.ids.get(piece, self.unknown) == self.unknown)
        return [piece for unknown, run in runs for piece in (["".join(run)] if unknown else run)]

    def _look_up(self, piece: str) -> Ids:
        spelled = [f"<0x{byte:02X}>" for byte in piece.encode()] if self.in_bytes else []
        if piece not in self.ids and spelled and all(byte in self.ids for byte in spelled):
            return [self.ids[byte] for byte in spelled]
        return [self.ids.get(piece, self.unknown)]


class WordLevel:
    """A table of words."""

    def __init__(self, model: dict[str, Any]) -> None:
        self.ids: dict[str, int] = model["vocab"]
        self.unknown = self.ids.get(model["unk_token"])

    def tell(self, word: str) -> Told:
        """The word, or unknown."""
        found = self.ids.get(word, self.unknown)
        return Told([] if found is None else [found], (word,))
