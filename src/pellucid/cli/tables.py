"""Plain tables and texts with every character to be seen, aligned for a terminal or a pipe. Imports no torch."""

from collections.abc import Collection, Sequence

from pellucid.cli.alignment import columns

SEEN = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍", "\u3000": "␣"}


def visible(text: str) -> str:
    """The text with spaces and line ends to be seen, and what does not print as its number."""
    return "".join(SEEN.get(c) or (c if c.isprintable() else f"<U+{ord(c):04X}>") for c in text)


def quoted(text: str) -> str:
    """The text in quotes: its spaces as they are, its line ends and what does not print to be seen."""
    return '"' + " ".join(visible(part) for part in text.split(" ")) + '"'


def pad(text: str, width: int, right: bool = False) -> str:
    """The text in so many terminal columns; East Asian characters take two."""
    room = " " * (width - columns(text))
    return room + text if right else text + room


def table(rows: Sequence[Sequence[str]], right: Collection[int] = (), gap: str = "  ") -> str:
    """Rows of cells, each column as wide as its widest cell; those numbered in `right` are set flush right."""
    widths = [max(columns(row[at]) for row in rows if at < len(row)) for at in range(max(map(len, rows), default=0))]
    lines = [gap.join(pad(cell, widths[at], at in right) for at, cell in enumerate(row)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)
