"""What verbs that answer texts share: the texts of the command line or of stdin, line by line, and one answer a line. Imports no torch."""

import itertools
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from pellucid.cli.arguments import Parser
from pellucid.errors import DataError, UserError


def stdin_lines() -> Iterator[str]:
    """The lines of stdin without their ends. Raises DataError where one is not UTF-8."""
    for number, line in enumerate(sys.stdin.buffer, start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise DataError(
                f"stdin, line {number}: this is not UTF-8 text", "convert it first, e.g. with iconv -t UTF-8"
            ) from None


def something(texts: Sequence[str], remedy: str = "give a TEXT, or lines on stdin") -> None:
    """UserError where no text is given and stdin is a terminal: before anything heavy is loaded."""
    if not texts and sys.stdin.isatty():
        raise UserError("there is nothing to answer", remedy)


def pieces(texts: Sequence[str], size: int) -> Iterator[list[str]]:
    """The texts of the command line, or the lines of stdin where there are none, `size` at a time, so that answers come while reading
    goes on."""
    waiting = iter(texts) if texts else stdin_lines()
    while some := list(itertools.islice(waiting, size)):
        yield some


def asking(verb: str, description: str, examples: str) -> Parser:
    """What verbs that answer texts have in common: MODEL, TEXT…, --json."""
    flags = Parser(verb, description, examples)
    flags.add_argument("model", metavar="MODEL", help="a run folder, a model folder or a hub name")
    flags.add_argument("text", metavar="TEXT", nargs="*", help="what to read (default: the lines of stdin)")
    flags.add_argument("--json", action="store_true", help="print one JSON object a line")
    return flags


def note_cut(pipeline: Any, texts: Sequence[str]) -> None:
    """Say on stderr how many texts are read only in part."""
    if n := pipeline.n_cut(texts):
        print(
            f"note: {n} of {len(texts)} texts are longer than the model's {pipeline.longest} tokens: only their beginning is read",
            file=sys.stderr,
        )
