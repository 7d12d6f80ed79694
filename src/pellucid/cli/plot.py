"""`pellucid plot RUN`: curves, attention, positions and confusions as pictures. Imports no torch until it starts."""

import json
import sys
from pathlib import Path

from pellucid.cli.arguments import Parser

EXAMPLES = """\
  pellucid plot runs/multi30k --text "Ein Hund läuft über das Gras."
  pellucid plot runs/shakespeare --only curves --format svg --out docs/pictures
  pellucid plot runs/a runs/b runs/c          their curves in one picture"""
KINDS = ("curves", "attention", "positions", "confusion")
FORMATS = {"png": ("png",), "svg": ("svg",), "both": ("png", "svg")}


def run(argv: list[str]) -> int:
    """Draw; prints the path of each picture."""
    flags = Parser("plot", "Draw a run: its curves, what it attends to, its positions, its confusions.", EXAMPLES)
    flags.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        help="a run folder (also while it runs) or a model folder; several: their curves",
    )
    flags.add_argument("--out", metavar="FOLDER", help="where to write (default: RUN/plots)")
    flags.add_argument("--format", choices=FORMATS, default="png", help="of the pictures (default: png)")
    flags.add_argument(
        "--text", metavar="TEXT", help="what to look at (default: a held-out example); of a ViT an image file"
    )
    flags.add_argument("--only", nargs="+", choices=KINDS, default=(), help="only these kinds of pictures")
    flags.add_argument("--json", action="store_true", help="print one JSON object")
    args = flags.parse(argv)

    from pellucid.api import load
    from pellucid.inspection.plots import Asked, plot

    folders = [Path(run).expanduser() for run in args.runs]
    out = Path(args.out).expanduser() if args.out else folders[0] / "plots"
    done = plot(Asked(folders, load, args.text), out, args.only, FORMATS[args.format])
    if args.json:
        told = {"files": list(map(str, done.files)), "skipped": done.skipped, "notes": done.notes}
        print(json.dumps(told, ensure_ascii=False))
        return 0
    print("\n".join(map(str, done.files)))
    for told_of in (*(f"no {kind}: {why}" for kind, why in done.skipped.items()), *done.notes):
        print(told_of, file=sys.stderr)
    return 0
