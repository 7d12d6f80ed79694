"""Metrics: numbers that mean the same here as in papers."""

import importlib.util
import math
from collections.abc import Sequence

from pellucid.errors import UserError


def from_loss(nats: float, targets: int, n_bytes: int) -> dict[str, float]:
    """`loss` in nats per target, perplexity, and bits per byte of the UTF-8 text the targets stand for, from a summed loss."""
    loss = nats / max(1, targets)
    return {
        "loss": loss,
        "perplexity": math.exp(min(loss, 700.0)),
        "bits_per_byte": nats / math.log(2) / max(1, n_bytes),
    }


def exact_match(said: Sequence[str], references: Sequence[str]) -> float:
    """The share that is the same to the letter."""
    return sum(a == b for a, b in zip(said, references, strict=True)) / max(1, len(references))


def has_bleu() -> bool:
    """Whether sacrebleu is there."""
    return importlib.util.find_spec("sacrebleu") is not None


def bleu(said: Sequence[str], references: Sequence[str]) -> dict[str, float | str]:
    """Corpus BLEU (Papineni et al. 2002; cased and lower-cased, tokenised as WMT's 13a) and chrF (Popović 2015) by sacrebleu, with the
    signature that papers ask for (Post 2018). Raises UserError where sacrebleu is not installed."""
    if not has_bleu():
        raise UserError("BLEU and chrF need the package sacrebleu", "pip install 'pellucid[bleu]'")
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    cased, lower, chrf = BLEU(), BLEU(lowercase=True), CHRF()
    return {
        "bleu": cased.corpus_score(said, [references]).score,
        "chrf": chrf.corpus_score(said, [references]).score,
        "bleu_lowercase": lower.corpus_score(said, [references]).score,
        "bleu_signature": str(cased.get_signature()),
    }
