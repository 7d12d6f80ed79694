"""`pellucid embed MODEL [TEXT…]`: texts as vectors. Imports no torch until it starts."""

import json
import sys
from argparse import BooleanOptionalAction
from typing import Any

from pellucid.cli.asking import asking, note_cut, pieces, something

EXAMPLES = """\
  pellucid embed runs/mlm "a sentence" --json
  pellucid embed runs/mlm --pooling cls --normalise < sentences.txt > vectors.tsv"""
AT_ONCE = 256


def run(argv: list[str]) -> int:
    """Embed; one vector a line: numbers parted by tabs, or an object."""
    flags = asking("embed", "Turn texts into vectors.", EXAMPLES)
    flags.add_argument(
        "--pooling",
        choices=("mean", "cls", "last", "max"),
        help="the mean of the tokens' states, the first, the last, or the largest at each place (default: what the model says, or mean)",
    )
    length = "vectors of length 1: a product is then a cosine (default: what the model says, or no)"
    flags.add_argument("--normalise", action=BooleanOptionalAction, help=length)
    args = flags.parse(argv)
    something(args.text)

    from pellucid.api import load

    pipeline: Any = load(args.model)
    for some in pieces(args.text, AT_ONCE):
        note_cut(pipeline, some)
        vectors = pipeline.embed(some, args.pooling, args.normalise).tolist()
        for text, vector in zip(some, vectors, strict=True):
            said = {"input": text, "vector": [round(x, 7) for x in vector]}
            print(json.dumps(said, ensure_ascii=False) if args.json else "\t".join(f"{x:.6g}" for x in vector))
        sys.stdout.flush()
    return 0
