"""Windows of a text: every token a target once per epoch, pure in (seed, step)."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pellucid.data.text import IGNORE, TextData
from pellucid.errors import DataError

SIZES = st.tuples(st.integers(2, 200), st.integers(1, 30), st.integers(1, 9)).filter(lambda x: x[0] > x[1])


@given(SIZES, st.integers(0, 10**6), st.integers(0, 30))
def test_every_token_is_a_target_once_per_epoch(sizes, seed, epoch):
    n, length, batch_size = sizes
    data = TextData(np.arange(n, dtype=np.uint16), length, batch_size, seed)
    first = epoch * data.n_windows
    seen: list[int] = []
    for step in range(first // batch_size, (first + data.n_windows - 1) // batch_size + 1):
        batch = data.batch(step)
        assert batch["ids"].shape == batch["targets"].shape == (batch_size, length)
        counted = batch["targets"] != IGNORE
        assert (batch["targets"][counted] == batch["ids"][counted] + 1).all()
        for row in range(batch_size):
            if first <= step * batch_size + row < first + data.n_windows:
                seen += batch["targets"][row][counted[row]].tolist()
    assert sorted(seen) == list(range(1, n))


@given(SIZES, st.integers(0, 10**6), st.permutations(range(8)))
def test_batches_are_pure_in_seed_and_step(sizes, seed, order):
    n, length, batch_size = sizes
    data = TextData(np.arange(n), length, batch_size, seed)
    expected = [data.batch(step) for step in range(8)]
    other = TextData(np.arange(n), length, batch_size, seed)
    for step in order:
        assert all(torch.equal(other.batch(step)[k], expected[step][k]) for k in ("ids", "targets"))


@given(SIZES)
def test_windows_score_each_token_once_in_order(sizes):
    n, length, batch_size = sizes
    data = TextData(np.arange(n, dtype=np.uint32), length, batch_size)
    batches = list(data.windows())
    targets = torch.cat([b["targets"].flatten() for b in batches])
    assert targets.tolist() == list(range(1, n))
    assert all(torch.equal(b["ids"] + 1, b["targets"]) and len(b["ids"]) <= batch_size for b in batches)


def test_windows_begin_elsewhere_each_epoch():
    data = TextData(np.arange(1000), 10, 100)
    starts = [set((data.batch(step)["ids"][:, 0] % 10).tolist()) for step in range(20)]
    assert len(set().union(*starts)) > 5


def test_too_short_a_text():
    with pytest.raises(DataError, match=r"10 tokens, a window needs 11(?s:.*)--training.length"):
        TextData(np.arange(10), 10, 1)
