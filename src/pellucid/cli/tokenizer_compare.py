"""`pellucid tokenizer compare`: several tokenizers on one text, side by side. Imports no torch."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid.cli.arguments import Parser, at_least
from pellucid.cli.tables import table, visible
from pellucid.cli.tokenizer import load
from pellucid.errors import UserError

if TYPE_CHECKING:
    from pellucid.text.compare import Comparison

EXAMPLES = """\
  pellucid tokenizer compare runs/multi30k gpt2/vocab.json --data test.de
  pellucid tokenizer compare runs/a runs/b tokenizers/c "Ein Hund läuft über das Gras." """
FORMS = {
    "vocabulary": "{:,}",
    "tokens": "{:,}",
    "characters_per_token": "{:.3f}",
    "bytes_per_token": "{:.3f}",
    "unknown": "{:.2%}",
    "lines_that_come_back": "{:.1%}",
    "words_kept_whole": "{:.1%}",
    "characters_per_second": "{:,.0f}",
}


def run(argv: list[str]) -> int:
    """Compare; prints a table, or one JSON object."""
    flags = Parser("tokenizer compare", "Several tokenizers on one text, side by side.", EXAMPLES)
    flags.add_argument(
        "words",
        nargs="+",
        metavar="MODEL TEXT",
        help="two or more runs, models or tokenizers; then texts, without --data",
    )
    flags.add_argument("--data", nargs="+", metavar="FILE", help="text files or globs to compare on")
    flags.add_argument(
        "--words",
        dest="n_words",
        type=at_least(0),
        default=8,
        metavar="N",
        help="how many differing words to show (default: 8)",
    )
    flags.add_argument("--json", action="store_true", help="print one JSON object")
    args = flags.parse(argv)
    paths, texts = told_apart(args.words)
    if len(paths) < 2:
        wrong = [word for word in args.words[:2] if not is_path(word)]
        raise UserError(
            f"two tokenizers are needed: {', '.join(wrong) or 'the second'} is no file or folder", flags.usage_line()
        )
    if args.data and texts:
        raise UserError(f"{texts[0]!r} is no file or folder, and with --data there is no TEXT", flags.usage_line())
    if not args.data and not texts:
        raise UserError("there is nothing to compare on", "give --data FILE …, or a TEXT")

    from pellucid.data.files import read_chunks
    from pellucid.text.compare import compare

    text = (chunk.text for chunk in read_chunks(args.data)) if args.data else iter(texts)
    found = compare([load(path) for path in paths], text, args.n_words)
    print(json.dumps(as_json(paths, found), ensure_ascii=False) if args.json else report(names(paths), found))
    return 0


def told_apart(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words that begin the line and are files or folders; the texts after them."""
    n = next((at for at, word in enumerate(words) if not is_path(word)), len(words))
    return list(words[:n]), list(words[n:])


def is_path(word: str) -> bool:
    """Whether there is such a file or folder; a long text is none."""
    try:
        return bool(word) and Path(word).expanduser().exists()
    except (OSError, ValueError):
        return False


def names(paths: Sequence[str]) -> list[str]:
    """Short names that tell the tokenizers apart: the last part of each path that differs, else the whole path."""
    short = [Path(path).resolve() for path in paths]
    last = [
        path.parent.name if path.name in ("tokenizer.json", "vocab.json", "vocab.txt") else path.name for path in short
    ]
    return last if len(set(last)) == len(last) else list(paths)


def report(tokenizers: list[str], found: "Comparison") -> str:
    """The numbers in columns, what vocabularies share, and the words that differ most."""
    numbers = [count.summary() for count in found.counts]
    rows = [["", *tokenizers]]
    rows += [[name.replace("_", " "), *(shown(form, one[name]) for one in numbers)] for name, form in FORMS.items()]
    parts = [table(rows, right=range(1, len(tokenizers) + 1))]
    shared = [("pieces spelled alike", "")]
    for one in found.shared:
        first, second = tokenizers[one.first], tokenizers[one.second]
        share = f"{one.of_first:.0%} of {first}, {one.of_second:.0%} of {second}"
        shared.append((f"  {first} and {second}", f"{one.alike:,}: {share}"))
    parts.append(table(shared))
    if found.differences:
        rows = [["words that differ most", "times", *tokenizers]]
        rows += [
            [f"  {one.word}", f"{one.times:,}", *("·".join(map(visible, pieces)) for pieces in one.pieces)]
            for one in found.differences
        ]
        parts.append(table(rows, right={1}))
    return "\n\n".join(parts)


def shown(form: str, value: float) -> str:
    """A number as people read it."""
    return "–" if math.isnan(value) else form.format(value)


def as_json(paths: Sequence[str], found: "Comparison") -> dict[str, Any]:
    """Everything, as JSON values; null where there was nothing to count."""
    tokenizers = [
        {"path": path, **{k: None if math.isnan(v) else v for k, v in count.summary().items()}}
        for path, count in zip(paths, found.counts, strict=True)
    ]
    shared = [{**asdict(one), "first": paths[one.first], "second": paths[one.second]} for one in found.shared]
    return {"tokenizers": tokenizers, "shared": shared, "differences": [asdict(one) for one in found.differences]}
