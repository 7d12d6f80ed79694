"""`pellucid evaluate MODEL`: how good a model is, as a table or JSON. Imports no torch until it starts."""

import json
from typing import Any

from pellucid.cli.arguments import Parser, at_least

EXAMPLES = """\
  pellucid evaluate runs/dates
  pellucid evaluate runs/multi30k --data test.de test.en --beam 5 --json"""
NUMBERS = {int: "{:,}", float: "{:.4f}"}


def run(argv: list[str]) -> int:
    """Evaluate; prints a table or JSON."""
    parser = Parser("evaluate", "Measure a model: loss, perplexity, BLEU and what else applies.", EXAMPLES)
    parser.add_argument("model", metavar="MODEL", help="a run folder or a model folder")
    parser.add_argument(
        "--data", nargs="+", metavar="FILE", help="files to measure on (default: the part of the run named by --split)"
    )
    parser.add_argument(
        "--split", choices=("test", "valid"), default="test", help="which part of the run's own data (default: test)"
    )
    parser.add_argument("--beam", type=at_least(1), metavar="N", help="beams when it generates (default: the recipe's)")
    parser.add_argument("--limit", type=at_least(1), metavar="N", help="only the first N examples")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse(argv)

    from pellucid.api import load

    result = load(args.model).evaluate(args.data, split=args.split, beam=args.beam, limit=args.limit)
    print(json.dumps(result, ensure_ascii=False) if args.json else table(result))
    return 0


def table(result: dict[str, Any], indent: str = "") -> str:
    """The numbers one below the other, those of groups indented below them."""
    width = max(map(len, result), default=0) + 2
    lines = []
    for name, value in result.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}:", table(value, indent + "  ")]
            continue
        label = name if indent else name.replace("_", " ")
        lines.append(f"{indent}{label:{width}}{NUMBERS.get(type(value), '{}').format(value):>10}")
    return "\n".join(lines)
