"""Masked language modelling: of some words hidden in a text, say which they were (Devlin et al. 2019, section 3.1)."""

from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.data.masked import MaskedData
from pellucid.data.text import IGNORE
from pellucid.progress import counted
from pellucid.tasks import metrics
from pellucid.tasks.judged import Judged
from pellucid.tasks.language import digests, loss
from pellucid.text.tokenizer import Tokenizer

Batch = Mapping[str, Tensor]


@torch.no_grad()
def judge(model: nn.Module, batches: Iterable[Batch], limit: int | None = None) -> Judged:
    """loss, perplexity and accuracy over the hidden tokens of all windows (or the first `limit`). What is resampled are windows;
    `examples` counts hidden tokens."""
    device = next(model.parameters()).device
    nats: list[float] = []
    right: list[int] = []
    counts: list[int] = []
    asked: list[bytes] = []
    for batch in counted(batches, "windows of the text", limit or 0, lambda batch: len(batch["ids"])):
        batch = {name: tensor[: limit and limit - len(nats)].to(device) for name, tensor in batch.items()}
        real = batch["targets"] != IGNORE
        logits = model.head(model.hidden(batch["ids"])[real]).float()  # type: ignore[operator]
        truth, sizes = batch["targets"][real], real.sum(1).tolist()
        losses = F.cross_entropy(logits, truth, reduction="none").split(sizes)
        nats += [float(row.sum()) for row in losses]
        right += [int(row.sum()) for row in (logits.argmax(-1) == truth).split(sizes)]
        counts += sizes
        asked += digests(batch)
        if limit and len(nats) >= limit:
            break
    scores = metrics.of_loss(nats, counts) | {"accuracy": metrics.ratio(right, counts)}
    return Judged(len(nats), scores, asked, details={"examples": sum(counts)})


class MaskedLanguageModel:
    """The task as the training loop sees it. `valid`: held-out windows, always masked alike."""

    def __init__(
        self,
        valid: MaskedData,
        tokenizer: Tokenizer,
        metric: str = "loss",
        limit: int | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        self.valid, self.tokenizer, self.limit, self.label_smoothing = valid, tokenizer, limit, label_smoothing
        self.metric, self.higher_is_better = metric, metric != "loss"

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Summed over the hidden tokens; logits are made only for them."""
        return loss(model, batch, self.label_smoothing)

    def count(self, batch: Batch) -> int:
        """Hidden tokens."""
        return int((batch["targets"] != IGNORE).sum())

    def judge(self, model: nn.Module) -> Judged:
        """See `judge`."""
        return judge(model, self.valid.windows(), self.limit)

    @torch.no_grad()
    def samples(self, model: nn.Module) -> list[str]:
        """The beginning of the held-out text as it is shown, and as the model fills it."""
        first = next(self.valid.windows(1))
        ids, targets = (first[name][:, :32].to(next(model.parameters()).device) for name in ("ids", "targets"))
        filled = torch.where(targets == IGNORE, ids, model(ids).argmax(-1))
        shown = self.tokenizer.decode(ids[0, 1:].tolist(), skip_special=False)
        return [shown, "→ " + self.tokenizer.decode(filled[0, 1:].tolist(), skip_special=False)]

    def decode(self, batch: Batch) -> list[str]:
        """A batch as text, for reports of trouble."""
        return self.tokenizer.decode_batch(batch["ids"].tolist(), skip_special=False)
