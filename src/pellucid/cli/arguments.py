"""Flags of a verb: argparse, with our errors (one sentence, did you mean, exit code 2). Imports no torch."""

import argparse
from collections.abc import Callable, Sequence
from typing import NoReturn

from pellucid.errors import UserError, did_you_mean


class Parser(argparse.ArgumentParser):
    """`Parser("generate", "what it does", "examples")`; `.parse(argv)` lets flags and words stand in any order."""

    def __init__(self, verb: str, description: str, examples: str = "") -> None:
        super().__init__(
            prog=f"pellucid {verb}",
            description=description,
            epilog=f"examples:\n{examples}" if examples else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """The values of `argv`. Raises UserError; prints the help and exits 0 for --help."""
        known, unknown = self.parse_known_intermixed_args(list(argv))
        for word in unknown:
            if word.startswith("-") and word != "-":
                flags = [flag for flag in self._option_string_actions if flag.startswith("--")]
                raise UserError(
                    f"{self.prog} has no flag {word.split('=')[0]}", did_you_mean(word.split("=")[0], flags)
                )
        if unknown:
            raise UserError(f"{self.prog}: one word too many: {unknown[0]!r}", self.usage_line())
        return known

    def usage_line(self) -> str:
        """How it is called, on one line."""
        return " ".join(self.format_usage().split())

    def error(self, message: str) -> NoReturn:
        """What argparse found wrong, as our error."""
        raise UserError(f"{self.prog}: {message}", f"see `{self.prog} --help`")


def at_least(least: int) -> Callable[[str], int]:
    """A whole number of `least` or more, for argparse's `type`."""

    def whole_number(word: str) -> int:
        try:
            value = int(word)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"must be a whole number, {least} or more, not {word!r}")
        return value

    return whole_number


def between(least: float, most: float) -> Callable[[str], float]:
    """A number from `least` to `most`, for argparse's `type`."""

    def number(word: str) -> float:
        try:
            value = float(word)
        except ValueError:
            value = float("nan")
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be a number from {least:g} to {most:g}, not {word!r}")
        return value

    return number


def add_precision(flags: argparse.ArgumentParser) -> None:
    """How the weights of a model that is only used are kept."""
    line = "weights as float32, bfloat16, int8 or int4, laid out for the CPU: fewer bits, faster, less exact"
    flags.add_argument("--precision", metavar="KIND", help=line)
