"""Two searches at a time: while one thread counts hypotheses in Python, the other multiplies.

A step of a search is hundreds of small operations. Dividing each of them among all processors makes these wait for one another hundreds of
times; dividing the inputs among two threads, each with its half of the processors, makes them wait once. PyTorch lets go of Python's lock
while it computes. What is found does not depend on the division: an answer is the same in any company.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any, TypeVar

import torch

T = TypeVar("T")
ROWS = 32
"""Texts under way that a thread needs so that it reads weights no more often than it multiplies with them."""
PATIENCE = 0.2
"""Seconds between looks at whether the user has had enough: Windows lets nobody interrupt a longer wait."""


def halves(items: list[T], rows: int, device: torch.device) -> list[list[T]]:
    """The items, or every other one and the rest, where a CPU has threads for two and `rows` texts are enough for both."""
    two = device.type == "cpu" and torch.get_num_threads() > 1 and rows >= 2 * ROWS and len(items) > 1
    return [items[::2], items[1::2]] if two else [items]


def side_by_side(searches: Sequence[Callable[[], Iterator[T | None]]]) -> Iterator[T]:
    """What the searches yield but None, as it comes; each runs in a thread of its own, or here if it is the only one. Raises what they
    raise. Where one breaks, or nobody listens any more, the others end at what they yield next, None included."""
    if len(searches) == 1:
        yield from (event for event in searches[0]() if event is not None)
        return
    n_threads, found, stop = torch.get_num_threads(), SimpleQueue[Any](), Event()
    # what holds for the caller's thread alone
    autocast, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

    def search(one: Callable[[], Iterator[T | None]]) -> None:
        torch.set_num_threads(
            max(1, n_threads // len(searches))
        )  # OpenMP's of this thread; MKL's of all, until the end
        try:
            with torch.autocast("cpu", dtype, enabled=autocast):
                for event in one():
                    if event is not None:
                        found.put((event, None))
                    if stop.is_set():
                        return
        except BaseException as error:
            found.put((None, error))
        finally:
            found.put(None)

    threads = [Thread(target=search, args=(one,), daemon=True) for one in searches]
    try:
        for thread in threads:
            thread.start()
        running = len(threads)
        while running:
            told = _next(found)
            if told is None:
                running -= 1
            elif told[1] is not None:
                raise told[1]
            else:
                yield told[0]
    finally:
        stop.set()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(PATIENCE)
        finally:  # also when told to hurry
            torch.set_num_threads(n_threads)


def _next(found: SimpleQueue[Any]) -> Any:
    while True:
        with suppress(Empty):
            return found.get(timeout=PATIENCE)
