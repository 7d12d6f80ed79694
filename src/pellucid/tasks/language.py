"""Language modelling: of every token, say the next."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from pellucid.data.text import IGNORE, TextData
from pellucid.generation.options import GenerationOptions
from pellucid.generation.search import generate
from pellucid.tasks import metrics
from pellucid.text.tokenizer import Tokenizer

Batch = Mapping[str, Tensor]
SAMPLE = 120
"""Tokens of a sample shown while training."""


def loss(model: nn.Module, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy in nats summed over the targets."""
    states, targets = model.hidden(batch["ids"]), batch["targets"]  # type: ignore[operator]
    real = targets != IGNORE
    return model.head.loss(states[real], targets[real], label_smoothing)  # type: ignore[operator, union-attr]


@torch.no_grad()
def evaluate(model: nn.Module, data: TextData, bytes_per_token: float, limit: int | None = None) -> dict[str, float]:
    """loss, perplexity, bits_per_byte over the whole text (or its first `limit` windows), each token scored once; examples = tokens."""
    device = next(model.parameters()).device
    nats, targets, left = 0.0, 0, limit or data.n_windows
    for batch in data.windows(min(data.batch_size, left)):
        batch = {name: tensor[:left].to(device) for name, tensor in batch.items()}
        if not left:
            break
        left -= len(batch["ids"])
        nats, targets = nats + float(loss(model, batch)), targets + int((batch["targets"] != IGNORE).sum())
    return metrics.from_loss(nats, targets, round(targets * bytes_per_token)) | {"examples": targets}


class LanguageModel:
    """The task as the training loop sees it. `valid`: the held-out text, of `bytes_per_token` on average."""

    metric, higher_is_better = "loss", False

    def __init__(
        self,
        valid: TextData,
        bytes_per_token: float,
        tokenizer: Tokenizer,
        options: GenerationOptions,
        limit: int | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        self.valid, self.bytes_per_token, self.tokenizer, self.limit = valid, bytes_per_token, tokenizer, limit
        self.options = replace(options, max_new=min(options.max_new, SAMPLE), n_best=1, stop=())
        self.label_smoothing = label_smoothing

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Summed over the targets."""
        return loss(model, batch, self.label_smoothing)

    def count(self, batch: Batch) -> int:
        """Targets."""
        return int((batch["targets"] != IGNORE).sum())

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """See `evaluate`."""
        return evaluate(model, self.valid, self.bytes_per_token, self.limit)

    def samples(self, model: nn.Module) -> list[str]:
        """The held-out text's first words, gone on with by the model."""
        prompt = self.valid.tokens[:8].tolist()
        return [
            self.tokenizer.decode(prompt) + (generate(model, [prompt], self.options, self.tokenizer)[0][0].text or "")
        ]

    def decode(self, batch: Batch) -> list[str]:
        """A batch as text, for reports of trouble."""
        return self.tokenizer.decode_batch(batch["ids"].tolist())
