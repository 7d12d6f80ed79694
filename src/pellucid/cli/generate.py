"""`pellucid generate MODEL [TEXT…]`: completes or translates.

Imports no torch until it starts.
"""

import argparse
import itertools
import json
import sys
from typing import Any

from pellucid.cli import alignment
from pellucid.cli.arguments import Parser, add_precision, at_least, between
from pellucid.cli.asking import pieces, something
from pellucid.errors import UserError
from pellucid.generation.options import GenerationOptions, changed
from pellucid.models import speaking

EXAMPLES = """\
  pellucid generate runs/shakespeare "ROMEO:" --temperature 0.8 --max-new 300
  pellucid generate runs/multi30k "Ein Hund läuft über das Gras." --beam 5 --align
  pellucid generate runs/dates --json < dates.txt
  pellucid generate gpt2 "The sea" --precision int8         faster, a little less exact"""
LINES_AT_ONCE = 256
OPTIONS = (
    ("beam", at_least(1), "N", "beams of the search; 1 = greedy or sampling"),
    ("n_best", at_least(1), "N", "how many answers to each text (at most --beam)"),
    ("max_new", at_least(1), "N", "tokens at most"),
    ("temperature", between(0, 100), "X", "0 = always the likeliest token; 1 = as the model believes"),
    ("top_k", at_least(0), "N", "sample from the N likeliest tokens; 0 = from all"),
    ("top_p", between(0, 1), "X", "sample from the likeliest tokens that hold this much probability; 1 = all"),
    ("repetition_penalty", between(0.01, 100), "X", "above 1: tokens that were there become less likely"),
    ("length_penalty", between(-10, 10), "X", "of beams: above 1 likes longer answers"),
    ("seed", at_least(0), "N", "of the sampling"),
)


def run(argv: list[str]) -> int:
    """Generate; prints texts, or one JSON object a line."""
    args = parser().parse(argv)
    something(args.text, 'give a TEXT, or lines on stdin; a GPT can start from ""')
    if args.align and args.json:
        raise UserError("--align draws and --json prints objects", "choose one of them")

    from pellucid.api import load

    pipeline: Any = load(args.model, precision=args.precision)
    family = pipeline.model.config.family
    if args.align and family != "seq2seq":
        raise UserError(f"--align is for encoder-decoders, and {args.model} is a {family}", "leave it out")
    options, prefix = merge(pipeline.options, args), args.prefix or ""
    for note in speaking.note(pipeline.undone):
        print(f"note: {note}", file=sys.stderr)
    if len(args.text) == 1 and sys.stdout.isatty() and family == "gpt" and options.beam == 1 and not args.json:
        return stream(pipeline, args.text[0], options, prefix)
    done = 0
    for some in pieces(args.text, LINES_AT_ONCE):
        answers = pipeline.generate(some, options, prefix=prefix, first_index=done)
        done += len(some)
        for text, best in zip(some, answers, strict=True):
            write(pipeline, text, best, args)
        sys.stdout.flush()
    return 0


def parser() -> Parser:
    """The flags; what is not given is None, and comes from the run's recipe or the model's folder."""
    flags = Parser("generate", "Complete text (GPT) or translate it (encoder-decoder).", EXAMPLES)
    flags.add_argument("model", metavar="MODEL", help="a run folder, a model folder or a hub name")
    flags.add_argument(
        "text", metavar="TEXT", nargs="*", help="what to complete or translate (default: the lines of stdin)"
    )
    for name, kind, value, line in OPTIONS:
        flags.add_argument("--" + name.replace("_", "-"), type=kind, metavar=value, help=line)
    flags.add_argument(
        "--stop", action="append", metavar="TEXT", help="end where this text appears; may be given again"
    )
    flags.add_argument(
        "--deterministic",
        action="store_true",
        help="each text by itself: the same answer in any company, in bfloat16 too",
    )
    add_precision(flags)
    flags.add_argument("--prefix", metavar="TEXT", help="what each answer must begin with")
    flags.add_argument("--align", action="store_true", help="draw which source tokens each target token looked at")
    flags.add_argument("--json", action="store_true", help="print one JSON object a line")
    return flags


def merge(defaults: GenerationOptions, args: argparse.Namespace) -> GenerationOptions:
    """The folder's or recipe's options with the flags given; asking for sampling turns their beams off, and back."""
    given = {name: getattr(args, name) for name, *_ in OPTIONS if getattr(args, name) is not None}
    if args.deterministic:
        given["deterministic"] = True
    if args.stop:
        given["stop"] = tuple(args.stop)
    if {"top_k", "top_p"} & set(given) and not defaults.temperature:
        given.setdefault("temperature", 1.0)
    return changed(defaults, given)


def stream(pipeline: Any, prompt: str, options: GenerationOptions, prefix: str) -> int:
    """Print a prompt and its completion, as the tokens come."""
    for piece in itertools.chain([prompt], pipeline.stream(prompt, options, prefix)):
        print(piece, end="", flush=True)
    print()
    return 0


def write(pipeline: Any, text: str, best: Any, args: argparse.Namespace) -> None:
    """The answers to one text: JSON objects, or plain (a completion after its prompt), scores before several."""
    before = text if pipeline.model.config.family == "gpt" else ""
    for one in (best, *best.others):
        if args.json:
            print(
                json.dumps(
                    {"input": text, "text": one.text, "score": one.score, "finished": one.finished}, ensure_ascii=False
                )
            )
        elif best.others:
            print(f"{one.score:.4f}\t{before}{one.text}")
        else:
            print(before + one.text)
    if args.align:
        alignment.show(*pipeline.alignment(text, best.text))
