"""Text while ids arrive: what is certain is given at once, what a later id may still change is held back.

What may change: bytes that are not a whole character yet; a run of <0x..> tokens, read together; the space
after an end-of-word mark. The pieces put together are exactly decode(all ids).
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

# Decoders whose text no later token changes. Under any other (CTC, trimming at the end) all comes at the end.
STEADY = {"ByteLevel", "WordPiece", "Metaspace", "BPEDecoder", "Fuse", "ByteFallback", "Strip", "Replace"}
REPLACED = "\N{REPLACEMENT CHARACTER}"  # what bytes that are not a whole character decode to


class Stream:
    """push(id) -> newly certain text, often ""; finish() -> the rest, after which it may be used anew.
    Special tokens give no text.
    """

    def __init__(
        self,
        decode: Callable[[Iterable[int]], str],
        piece: Callable[[int], str | None],
        specials: frozenset[int],
        decoder: dict[str, Any] | None,
    ) -> None:
        self.decode, self.piece, self.specials = decode, piece, specials
        steps = decoder.get("decoders", [decoder]) if decoder else []
        kinds = [step["type"] for step in steps]
        fused = kinds.index("Fuse") if "Fuse" in kinds else len(kinds)
        trims = any(step["type"] == "Strip" and step["stop"] > 0 for step in steps[fused:])
        self.steady = STEADY.issuperset(kinds) and "Replace" not in kinds[fused:] and not trims
        self.bytewise = "ByteFallback" in kinds
        self.window: list[int] = []  # ids not all given, after one that shows where they stand
        self.given = 0  # characters of the window's text that were given

    def push(self, id: int) -> str:
        if id in self.specials:
            return ""
        self.window.append(id)
        if not self.steady or (self.bytewise and re.fullmatch("<0x[0-9A-F]{2}>", self.piece(id) or "")):
            return ""
        text = self.decode(self.window)
        certain = text.removesuffix(REPLACED)
        new, self.given = certain[self.given :], max(self.given, len(certain))
        if certain == text:
            self._forget(id)
        return new

    def finish(self) -> str:
        rest = self.decode(self.window)[self.given :]
        self.window, self.given = [], 0
        return rest

    def _forget(self, id: int) -> None:
        """All is given: the last id alone is enough to place what follows, if it shows more than space (which
        some decoders trim).
        """
        alone = self.decode([id])
        if alone.strip():
            self.window, self.given = [id], len(alone)
