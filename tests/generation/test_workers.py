"""Two searches at a time yield what both yield, raise what one raises, and leave the threads as they were."""

import _thread
import signal
import threading
from collections.abc import Iterator, Sequence
from itertools import count

import pytest
import torch
from speaking import assert_same, tiny

from pellucid.generation import search, workers
from pellucid.generation.hypotheses import Rules
from pellucid.generation.options import GenerationOptions
from pellucid.generation.workers import halves, side_by_side


def counting(begin: int, fails: bool = False) -> Iterator[int]:
    yield from range(begin, begin + 5)
    if fails:
        raise ValueError("it broke")


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_all_events_come_in_each_searchs_own_order() -> None:
    found = list(side_by_side([lambda: counting(0), lambda: counting(10)]))
    assert [one for one in found if one < 10] == list(range(5))
    assert sorted(found) == [*range(5), *range(10, 15)]
    assert list(side_by_side([lambda: counting(0)])) == list(range(5))


def endless() -> Iterator[int | None]:
    for n in count():
        yield n if n == 0 else None


def test_what_one_raises_is_raised_and_ends_the_other() -> None:
    with pytest.raises(ValueError, match="it broke"):
        list(side_by_side([endless, lambda: counting(10, fails=True)]))


def test_who_stops_listening_stops_the_searches() -> None:
    before = threading.active_count()
    events = side_by_side([endless, count])
    next(events)
    assert threading.active_count() == before + 2
    events.close()
    assert threading.active_count() == before


def test_who_is_told_to_hurry_leaves_the_threads_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C twice, while a search is in the midst of a step."""
    numbers, late, released, set_number = [], [], threading.Event(), torch.set_num_threads
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    monkeypatch.setattr(torch, "set_num_threads", lambda n: numbers.append(n) or set_number(n))
    both = threading.Barrier(2, lambda: [threading.Timer(t, _thread.interrupt_main).start() for t in (0.3, 0.9)])

    def stuck() -> Iterator[int]:
        both.wait()
        late.append(not released.wait(60))
        yield from ()

    try:
        with pytest.raises(KeyboardInterrupt):
            list(side_by_side([stuck, stuck]))
        assert numbers == [1, 1, 2] and not late
    finally:
        released.set()
        signal.signal(signal.SIGINT, before)


def test_an_error_in_one_half_ends_the_other_at_its_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    steps, best = [], Rules.best

    def breaking(rules: Rules, logits: torch.Tensor, said: Sequence[Sequence[int]], *rest: object) -> object:
        if said[0][0] == 7 and len(said[0]) > 5:
            raise ValueError("it broke")
        steps.append(1)
        return best(rules, logits, said, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(workers, "ROWS", 1)
    monkeypatch.setattr(Rules, "best", breaking)
    with pytest.raises(ValueError, match="it broke"):
        search.generate(tiny("gpt", 4), [[7], [3]], GenerationOptions(max_new=2000, min_new=2000, beam=2))
    assert len(steps) < 1500


def test_halves_are_for_cpus_with_enough_to_do() -> None:
    cpu = torch.device("cpu")
    assert halves([5, 4, 3], 64, cpu) == [[5, 3], [4]]
    assert halves([5, 4, 3], 63, cpu) == [[5, 4, 3]] == halves([5, 4, 3], 64, torch.device("cuda"))
    assert halves([5], 64, cpu) == [[5]]


@pytest.mark.parametrize("lower", [False, True])
def test_answers_do_not_depend_on_the_division(lower: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the caller multiplies in bfloat16."""
    model, options = tiny("seq2seq", 4), GenerationOptions(max_new=8, beam=3, n_best=2)
    inputs = [[3 + i % 6] * (1 + i % 4) for i in range(9)]
    with torch.autocast("cpu", torch.bfloat16, enabled=lower):
        monkeypatch.setattr(workers, "ROWS", 1)
        together = search.generate(model, inputs, options)
        monkeypatch.setattr(workers, "ROWS", 1000)
        assert_same(search.generate(model, inputs, options), together)
