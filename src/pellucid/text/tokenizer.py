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
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Library

from pellucid.errors import DataError, UserError, did_you_mean
from pellucid.text import foreign
from pellucid.text.streaming import Stream
from pellucid.text.training import SPECIALS, Kind, learn, refuse_broken

__all__ = ["SPECIALS", "Kind", "Tokenizer", "train"]

PAD = ("<pad>", "[PAD]", "<|pad|>", "<|finetune_right_pad_id|>")
BOS = ("<bos>", "<s>", "[CLS]", "<|begin_of_text|>", "<|startoftext|>", "<|endoftext|>")
EOS = ("<eos>", "</s>", "[SEP]", "<|end_of_text|>", "<|endoftext|>")
UNK = ("<unk>", "[UNK]")
MASK = ("<mask>", "[MASK]")
ANSWER = ("<answer>",)


class Tokenizer:
    """Text to ids and back. Built by `train` or `Tokenizer.load`.

    Special tokens are found by name: pad_id, bos_id, eos_id, unk_id, mask_id and answer_id (which asks a decoder for the answer to the
    prompt before it) are None where the tokenizer has none (by the names the field uses).
    """

    def __init__(self, library: Library) -> None:
        library.no_padding()  # foreign files may ask for both: ids are to be those of the text
        library.no_truncation()
        library.encode_special_tokens = True  # a special token's name in a text is plain text
        self.library = library
        added = library.get_added_tokens_decoder()
        self.specials: dict[str, int] = {token.content: i for i, token in sorted(added.items()) if token.special}
        self.pad_id, self.bos_id, self.eos_id, self.unk_id = (self._first(names) for names in (PAD, BOS, EOS, UNK))
        self.mask_id, self.answer_id = self._first(MASK), self._first(ANSWER)
        self.vocab_size: int = max(library.get_vocab().values(), default=-1) + 1

    # ---- text to ids

    def encode(self, text: str, specials: bool = False) -> list[int]:
        """The ids of a text; none are added. specials=True: names of special tokens in the text stand for
        those ("[MASK]").

        DataError where the text holds half of a surrogate pair.
        """
        library = self._open if specials else self.library
        try:
            return library.encode(text, add_special_tokens=False).ids
        except TypeError:
            refuse_broken([text])
            raise

    def encode_batch(self, texts: Sequence[str], specials: bool = False) -> list[list[int]]:
        """`encode` for many texts, in parallel."""
        library = self._open if specials else self.library
        try:
            return [encoding.ids for encoding in library.encode_batch_fast(texts, add_special_tokens=False)]
        except TypeError:
            refuse_broken(texts)
            raise

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
        pieces = [self.library.id_to_token(i) or "" for i in self._known(ids)]
        if self.kind != "byte-bpe":
            return pieces
        return [piece if piece in self.specials else spelled(piece) for piece in pieces]

    def stream(self) -> Stream:
        """For text that appears while it is made: push(id) -> what is certain by now, finish() -> the rest."""
        decoder = self._state["decoder"]
        return Stream(self.decode, self.library.id_to_token, frozenset(self.specials.values()), decoder)

    # ---- what it is

    @cached_property
    def begins_with_bos(self) -> bool:
        """Whether its file asks for <bos> before a text, as Llama's does; whoever feeds a model puts it there, `encode` does not."""
        return self.bos_id is not None and self.library.encode("").ids[:1] == [self.bos_id]

    @property
    def prompt_edges(self) -> tuple[list[int], list[int]]:
        """What a decoder is given before a prompt, and behind it to ask for an answer."""
        start = [self.bos_id] if self.begins_with_bos and self.bos_id is not None else []
        return start, [] if self.answer_id is None else [self.answer_id]

    def with_specials(self, names: Iterable[str]) -> "Tokenizer":
        """The same tokenizer that also knows these special tokens; new ones get the next ids."""
        library = copy.deepcopy(self.library)
        library.add_special_tokens([name for name in names if name not in self.specials])
        return Tokenizer(library)

    def word_joins(self) -> tuple[list[bool], list[bool]]:
        """Which tokens may go on with the word before them, and which may be gone on with, by id: token b behind a is in a's word where
        both say so. Special tokens do neither, nor do letters of scripts without spaces between words (Chinese, Japanese, Thai, …)."""
        specials = set(self.specials.values())
        pieces = ["" if i in specials else piece for i, piece in enumerate(self.tokens(range(self.vocab_size)))]
        before = behind = [bool(piece) for piece in pieces]
        if self.kind == "wordpiece":
            before = [piece.startswith("##") for piece in pieces]
        elif self.kind == "bpe":
            behind = [piece != "" and not piece.endswith("</w>") for piece in pieces]
        elif self.kind in ("unigram", "byte-fallback-bpe"):
            before = [piece != "" and not piece.startswith("▁") for piece in pieces]
        elif self.kind == "word":
            before = behind = [False] * len(pieces)
        else:
            before, behind = [_letter(piece[:1]) for piece in pieces], [_letter(piece[-1:]) for piece in pieces]
        return (
            [joins and not _UNSPACED_FIRST.match(piece) for joins, piece in zip(before, pieces, strict=True)],
            [joins and not _UNSPACED_LAST.search(piece) for joins, piece in zip(behind, pieces, strict=True)],
        )

    def special(self, name: str) -> int:
        """The id of a special token by its name. UserError with the nearest name where there is none."""
        if name not in self.specials:
            raise UserError(f"this tokenizer has no special token {name!r}", did_you_mean(name, self.specials))
        return self.specials[name]

    @cached_property
    def kind(self) -> str:
        """byte-bpe, bpe, wordpiece, unigram, char, word; byte-fallback-bpe for llama2.c's, SentencePiece's."""
        model, decoder = self._state["model"], self._state["decoder"] or {}
        if model["type"] != "BPE":
            return {"WordPiece": "wordpiece", "Unigram": "unigram", "WordLevel": "word"}[model["type"]]
        if decoder.get("type") == "ByteLevel":
            return "byte-bpe"
        if model["byte_fallback"]:
            return "byte-fallback-bpe"
        return "char" if decoder.get("type") == "Fuse" and not self._state["pre_tokenizer"] else "bpe"

    @cached_property
    def promises_round_trip(self) -> bool:
        """True: decode(encode(text)) == text. For byte-level BPE and llama2.c's, any text; for characters,
        any text of known characters (encode gives no unk_id). The other kinds do not keep all white space;
        and nothing that lowers or cleans the text promises anything.
        """
        state = self._state
        if any(not token["special"] for token in state["added_tokens"]):
            return False
        if self.kind == "byte-bpe":
            steps = state["pre_tokenizer"] or {}
            *before, last = steps.get("pretokenizers", [steps])
            kept = all(step["type"] == "Split" and step["behavior"] != "Removed" for step in before)
            bytewise = last.get("type") == "ByteLevel" and not last["add_prefix_space"]
            alphabet = all(self.library.token_to_id(letter) is not None for letter in BYTES)
            return kept and bytewise and alphabet and not state["normalizer"]
        if self.kind == "byte-fallback-bpe":
            last = (state["decoder"].get("decoders") or [{}])[-1]
            prefixed = state["normalizer"] == {"type": "Prepend", "prepend": " "} and not state["pre_tokenizer"]
            return prefixed and last == {"type": "Strip", "content": " ", "start": 1, "stop": 0}
        return self.kind == "char" and not state["normalizer"]

    def hash(self) -> str:
        """SHA-256 of tokenizer.json: equal for equal tokenizers, also after save and load. What the file asks others to put around a
        text does not count, as `encode` never does it."""
        library = self.library
        if library.post_processor is not None:
            library = copy.deepcopy(library)
            library.post_processor = None
        return hashlib.sha256(library.to_str().encode()).hexdigest()

    # ---- files

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write tokenizer.json (into `path` where that is a folder), whole or not at all; returns the file."""
        file = Path(path)
        if file.suffix != ".json":
            file = file / "tokenizer.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f".{file.name}.{os.getpid()}")
        part.write_text(self.library.to_str(pretty=True), encoding="utf-8")
        os.replace(part, file)
        return file

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Tokenizer":
        """From a file or folder: tokenizer.json, vocab.json + merges.txt, vocab.txt, or llama2.c's tok*.bin.
        DataError says what is wrong.
        """
        return cls(foreign.read(Path(path)))

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

    def _first(self, names: Iterable[str]) -> int | None:
        return next((self.specials[name] for name in names if name in self.specials), None)

    def _known(self, ids: Iterable[int]) -> list[int]:
        known = [int(i) for i in ids]
        if known and not 0 <= min(known) <= max(known) < self.vocab_size:
            wrong = next(i for i in known if not 0 <= i < self.vocab_size)
            raise DataError(
                f"token id {wrong} is outside this tokenizer's vocabulary of {self.vocab_size}",
                "do the model and the tokenizer belong together?",
            )
        return known


def train(
    lines: Iterable[str],
    kind: Kind = "byte-bpe",
    vocab_size: int = 8000,
    lowercase: bool = False,
    min_count: int = 1,
    specials: Sequence[str] = (),
    memory_mb: int = 1500,
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
    always counts all of it).
    """
    return Tokenizer(learn(lines, kind, vocab_size, lowercase, min_count, specials, memory_mb))


