"""`pellucid tokenizer train|explain|compare`: learn one, see what one does, set several side by side. Imports no torch."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from pellucid.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from pellucid.text.tokenizer import Tokenizer

PARTS = {
    "train": "learn a vocabulary from your files",
    "explain": "how a text becomes ids, step by step; or how BPE learns",
    "compare": "several tokenizers on one text, side by side",
}


def run(argv: list[str]) -> int:
    """Give the words after the part to its module."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(overview())
        return 0 if argv else 2
    if argv[0] not in PARTS:
        raise UserError(f"pellucid tokenizer cannot {argv[0]!r}", did_you_mean(argv[0], PARTS))
    return int(importlib.import_module(f"pellucid.cli.tokenizer_{argv[0]}").run(argv[1:]))


def overview() -> str:
    """What `pellucid tokenizer --help` prints."""
    width = max(map(len, PARTS)) + 2
    lines = "\n".join(f"  {name:{width}}{line}" for name, line in PARTS.items())
    return (
        f"usage: pellucid tokenizer PART …      pellucid tokenizer PART --help\n\n{lines}\n\n"
        "examples:\n"
        "  pellucid tokenizer train --data notes.txt --kind byte-bpe --vocab-size 4000 --out tokenizers/notes\n"
        '  pellucid tokenizer explain tokenizers/notes "The lowest of the newest."\n'
        "  pellucid tokenizer compare tokenizers/notes runs/shakespeare --data notes.txt"
    )


def load(path: str) -> "Tokenizer":
    """The tokenizer of a run folder, a model folder, or a tokenizer's own file or folder. DataError where there is none."""
    from pellucid.text.tokenizer import Tokenizer

    place = Path(path).expanduser()
    return Tokenizer.load(place / "model" if (place / "run.toml").is_file() else place)
