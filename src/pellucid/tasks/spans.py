"""Spans that tags name: B-PER I-PER O is one span of PER. Also tolerant of I- without B-, as the CoNLL script is."""

from collections.abc import Sequence

Span = tuple[int, int, str]


def spans(tags: Sequence[int], names: Sequence[str]) -> set[Span]:
    """(first, one behind the last, kind) of every span; an unknown tag (-1) is outside all."""
    found: set[Span] = set()
    start, kind = 0, ""
    for place, tag in enumerate([*tags, -1]):
        name = names[tag] if tag >= 0 else "O"
        mark, _, this = name.partition("-")
        if kind and (mark != "I" or this != kind):
            found.add((start, place, kind))
            kind = ""
        if this and not kind:
            start, kind = place, this
    return found
