"""`pellucid tokenizer explain`: how a text becomes ids and comes back; or, with --learn, how BPE learns. Imports no torch."""

import itertools
import json
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from pellucid.cli.arguments import Parser, at_least
from pellucid.cli.tables import quoted, table, visible
from pellucid.cli.tokenizer import load
from pellucid.errors import UserError

if TYPE_CHECKING:
    from pellucid.text.bpe import Step
    from pellucid.text.explain import Explanation, Word
    from pellucid.text.segmenting import Joined, Matched

EXAMPLES = """\
  pellucid tokenizer explain runs/multi30k "Ein Hund läuft über das Gras."
  pellucid tokenizer explain gpt2/tokenizer.json --json < lines.txt
  pellucid tokenizer explain --learn notes.txt --merges 30 "lowest"     how BPE learns, and what it makes of a word"""
MOST_TIES = 3


def run(argv: list[str]) -> int:
    """Explain each text; prints steps, or one JSON object a text (and with --learn one a merge)."""
    flags = Parser("tokenizer explain", "How a text becomes ids, step by step, and what comes back.", EXAMPLES)
    flags.add_argument(
        "words", nargs="*", metavar="MODEL TEXT", help="a run, model or tokenizer, then texts (default: lines of stdin)"
    )
    flags.add_argument(
        "--learn",
        nargs="+",
        metavar="FILE",
        help="instead of a MODEL: learn BPE from a small text, and tell each merge",
    )
    flags.add_argument(
        "--merges", type=at_least(1), default=20, metavar="N", help="how many, with --learn (default: 20)"
    )
    flags.add_argument("--json", action="store_true", help="print JSON, one object a line")
    args = flags.parse(argv)
    if args.learn:
        return learn(args.learn, args.merges, args.words, args.json)
    if not args.words:
        raise UserError("there is no tokenizer to explain", flags.usage_line())

    from pellucid.cli.asking import stdin_lines
    from pellucid.text.explain import Explainer

    explainer, (_, *texts) = Explainer(load(args.words[0])), args.words
    if not texts and sys.stdin.isatty():
        raise UserError("there is no text to explain", "give a TEXT, or lines on stdin")
    for number, text in enumerate(texts or stdin_lines()):
        told = explainer.explain(text)
        if args.json:
            print(json.dumps(as_json(told), ensure_ascii=False))
        else:
            print(("\n" if number else "") + report(told, explainer.kind))
    return 0


# --- a text ----------------------------------------------------------------------------------------------------------


def as_json(told: "Explanation") -> dict[str, Any]:
    """An explanation as JSON values; `same`: whether decoding gives the text back."""
    words = [
        {
            "word": word.text,
            "start": word.told.start,
            "steps": [step._asdict() for step in word.told.steps],
            **({"ways": [way._asdict() for way in word.told.ways]} if word.told.ways else {}),
            "pieces": word.pieces,
            "ids": word.told.ids,
        }
        for word in told.words
    ]
    same = {"decoded": told.decoded, "same": told.decoded == told.text, "lost": told.lost}
    whole = {"text": told.text, "normalised": told.normalised, "words": words}
    return {**whole, "pieces": told.pieces, "ids": told.ids, **same}


def report(told: "Explanation", kind: str) -> str:
    """From the text to its ids and back, for people; a word that is there twice is told once."""
    cleaned = "as it is" if told.normalised == told.text else quoted(told.normalised)
    rows = [
        ("text", quoted(told.text)),
        ("cleaned", cleaned),
        ("words", " │ ".join(visible(word.text) for word in told.words) or "none"),
    ]
    times = Counter(word.text for word in told.words)
    once = {word.text: word for word in told.words}
    steps = [part for word in once.values() for part in ("", *tell_word(word, times[word.text], kind))]
    ids = [
        ("pieces", " ".join(map(visible, told.pieces)) or "none"),
        ("ids", " ".join(map(str, told.ids)) or "none"),
        ("decoded", quoted(told.decoded)),
        ("", "the text as it was" if told.decoded == told.text else f"lost: {'; '.join(told.lost)}"),
    ]
    return "\n".join([table(rows), *steps, "", table(ids)])


