"""`pellucid evaluate MODEL`: how good a model is, as a table or JSON. Imports no torch until it starts."""

import json
import sys
from typing import Any

from pellucid.cli.arguments import Parser, add_precision, at_least

EXAMPLES = """\
  pellucid evaluate runs/dates
  pellucid evaluate runs/multi30k --data test.de test.en --beam 5 --json
  pellucid evaluate runs/sst2-2 --compare runs/sst2       is the difference more than chance?"""


def run(argv: list[str]) -> int:
    """Evaluate; prints a table or JSON."""
    parser = Parser("evaluate", "Measure a model: loss, perplexity, BLEU and what else applies.", EXAMPLES)
    parser.add_argument("model", metavar="MODEL", help="a run folder, a model folder or a hub name")
    parser.add_argument(
        "--data", nargs="+", metavar="FILE", help="files to measure on (default: the part of the run named by --split)"
    )
    parser.add_argument(
        "--split",
        choices=("test", "valid", "train"),
        default="test",
        help="which part of the run's own data (default: test)",
    )
    parser.add_argument(
        "--columns", "--data.columns", nargs=2, metavar="NAME", help="the two columns of --data that count"
    )
    parser.add_argument("--beam", type=at_least(1), metavar="N", help="beams when it generates (default: the recipe's)")
    parser.add_argument(
        "--limit",
        type=at_least(1),
        metavar="N",
        help="only N examples (the first; of labels, tags and images evenly spread ones)",
    )
    parser.add_argument("--compare", metavar="OTHER", help="another model, asked the same: is the difference chance?")
    add_precision(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse(argv)

    from pellucid.api import load

    model = load(args.model, precision=args.precision)
    other = load(args.compare) if args.compare else None
    result = model.evaluate(args.data, args.split, args.beam, args.limit, other, args.columns or ())
    for note in result.pop("notes", ()):
        print(f"note: {note}", file=sys.stderr)
    print(json.dumps(result, ensure_ascii=False) if args.json else table(result))
    return 0


def table(result: dict[str, Any]) -> str:
    """The numbers one below the other with their intervals; of groups (locales, …) the three worst, all of them are in --json."""
    intervals, compared = result.get("intervals", {}), result.get("compared", {})
    shown = {name: _shown(value) for name, value in result.items() if name not in ("groups", "intervals", "compared")}
    groups = sorted(result.get("groups", {}).items(), key=lambda group: group[1])
    if groups:
        shown["worst groups"] = ", ".join(f"{name} {share:.3f}" for name, share in groups[:3]) + f" (of {len(groups)})"
    width = max(map(len, shown), default=0) + 2
    lines = []
    for name, value in shown.items():
        between = "   95 % between {:.4f} and {:.4f}".format(*intervals[name]) if name in intervals else ""
        against = _against(compared[name]) if name in compared else ""
        lines.append(f"{name.replace('_', ' '):{width}}{value:>10}{between}{against}".rstrip())
    return "\n".join(lines)


def _against(one: dict[str, Any]) -> str:
    low, high = one["interval"]
    return f"   difference {one['difference']:+.4f} ({low:+.4f} to {high:+.4f}, p {one['p']:.3f})"


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}" if isinstance(value, float) else str(value)
