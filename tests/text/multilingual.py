"""Thirteen thousand lines in five languages, with what real text is soiled by, used by several tests."""

import gzip
import random
from itertools import islice
from pathlib import Path

ODD = (
    "😀 👩‍👩‍👧 e\u0301 \u0301 ½\u0301 Ⅷ\u0301 ™\ufe0f \x00 \x07 \x1b \u200b \ufeff \u2028 \x85 ﬁ ① \ufffd \ufdd0 ▁ 한국어 ไทย العربية 1234 "
    "\u00ad ß Ǆ 𝔘 <0x41> ##a"
).split(" ") + ["\t", "  ", "   ", "\r", "\u00a0", "\u3000"]


def read(file: Path, number: int, step: int = 1, column: int = 0) -> list[str]:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [line.rstrip("\n").split("\t")[column] for line in islice(lines, 0, number * step, step)]


def clean_lines(corpora: Path) -> dict[str, list[str]]:
    """By language; 13,000 in all."""
    tatoeba = corpora / "pairs/tatoeba-en-fr.tsv.gz"
    verse = (corpora / "text/tinyshakespeare.txt").read_text(encoding="utf-8").split("\n")[:3000]
    return {
        "en": read(tatoeba, 3000, 20) + [line for line in verse if line],
        "fr": read(tatoeba, 3000, 20, 1),
        "de": read(corpora / "pairs/multi30k/train.de.gz", 2500),
        "zh": read(corpora / "text/tang-poems.tsv.gz", 1500, column=2),
    }


def soiled_lines(corpora: Path) -> list[str]:
    """The same lines in one list: emoji, accents of their own, control characters, tabs, several spaces strewn into four of ten, and
    empty ones between them."""
    draw, soiled = random.Random(0), []
    for line in (line for lines in clean_lines(corpora).values() for line in lines):
        if draw.random() < 0.4:
            for _ in range(draw.randrange(1, 4)):
                at = draw.randrange(len(line) + 1)
                line = line[:at] + draw.choice(ODD) + line[at:]
        soiled += [line, ""] if draw.random() < 0.02 else [line]
    assert len(soiled) > 10_000
    return soiled
