"""Command: `python -m benchmarks NAME [--quick] [--json] [--data FOLDER] [--threads N] [--only WORK,…] [--out FOLDER]`.

Measures one question beside the peers and prints a table in Markdown, or with --json one object. NAME is a file of this folder that has
`run(quick) -> dict` and `table(result) -> str`; it is imported only when asked for. Peers are found by the variables PELLUCID_PEERS (a
Python in which they are installed) and NANOGPT (a checkout); what is not there is skipped, with a reason.
"""

import argparse
import difflib
import importlib
import json
import math
import os
import signal
import sys
from pathlib import Path
from typing import Any

QUESTIONS = {
    "training": "tokens a second of training steps",
    "quality": "seconds to a quality (hours)",
    "decoding": "tokens a second and time to the first of a GPT",
    "beam": "translations a second with beam search",
    "text": "tokenizers: learning and encoding",
    "memory": "peak memory",
    "startup": "seconds until something happens",
    "scaling": "speed as lengths and batches grow",
}


def main(argv: list[str]) -> int:
    """The exit code: 2 for a question that there is not."""
    args = arguments(argv)
    there = [name for name in QUESTIONS if (Path(__file__).parent / f"{name}.py").exists()]
    if args.name not in there:
        close = difflib.get_close_matches(args.name, there, n=1)
        guess = f"did you mean {close[0]}?" if close else f"there are: {', '.join(there)}"
        print(f"there is no question {args.name!r}: {guess}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that `with` blocks end the workers
    environment = {"PELLUCID_DATA": args.data, "OMP_NUM_THREADS": args.threads, "RAYON_NUM_THREADS": args.threads}
    environment |= {"BENCHMARKS_ONLY": args.only, "BENCHMARKS_OUT": args.out}
    os.environ.update({name: str(value) for name, value in environment.items() if value})
    question = importlib.import_module(f"benchmarks.{args.name}")
    result = question.run(args.quick)
    print(json.dumps(finite(result), indent=1, ensure_ascii=False) if args.json else question.table(result))
    return 0


def arguments(argv: list[str]) -> argparse.Namespace:
    """The flags."""
    told = "\n".join(f"  {name:10} {what}" for name, what in QUESTIONS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog=told,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", help="the question, one of those below")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: whether it runs, not how fast")
    parser.add_argument("--json", action="store_true", help="one object instead of a table")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="real corpora; also PELLUCID_DATA")
    parser.add_argument("--threads", type=int, metavar="N", help="of each process: OMP_ and RAYON_NUM_THREADS")
    parser.add_argument("--only", metavar="WORK,…", help="these works of the question")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where what takes hours is kept, and gone on with")
    return parser.parse_args(argv)


def finite(value: Any) -> Any:
    """Without NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