def _letter(text: str) -> bool:
    """Part of a word: a letter, a digit, or a byte of a character that is cut (shown as <0xE4>)."""
    return text.isalnum() or text in ("<", ">")


# Scripts without spaces between words: Thai, Lao, Tibetan; Myanmar; Khmer; kana and ideographs. Korean has spaces.
_UNSPACED = (
    r"\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    r"\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
_UNSPACED_FIRST = re.compile(rf"(##)?([{_UNSPACED}]|<0xE[3-9]>)")  # or the first byte of such a character
_UNSPACED_LAST = re.compile(rf"[{_UNSPACED}]\Z")

# Byte-level BPE writes printable bytes as themselves and the others, counted from 0, as U+0100 + n.
LETTERS = [*range(33, 127), *range(161, 173), *range(174, 256)]
OTHERS = [byte for byte in range(256) if byte not in LETTERS]
BYTES = {chr(byte): byte for byte in LETTERS} | {chr(256 + n): byte for n, byte in enumerate(OTHERS)}


def spelled(piece: str) -> str:
    """A byte-level piece as the text it spells: "Ġder" -> " der". Bytes of half characters: "<0xE4>"."""
    if not all(letter in BYTES for letter in piece):
        return piece
    text = bytes(BYTES[letter] for letter in piece).decode("utf-8", "surrogateescape")
    return re.sub("[\udc80-\udcff]", lambda match: f"<0x{ord(match[0]) - 0xDC00:02X}>", text)
