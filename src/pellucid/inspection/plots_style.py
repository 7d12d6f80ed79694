"""How the pictures look: one style, colours that the colour-blind can tell apart, fonts for every script that is installed.

matplotlib's objects alone are used: no pyplot, no display, and what is set is set back. Imports no torch; matplotlib when a
picture is made.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 8.4  # inches of a picture as wide as a README
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")  # Okabe and Ito 2008
INK, PALE, HIDDEN = "#333333", "#e3e3e3", "#efefef"
FALLBACKS = (  # fonts with the scripts that DejaVu Sans lacks; those that are installed are used
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans CJK KR",
    "Noto Sans SC",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "Microsoft YaHei",
    "SimHei",
    "PingFang SC",
    "Hiragino Sans",
    "Arial Unicode MS",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
    "Noto Emoji",
    "Segoe UI Symbol",
)
SETTINGS: dict[str, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#8c8c8c",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": PALE,
    "grid.linewidth": 0.8,
    "xtick.color": "#8c8c8c",
    "ytick.color": "#8c8c8c",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "text.color": INK,
    "text.parse_math": False,  # a token may hold "$"
    "legend.frameon": True,
    "legend.facecolor": "white",
    "legend.edgecolor": "none",
    "legend.framealpha": 0.9,
    "legend.fancybox": False,
    "legend.fontsize": 9.5,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.dpi": 150,
    "svg.hashsalt": "pellucid",  # the same picture is the same file
}


@contextmanager
def style() -> Iterator[None]:
    """Within the block pictures are made in the house's style, whatever the user's own settings. UserError without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        raise UserError("pictures need the package matplotlib", "pip install 'pellucid[plot]'") from None
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        settings: Any = SETTINGS | {"font.family": list(fonts())}
        matplotlib.rcParams.update(settings)
        yield


@lru_cache(maxsize=1)
def fonts() -> tuple[str, ...]:
    """DejaVu Sans, which comes with matplotlib, then those of `FALLBACKS` that are installed."""
    from matplotlib.font_manager import fontManager

    installed = set(fontManager.get_font_names())
    return ("DejaVu Sans", *(name for name in FALLBACKS if name in installed))


@lru_cache(maxsize=1)
def _characters() -> frozenset[int]:
    """Every character that the fonts can show."""
    from matplotlib.font_manager import findfont, get_font

    return frozenset(code for name in fonts() for code in get_font(findfont(name)).get_charmap())


def readable(text: str, longest: int = 16) -> str:
    """A token as a picture can show it: white space to be seen, no mark of a word's end, what no font has as its number."""
    seen = {" ": "␣", "\n": "↵", "\t": "⇥", "▁": "␣"}
    whole = text.removesuffix("</w>") or text
    letters = [seen.get(c) or (c if ord(c) in _characters() and c.isprintable() else f"U+{ord(c):04X}") for c in whole]
    return "".join(letters) if len(letters) <= longest else "".join(letters[: longest - 1]) + "…"


def plain(text: str) -> str:
    """A name or path with what no font has replaced."""
    return "".join(c if ord(c) in _characters() and c.isprintable() else "□" for c in text)


def without_glyphs(texts: Sequence[str]) -> str:
    """The characters of the texts that no installed font shows."""
    return "".join(sorted({c for text in texts for c in text if ord(c) not in _characters() and c.isprintable()}))


def figure(width: float, height: float) -> "Figure":
    """An empty picture of so many inches, whose parts make room for each other."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(picture: "Figure", file: Path, formats: Sequence[str]) -> list[Path]:
    """The picture as FILE.png and/or FILE.svg, whole or not at all; nothing in them depends on the hour."""
    file.parent.mkdir(parents=True, exist_ok=True)
    saved = []
    for kind in formats:
        path = file.with_name(f"{file.name}.{kind}")
        part = path.with_name(f".{path.name}.{os.getpid()}")
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        picture.savefig(part, format=kind, metadata=metadata, bbox_inches="tight", pad_inches=0.1)
        os.replace(part, path)
        saved.append(path)
    return saved
