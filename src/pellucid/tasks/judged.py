"""What a model did with held-out examples: the one thing its metrics, their intervals and comparisons are made of."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pellucid.errors import UserError
from pellucid.tasks.metrics import Score

SAMPLES, MOST = 1000, 20_000_000
"""Of a bootstrap: test sets, and examples in all of them together."""


@dataclass(frozen=True)
class Judged:
    """`scores` over `n` examples (pairs, texts, images, windows of a text), in the order of the data. `asked`: what they are, so that only
    the same are compared. `said`: what the model said to each; `details`: what is told beside the numbers.
    """

    n: int
    scores: Mapping[str, Score]
    asked: Sequence[Any] = ()
    said: Sequence[Any] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    def numbers(self) -> dict[str, Any]:
        """Every metric on all examples, their count, the details."""
        rows = np.arange(self.n)
        return {name: score(rows) for name, score in self.scores.items()} | {"examples": self.n} | dict(self.details)

    def intervals(self, samples: int = 0, seed: int = 0) -> dict[str, tuple[float, float]]:
        """Where 95 % of resampled test sets put each metric (bootstrap percentiles, Efron 1979): metric -> (low, high). samples 0 = 1,000,
        fewer where there are very many examples."""
        drawn: dict[str, list[float]] = {name: [] for name in self.scores}
        for rows in _resampled(self.n, samples, seed):
            for name, score in self.scores.items():
                drawn[name].append(score(rows))
        return {name: _middle(values) for name, values in drawn.items()}

    def against(self, other: "Judged", samples: int = 0, seed: int = 0) -> dict[str, dict[str, Any]]:
        """This minus the other, paired: both answer the same resampled examples (Koehn 2004). Per metric: `difference`, its `interval`, and
        `p`, how often chance alone would bring a difference as large (two-sided).

        Raises UserError where the two were asked different things.
        """
        if self.n != other.n or list(self.asked) != list(other.asked):
            raise UserError(
                "the two models were not asked the same",
                "give both the same --data and --limit; of running text they must also have the same tokenizer",
            )
        both = [name for name in self.scores if name in other.scores]
        drawn: dict[str, list[float]] = {name: [] for name in both}
        for rows in _resampled(self.n, samples, seed):
            for name in both:
                drawn[name].append(self.scores[name](rows) - other.scores[name](rows))
        everything = np.arange(self.n)
        seen = {name: self.scores[name](everything) - other.scores[name](everything) for name in both}
        return {name: _difference(seen[name], drawn[name]) for name in both}


def _resampled(n: int, samples: int, seed: int) -> Iterator[np.ndarray]:
    random = np.random.default_rng(seed)
    for _ in range(samples or min(SAMPLES, max(100, MOST // max(1, n)))):
        yield random.integers(n, size=n)


def _middle(values: Sequence[float]) -> tuple[float, float]:
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def _difference(seen: float, drawn: Sequence[float]) -> dict[str, Any]:
    """Were there no difference, resampled ones would lie around 0 as they now lie around `seen`."""
    chance = np.abs(np.asarray(drawn) - seen) >= abs(seen) - 1e-12
    return {"difference": seen, "interval": _middle(drawn), "p": float((chance.sum() + 1) / (len(drawn) + 1))}
