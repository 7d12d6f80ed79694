"""What a tokenizer's pieces look like: the text that byte-level ones spell, where words begin and end, and pieces that stand in
a unigram model's table under a hidden name, so that no text is ever cut into them. Imports no torch.
"""

import json
import re
from collections.abc import Collection, Sequence
from typing import Any

from tokenizers import Tokenizer as Library

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

HIDDEN = (
    "\ufdd0"  # a noncharacter of Unicode, for use inside programs: before a piece's name it hides it from every text
)


def spelled(piece: str) -> str:
    """A byte-level piece as the text it spells: "Ġder" -> " der". Bytes of half characters: "<0xE4>"."""
    if not all(letter in BYTES for letter in piece):
        return piece
    text = bytes(BYTES[letter] for letter in piece).decode("utf-8", "surrogateescape")
    return re.sub("[\udc80-\udcff]", lambda match: f"<0x{ord(match[0]) - 0xDC00:02X}>", text)


def word_joins(kind: str, state: dict[str, Any], pieces: Sequence[str]) -> tuple[list[bool], list[bool]]:
    """See `Tokenizer.word_joins`. `pieces` by id, readable, "" for special ones; `state`: the tokenizer.json."""
    prefix = state["model"].get("continuing_subword_prefix")
    suffix = state["model"].get("end_of_word_suffix")
    before = behind = [bool(piece) for piece in pieces]
    if kind == "word":
        before = behind = [False] * len(pieces)
    elif prefix:
        before = [piece.startswith(prefix) for piece in pieces]
    elif suffix:
        behind = [piece != "" and not piece.endswith(suffix) for piece in pieces]
    elif kind in ("unigram", "byte-fallback-bpe") or "▁" in str(state["decoder"]):
        before = [piece != "" and piece[0] not in "▁ " for piece in pieces]  # llama2.c's have spaces
    else:
        before, behind = [_letter(piece[:1]) for piece in pieces], [_letter(piece[-1:]) for piece in pieces]
    return (
        [joins and not _UNSPACED_FIRST.match(piece) for joins, piece in zip(before, pieces, strict=True)],
        [joins and not _UNSPACED_LAST.search(piece) for joins, piece in zip(behind, pieces, strict=True)],
    )


def _letter(text: str) -> bool:
    """Part of a word: a letter, a digit, or a byte of a character that is cut (shown as <0xE4>)."""
    return text.isalnum() or text in ("<", ">")


def closed(state: dict[str, Any], specials: Collection[str]) -> Library:
    """Of a unigram model, the tokenizer that knows no special pieces: in its table they are pieces like any other, the likeliest
    of all, and would be found in a text that has their names. Ids are the same."""
    table = state["model"]["vocab"]
    known = {piece for piece, _ in table}
    model = state["model"] | {"vocab": [(HIDDEN * (piece in specials) + piece, score) for piece, score in table]}
    added = [t for t in state["added_tokens"] if not (t["content"] in specials and t["content"] in known)]
    library = Library.from_str(json.dumps(state | {"model": model, "added_tokens": added, "post_processor": None}))
    library.encode_special_tokens = True
    return library


def listed(library: Library, specials: Collection[str]) -> dict[str, int] | None:
    """The ids of pieces by name, where the pieces that a text is cut into are looked up in a list of its own (see `marian`):
    the table up to the one that is nothing but hidden. None for every other tokenizer."""
    size = library.token_to_id(HIDDEN)
    if size is None:
        return None
    names = ((library.id_to_token(i) or "").removeprefix(HIDDEN) for i in range(size))
    return {name: i for i, name in enumerate(names) if name not in specials}
