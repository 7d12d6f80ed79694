"""What a model answers, as it is handed out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pellucid.generation.hypotheses import Hypothesis


@dataclass(frozen=True)
class Generated:
    """One text that was said; `score`: log-probability / length**length_penalty, in nats; `finished`: it ended by itself, not by `max_new`;
    `others`: the next best, where `n_best` asks for them."""

    text: str
    score: float
    finished: bool
    others: tuple["Generated", ...] = ()


@dataclass(frozen=True)
class Classified:
    """The likeliest label, its probability, and that of every label."""

    label: str
    probability: float
    probabilities: dict[str, float]


def generated(hypotheses: Sequence[Hypothesis]) -> Generated:
    """Of one input, the best first."""
    best, *others = [Generated(h.text or "", h.score, h.finished) for h in hypotheses]
    return replace(best, others=tuple(others))
