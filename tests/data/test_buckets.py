"""The plan of an epoch by length: pure in (seed, step), each row once, little padding; what runs rely on to resume stays as it is."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.data.buckets import Buckets

SIDE = st.lists(st.integers(1, 40), min_size=1, max_size=60)


def two(lengths):
    return np.array(lengths), np.array(lengths[::-1])


@given(SIDE, st.booleans(), st.integers(1, 200), st.integers(-5, 2**40), st.integers(0, 50))
def test_every_row_once_per_epoch_and_pure(lengths, both, batch_tokens, seed, epoch):
    sides = two(lengths) if both else (np.array(lengths),)
    buckets, other = Buckets(sides, batch_tokens, seed), Buckets(sides, batch_tokens, seed)
    steps = range(epoch * buckets.steps_per_epoch, (epoch + 1) * buckets.steps_per_epoch)
    rows = [buckets.rows(step) for step in steps]
    assert sorted(np.concatenate(rows).tolist()) == list(range(len(lengths))) and all(len(r) for r in rows)
    assert all(np.array_equal(other.rows(step), rows[step - steps[0]]) for step in reversed(steps))
    seen = list(buckets.sequential(batch_tokens))
    assert sorted(np.concatenate(seen).tolist()) == list(range(len(lengths)))
    assert all(len(r) == 1 or len(r) * sum(s[r].max() for s in sides) <= batch_tokens for r in seen)


def test_one_side_has_little_padding_and_new_mates_each_epoch():
    buckets = Buckets((np.random.default_rng(0).integers(3, 60, 5000),), 2000)
    assert buckets.padding() < 0.03
    epochs = [{frozenset(buckets.rows(e * buckets.steps_per_epoch + i)) for i in range(50)} for e in range(2)]
    assert not epochs[0] & epochs[1]


@pytest.mark.parametrize(("n_sides", "expected"), [(1, "1bd6e9f5"), (2, "476f786c")])
def test_a_run_begun_by_an_earlier_version_goes_on_with_the_same_batches(n_sides, expected):
    sides = (2 + np.arange(700) * 37 % 49, 2 + np.arange(700) * 53 % 41)[:n_sides]
    buckets = Buckets(sides, 500, seed=3)
    digest = hashlib.sha256(b"".join(buckets.rows(step).astype("<i8").tobytes() + b"|" for step in range(200)))
    assert digest.hexdigest()[:8] == expected
