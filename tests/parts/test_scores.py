"""Scores become weights: whatever the number of keys, it is the softmax."""

import pytest
import torch

from pellucid.parts.scores import LANES, SHORT, softmax

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 1e-2}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("n_key", [1, 2, LANES - 1, LANES, LANES + 1, SHORT - 1, SHORT, SHORT + 1])
def test_softmax_is_the_softmax(n_key: int, dtype: torch.dtype) -> None:
    """In value and gradient, also of scores that the mask took away and of huge ones."""
    scores = 30 * torch.randn(2, 3, 5, n_key, generator=torch.Generator().manual_seed(n_key))
    scores[..., n_key // 2 + 1 :] = torch.finfo(torch.bfloat16).min / 2
    ours, truth = scores.to(dtype).requires_grad_(), scores.to(dtype).double().requires_grad_()
    weights, slope = softmax(ours), torch.randn(2, 3, 5, n_key)
    expected = torch.softmax(truth, -1)
    assert (weights - expected).abs().max() <= TOLERANCE[dtype]
    assert bool((weights[..., n_key // 2 + 1 :] == 0).all())
    (found,) = torch.autograd.grad(weights, ours, slope.to(weights.dtype))
    (wanted,) = torch.autograd.grad(expected, truth, slope.double())
    assert found.dtype == dtype and (found - wanted).abs().max() <= 5 * TOLERANCE[dtype]
