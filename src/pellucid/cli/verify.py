"""`pellucid verify MODEL`: a model folder in two libraries, compared stage by stage. Imports no torch until it starts."""

import json
import sys
from collections.abc import Sequence
from typing import Any

from pellucid.cli.arguments import Parser, at_least
from pellucid.cli.tables import table

HEADER = ("stage", "max absolute difference", "max relative difference", "")
EXAMPLES = """\
  pellucid verify runs/shakespeare
  pellucid verify ~/models/stories260K --against transformers --json
  pellucid verify runs/multi30k --text "Ein Hund läuft." """


def run(argv: list[str]) -> int:
    """Verify; 0 when every stage is equal, else 3."""
    args = parser().parse(argv)

    from pellucid.inspection.parity import verify
    from pellucid.models.hub import find

    found = verify(find(args.model), args.text, args.device, args.beam)
    if args.json:
        print(json.dumps({"model": args.model, "against": args.against, **found.to_dict()}, ensure_ascii=False))
    else:
        show(found)
    return 0 if found.equal else 3


def parser() -> Parser:
    """The flags."""
    flags = Parser(
        "verify",
        "Prove on this machine that a model folder gives the same numbers here and in `transformers`: embedding, every\n"
        "block, final states, logits, loss (float32, a batch with padding), generated tokens and the tokenizers' ids.\n"
        "Equal: |ours - theirs| <= 1e-5 * max(1, |theirs|), everywhere. Exits 0 only when all of it is, else 3.",
        EXAMPLES,
    )
    flags.add_argument("model", metavar="MODEL", help="a model folder, a run that has ended, or a hub name")
    flags.add_argument(
        "--against", choices=("transformers",), default="transformers", help="the other library (default: transformers)"
    )
    flags.add_argument("--text", metavar="TEXT", help="what both read (default: texts of several languages)")
    flags.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda, mps (default: cpu)")
    flags.add_argument("--beam", type=at_least(1), default=1, metavar="N", help="beams of both (default: 1, greedily)")
    flags.add_argument("--json", action="store_true", help="print one JSON object")
    return flags


def show(found: Any) -> None:
    """A table on a terminal, aligned lines in a pipe; then the rest in words."""
    rows = [
        (one.stage, number(one.max_abs_difference), number(one.max_rel_difference), verdict(one.equal))
        for one in found.stages
    ]
    if sys.stdout.isatty():
        draw(rows)
    else:
        print(table([HEADER, *rows], right=(1, 2)))
    print("\n".join(words(found)))


def draw(rows: Sequence[tuple[str, ...]]) -> None:
    """The rows as a rich table."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for at, name in enumerate(HEADER):
        drawn.add_column(name, justify="right" if at in (1, 2) else "left")
    for row in rows:
        drawn.add_row(*(Text(cell, "bold red" if row[-1] == verdict(False) else "") for cell in row))
    Console(highlight=False).print(drawn)


def words(found: Any) -> list[str]:
    """What is no number, and the verdict."""
    said = {None: "not compared", True: "equal", False: verdict(False)}
    versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    lines = [f"tokens         {said[found.tokens_equal]}", f"tokenizer      {said[found.tokenizer_equal]}"]
    lines += [f"note: {note}" for note in found.notes]
    lines += [f"note: they found no weights for {name}" for name in found.missing_keys]
    how = f"{found.architecture}, float32, {found.device}, their attention {found.attention}; {versions}"
    if found.equal:
        return [*lines, how, "equal: the two libraries say the same"]
    first = f": {found.first_difference} is the first stage to differ" if found.first_difference else ""
    why = {
        None: "",
        True: ", by rounding: their own float32 is as far from their float64",
        False: ", and not by rounding",
    }
    return [*lines, how, f"NOT EQUAL{first}{why[found.rounding]}"]


def number(difference: float | None) -> str:
    """A difference for people."""
    return "not a number" if difference is None else f"{difference:.1e}" if difference else "0"


def verdict(equal: bool) -> str:
    """The last column."""
    return "equal" if equal else "DIFFERENT"
