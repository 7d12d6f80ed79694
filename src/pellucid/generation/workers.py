"""Two searches at a time: while one thread counts hypotheses in Python, the other multiplies.

A step of a search is hundreds of small operations. Dividing each of them among all processors makes these wait for one another hundreds of
times; dividing the inputs among two threads, each with its half of the processors, makes them wait once. PyTorch lets go of Python's lock
while it computes. What is found does not depend on the division: an answer is the same in any company.
"""

from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any, TypeVar

import torch

T = TypeVar("T")
ROWS = 32
"""Texts under way that a thread needs so that it reads weights no more often than it multiplies with them."""


def halves(items: list[T], rows: int, device: torch.device) -> list[list[T]]:
    """The items, or every other one and the rest, where a CPU has threads for two and `rows` texts are enough for both."""
    two = device.type == "cpu" and torch.get_num_threads() > 1 and rows >= 2 * ROWS and len(items) > 1
    return [items[::2], items[1::2]] if two else [items]


def side_by_side(searches: Sequence[Callable[[], Iterator[T]]]) -> Iterator[T]:
    """What the searches yield, as it comes; each runs in a thread of its own, or here if it is the only one. Raises what they raise."""
    if len(searches) == 1:
        yield from searches[0]()
        return
    n_threads, found, stop = torch.get_num_threads(), SimpleQueue[Any](), Event()

    def search(one: Callable[[], Iterator[T]]) -> None:
        torch.set_num_threads(max(1, n_threads // len(searches)))  # of this thread
        try:
            for event in one():
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
            told = found.get()
            if told is None:
                running -= 1
            elif told[1] is not None:
                raise told[1]
            else:
                yield told[0]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        torch.set_num_threads(n_threads)
