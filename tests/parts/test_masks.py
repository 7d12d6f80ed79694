"""Masks: what each field means, the field's other conventions, combination, alignment to the last key."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from pellucid.parts.masks import Mask
from tests.laws.test_fused import masks


def table(mask: Mask, n_query: int, n_key: int) -> list[list[list[int]]]:
    return mask.dense(n_query, n_key)[:, 0].int().tolist()


def test_causal_lines_up_the_last_query_with_the_last_key() -> None:
    assert table(Mask(causal=True), 2, 4) == [[[1, 1, 1, 0], [1, 1, 1, 1]]]
    assert Mask(causal=True).is_causal(4, 4) and not Mask(causal=True).is_causal(2, 4) and Mask(causal=True).is_open(1)


def test_window_is_symmetric_until_causal() -> None:
    assert table(Mask(window=2), 3, 3) == [[[1, 1, 0], [1, 1, 1], [0, 1, 1]]]
    assert table(Mask(window=2, causal=True), 3, 3) == [[[1, 0, 0], [1, 1, 0], [0, 1, 1]]]


def test_segments_keep_packed_documents_apart() -> None:
    mask = Mask(causal=True, segments=torch.tensor([[0, 0, 1, 1]]))
    assert table(mask, 4, 4) == [[[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]]
    assert table(mask, 1, 4) == [[[0, 0, 1, 1]]]


def test_prefix_is_open_to_all_and_the_rest_causal() -> None:
    assert table(Mask(prefix=torch.tensor([2, 0])), 3, 3) == [
        [[1, 1, 0], [1, 1, 0], [1, 1, 1]],
        [[1, 0, 0], [1, 1, 0], [1, 1, 1]],
    ]


def test_query_keep_times_key_keep() -> None:
    mask = Mask(query_keep=torch.tensor([[True, False]]), keep=torch.tensor([[True, True, False]]))
    assert table(mask, 2, 3) == [[[1, 1, 0], [0, 0, 0]]]


def test_valid_lengths_per_row_and_per_query() -> None:
    assert table(Mask.lengths(torch.tensor([1, 3]), 3), 1, 3) == [[[1, 0, 0]], [[1, 1, 1]]]
    assert table(Mask.lengths(torch.tensor([[1, 2], [0, 3]]), 3), 2, 3) == [
        [[1, 0, 0], [1, 1, 0]],
        [[0, 0, 0], [1, 1, 1]],
    ]


@given(allowed=st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=2, max_size=2))
def test_every_convention_says_the_same(allowed: list[list[bool]]) -> None:
    pairs = torch.tensor([allowed])
    expected = Mask(pairs=pairs).dense(2, 3)
    additive = torch.zeros(1, 2, 3)
    same = [
        Mask.ones_keep(pairs=pairs.long()),
        Mask.ones_masked(pairs=~pairs),
        Mask.additive(pairs=additive.masked_fill(~pairs, -1e9)),
        Mask.additive(pairs=additive.masked_fill(~pairs, float("-inf"))),
        Mask.additive(pairs=additive.masked_fill(~pairs, float("-inf"))[:, None]),
        Mask.additive(pairs=additive.masked_fill(~pairs, torch.finfo(torch.float32).min)),
    ]
    for mask in same:
        assert torch.equal(mask.dense(2, 3), expected)


@given(data=st.data(), n_query=st.integers(1, 5), n_key=st.integers(1, 5))
def test_and_is_both(data: st.DataObject, n_query: int, n_key: int) -> None:
    a, b = data.draw(masks(2, n_query, n_key)), data.draw(masks(2, n_query, n_key))
    both = (a & b).dense(n_query, n_key)
    assert torch.equal(both, a.dense(n_query, n_key) & b.dense(n_query, n_key))


@given(data=st.data(), n_query=st.integers(1, 5), n_key=st.integers(1, 5))
def test_numbers_and_picture_agree_with_the_table(data: st.DataObject, n_query: int, n_key: int) -> None:
    mask = data.draw(masks(2, n_query, n_key))
    dense = mask.dense(n_query, n_key)
    bias = mask.bias(n_query, n_key, torch.zeros(1))
    if bias is None:
        assert dense.all()
    else:
        assert torch.equal((bias == 0).expand_as(dense), dense)
    seeing = mask.seeing(n_query, n_key)
    assert (
        dense.any(-1).all()
        if seeing is None
        else torch.equal(seeing.squeeze(-1).expand(dense.shape[:3]), dense.any(-1))
    )
    assert mask.draw(n_query, n_key).count("■") == int(dense.sum())


def test_pytorchs_square_mask_is_one_of_pairs() -> None:
    square = torch.nn.Transformer.generate_square_subsequent_mask(4)
    expected = Mask(causal=True).dense(4, 4)
    assert torch.equal(Mask.additive(pairs=square).dense(4, 4), expected)
    assert torch.equal(Mask.ones_masked(pairs=square < 0).dense(4, 4), expected)
    with pytest.raises(ValueError, match="pairs="):
        Mask.ones_keep(torch.ones(2, 4, 4))


def test_a_changed_copy_remembers_nothing_of_the_first() -> None:
    first = Mask(keep=torch.tensor([[True, True, False]]))
    like = torch.zeros(1)
    first.bias(3, 3, like)
    second = replace(first, keep=torch.tensor([[True, False, True]]))
    assert torch.equal(second.bias(3, 3, like)[0, 0, 0] == 0, torch.tensor([True, False, True]))


def test_a_window_without_the_query_is_refused() -> None:
    with pytest.raises(ValueError, match="less than 1"):
        Mask(window=0)


def test_str_draws_the_mask() -> None:
    assert str(Mask(causal=True) & Mask(keep=torch.tensor([[False, True, True]]))) == "· · ·\n· ■ ·\n· ■ ■"


def test_the_kernels_own_causal_flag_is_the_other_alignment() -> None:
    """Why `is_causal` is never given with more keys than queries."""
    torch.manual_seed(0)
    q, k, v = torch.randn(1, 1, 2, 4), torch.randn(1, 1, 5, 4), torch.randn(1, 1, 5, 4)
    theirs = scaled_dot_product_attention(q, k, v, is_causal=True)
    right = scaled_dot_product_attention(q, k, v, Mask(causal=True).dense(2, 5))
    assert not torch.allclose(theirs, right)


def test_sizes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="mask.keep has 3 places on its last axis, attention has 4"):
        Mask(keep=torch.ones(1, 3, dtype=torch.bool)).dense(4, 4)
    with pytest.raises(ValueError, match="additive mask holds floating-point"):
        Mask.additive(torch.ones(1, 3, dtype=torch.long))
