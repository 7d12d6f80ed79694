"""How a text becomes ids, step by step: cleaned, cut into words, each word cut into pieces, and what comes back.

It goes the library's way once more, slowly and in the open (`pellucid.text.segmenting`), and holds that the ids are
those of `Tokenizer.encode`. Imports no torch.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

from pellucid.errors import UserError
from pellucid.text.segmenting import BPE, Told, Unigram, WordLevel, WordPiece
from pellucid.text.tokenizer import Tokenizer, spelled

FOLDS: dict[str, Callable[[str], str]] = {  # what a tokenizer may lose, and how to look past it
    "white space": lambda text: "".join(text.split()),
    "upper and lower case": str.lower,
    "accents": lambda text: "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn"),
    "which of several ways to write a character": lambda text: unicodedata.normalize("NFKC", text),
}


@dataclass(frozen=True)
class Word:
    """A word of the text as the tokenizer cuts it, readable, and how it became ids; `added`: one token of its own."""

    text: str
    told: Told
    pieces: tuple[str, ...]
    added: bool = False


@dataclass(frozen=True)
class Explanation:
    """Everything from a text to its ids and back. `lost`: in words what decoding does not give back; empty = nothing."""

    text: str
    normalised: str
    words: tuple[Word, ...]
    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    decoded: str
    lost: tuple[str, ...]


class Explainer:
    """`explain(text)` for one tokenizer. kind: as `Tokenizer.kind`."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer, self.kind = tokenizer, tokenizer.kind
        model = tokenizer._state["model"]
        readable = spelled if self.kind == "byte-bpe" else str
        self.model = (
            BPE(model, readable)
            if model["type"] == "BPE"
            else {"WordPiece": WordPiece, "Unigram": Unigram, "WordLevel": WordLevel}[model["type"]](model)
        )
        added = [token for token in tokenizer._state["added_tokens"] if not token["special"]]
        added.sort(key=lambda token: -len(token["content"]))
        names = [r"\s*" * t["lstrip"] + re.escape(t["content"]) + r"\s*" * t["rstrip"] for t in added]
        self.added = re.compile(f"({'|'.join(names)})") if names else None

    def explain(self, text: str) -> Explanation:
        """Raises DataError for a text with half of a surrogate pair, UserError for a tokenizer that cannot be followed."""
        ids = self.tokenizer.encode(text)
        words = tuple(self._words(text))
        if [i for word in words for i in word.told.ids] != ids:
            raise UserError(
                "this tokenizer does more than can be told step by step",
                f"its ids are {' '.join(map(str, ids))}",
            )
        decoded = self.tokenizer.decode(ids)
        lost = tuple(what_is_lost(text, decoded, self._unknown(words)))
        pieces = tuple(self.tokenizer.tokens(ids))
        return Explanation(text, self._normalise(text), words, tuple(ids), pieces, decoded, lost)

    def _words(self, text: str) -> Iterator[Word]:
        for number, part in enumerate(self.added.split(text) if self.added else [text]):
            if number % 2:
                name = part if self.tokenizer.library.token_to_id(part) is not None else part.strip()
                found = self.tokenizer.library.token_to_id(name)
                yield Word(part, Told([] if found is None else [found], (name,)), (name,), added=True)
            elif part:
                yield from self._cut(part)

    def _cut(self, text: str) -> Iterator[Word]:
        for word in self.tokenizer.words(text):
            told = self.model.tell(word)
            shown = spelled(word) if self.kind == "byte-bpe" else word
            yield Word(shown, told, tuple(self.tokenizer.tokens(told.ids)))

    def _normalise(self, text: str) -> str:
        normalizer = self.tokenizer.library.normalizer
        return normalizer.normalize_str(text) if normalizer else text

    def _unknown(self, words: tuple[Word, ...]) -> list[str]:
        unknown = self.tokenizer.unk_id
        return [word.text for word in words if unknown is not None and unknown in word.told.ids]


def what_is_lost(text: str, decoded: str, unknown: list[str]) -> Iterator[str]:
    """In words, how `decoded` differs from `text`; `unknown`: words of which a piece is unknown."""
    if decoded == text:
        return
    if unknown:
        yield "what is unknown to the tokenizer: " + ", ".join(map(repr, dict.fromkeys(unknown)))
        return
    for count in range(1, len(FOLDS) + 1):
        for names in combinations(FOLDS, count):
            if _folded(text, names) == _folded(decoded, names):
                yield from names
                return
    pairs = zip(text, decoded, strict=False)
    place = next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(text), len(decoded)))
    yield f"more than white space, case and accents: from character {place + 1} on they differ"


def _folded(text: str, names: tuple[str, ...]) -> str:
    for name in names:
        text = FOLDS[name](text)
    return text
