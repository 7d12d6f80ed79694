"""SentencePiece's table of replacements, by which a text is cleaned: at each place the longest string that the table has is
replaced ("ﬁ" -> "fi", "e"+accent -> "é"). Imports no torch.

It is a double array (Aoe 1989; darts-clone's form): uint32 size in bytes; the units, uint32 each; then the replacements, ended by
a zero byte each. A unit with its highest bit set is a value: the place of a replacement. Another one leads to its children, at (its
own place ^ offset ^ byte), and to its value, at (its own place ^ offset).

The library's `Precompiled` does the same but for one case: it replaces a character together with the accent behind it by what
stands for the character alone ("½"+accent -> "1⁄2"). T5's tokenizer in `transformers` does so too, Marian's does not.
"""

import base64
import re
import struct
import unicodedata
from typing import Any


class Charsmap:
    """ValueError unless every step through the table stays inside it: the library looks without asking."""

    def __init__(self, data: bytes) -> None:
        size = int.from_bytes(data[:4], "little")
        if len(data) < 4 or size % 1024 or not 0 < size <= len(data) - 4:
            raise ValueError("the table of replacements is damaged")
        self.units, self.texts = struct.unpack_from(f"<{size // 4}I", data, 4), data[4 + size :]
        self.texts.decode("utf-8")
        for place, unit in enumerate(self.units):
            first = self._first_child(place)
            if unit >> 31 == 0 and (first | 255 >= len(self.units) or (unit & 256 and not self._has_value(first))):
                raise ValueError("the table of replacements is damaged")
        marks = [chr(c) for c in range(0x300, 0x10000) if unicodedata.category(chr(c))[0] == "M"]
        self.nothing = b"" if self._longest(b"\1", 0)[1] else b"\1"  # what the table removes
        self.marked = re.compile(f"[^\x00-\x7f][{''.join(marks)}\u200c\u200d]")

    def replace(self, text: str) -> str:
        """The text as SentencePiece cleans it, where `Precompiled` might not; else as it is. What the table removes stands between
        the characters, so that `Precompiled`, which comes next, joins none."""
        if not self.marked.search(text):
            return text
        data, made, at = text.encode(), bytearray(), 0
        while at < len(data):
            size, value = self._longest(data, at)
            made += value + self.nothing
            at += size
        return made.decode()

    def _longest(self, data: bytes, at: int) -> tuple[int, bytes]:
        """How many bytes are replaced at a place, and by what: one character by itself, if the table has nothing for it."""
        size = 1 + sum(data[at] >= lead for lead in (0xC0, 0xE0, 0xF0))
        value = data[at : at + size]
        child = self._first_child(0)
        for number, byte in enumerate(data[at:], 1):
            place = child ^ byte
            if self.units[place] & 0x800000FF != byte:
                break
            child = self._first_child(place)
            if self.units[place] & 256:
                begins = self.units[child] & 0x7FFFFFFF
                size, value = number, self.texts[begins : self.texts.find(b"\0", begins)]
        return size, value

    def _first_child(self, place: int) -> int:
        unit = self.units[place]
        return place ^ (unit >> 10) << ((unit & 512) >> 6)

    def _has_value(self, place: int) -> bool:
        at = self.units[place] & 0x7FFFFFFF
        return at < len(self.texts) and self.texts[at] & 0xC0 != 0x80


def tables(normaliser: dict[str, Any] | None) -> list[Charsmap]:
    """Those of a tokenizer.json's normaliser, in their order."""
    step = normaliser or {}
    found = [table for part in step.get("normalizers", []) for table in tables(part)]
    data = base64.b64decode(step.get("precompiled_charsmap") or "", validate=True)
    return [*found, Charsmap(data)] if data else found
