"""Dropout: the rate that was asked for, the scale that keeps the mean, a seed that repeats it, one mask for values and gradients."""

import pytest
import torch
from torch import Tensor

from pellucid.parts.dropout import Dropout, drop

SHAPE = (63, 7, 19)  # 8379 elements: not a multiple of four


def seeded(x: Tensor, rate: float, seed: int = 5) -> Tensor:
    torch.manual_seed(seed)
    return drop(x, rate)


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3, 0.5, 0.9])
def test_the_rate_and_the_scale(rate: float) -> None:
    n = 400_001
    kept = seeded(torch.ones(n), rate).ne(0)
    spread = (n * rate * (1 - rate)) ** 0.5
    assert abs(int(kept.sum()) - n * (1 - rate)) < 5 * spread
    values = seeded(torch.ones(n), rate)[kept]
    torch.testing.assert_close(values, torch.full_like(values, 1 / (1 - rate)))


def test_neighbours_fall_independently() -> None:
    """Four elements share one random number: none of its parts may know of the others."""
    gone = seeded(torch.ones(400_000), 0.5).eq(0).view(-1, 4)
    for i in range(4):
        for j in range(i):
            assert abs(float((gone[:, i] & gone[:, j]).float().mean()) - 0.25) < 0.01


@pytest.mark.parametrize("n", range(1, 10))
def test_any_number_of_elements(n: int) -> None:
    out = seeded(torch.arange(1.0, n + 1), 0.5)
    assert out.shape == (n,) and set((out / torch.arange(1.0, n + 1)).tolist()) <= {0.0, 2.0}


def test_a_seed_repeats_it() -> None:
    x = torch.ones(SHAPE)
    assert torch.equal(seeded(x, 0.3), seeded(x, 0.3))
    assert not torch.equal(seeded(x, 0.3), seeded(x, 0.3, seed=6))
    torch.manual_seed(5)
    first = drop(x, 0.3)
    assert not torch.equal(first, drop(x, 0.3)), "the generator moves on"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_goes_through_the_same_mask(dtype: torch.dtype) -> None:
    x = torch.randn(SHAPE).to(dtype).requires_grad_()
    out = seeded(x, 0.3)
    assert out.dtype == dtype and out.shape == SHAPE
    out.backward(torch.ones_like(out))
    assert x.grad is not None
    torch.testing.assert_close(x.grad * x.detach(), out.detach())


def test_strides_do_not_matter() -> None:
    x = torch.randn(SHAPE)
    assert torch.equal(seeded(x.transpose(0, 2), 0.3), seeded(x.transpose(0, 2).contiguous(), 0.3))


def test_off_is_off() -> None:
    x = torch.randn(SHAPE)
    before = torch.random.get_rng_state()
    assert torch.equal(Dropout(0.3).eval()(x), x) and torch.equal(Dropout(0.0).train()(x), x)
    assert torch.equal(drop(x, 0.0), x)
    assert torch.equal(torch.random.get_rng_state(), before), "and no random number is spent"
    assert not torch.equal(Dropout(0.3).train()(x), x)
