"""Translation: of each source a model says a target. Sentences, dates, questions: anything that turns one text into another.

An encoder-decoder reads the source and writes the target (`SEQ2SEQ`); a decoder alone reads both as one text, and what is asked is not
learned (`prompted`). Everything else is the same.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.data.files import Example
from pellucid.data.pairs import Edges, PairData
from pellucid.data.prompts import PromptData
from pellucid.data.text import IGNORE
from pellucid.data.tokenised import Ragged
from pellucid.generation.options import GenerationOptions
from pellucid.generation.search import generate
from pellucid.generation.speakers import start_ids
from pellucid.models.config import ModelConfig
from pellucid.tasks import metrics
from pellucid.tasks.judged import Judged
from pellucid.tasks.language import row_losses
from pellucid.text.tokenizer import Tokenizer

Batch = Mapping[str, Tensor]
EVALUATION_TOKENS = 8192


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

    def within(self, longest: int, form: "Form") -> "Held":
        """Those that a model of `longest` positions can read."""
        fits = form.fits(self.sources.lengths, self.targets.lengths, longest)
        return self if fits.all() else self._only([i for i, ok in enumerate(fits) if ok])

    def _only(self, places: Sequence[int]) -> "Held":
        cut = [Ragged.of([part[i].tolist() for i in places]) for part in (self.sources, self.targets)]
        return Held([self.examples[i] for i in places], *cut)


@dataclass(frozen=True)
class Form:
    """How pairs are put to a model. `data(sources, targets, batch_tokens, seed, max_length)`: as batches; `read(model, batch)`: (states
    [B,T,D], targets [B,T], where there is one); `prompt(ids)`: a source as generation is given it; `fits(sources, targets, longest)`: by
    their lengths [N], which pairs a model of `longest` positions can read, bool [N]."""

    data: Callable[..., PairData | PromptData]
    read: Callable[[nn.Module, Batch], tuple[Tensor, Tensor, Tensor]]
    prompt: Callable[[Sequence[int]], Sequence[int]]
    fits: Callable[[np.ndarray, np.ndarray, int], np.ndarray]


def seq2seq(tokenizer: Tokenizer, config: ModelConfig | None = None) -> Form:
    """Source to the encoder, between what the tokenizer asks for; target to the decoder, which starts as the model does (None = with the
    tokenizer's <bos>) and ends on <eos>."""
    ids = {f"{name}_id": getattr(config or tokenizer, f"{name}_id") for name in ("pad", "bos", "eos")}
    before, behind = tokenizer.edges
    start = start_ids(config) if config else [ids["bos_id"]]
    edges = Edges(ids["pad_id"] or 0, start, ids["eos_id"] or 0, before, behind)
    n_edges = len(before) + len(behind)

    def read(model: Any, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        memory = model.encode(batch["source"], batch["source_keep"])
        return model.decode(batch["target_in"], memory, batch["source_keep"]), batch["target_out"], batch["target_keep"]

    return Form(
        partial(_data, PairData, {"edges": edges}),
        read,
        lambda source: [*before, *source, *behind],
        lambda s, t, n: (s + n_edges <= n) & (t + len(start) <= n),
    )


def prompted(tokenizer: Tokenizer, config: ModelConfig | None = None) -> Form:
    """Both as one text: the source, the token that asks for an answer, the answer."""
    start, end = edges = tokenizer.prompt_edges
    ids = {"pad_id": tokenizer.pad_id or 0, "eos_id": tokenizer.eos_id or 0, "edges": edges}

    def read(model: Any, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        return model.hidden(batch["ids"]), batch["targets"], batch["targets"] != IGNORE

    n_edges = len(start) + len(end)

    def prompt(source: Sequence[int]) -> list[int]:
        return [*start, *source, *end]

    return Form(partial(_data, PromptData, ids), read, prompt, lambda s, t, n: s + t + n_edges <= n)


def _data(
    kind: Any,
    ids: dict[str, Any],
    sources: Ragged,
    targets: Ragged,
    batch_tokens: int,
    seed: int = 0,
    longest: int | None = None,
) -> Any:
    return kind(sources, targets, **ids, batch_tokens=batch_tokens, seed=seed, max_length=longest)


@torch.no_grad()
def judge(
    model: nn.Module, held: Held, tokenizer: Tokenizer, options: GenerationOptions, form: Form, with_bleu: bool = True
) -> Judged:
    """loss, perplexity, bits_per_byte, exact_match, bleu and chrf (`with_bleu`), and where examples have groups the exact match of each.
    The model is in evaluation mode."""
    device = next(model.parameters()).device
    nats, counts = [0.0] * len(held.examples), [0] * len(held.examples)
    for batch in form.data(held.sources, held.targets, EVALUATION_TOKENS).sequential():
        rows = batch.pop("rows").tolist()
        states, targets, real = form.read(model, {name: tensor.to(device) for name, tensor in batch.items()})
        for row, loss, count in zip(rows, row_losses(model, states, targets, real), real.sum(1).tolist(), strict=True):
            nats[row], counts[row] = loss, count
    references = [example.target for example in held.examples]
    said = translate(model, [row.tolist() for row in _rows(held.sources)], tokenizer, options, form)
    scores = metrics.of_loss(nats, counts, [len(text.encode()) for text in references])
    scores["exact_match"] = metrics.exact_match(said, references)
    details: dict[str, Any] = {}
    if with_bleu:
        found, details["bleu_signature"] = metrics.bleu(said, references)
        scores |= found
    groups = sorted({example.group for example in held.examples} - {""})
    if groups:
        right = [a == b for a, b in zip(said, references, strict=True)]
        details["groups"] = {group: _share(right, held.examples, group) for group in groups}
    return Judged(len(references), scores, list(held.examples), said, details)


def translate(
    model: nn.Module, sources: Sequence[Sequence[int]], tokenizer: Tokenizer, options: GenerationOptions, form: Form
) -> list[str]:
    """The best answer to each source."""
    prompts = [form.prompt(source) for source in sources]
    return [best[0].text or "" for best in generate(model, prompts, options, tokenizer.target)]


def _rows(ragged: Ragged) -> list[Any]:
    return [ragged[i] for i in range(len(ragged))]


def _share(right: Sequence[bool], examples: Sequence[Example], group: str) -> float:
    of_group = [ok for ok, example in zip(right, examples, strict=True) if example.group == group]
    return sum(of_group) / len(of_group)


class Translation:
    """The task as the training loop sees it. `options`: how the held-out sources are answered (one answer each, never sampled)."""

    def __init__(
        self,
        held: Held,
        tokenizer: Tokenizer,
        options: GenerationOptions,
        form: Form,
        metric: str = "loss",
        label_smoothing: float = 0.0,
        left_out: int = 0,
    ) -> None:
        self.left_out = left_out
        self.held, self.tokenizer, self.form, self.label_smoothing = held, tokenizer, form, label_smoothing
        self.options = replace(options, n_best=1, temperature=0.0)
        self.metric, self.higher_is_better = metric, metric != "loss"

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Summed over real targets, with label smoothing (Szegedy et al. 2016); logits are made only where there is one."""
        states, targets, real = self.form.read(model, batch)
        return model.head.loss(states[real], targets[real], self.label_smoothing)  # type: ignore[operator, union-attr]

    def count(self, batch: Batch) -> int:
        """Real targets."""
        return int((batch["targets"] != IGNORE).sum() if "targets" in batch else batch["target_keep"].sum())

    def judge(self, model: nn.Module) -> Judged:
        """See `judge`; BLEU and chrF where the metric is one of them. `left_out_too_long`: how many examples the model cannot read."""
        bleu = self.metric in ("bleu", "chrf")
        judged = judge(model, self.held, self.tokenizer, self.options, self.form, bleu)
        return replace(
            judged, details={**judged.details, **({"left_out_too_long": self.left_out} if self.left_out else {})}
        )

    def samples(self, model: nn.Module) -> list[str]:
        """Three held-out sources, what the model makes of them, and what was asked for."""
        few = self.held.first(3)
        said = translate(model, [row.tolist() for row in _rows(few.sources)], self.tokenizer, self.options, self.form)
        return [
            f"{e.source} → {text}" + ("" if text == e.target else f"   (should be: {e.target})")
            for e, text in zip(few.examples, said, strict=True)
        ]

    def decode(self, batch: Batch) -> list[str]:
        """A batch as text, for reports of trouble."""
        if "ids" in batch:
            return self.tokenizer.decode_batch(batch["ids"].tolist(), skip_special=False)
        sources = self.tokenizer.decode_batch(batch["source"].tolist())
        targets = self.tokenizer.target.decode_batch(batch["target_out"].tolist())
        return [f"{source} → {target}" for source, target in zip(sources, targets, strict=True)]
