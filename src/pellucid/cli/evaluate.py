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


def table(result: dict[str, Any]) -> str:
    """The numbers one below the other; of groups (locales, …) the three worst, all of them are in --json."""
    shown = {name.replace("_", " "): _shown(value) for name, value in result.items() if name != "groups"}
    groups = sorted(result.get("groups", {}).items(), key=lambda group: group[1])
    if groups:
        shown["worst groups"] = ", ".join(f"{name} {share:.3f}" for name, share in groups[:3]) + f" (of {len(groups)})"
    width = max(map(len, shown), default=0) + 2
    return "\n".join(f"{name:{width}}{value:>10}".rstrip() for name, value in shown.items())


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}" if isinstance(value, float) else str(value)
