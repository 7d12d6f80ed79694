"""Metrics: numbers that mean the same here as in papers. Each is a function of which examples count, so that it can be resampled."""

import importlib.util
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pellucid.errors import UserError

Score = Callable[[np.ndarray], float]
"""Of the examples at these places (int64 [n], repeats count again) to a number."""


def ratio(above: Sequence[float] | np.ndarray, below: Sequence[float] | np.ndarray | None = None) -> Score:
    """Σ above / Σ below, each one number an example; below None: the mean. nan where nothing counts."""
    a = np.asarray(above, np.float64)
    b = np.ones_like(a) if below is None else np.asarray(below, np.float64)
    return lambda rows: float(a[rows].sum() / b[rows].sum()) if b[rows].any() else math.nan


def of_loss(
    nats: Sequence[float], targets: Sequence[float], n_bytes: Sequence[float] | None = None
) -> dict[str, Score]:
    """`loss` in nats per target and perplexity, and with the UTF-8 bytes that the targets stand for bits_per_byte."""
    loss = ratio(nats, targets)
    scores = {"loss": loss, "perplexity": lambda rows: math.exp(min(loss(rows), 700.0))}
    return scores if n_bytes is None else scores | {"bits_per_byte": ratio(np.asarray(nats) / math.log(2), n_bytes)}


def exact_match(said: Sequence[str], references: Sequence[str]) -> Score:
    """The share that is the same to the letter."""
    return ratio([a == b for a, b in zip(said, references, strict=True)])


def macro_f1(true: np.ndarray, predicted: np.ndarray, n_labels: int) -> Score:
    """The mean over labels of 2PR / (P + R); labels that neither occur nor are predicted do not count. A true label -1 (never seen in
    training) is a miss of no label."""
    t, p = np.asarray(true), np.asarray(predicted)

    def score(rows: np.ndarray) -> float:
        right = np.bincount(p[rows][t[rows] == p[rows]], minlength=n_labels)
        both = np.bincount(t[rows][t[rows] >= 0], minlength=n_labels) + np.bincount(p[rows], minlength=n_labels)
        return float((2 * right[both > 0] / both[both > 0]).mean()) if both.any() else 0.0

    return score


def has_bleu() -> bool:
    """Whether sacrebleu is there."""
    return importlib.util.find_spec("sacrebleu") is not None


def bleu(said: Sequence[str], references: Sequence[str]) -> tuple[dict[str, Score], str]:
    """Corpus BLEU (Papineni et al. 2002; cased and lower-cased, tokenised as WMT's 13a) and chrF (Popović 2015) by sacrebleu, and the
    signature that papers ask for (Post 2018). Raises UserError where sacrebleu is not installed."""
    if not has_bleu():
        raise UserError("BLEU and chrF need the package sacrebleu", "pip install 'pellucid[bleu]'")
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    cased = BLEU()
    kinds = {"bleu": cased, "chrf": CHRF(), "bleu_lowercase": BLEU(lowercase=True)}
    return {name: _corpus(kind, said, references) for name, kind in kinds.items()}, str(_signed(cased, references))


def _corpus(kind: Any, said: Sequence[str], references: Sequence[str]) -> Score:
    """The counts of every sentence once; a corpus is the sum of its sentences' (as sacrebleu's own resampling does it)."""
    counts = np.array(kind._extract_corpus_statistics(said, [references]))
    return lambda rows: float(kind._compute_score_from_stats(counts[rows].sum(0).tolist()).score)


def _signed(kind: Any, references: Sequence[str]) -> Any:
    kind.corpus_score(
        references[:1], [references[:1]]
    )  # a signature tells the number of references, known once there are some
    return kind.get_signature()
