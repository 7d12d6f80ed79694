"""Who a translation looked at, drawn in a terminal.

Rows = target tokens, columns = source tokens, shades = cross-attention weights; coloured where the terminal has
colours, plain in a pipe. Imports no torch; rich only for colours.
"""

import sys
import unicodedata
from collections.abc import Sequence
from typing import Any

SHADES = (
    (0.6, "██", "#fde725"),
    (0.35, "▓▓", "#5ec962"),
    (0.15, "▒▒", "#21918c"),
    (0.05, "░░", "#3b528b"),
    (-1.0, " ·", "#666666"),
)
LABEL, TALLEST = 14, 14  # columns for a target token; rows for a source token, written downwards
LEGEND = "attention, of 100 % a row:  ██ 60 % or more  ▓▓ 35 %  ▒▒ 15 %  ░░ 5 %  · less"


def show(source: Sequence[str], target: Sequence[str], weights: Any) -> None:
    """Print the map to stdout: coloured and as wide as the terminal, or plain and 80 columns wide in a pipe."""
    if not sys.stdout.isatty():
        print(draw(source, target, weights))
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    text = Text(draw(source, target, weights, console.width), no_wrap=True, overflow="ignore")
    for _, shade, colour in SHADES:
        text.highlight_words([shade], colour)
    console.print(text, soft_wrap=True)


def draw(source: Sequence[str], target: Sequence[str], weights: Any, width: int = 80) -> str:
    """The map as text of at most `width` columns; source tokens that do not fit go below, in further bands.

    weights: [T, S] array or nested lists, rows summing to 1.
    """
    fit = max(1, (width - LABEL - 1) // 2)
    bands = [range(start, min(start + fit, len(source))) for start in range(0, len(source), fit)]
    drawn = ["\n".join([*_header(source, band), *_rows(target, weights, band)]) for band in bands]
    return "\n\n".join([*drawn, LEGEND])


def _header(source: Sequence[str], band: range) -> list[str]:
    """The source tokens, written downwards; they end where the map begins."""
    labels = [_shorten(_characters(source[column]), TALLEST) for column in band]
    height = max(map(len, labels))
    padded = [[" "] * (height - len(label)) + label for label in labels]
    return [(" " * (LABEL + 1) + "".join(map(_cell, row))).rstrip() for row in zip(*padded, strict=True)]


def _rows(target: Sequence[str], weights: Any, band: range) -> list[str]:
    lines = []
    for token, row in zip(target, weights, strict=True):
        label = "".join(_shorten(_characters(token), LABEL))
        lines.append(
            " " * (LABEL - columns(label)) + label + " " + "".join(_shade(float(row[column])) for column in band)
        )
    return lines


def _characters(token: str) -> list[str]:
    """A token as characters with accents. A space is shown, a word's end mark not; what does not print is a dot."""
    characters: list[str] = []
    for c in unicodedata.normalize("NFC", token.removesuffix("</w>") or token):
        if unicodedata.category(c).startswith("M") and characters:
            characters[-1] += c
        else:
            characters.append("␣" if c == " " else c if c.isprintable() else "·")
    return characters or ["·"]


def _shorten(characters: list[str], longest: int) -> list[str]:
    while columns("".join(characters)) > longest:
        characters = [*characters[: -2 if characters[-1] == "…" else -1], "…"]
    return characters


def columns(text: str) -> int:
    """How many terminal columns a text takes: two for a wide (East Asian) character, none for an accent of its own."""
    return sum(
        0 if unicodedata.category(c) in ("Mn", "Me") else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def _cell(character: str) -> str:
    return " " * (2 - columns(character)) + character


def _shade(weight: float) -> str:
    return next((shade for least, shade, _ in SHADES if weight >= least), " ?")
