"""Batches of pairs: pure in (seed, step), every pair once per epoch, ranks together are the batch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pellucid.data.batches import Permutation
from pellucid.data.pairs import Edges, PairData
from pellucid.data.tokenised import Ragged
from pellucid.errors import DataError
from pellucid.training.ranks import rows

LENGTHS = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=60)


def made(lengths, batch_tokens=40, seed=0, **options) -> PairData:
    """Pair i has ids 10 * i + 4 … on its source side."""
    sources = Ragged.of([[1000 * i + 4 + j for j in range(s)] for i, (s, _) in enumerate(lengths)])
    targets = Ragged.of([[1000 * i + 5 + j for j in range(t)] for i, (_, t) in enumerate(lengths)])
    return PairData(sources, targets, Edges(0, [1], 2), batch_tokens=batch_tokens, seed=seed, **options)


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@given(LENGTHS, st.integers(1, 80), st.integers(-5, 2**40), st.permutations(range(12)))
def test_batches_are_pure_in_seed_and_step(lengths, batch_tokens, seed, order):
    in_order = made(lengths, batch_tokens, seed)
    expected = [in_order.batch(step) for step in range(12)]
    other = made(lengths, batch_tokens, seed)
    assert all(same(other.batch(step), expected[step]) for step in order)


@given(LENGTHS, st.integers(1, 80), st.integers(0, 1000), st.integers(0, 50))
def test_every_pair_once_per_epoch(lengths, batch_tokens, seed, epoch):
    data = made(lengths, batch_tokens, seed)
    first = epoch * data.steps_per_epoch
    rows = [data.rows(step) for step in range(first, first + data.steps_per_epoch)]
    assert sorted(np.concatenate(rows).tolist()) == list(range(len(lengths)))
    assert all(len(r) for r in rows)
    seen = [b["rows"] for b in data.sequential(batch_tokens)]
    assert sorted(torch.cat(seen).tolist()) == list(range(len(lengths)))


@given(LENGTHS, st.integers(1, 5))
def test_ranks_together_are_the_global_batch(lengths, world):
    batch = made(lengths).batch(3)
    shares = [rows(batch, rank, world) for rank in range(world)]
    for name, whole in batch.items():
        back = torch.empty_like(whole)
        for rank in range(world):
            back[rank::world] = shares[rank][name]
        assert torch.equal(back, whole)


@given(LENGTHS)
def test_what_a_batch_holds(lengths):
    data = made(lengths)
    batch = data.batch(1)
    for at, row in enumerate(data.rows(1).tolist()):
        s, t = lengths[row]
        source, target = data.sources[row].tolist(), data.targets[row].tolist()
        assert batch["source"][at].tolist() == source + [0] * (batch["source"].shape[1] - s)
        assert batch["target_in"][at].tolist() == [1, *target] + [0] * (batch["target_in"].shape[1] - t - 1)
        assert batch["target_out"][at].tolist() == [*target, 2] + [0] * (batch["target_in"].shape[1] - t - 1)
        assert batch["source_keep"][at].sum() == s and batch["target_keep"][at].sum() == t + 1
        assert batch["source_keep"][at, :s].all() and batch["target_keep"][at, : t + 1].all()
    assert batch["source"].dtype == batch["target_out"].dtype == torch.int64
    assert batch["source_keep"].dtype == batch["target_keep"].dtype == torch.bool


def test_epochs_differ_and_padding_is_low():
    rng = np.random.default_rng(0)
    source = rng.integers(3, 40, 5000)
    lengths = list(zip(source, np.clip(source + rng.integers(-4, 5, 5000), 1, None), strict=True))
    data = made(lengths, 2000)
    assert data.buckets.padding() < 0.12
    epochs = [[tuple(data.rows(e * data.steps_per_epoch + i)) for i in range(data.steps_per_epoch)] for e in range(2)]
    assert not {frozenset(b) for b in epochs[0]} & {frozenset(b) for b in epochs[1]}
    tokens = [sum(lengths[r][0] + lengths[r][1] + 1 for r in b) for b in epochs[0]]
    assert max(tokens) < 2000 * 1.1


def test_pairs_too_long_or_empty_are_left_out_and_told():
    data = made([(3, 3)] * 20 + [(30, 3), (3, 10), (0, 3)], max_length=10)
    assert len(data) == 20 and len(data.notes) == 2 and data.notes[0].startswith("2 of 23 pairs left out")
    assert len(made([(3, 9)] * 20, max_length=10)) == 20
    with pytest.raises(DataError, match=r"(?s)5 of 20 pairs.*raise model.max_length") as caught:
        made([(3, 3)] * 15 + [(30, 3)] * 5, max_length=10)
    assert "30 tokens" in str(caught.value)
    with pytest.raises(DataError, match="none of 1 pairs"):
        made([(0, 3)])


@given(st.integers(1, 5000), st.integers(0, 10**9))
def test_permutation(n, key):
    assert sorted(Permutation(n, key)(np.arange(n)).tolist()) == list(range(n))
