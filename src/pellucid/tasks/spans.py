"""Spans that tags name, in the ways people write them: B-PER I-PER O, with E- and S- at ends (BIOES, BILOU: L- and U-), or I- alone; and
stretches of words that a model can read."""

import re
from collections.abc import Iterator, Sequence

Span = tuple[int, int, str]
BEGINS, ENDS = ("B", "S", "U"), ("E", "S", "L", "U")


def name_spans(names: Sequence[str]) -> bool:
    """Whether tags are of this form."""
    return any(re.match("[BIESLU]-.", name) for name in names)


def spans(tags: Sequence[int], names: Sequence[str]) -> set[Span]:
    """(first, one behind the last, kind) of every span, tolerant of I- without B-, as the CoNLL script is; a tag below 0 (unknown, or
    never said) is outside all."""
    found: set[Span] = set()
    start, kind = 0, ""
    for place, tag in enumerate([*tags, -1]):
        mark, _, this = (names[tag] if tag >= 0 else "O").partition("-")
        if kind and (mark in BEGINS or this != kind):
            found.add((start, place, kind))
            kind = ""
        if this and not kind:
            start, kind = place, this
        if kind and mark in ENDS:
            found.add((start, place + 1, kind))
            kind = ""
    return found


def stretches(sizes: Sequence[int], room: int) -> Iterator[tuple[int, int]]:
    """Words of so many pieces each, cut into stretches [first, last) of at most `room` pieces, at least a word each."""
    first = used = 0
    for place, size in enumerate(sizes):
        if place > first and used + size > room:
            yield first, place
            first, used = place, 0
        used += size
    if sizes:
        yield first, len(sizes)
