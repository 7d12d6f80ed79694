"""Errors a person can act on: what is wrong, where, and what to do about it. The command line prints them without a traceback."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """What was asked for cannot be done as asked. `exit_code` is what the command line returns."""

    exit_code = 2

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(f"{problem}\n  {remedy}" if remedy else problem)
        self.problem, self.remedy = problem, remedy


class DataError(UserError):
    """A file, data set or model is missing, damaged or does not fit."""

    exit_code = 3


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A remedy for an unknown name: the closest known one, or all of them."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else "known: " + ", ".join(known)
