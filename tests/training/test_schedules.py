"""Schedules are pure functions with the shape they promise."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.errors import UserError
from pellucid.training.config import TrainingConfig
from pellucid.training.schedules import SHAPES, factor

configs = st.builds(
    TrainingConfig,
    steps=st.integers(1, 500),
    warmup=st.integers(0, 600),
    schedule=st.sampled_from(sorted(SHAPES)),
    final_lr=st.floats(0, 1),
    decay=st.floats(0, 1),
)


@given(configs)
def test_rises_then_never_rises_again(config):
    values = [factor(step, config) for step in range(config.steps)]
    assert all(0 <= value <= 1 for value in values)
    peak = min(max(config.warmup, 1), config.steps) - 1
    assert values[: peak + 1] == sorted(values[: peak + 1])
    assert all(a >= b - 1e-12 for a, b in zip(values[peak:], values[peak + 1 :], strict=False))
    if config.warmup <= config.steps:
        assert values[peak] == pytest.approx(1)
    if config.schedule not in ("constant", "inverse-sqrt"):
        assert values[-1] >= min(config.final_lr, values[0]) - 1e-12


@given(configs)
def test_the_end_is_the_final_share(config):
    if config.steps > config.warmup and config.schedule in ("cosine", "linear", "trapezoid") and config.decay > 0:
        assert factor(config.steps, config) == pytest.approx(config.final_lr)


@given(st.integers(0, 10**6), st.integers(1, 10**5), st.integers(1, 1024))
def test_inverse_sqrt_is_the_papers(step, warmup, d_model):
    """Vaswani et al. 2017, equation 3, over its peak."""
    config = TrainingConfig(steps=10**7, warmup=warmup, schedule="inverse-sqrt")
    n = step + 1
    paper = d_model**-0.5 * min(n**-0.5, n * warmup**-1.5)
    assert math.isclose(factor(step, config), paper / (d_model * warmup) ** -0.5, rel_tol=1e-9)


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"keep": 1}, {"accumulate": 0}, {"ema": 1.5}, {"lr": -1.0}, {"lr": math.nan}]
)
def test_a_number_that_cannot_be_meant_is_named(wrong):
    with pytest.raises(UserError, match=f"training.{next(iter(wrong))} is"):
        TrainingConfig(**wrong)
