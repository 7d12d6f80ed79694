"""`pellucid tokenizer train`: learns a tokenizer, saves it, and says what it makes of its own text. Imports no torch."""

import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

from pellucid.cli.arguments import Parser, at_least
from pellucid.cli.tables import table
from pellucid.errors import UserError

EXAMPLES = """\
  pellucid tokenizer train --data notes.txt --kind byte-bpe --vocab-size 4000 --out tokenizers/notes
  pellucid tokenizer train --data 'de/*.txt' en.txt.gz --kind unigram --specials '<mask>' --out joint.json"""
KINDS = ("byte-bpe", "bpe", "wordpiece", "unigram", "char", "word")
PIECES_AT_ONCE = 16


def run(argv: list[str]) -> int:
    """Learn and save; prints what came of it, or JSON."""
    args = parser().parse(argv)
    file = Path(args.out).expanduser()
    file = file if file.suffix == ".json" else file / "tokenizer.json"
    if file.exists():
        raise UserError(f"{file} exists, and is not written over", "choose another --out, or remove it first")

    from pellucid.data.files import read_chunks
    from pellucid.text.tokenizer import train

    print(f"learning {args.kind} from {', '.join(args.data)} …", file=sys.stderr)
    began = time.perf_counter()
    texts = (chunk.text for chunk in read_chunks(args.data))
    specials = args.specials or ()
    tokenizer = train(texts, args.kind, args.vocab_size, args.lowercase, args.min_count, specials)
    told: dict[str, Any] = {"file": str(tokenizer.save(file)), "kind": args.kind}
    told |= {"vocabulary": tokenizer.vocab_size, "asked": args.vocab_size}
    told |= {"seconds": round(time.perf_counter() - began, 2), **measure(tokenizer, args.data)}
    print(json.dumps(told, ensure_ascii=False) if args.json else report(told))
    return 0


def parser() -> Parser:
    """The flags of `tokenizer train`."""
    flags = Parser("tokenizer train", "Learn a tokenizer from text files and write tokenizer.json.", EXAMPLES)
    flags.add_argument(
        "--data", nargs="+", required=True, metavar="FILE", help="text files or globs; .gz and FILE.parquet:COLUMN too"
    )
    flags.add_argument("--kind", choices=KINDS, default="byte-bpe", help="how text is cut (default: byte-bpe)")
    flags.add_argument(
        "--vocab-size",
        type=at_least(1),
        default=8000,
        metavar="N",
        help="tokens, special ones included (default: 8000)",
    )
    flags.add_argument("--lowercase", action="store_true", help="lower all letters first")
    flags.add_argument(
        "--min-count", type=at_least(1), default=1, metavar="N", help="leave out what is there less often (default: 1)"
    )
    flags.add_argument(
        "--specials",
        nargs="+",
        metavar="NAME",
        help="further special tokens, e.g. '<mask>'; <pad> <bos> <eos> <unk> are always there",
    )
    flags.add_argument("--out", required=True, metavar="PATH", help="a folder, or a file that ends in .json")
    flags.add_argument("--json", action="store_true", help="print one JSON object")
    return flags


def measure(tokenizer: Any, files: list[str]) -> dict[str, Any]:
    """What the tokenizer makes of the text it learned from, line ends included."""
    from pellucid.data.files import read_chunks

    characters = size = tokens = unknown = 0
    texts = (chunk.text for chunk in read_chunks(files))
    while some := list(itertools.islice(texts, PIECES_AT_ONCE)):
        ids, _ = tokenizer.encode_flat(some)
        characters += sum(map(len, some))
        size += sum(len(text.encode()) for text in some)
        tokens += len(ids)
        unknown += int((ids == tokenizer.unk_id).sum())
    per_token = {"characters_per_token": characters / max(1, tokens), "bytes_per_token": size / max(1, tokens)}
    return {"characters": characters, "bytes": size, "tokens": tokens, **per_token, "unknown": unknown / max(1, tokens)}


def report(told: dict[str, Any]) -> str:
    """The same for people."""
    reached, asked = told["vocabulary"], told["asked"]
    fewer = f" ({asked:,} were asked for; the text has no more pieces)" if reached < asked else ""
    rows = [
        ("kind", told["kind"]),
        ("vocabulary", f"{reached:,}{fewer}"),
        ("text", f"{told['characters']:,} characters, {told['bytes']:,} bytes"),
        ("becomes", f"{told['tokens']:,} tokens"),
        ("characters per token", f"{told['characters_per_token']:.3f}"),
        ("bytes per token", f"{told['bytes_per_token']:.3f}"),
        ("unknown", f"{told['unknown']:.3%} of the tokens"),
        ("learnt in", f"{told['seconds']:.1f} s"),
        ("written to", told["file"]),
    ]
    return table(rows)
