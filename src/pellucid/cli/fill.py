"""`pellucid fill MODEL [TEXT…]`: the words behind a mask. Imports no torch until it starts."""

import json
from typing import Any

from pellucid.cli.arguments import at_least
from pellucid.cli.asking import asking, pieces, something
from pellucid.errors import UserError

EXAMPLES = """\
  pellucid fill runs/mlm "the capital of France is <mask> ."
  pellucid fill runs/mlm --top 10 --json < sentences.txt"""


def run(argv: list[str]) -> int:
    """Fill; for each mask its likeliest words."""
    flags = asking("fill", "Say which words stand behind <mask> (or [MASK]): masked language models.", EXAMPLES)
    flags.add_argument("--top", type=at_least(1), default=5, metavar="N", help="the N likeliest (default: 5)")
    args = flags.parse(argv)
    something(args.text, "give a TEXT with <mask> in it, or lines on stdin")

    from pellucid.api import load

    pipeline: Any = load(args.model)
    for some in pieces(args.text, 1):
        found = pipeline.fill(some[0], args.top)
        if args.text and not found:
            raise UserError("there is nothing to fill", 'put <mask> where a word is missing: "the <mask> sat"')
        show(some[0], found, args.json)
    return 0


def show(text: str, masks: list[list[tuple[str, float]]], as_json: bool) -> None:
    """A line a word under the text, numbered where there are several masks; or one object."""
    if as_json:
        said = [[{"word": word, "probability": p} for word, p in words] for words in masks]
        print(json.dumps({"input": text, "masks": said}, ensure_ascii=False), flush=True)
        return
    print(text)
    for number, words in enumerate(masks, 1):
        before = f"{number}. " if len(masks) > 1 else ""
        for word, p in words:
            print(f"  {before}{p:.3f}  {word}", flush=True)