def tell_word(word: "Word", times: int, kind: str) -> list[str]:
    """One word: what it began as, each step, its ids."""
    from pellucid.text.segmenting import Joined, Matched

    told, head = word.told, visible(word.text) + (f"   ({times} times)" if times > 1 else "")
    joined = [step for step in told.steps if isinstance(step, Joined)]
    matched = [step for step in told.steps if isinstance(step, Matched)]
    pairs = zip(word.pieces, told.ids, strict=True)
    result = " ".join(f"{visible(piece)}={i}" for piece, i in pairs) or "nothing"
    if joined:
        lines = merges(joined, told.start)
    elif matched:
        lines = table([match(step, word.text) for step in matched]).split("\n")
    elif told.ways:
        lines = ways(told.ways)
    elif word.added:
        lines = ["a token of its own, found before anything else"]
    elif kind == "wordpiece":
        lines = ["too long a word to be looked at"]
    else:
        lines = ["no merge applies"] if kind not in ("char", "word") and len(told.start) > 1 else []
    return [head, *(f"    {line}" for line in lines), f"    → {result}"]


def merges(steps: "list[Joined]", start: tuple[str, ...]) -> list[str]:
    """BPE: the number of each merge in the order it was learnt, the pair, the word after it."""
    rows = [("", "", " ".join(map(visible, start)))]
    for step in steps:
        pair = " + ".join(map(visible, step.pair))
        rows.append((f"merge {step.rank:,}", pair, " ".join(map(visible, step.pieces))))
    return table(rows, right={0}).split("\n")


def match(step: "Matched", word: str) -> tuple[str, str, str]:
    """WordPiece: what is left, the longest known piece of it, how many longer ones are not known."""
    if step.piece is None:
        return visible(step.left), "nothing that it begins with is known:", f"all of {visible(word)} is unknown"
    tried = f"{step.longer} longer {'one is' if step.longer == 1 else 'ones are'} not known"
    return visible(step.left), f"begins with {visible(step.piece)}", tried if step.longer else "all of it"


def ways(found: "tuple[Any, ...]") -> list[str]:
    """Unigram: the best way and the next ones, with the log-probability of each piece."""
    rows = []
    for place, way in enumerate(found):
        pieces = " ".join(f"{visible(piece)} {score:.2f}" for piece, score in zip(way.pieces, way.scores, strict=True))
        rows.append(("best" if not place else f"{place + 1}.", f"{way.total:.2f}", "= " + pieces))
    return table(rows, right={1}).split("\n")


# --- how BPE learns --------------------------------------------------------------------------------------------------


def learn(files: list[str], n_merges: int, texts: list[str], wants_json: bool) -> int:
    """Every merge that BPE learns from a text, then what it makes of words."""
    from pellucid.data.files import read_lines
    from pellucid.text import bpe

    words = Counter(word for line in read_lines(files) for word in line.split())
    steps = list(itertools.islice(bpe.steps(words), n_merges))
    learnt = bpe.Merges(tuple(step.pair for step in steps), ())
    given = [word for text in texts for word in text.split()]
    applied = {word: [*bpe.apply_steps(word, learnt)] for word in given}
    if wants_json:
        for number, step in enumerate(steps, 1):
            print(json.dumps(merge_as_json(number, step), ensure_ascii=False))
        for word, pieces in applied.items():
            print(json.dumps({"word": word, "steps": pieces}, ensure_ascii=False))
        return 0
    letters = len(bpe.letters(words))
    print(
        f"{sum(words.values()):,} words, {len(words):,} different, spelled in {letters} symbols; </w> marks a word's end\n"
    )
    print(table([("merge", "times", "pair", "gives", ""), *map(merge_row, itertools.count(1), steps)], right={0, 1}))
    if len(steps) < n_merges:
        print("\nno pair is there twice any more")
    for word, pieces in applied.items():
        print(f"\n{word}\n" + "\n".join(f"    {' '.join(symbols)}" for symbols in pieces))
    return 0


def merge_row(number: int, step: "Step") -> tuple[str, ...]:
    """One merge as cells: number, times, pair, what it gives, who occurred as often."""
    others = [" + ".join(pair) for pair in step.ties[1:]]
    more = f" and {len(others) - MOST_TIES:,} more" if len(others) > MOST_TIES else ""
    tied = f"as often: {', '.join(others[:MOST_TIES])}{more}" if others else ""
    return f"{number:,}", f"{step.counts[step.pair]:,}", " + ".join(step.pair), step.joined, tied


def merge_as_json(number: int, step: "Step") -> dict[str, Any]:
    """One merge as JSON values; `ties`: the other pairs that occurred as often, best first."""
    return {"merge": number, "pair": step.pair, "count": step.counts[step.pair], "ties": step.ties[1:]}
