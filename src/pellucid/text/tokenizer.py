"""Strings to ids and back: one small class over the `tokenizers` library, the same for our own and for
foreign tokenizers. Imports no torch.

It differs from the library in four ways. Text is only text: a literal "<pad>" (or "<|endoftext|>") in it
never becomes the special token, unless asked for. No special token, padding or cut is ever added. Whether
decode(encode(text)) == text is stated (`promises_round_trip`) and tested. And `stream()` gives text piece by
piece while ids arrive, such that the pieces put together are exactly what decoding all ids at once gives.
"""

import copy
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Encoding, models
from tokenizers import Tokenizer as Library

from pellucid.errors import DataError, UserError, did_you_mean
from pellucid.text import foreign
from pellucid.text.beside import NAMES
from pellucid.text.bulk import Bulk, Flat
from pellucid.text.charsmap import tables
from pellucid.text.forms import keeps_text, kind_of
from pellucid.text.pieces import HIDDEN, closed, listed, spelled, word_joins
from pellucid.text.streaming import Stream
from pellucid.text.training import SPECIALS, Kind, learn, reading

__all__ = ["SPECIALS", "Kind", "Tokenizer", "spelled", "train"]


class Tokenizer:
    """Text to ids and back. Built by `train` or `Tokenizer.load`.

    Special tokens have roles: pad_id, bos_id, eos_id, unk_id, mask_id and answer_id (which asks a decoder for the answer to the
    prompt before it) are None where the tokenizer has none. They are those that the files name (`roles`, None: none), or else those
    with the names the field uses. `target`: where two languages have a tokenizer each, as of Marian, the other one, for what
    a model writes; every other tokenizer is its own target. `companions`: files that go where it is saved, by name.
    """

    def __init__(
        self,
        library: Library,
        roles: Mapping[str, str | None] | None = None,
        target: "Tokenizer | None" = None,
        companions: Mapping[str, bytes] | None = None,
    ) -> None:
        library.no_padding()  # foreign files may ask for both: ids are to be those of the text
        library.no_truncation()
        library.encode_special_tokens = True  # a special token's name in a text is plain text
        self.library = library
        added = library.get_added_tokens_decoder()
        self.specials: dict[str, int] = {token.content: i for i, token in sorted(added.items()) if token.special}
        self.roles, self.companions = dict(roles or {}), dict(companions or {})
        self.pad_id, self.bos_id, self.eos_id = self._role("pad"), self._role("bos"), self._role("eos")
        self.unk_id, self.mask_id, self.answer_id = self._role("unk"), self._role("mask"), self._role("answer")
        self.target: Tokenizer = target or self
        self._listed = listed(library, self.specials)
        last = max(library.get_vocab().values(), default=-1)
        self.vocab_size: int = last + 1 if self._listed is None else library.token_to_id(HIDDEN) or 0

    # ---- text to ids

    def encode(self, text: str, specials: bool = False) -> list[int]:
        """The ids of a text; none are added. specials=True: names of special tokens in the text stand for
        those ("[MASK]").

        DataError where the text holds half of a surrogate pair, or a character that the tokenizer has nothing for.
        """
        with reading([text]):
            library = self._open if specials else self._plain
            return self._ids(library.encode(self._clean(text), add_special_tokens=False))

    def encode_batch(self, texts: Sequence[str], specials: bool = False) -> list[list[int]]:
        """`encode` for many texts, in parallel."""
        library = self._open if specials else self._plain
        encode = library.encode_batch if self._listed else library.encode_batch_fast  # the fast one names no pieces
        with reading(texts):
            return [self._ids(encoding) for encoding in encode([*map(self._clean, texts)], add_special_tokens=False)]

    def encode_flat(self, texts: Sequence[str]) -> "Flat":
        """`encode` for very many texts, as arrays: ids [N], text after text, and how many of each text [B]. Byte-level BPE is
        encoded by a faster engine once there has been enough of it; `notes` says where one was refused."""
        with reading(texts):
            return self._bulk(texts)

    @property
    def notes(self) -> list[str]:
        """What a person should be told about how texts were encoded."""
        return self._bulk.notes

    def words(self, text: str) -> list[str]:
        """What the text is cut into before pieces are looked for: pieces never reach over these bounds."""
        library = self.library
        text = library.normalizer.normalize_str(text) if library.normalizer else text
        return [word for word, _ in library.pre_tokenizer.pre_tokenize_str(text)] if library.pre_tokenizer else [text]

    # ---- ids to text

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """The text of ids. Special tokens leave nothing, or their names with skip_special=False. DataError
        for an id outside the vocabulary.
        """
        return self.library.decode(self._known(ids), skip_special_tokens=skip_special)

    def decode_batch(self, batch: Iterable[Iterable[int]], skip_special: bool = True) -> list[str]:
        """`decode` for many rows, in parallel."""
        return self.library.decode_batch([self._known(ids) for ids in batch], skip_special_tokens=skip_special)

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """A readable piece for each id, for display: bytes as the text they spell, half characters as <0xE4>."""
        pieces = [(self.library.id_to_token(i) or "").removeprefix(HIDDEN) for i in self._known(ids)]
        if self.kind != "byte-bpe":
            return pieces
        return [piece if piece in self.specials else spelled(piece) for piece in pieces]

    def stream(self) -> Stream:
        """For text that appears while it is made: push(id) -> what is certain by now, finish() -> the rest."""
        decoder = self._state["decoder"]
        return Stream(self.decode, self.library.id_to_token, frozenset(self.specials.values()), decoder)

    # ---- what it is

    @cached_property
    def edges(self) -> tuple[list[int], list[int]]:
        """What its file asks for before and behind a text: [CLS] … [SEP], … </s>, <s> …; whoever feeds a model puts it there,
        `encode` does not."""
        around = self.library.post_process(Library(models.WordLevel({"a": 0}, unk_token="a")).encode("a"))
        place = around.special_tokens_mask.index(0)
        return around.ids[:place], around.ids[place + 1 :]

    @property
    def prompt_edges(self) -> tuple[list[int], list[int]]:
        """What a decoder is given before a prompt, and behind it to ask for an answer."""
        return self.edges[0], [] if self.answer_id is None else [self.answer_id]

    def with_specials(self, names: Iterable[str]) -> "Tokenizer":
        """The same tokenizer that also knows these special tokens; new ones get the next ids."""
        new = [name for name in names if name not in self.specials]
        if new and self._listed is not None:
            raise UserError(f"this tokenizer is one of a pair, whose list of pieces is closed: {new[0]!r} is not in it")
        library = copy.deepcopy(self.library)
        library.add_special_tokens(new)
        companions = {name: file for name, file in self.companions.items() if name != foreign.CHAT or not new}
        return Tokenizer(library, self.roles, None if self.target is self else self.target, companions)

    def word_joins(self) -> tuple[list[bool], list[bool]]:
        """Which tokens may go on with the word before them, and which may be gone on with, by id: token b behind a is in a's word where
        both say so. Special tokens do neither, nor do letters of scripts without spaces between words (Chinese, Japanese, Thai, …)."""
        specials = set(self.specials.values())
        pieces = ["" if i in specials else piece for i, piece in enumerate(self.tokens(range(self.vocab_size)))]
        return word_joins(self.kind, self._state, pieces)

    def special(self, name: str) -> int:
        """The id of a special token by its name. UserError with the nearest name where there is none."""
        if name not in self.specials:
            raise UserError(f"this tokenizer has no special token {name!r}", did_you_mean(name, self.specials))
        return self.specials[name]

    @cached_property
    def kind(self) -> str:
        """byte-bpe, bpe, wordpiece, unigram, char, word; byte-fallback-bpe for llama2.c's, SentencePiece's."""
        return kind_of(self._state)

    @cached_property
    def promises_round_trip(self) -> bool:
        """True: decode(encode(text)) == text. For byte-level BPE and llama2.c's, any text; for characters,
        any text of known characters (encode gives no unk_id). The other kinds do not keep all white space;
        and nothing that lowers or cleans the text promises anything.
        """
        return keeps_text(self.kind, self._state)

    def hash(self) -> str:
        """SHA-256 of tokenizer.json: equal for equal tokenizers, also after save and load. What the file asks others to put around a
        text does not count, as `encode` never does it."""
        library = self.library
        if library.post_processor is not None:
            library = copy.deepcopy(library)
            library.post_processor = None
        text = library.to_str() + ("" if self.target is self else self.target.hash())
        return hashlib.sha256(text.encode()).hexdigest()

    # ---- files

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write tokenizer.json (into `path` where that is a folder), whole or not at all; returns the file."""
        file = Path(path)
        if file.suffix != ".json":
            file = file / "tokenizer.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        written = {file.name: self.library.to_str(pretty=True).encode()} | self.companions
        if self.target is not self:
            written[foreign.TARGET] = self.target.library.to_str(pretty=True).encode()
        if any(self._role(role) != self._by_name(role) for role in NAMES):
            named = {f"{role}_token": name for role, name in self.roles.items() if name in (None, *self.specials)}
            written["special_tokens_map.json"] = json.dumps(named, indent=2, ensure_ascii=False).encode()
        for name, content in written.items():
            part = file.with_name(f".{name}.{os.getpid()}")
            part.write_bytes(content)
            os.replace(part, file.with_name(name))
        return file

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Tokenizer":
        """From a file or folder: tokenizer.json, vocab.json + merges.txt, vocab.txt, SentencePiece's *.model, Marian's pair, or
        llama2.c's tok*.bin. DataError says what is wrong.
        """
        opened = foreign.read(Path(path))
        target = None if opened.target is None else cls(opened.target, opened.roles)
        return cls(opened.library, opened.roles, target, opened.companions)

    # ---- inside

    @cached_property
    def _state(self) -> dict[str, Any]:
        return json.loads(self.library.to_str())

    @cached_property
    def _open(self) -> Library:
        """The same tokenizer, but names of special tokens in a text stand for those."""
        library = copy.deepcopy(self.library)
        library.encode_special_tokens = False
        return library

    @cached_property
    def _plain(self) -> Library:
        """For text that is only text."""
        return closed(self._state, self.specials) if self.kind == "unigram" else self.library

    @cached_property
    def _bulk(self) -> Bulk:
        return Bulk(self._state, self.encode_batch)

    @cached_property
    def _clean(self) -> Callable[[str], str]:
        found = tables(self._state["normalizer"]) if self._listed else []
        return found[0].replace if found else lambda text: text

    def _ids(self, encoding: Encoding) -> list[int]:
        if self._listed is None:
            return encoding.ids
        unknown, specials = self.unk_id or 0, set(self.specials.values())
        pairs = zip(encoding.ids, encoding.tokens, strict=True)
        return [i if i in specials and i != unknown else self._listed.get(piece, unknown) for i, piece in pairs]

    def _role(self, role: str) -> int | None:
        """What the files name, if the tokenizer has it."""
        named = self.roles.get(role)
        if role in self.roles and (named is None or named in self.specials):
            return self.specials.get(named or "")
        return self._by_name(role)

    def _by_name(self, role: str) -> int | None:
        return next((self.specials[name] for name in NAMES[role] if name in self.specials), None)

    def _known(self, ids: Iterable[int]) -> list[int]:
        known = [int(i) for i in ids]
        if known and not 0 <= min(known) <= max(known) < self.vocab_size:
            wrong = next(i for i in known if not 0 <= i < self.vocab_size)
            problem = f"token id {wrong} is outside this tokenizer's vocabulary of {self.vocab_size}"
            raise DataError(problem, "do the model and the tokenizer belong together?")
        return known


def train(
    lines: Iterable[str],
    kind: Kind = "byte-bpe",
    vocab_size: int = 8000,
    lowercase: bool = False,
    min_count: int = 1,
    specials: Sequence[str] = (),
    memory_mb: int = 1500,
    notes: list[str] | None = None,
) -> Tokenizer:
    """Learn a tokenizer from any iterable of strings (lines with or without their newline, or pieces of
    text), read once.

    kind        keeps                                   unknown characters
    byte-bpe    every text                              none: 256 bytes are always there
    char        every text of known characters          <unk> each
    unigram     known characters, no leading space      <unk> a run
    bpe         known characters; white space -> " "    <unk> each; a last letter is a symbol of its own
    wordpiece   words; spacing is guessed               <unk> for the word
    word        known words; pieces joined by " "       <unk> for the word

    <pad> <bos> <eos> <unk> are ids 0 to 3, `specials` ("<mask>") follow. vocab_size counts all; it is reached
    only if the text has so many pieces. min_count: characters and words seen less often are left out; a BPE
    or WordPiece merge needs max(2, min_count). `char` and `word` keep the most frequent vocab_size; the
    others need room for every single symbol of the text, and say so (UserError). DataError: no text, or
    broken text. memory_mb: about as much memory is used at most; a longer text is sampled by lines (`char`
    always counts all of it). `notes` is told why the fast engine was refused, if it was.
    """
    return Tokenizer(learn(lines, kind, vocab_size, lowercase, min_count, specials, memory_mb, notes))
