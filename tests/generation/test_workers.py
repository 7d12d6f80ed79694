"""Two searches at a time yield what both yield, raise what one raises, and leave the threads as they were."""

from collections.abc import Iterator

import pytest
import torch
from speaking import assert_same, tiny

from pellucid.generation import search, workers
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


def test_what_one_raises_is_raised() -> None:
    with pytest.raises(ValueError, match="it broke"):
        list(side_by_side([lambda: counting(0), lambda: counting(10, fails=True)]))


def test_who_stops_listening_stops_the_searches() -> None:
    events = side_by_side([lambda: counting(0), lambda: counting(10)])
    next(events)
    events.close()


def test_halves_are_for_cpus_with_enough_to_do() -> None:
    cpu = torch.device("cpu")
    assert halves([5, 4, 3], 64, cpu) == [[5, 3], [4]]
    assert halves([5, 4, 3], 63, cpu) == [[5, 4, 3]] == halves([5, 4, 3], 64, torch.device("cuda"))
    assert halves([5], 64, cpu) == [[5]]


def test_answers_do_not_depend_on_the_division(monkeypatch: pytest.MonkeyPatch) -> None:
    model, options = tiny("seq2seq", 4), GenerationOptions(max_new=8, beam=3, n_best=2)
    inputs = [[3 + i % 6] * (1 + i % 4) for i in range(9)]
    monkeypatch.setattr(workers, "ROWS", 1)
    together = search.generate(model, inputs, options)
    monkeypatch.setattr(workers, "ROWS", 1000)
    assert_same(search.generate(model, inputs, options), together)
