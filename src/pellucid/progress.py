"""How far long work is: a live line on a terminal, a plain line now and then in a pipe, nothing for what is done in a moment.

Everything goes to standard error. Imports nothing heavy.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

FIRST, LIVE, PLAIN = 2.0, 0.2, 15.0
"""Seconds before anything is said; between two lines on a terminal, and in a pipe."""
EARLY = 0.1
"""The share up to which nobody can tell how long the rest will take."""
shown = False
"""Whether anything is said at all. The command line turns it on; the log of a training run, which says it better, off."""


class Progress:
    """`with Progress("answering", 1000) as progress: … progress.tick()`. `total` 0 = nobody knows: then what is done is counted."""

    def __init__(self, what: str, total: int = 0) -> None:
        self.what, self.total, self.done = what, total, 0
        self.live, self.said = sys.stderr.isatty(), False
        self.began = time.monotonic()
        self.last = self.began + FIRST - (LIVE if self.live else PLAIN)

    def __enter__(self) -> "Progress":
        return self

    def tick(self, n: int = 1) -> None:
        """n more are done."""
        self.done += n
        now = time.monotonic()
        if not shown or now - self.last < (LIVE if self.live else PLAIN) or self.done == self.total:
            return
        self.last, self.said = now, True
        line = f"{self.what}: {self._how_far(now)}"
        print(f"\r\x1b[K{line}" if self.live else line, end="" if self.live else "\n", file=sys.stderr, flush=True)

    def _how_far(self, now: float) -> str:
        if not self.total:
            return f"{self.done:,}"
        far = f"{self.done:,} of {self.total:,}"
        if self.done < EARLY * self.total:  # the first answers of a batch end long before the others
            return far
        left = int((now - self.began) / self.done * (self.total - self.done))
        return f"{far}, {left // 60}:{left % 60:02} left"

    def __exit__(self, *exception: object) -> None:
        if self.said and self.live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def counted(items: Iterable[T], what: str, total: int = 0, size: Callable[[T], int] = lambda item: 1) -> Iterator[T]:
    """The items as they are, counted, each by its size."""
    with Progress(what, total) as progress:
        for item in items:
            yield item
            progress.tick(size(item))
