"""Law 4: cached = uncached, in any split of the steps."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pellucid.generation.search import _closed_up
from tests.families import GPTS, SEQ2SEQS, close, ids, make

splits = st.lists(st.integers(1, 4), min_size=1, max_size=5)


@pytest.mark.parametrize("name", GPTS)
@given(splits=splits, pads=st.integers(0, 3))
def test_gpt(name: str, splits: list[int], pads: int) -> None:
    model, total = make(name), sum(splits) + pads
    batch = ids(2, total)
    keep = torch.ones(2, total, dtype=torch.bool)
    keep[0, :pads] = False
    cache, parts, start = model.new_cache(), [], 0
    splits = [splits[0] + pads, *splits[1:]]
    with torch.no_grad():
        whole = model(batch, keep)
        for n in splits:
            parts.append(model(batch[:, start : start + n], keep[:, : start + n], cache))
            start += n
    real = keep.unsqueeze(-1)
    assert cache.length == total
    assert close(torch.cat(parts, 1) * real, whole * real)


@pytest.mark.parametrize("name", SEQ2SEQS)
@given(splits=splits, rows=st.permutations(range(3)))
def test_seq2seq_also_when_rows_move(name: str, splits: list[int], rows: list[int]) -> None:
    model, total = make(name), sum(splits)
    source, target = ids(3, 5), ids(3, total, seed=1)
    keep = torch.ones(3, 5, dtype=torch.bool)
    keep[1, 3:] = False
    order = torch.tensor(rows)
    cache, parts, start = model.new_cache(), [], 0
    with torch.no_grad():
        memory = model.encode(source, keep)
        whole = model.decode(target, memory, keep)
        for i, n in enumerate(splits):
            if i == 1:
                cache.select(order)
                memory, keep, target, whole = memory[order], keep[order], target[order], whole[order]
                parts = [part[order] for part in parts]
            parts.append(model.decode(target[:, start : start + n], memory, keep, cache=cache))
            start += n
    assert close(torch.cat(parts, 1), whole)


def test_the_memory_is_read_once() -> None:
    model = make("original")
    cache, memory = model.new_cache(), model.encode(ids(1, 5))
    calls: list[int] = []
    model.decoder.blocks[0].cross.branch.key.register_forward_hook(lambda *_: calls.append(1))
    for _ in range(3):
        model.decode(ids(1, 1), memory, cache=cache)
    assert len(calls) == 1


@given(stay=st.sets(st.integers(0, 5), min_size=1), length=st.integers(1, 5))
def test_rows_that_fill_the_places_of_others(stay: set[int], length: int) -> None:
    """What a search does when texts end: the last rows take the places of those that go, and nothing else is copied."""
    model, batch = make("llama"), ids(6, length + 1)
    cache = model.new_cache()
    rows = _closed_up(sorted(stay))
    assert sorted(rows) == sorted(stay)
    with torch.no_grad():
        model(batch[:, :length], None, cache)
        cache.select(torch.tensor(rows))
        found = model(batch[rows, length:], None, cache)
        assert close(found[:, 0], model(batch[rows])[:, -1])
