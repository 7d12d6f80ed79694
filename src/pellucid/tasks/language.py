"""Language modelling: of every token, say the next."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from pellucid.data.text import IGNORE, TextData
from pellucid.generation.options import GenerationOptions
from pellucid.generation.search import generate
from pellucid.progress import counted
from pellucid.tasks import metrics
from pellucid.tasks.judged import Judged
from pellucid.text.tokenizer import Tokenizer

Batch = Mapping[str, Tensor]
SAMPLE = 120
"""Tokens of a sample shown while training."""


def loss(model: nn.Module, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy in nats summed over the targets."""
    states, targets = model.hidden(batch["ids"]), batch["targets"]  # type: ignore[operator]
    real = targets != IGNORE
    return model.head.loss(states[real], targets[real], label_smoothing)  # type: ignore[operator, union-attr]


def digests(batch: Batch) -> list[bytes]:
    """What each row asks, in a few bytes: two models were asked the same where all of these are the same."""
    both = zip(batch["ids"].cpu().numpy(), batch["targets"].cpu().numpy(), strict=True)
    return [hashlib.blake2b(ids.tobytes() + targets.tobytes(), digest_size=8).digest() for ids, targets in both]


def row_losses(model: nn.Module, states: Tensor, targets: Tensor, real: Tensor) -> list[float]:
    """The loss of each row, in nats: states [B,T,D], targets [B,T], `real` [B,T] where there is one."""
    head = model.head
    return [float(head.loss(s[r], t[r])) for s, t, r in zip(states, targets, real, strict=True)]  # type: ignore[operator, union-attr]


@torch.no_grad()
def judge(model: nn.Module, data: TextData, bytes_per_token: float, limit: int | None = None) -> Judged:
    """loss, perplexity, bits_per_byte over the whole text (or its first `limit` windows), each token scored once. What is resampled are
    windows; `examples` counts tokens."""
    device = next(model.parameters()).device
    nats: list[float] = []
    counts: list[int] = []
    asked: list[bytes] = []
    left = limit or data.n_windows
    windows = data.windows(min(data.batch_size, left))
    for batch in counted(windows, "windows of the text", left, lambda batch: len(batch["ids"])):
        batch = {name: tensor[: left - len(nats)].to(device) for name, tensor in batch.items()}
        if not len(batch["ids"]):
            break
        real = batch["targets"] != IGNORE
        nats += row_losses(model, model.hidden(batch["ids"]), batch["targets"], real)  # type: ignore[operator]
        counts += real.sum(1).tolist()
        asked += digests(batch)
    scores = metrics.of_loss(nats, counts, [n * bytes_per_token for n in counts])
    return Judged(len(nats), scores, asked, details={"examples": sum(counts)})


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

    def judge(self, model: nn.Module) -> Judged:
        """See `judge`."""
        return judge(model, self.valid, self.bytes_per_token, self.limit)

    def samples(self, model: nn.Module) -> list[str]:
        """The held-out text's first words, gone on with by the model."""
        prompt = self.valid.tokens[:8].tolist()
        said = generate(model, [prompt], self.options, self.tokenizer)[0][0].text or ""
        return [self.tokenizer.decode(prompt) + said]

    def decode(self, batch: Batch) -> list[str]:
        """A batch as text, for reports of trouble."""
        return self.tokenizer.decode_batch(batch["ids"].tolist())
