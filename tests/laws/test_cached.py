"""Law 4: cached = uncached, in any split of the steps."""

from itertools import count

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pellucid.generation.search import _closed_up
from pellucid.parts import products
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


@pytest.mark.skipif(not products.has_onednn(), reason="this PyTorch was built without oneDNN")
@pytest.mark.parametrize("name", GPTS | SEQ2SEQS)
def test_products_that_are_laid_out_on_the_way(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a large model speaks: every layer and head, tied, free or scaled, first as it is, then in a copy of its weight."""
    model, batch = make(name), ids(2, 9)
    copied, laid_out = [], products.laid_out
    monkeypatch.setattr(products, "WORTH_ASKING", 0)
    monkeypatch.setattr(products, "WORTH_MOVING", 2)
    monkeypatch.setattr(products, "count", lambda start, step: count(min(start, 3), step))  # all of them soon
    monkeypatch.setattr(products, "laid_out", lambda weight: copied.append(weight) or laid_out(weight))
    source = ids(2, 5, 1) if name in SEQ2SEQS else None
    with torch.no_grad():
        whole = model(batch) if source is None else model(source, batch)
        with products.quick(model):
            layers = [module.forward for module in model.modules() if "forward" in vars(module)]
            cache, parts = model.new_cache(), []
            for i in range(9):
                new = batch[:, i : i + 1]
                parts.append(
                    model(new, None, cache)
                    if source is None
                    else model.head(model.decode(new, model.encode(source), cache=cache))
                )
    assert close(torch.cat(parts, 1), whole)
    assert len(copied) > 0.8 * len(layers)  # a memory's keys and values are worked out once
