"""Judged: an interval covers the truth as often as it says; a comparison is paired, and sees a difference only where there is one."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.errors import UserError
from pellucid.tasks import metrics
from pellucid.tasks.judged import Judged


def of(right: np.ndarray) -> Judged:
    return Judged(len(right), {"accuracy": metrics.ratio(right)}, list(range(len(right))))


def coins(n: int, share: float, seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).random(n) < share).astype(float)


def test_an_interval_is_as_wide_as_theory_says() -> None:
    """Of n coins the standard error is sqrt(p (1 - p) / n); 95 % lie within 1.96 of them."""
    right = coins(2000, 0.8, 0)
    low, high = of(right).intervals()["accuracy"]
    error = math.sqrt(right.mean() * (1 - right.mean()) / 2000)
    assert low < right.mean() < high and (high - low) == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    covered = 0
    for seed in range(100):
        low, high = of(coins(300, 0.7, seed)).intervals(samples=300)["accuracy"]
        covered += low <= 0.7 <= high
    assert 88 <= covered <= 100


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=40), st.integers(0, 5))
def test_an_interval_is_the_same_every_time_and_holds_no_impossible_value(right: list[float], seed: int) -> None:
    one, again = (of(np.array(right)).intervals(50, seed) for _ in range(2))
    assert one == again and 0 <= one["accuracy"][0] <= one["accuracy"][1] <= 1


def test_a_model_is_not_better_than_itself() -> None:
    same = of(coins(200, 0.6, 1))
    compared = same.against(same)["accuracy"]
    assert compared["difference"] == 0 and compared["interval"] == (0, 0) and compared["p"] == 1


def test_pairing_sees_what_two_intervals_do_not() -> None:
    """One model is right wherever the other is, and 3 % of the time beside: unpaired, chance might explain it; paired, it cannot."""
    worse = coins(1000, 0.7, 2)
    better = worse.copy()
    better[np.flatnonzero(worse == 0)[:30]] = 1
    a, b = of(better).intervals()["accuracy"], of(worse).intervals()["accuracy"]
    compared = of(better).against(of(worse))["accuracy"]
    assert a[0] < b[1], "the intervals overlap"
    assert compared["difference"] == pytest.approx(0.03) and compared["p"] < 0.01 and compared["interval"][0] > 0


def test_chance_is_called_chance() -> None:
    """Two models of the same strength: p is small no more often than it says."""
    small = sum(
        of(coins(200, 0.7, i)).against(of(coins(200, 0.7, 999 + i)), 200)["accuracy"]["p"] < 0.05 for i in range(100)
    )
    assert small <= 12


def test_only_the_same_questions_are_compared() -> None:
    with pytest.raises(UserError, match="not asked the same"):
        of(np.ones(3)).against(of(np.ones(4)))
    with pytest.raises(UserError, match="not asked the same"):
        of(np.ones(2)).against(Judged(2, {}, ["a", "b"]))


def test_macro_f1_by_hand() -> None:
    """Label 0: precision 1/2, recall 1/1; label 1: precision 1/1, recall 1/2; label 2 never occurs. An unseen label is a miss."""
    true, predicted = np.array([0, 1, 1]), np.array([0, 1, 0])
    assert metrics.macro_f1(true, predicted, 3)(np.arange(3)) == pytest.approx((2 / 3 + 2 / 3) / 2)
    with_unseen = metrics.macro_f1(np.array([0, 1, 1, -1]), np.array([0, 1, 0, 1]), 3)(np.arange(4))
    assert with_unseen == pytest.approx((2 / 3 + 2 / 4) / 2)


def test_ratios_weigh_examples_by_their_size() -> None:
    loss = metrics.of_loss([10.0, 1.0], [10, 1], [4, 4])
    assert loss["loss"](np.arange(2)) == pytest.approx(1.0) and loss["perplexity"](np.arange(2)) == pytest.approx(
        math.e
    )
    assert loss["bits_per_byte"](np.array([1, 1])) == pytest.approx(1 / math.log(2) / 4)


def test_resampled_bleu_is_sacrebleus() -> None:
    pytest.importorskip("sacrebleu")
    from sacrebleu.metrics.bleu import BLEU

    said = ["the cat sat on the mat", "a dog runs in the park", "hello there world today"]
    right = ["the cat sat on a mat", "a dog ran in the park", "hello there my world today"]
    scores, signature = metrics.bleu(said, right)
    for rows in (np.arange(3), np.array([0, 0, 2])):
        theirs = BLEU().corpus_score([said[i] for i in rows], [[right[i] for i in rows]]).score
        assert scores["bleu"](rows) == pytest.approx(theirs)
    assert "nrefs:1" in signature and "tok:13a" in signature
