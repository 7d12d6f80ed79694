"""Translation: of each source a model says a target. Sentences, dates, anything that turns one line into another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.data.files import Example
from pellucid.data.pairs import PairData
from pellucid.data.tokenised import Ragged
from pellucid.generation.options import GenerationOptions
from pellucid.generation.search import generate
from pellucid.tasks import metrics
from pellucid.text.tokenizer import Tokenizer

Batch = Mapping[str, Tensor]
EVALUATION_TOKENS = 8192


def loss(model: nn.Module, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy in nats summed over real targets; logits are made only where there is one."""
    memory = model.encode(batch["source"], batch["source_keep"])  # type: ignore[operator]
    states = model.decode(batch["target_in"], memory, batch["source_keep"])  # type: ignore[operator]
    real = batch["target_keep"]
    return model.head.loss(states[real], batch["target_out"][real], label_smoothing)  # type: ignore[operator, union-attr]


@dataclass(frozen=True)
class Held:
    """Held-out pairs: as text, with their group, and as ids, in the same order."""

    examples: Sequence[Example]
    sources: Ragged
    targets: Ragged

    def first(self, n: int | None) -> "Held":
        """The first n of them; None or 0 = all."""
        if not n or n >= len(self.sources):
            return self
        return self._only(range(n))

    def within(self, longest: int) -> "Held":
        """Those whose source, and whose target with its start, have at most `longest` tokens."""
        fits = (self.sources.lengths <= longest) & (self.targets.lengths < longest)
        return self if fits.all() else self._only([i for i, ok in enumerate(fits) if ok])

    def _only(self, places: Sequence[int]) -> "Held":
        cut = [Ragged.of([part[i].tolist() for i in places]) for part in (self.sources, self.targets)]
        return Held([self.examples[i] for i in places], *cut)


@torch.no_grad()
def evaluate(
    model: nn.Module, held: Held, tokenizer: Tokenizer, options: GenerationOptions, with_bleu: bool = True
) -> dict[str, Any]:
    """loss, perplexity, bits_per_byte, exact_match, bleu and chrf (`with_bleu`), examples, and where examples have groups the exact
    match of each. The model is in evaluation mode."""
    device = next(model.parameters()).device
    ids = {f"{name}_id": getattr(tokenizer, f"{name}_id") for name in ("pad", "bos", "eos")}
    data = PairData(held.sources, held.targets, **ids, batch_tokens=EVALUATION_TOKENS)
    nats, targets = 0.0, 0
    for batch in data.sequential():
        batch = {name: tensor.to(device) for name, tensor in batch.items()}
        nats, targets = nats + float(loss(model, batch)), targets + int(batch["target_keep"].sum())
    references = [example.target for example in held.examples]
    result: dict[str, Any] = metrics.from_loss(nats, targets, sum(len(text.encode()) for text in references))
    said = translate(model, [row.tolist() for row in _rows(held.sources)], tokenizer, options)
    result["exact_match"] = metrics.exact_match(said, references)
    if with_bleu:
        result |= metrics.bleu(said, references)
    result["examples"] = len(references)
    groups = sorted({example.group for example in held.examples} - {""})
    if groups:
        right = [a == b for a, b in zip(said, references, strict=True)]
        result["groups"] = {group: _share(right, held.examples, group) for group in groups}
    return result


def translate(
    model: nn.Module, sources: Sequence[Sequence[int]], tokenizer: Tokenizer, options: GenerationOptions
) -> list[str]:
    """The best answer to each source."""
    return [best[0].text or "" for best in generate(model, sources, options, tokenizer)]


def _rows(ragged: Ragged) -> list[Any]:
    return [ragged[i] for i in range(len(ragged))]


def _share(right: Sequence[bool], examples: Sequence[Example], group: str) -> float:
    of_group = [ok for ok, example in zip(right, examples, strict=True) if example.group == group]
    return sum(of_group) / len(of_group)


class Translation:
    """The task as the training loop sees it. Evaluation during training is greedy."""

    def __init__(
        self,
        held: Held,
        tokenizer: Tokenizer,
        options: GenerationOptions,
        metric: str = "loss",
        label_smoothing: float = 0.0,
    ) -> None:
        self.held, self.tokenizer, self.label_smoothing = held, tokenizer, label_smoothing
        self.options = replace(options, beam=1, n_best=1, temperature=0.0)
        self.metric, self.higher_is_better = metric, metric != "loss"

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Summed over real targets, with label smoothing (Szegedy et al. 2016)."""
        return loss(model, batch, self.label_smoothing)

    def count(self, batch: Batch) -> int:
        """Real targets."""
        return int(batch["target_keep"].sum())

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """The numbers of `evaluate` that are one number each."""
        result = evaluate(model, self.held, self.tokenizer, self.options, self.metric in ("bleu", "chrf"))
        shown = ("loss", "perplexity", "exact_match", "bleu", "chrf")
        return {name: result[name] for name in shown if name in result}

    def samples(self, model: nn.Module) -> list[str]:
        """Three held-out sources, what the model makes of them, and what was asked for."""
        few = self.held.first(3)
        said = translate(model, [row.tolist() for row in _rows(few.sources)], self.tokenizer, self.options)
        return [
            f"{e.source} → {text}" + ("" if text == e.target else f"   (should be: {e.target})")
            for e, text in zip(few.examples, said, strict=True)
        ]

    def decode(self, batch: Batch) -> list[str]:
        """A batch as text, for reports of trouble."""
        sources = self.tokenizer.decode_batch(batch["source"].tolist())
        targets = self.tokenizer.decode_batch(batch["target_out"].tolist())
        return [f"{source} → {target}" for source, target in zip(sources, targets, strict=True)]
