"""Choosing one token: each filter against its definition, the draw against its distribution."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from pellucid.generation.sampling import dice, draw, forbid, only_top_k, only_top_p, penalise

rows = st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=12)


@given(rows, st.integers(0, 14))
def test_top_k_keeps_the_k_largest(values: list[float], k: int) -> None:
    logits = torch.tensor([values])
    kept = only_top_k(logits, k)[0] > -torch.inf
    least = sorted(values, reverse=True)[k - 1] if 0 < k < len(values) else min(values)
    assert kept.tolist() == [value >= least for value in values]


@given(rows, st.floats(0.01, 1.0))
def test_top_p_keeps_the_smallest_set_that_holds_p(values: list[float], p: float) -> None:
    probability = torch.tensor([values]).softmax(-1)[0]
    kept = only_top_p(torch.tensor([values]), p)[0] > -torch.inf
    mass = probability[kept].sum()
    assert mass >= p - 1e-5
    if kept.sum() > 1:
        assert mass - probability[kept].min() < p + 1e-5  # one less would not do
    if not kept.all():
        assert probability[kept].min() >= probability[~kept].max()


def test_penalty_makes_said_tokens_less_likely_whatever_their_sign() -> None:
    logits = torch.tensor([[2.0, -2.0, 1.0], [2.0, -2.0, 1.0], [3.0, 0.5, -1.0]])
    got = penalise(logits, [[0, 1, 1], [], [2]], 2.0)
    assert got.tolist() == [[1.0, -4.0, 1.0], [2.0, -2.0, 1.0], [3.0, 0.5, -2.0]]
    assert torch.equal(penalise(logits, [[], [], []], 2.0), logits)
    assert forbid(logits, [0, 2])[0].tolist() == [-torch.inf, -2.0, -torch.inf]


def test_draw_follows_the_distribution_and_never_takes_what_is_forbidden() -> None:
    logits = torch.tensor([[-torch.inf, 0.2, -torch.inf, 0.3, 0.5, -torch.inf]]).exp().log()
    logits[0, [1, 3, 4]] = torch.tensor([0.2, 0.3, 0.5]).log()
    edges = torch.tensor([0.0, 0.1999, 0.2001, 0.4999, 0.5001, 1 - 2**-24])
    assert draw(logits.expand(6, -1), edges).tolist() == [1, 1, 3, 3, 4, 4]
    uniform = torch.rand(20000, generator=torch.Generator().manual_seed(0))
    share = draw(logits.expand(20000, -1), uniform).bincount(minlength=6) / 20000
    assert torch.allclose(share, torch.tensor([0, 0.2, 0, 0.3, 0.5, 0]), atol=0.015)


def test_dice_differ_by_seed_and_row_and_repeat() -> None:
    def roll(seed: int, row: int) -> list[float]:
        return torch.rand(4, generator=dice(seed, row)).tolist()

    assert roll(1, 2) == roll(1, 2)
    assert len({tuple(roll(seed, row)) for seed in range(5) for row in range(5)}) == 25
