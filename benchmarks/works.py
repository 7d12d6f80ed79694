"""The trainings that are measured, and how many FLOPs a step of each needs: one formula for ours and theirs. Imports nothing heavy.

Needed are, forward and backward, 6 for each weight and each token that meets it (Kaplan et al. 2020, section 2.1; looking up embeddings,
norms and biases are free), and 12 · d_model for each pair of a query and a key it may see (half of all where attention is causal), in
each layer; the vocabulary only where there is a target. What a toolkit computes beyond that (padding, logits that nobody asks for, scores
above the diagonal) is its own affair: it counts in its seconds and not in its share of the limit.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

HIDDEN = 0.15
"""Share of the tokens that a masked language model guesses."""


@dataclass(frozen=True)
class Work:
    """One training. A step has `batch` rows of `length` tokens (seq2seq: of source and of target each). `recipe`, `flags`: ours begins with
    this recipe. `corpus`: real pairs instead of made-up ones, then `length` is what `batch` pairs have on average."""

    what: str
    family: Literal["gpt", "seq2seq", "bert", "vit"]
    recipe: str
    layers: int
    heads: int
    d_model: int
    length: int
    batch: int
    vocab: int
    flags: str = ""
    bias: bool = True
    corpus: str = ""

    def told(self) -> dict[str, Any]:
        """For a worker: every size by its name."""
        return asdict(self) | {"d_ff": self.d_ff, "pixels": self.pixels}

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> "Work":
        """The work that was told."""
        return cls(**{field.name: told[field.name] for field in fields(cls)})

    @property
    def d_ff(self) -> int:
        """Of the feed-forward."""
        return 4 * self.d_model

    @property
    def unit(self) -> str:
        """What is counted."""
        return "images/s" if self.family == "vit" else "tokens/s"

    @property
    def pixels(self) -> int:
        """Side of an image: `length` patches of 7 × 7."""
        return 7 * round(self.length**0.5)

    def tiny(self) -> "Work":
        """The same at sizes that take no time."""
        small = {"layers": 1, "heads": 2, "d_model": 32, "batch": 4, "length": 16}
        return replace(self, **small, vocab=self.vocab and 400)  # type: ignore[arg-type]


PATCH = 7
DROPOUT = "--stack.dropout.embedding 0.1 --stack.dropout.residual 0.1"
POST = f"--stack.residual post {DROPOUT}"
PLAIN = "--training.label-smoothing 0"

WORKS = {
    "a": Work("GPT 6L 6H 384, T 256, B 16, V 65", "gpt", "shakespeare", 6, 6, 384, 256, 16, 65, bias=False),
    "b": Work("GPT 4L 4H 128, T 64, B 12, V 65", "gpt", "shakespeare", 4, 4, 128, 64, 12, 65, bias=False),
    "gpt2": Work("GPT-2 124M, T 512, B 2", "gpt", "shakespeare", 12, 12, 768, 512, 2, 50257),
    "d": Work(
        "encoder-decoder 3+3L d 256, V 8,000, B 64 × 24+24",
        "seq2seq",
        "pairs",
        3,
        8,
        256,
        24,
        64,
        8000,
        f"{POST} {PLAIN}",
    ),
    "e": Work("BERT 6L 384, T 128, B 16, 15 % hidden, V 30,522", "bert", "mlm", 6, 6, 384, 128, 16, 30522, POST),
    "vit": Work("ViT 6L 384, 16 patches of 7 × 7, B 64", "vit", "mnist", 6, 6, 384, 16, 64, 0),
    "multi30k": Work(
        "encoder-decoder 3+3L d 256, Multi30k's sentences, real tokens only",
        "seq2seq",
        "pairs",
        3,
        8,
        256,
        16,
        128,
        8000,
        f"{POST} {PLAIN} --data.tokenizer byte-bpe",
        corpus="multi30k",
    ),
    "tatoeba": Work(
        "encoder-decoder 3+3L d 256, Tatoeba's sentences, real tokens only",
        "seq2seq",
        "pairs",
        3,
        8,
        256,
        10,
        200,
        8000,
        f"{POST} {PLAIN} --data.tokenizer byte-bpe",
        corpus="tatoeba",
    ),
}


def useful(work: Work, source: float = 0.0, target: float = 0.0) -> float:
    """FLOPs that one unit (a token; of pairs a source or a target token; an image) of a step needs. `source`, `target`: the mean lengths of
    pairs, where they are not `work.length`."""
    d, n, t = work.d_model, work.layers, work.length
    attention, feedforward = 4 * d * d, 2 * d * work.d_ff
    if work.family == "gpt":
        return 6 * (n * (attention + feedforward) + work.vocab * d) + 12 * n * d * t / 2
    if work.family == "bert":
        return 6 * (n * (attention + feedforward) + HIDDEN * (work.vocab * d + d * d)) + 12 * n * d * t
    if work.family == "vit":
        return t * (6 * (n * (attention + feedforward) + PATCH**2 * d) + 12 * n * d * t)
    s, t = source or t, target or t
    read = 6 * n * (attention + feedforward + 2 * d * d) + 12 * n * d * s
    said = 6 * (n * (attention + 2 * d * d + feedforward) + work.vocab * d) + 12 * n * d * (t / 2 + s)
    return (s * read + t * said) / (s + t)
