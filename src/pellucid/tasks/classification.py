"""Classification: of a text or an image say the label, of each word of a text the tag."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.progress import counted
from pellucid.tasks import metrics
from pellucid.tasks.judged import Judged
from pellucid.tasks.spans import name_spans, spans

Batch = Mapping[str, Tensor]
Shown = Sequence[tuple[str, Sequence[str]]]
UNSAID = -2
"""The answer to what was not read."""
LINE = 100
"""Characters of a text shown while training."""


def logits(model: nn.Module, batch: Batch) -> Tensor:
    """What the model says to a batch of images [B,channels,H,W] or of texts [B,T]: [B,n_labels], or [B,T,n_labels] of tags."""
    return model(batch["images"]) if "images" in batch else model(batch["ids"], batch["keep"])


def truth(batch: Batch) -> Tensor:
    """Labels [B] or tags [B,T]; below 0 where there is nothing to learn."""
    return batch["labels"] if "labels" in batch else batch["targets"]


class Weighted:
    """Batches of `data` with what each target counts: "weights", shaped as the targets. Every label weighs the same in all, and a target 1
    on average: N / (K · n), from the labels [N] of the training set."""

    def __init__(self, data: Any, labels: np.ndarray, n_labels: int) -> None:
        counts = np.bincount(labels[labels >= 0], minlength=n_labels)
        self.data, self.notes = data, getattr(data, "notes", [])
        self.weights = torch.tensor(counts.sum() / (n_labels * np.maximum(1, counts)), dtype=torch.float32)

    def batch(self, step: int) -> dict[str, Tensor]:
        """See the data."""
        batch = self.data.batch(step)
        return {**batch, "weights": self.weights[truth(batch).clamp(min=0)]}


@torch.no_grad()
def predictions(
    model: nn.Module, batches: Iterable[Batch], n: int
) -> tuple[list[np.ndarray], list[np.ndarray], list[float]]:
    """(true labels, predicted ones, summed loss) of each of n examples, in the order of the data: an array of one label, or of the tags
    of its words. A true label of -1 is one that training never showed: it has no loss, and no answer to it is right."""
    device = next(model.parameters()).device
    true, predicted, nats = [np.empty(0, np.int64)] * n, [np.empty(0, np.int64)] * n, [0.0] * n
    for batch in counted(batches, "examples", n, lambda batch: len(batch["rows"])):
        batch = {name: tensor.to(device) for name, tensor in batch.items()}
        said, asked, rows = logits(model, batch).float(), truth(batch), batch["rows"].tolist()
        said, asked = said.view(len(rows), -1, said.shape[-1]), asked.view(len(rows), -1)
        losses = F.cross_entropy(said.flatten(0, 1), asked.clamp(min=-1).flatten(), ignore_index=-1, reduction="none")
        summed = losses.view(asked.shape).sum(1).tolist()
        answers = said.argmax(-1)
        for i, row in enumerate(rows):
            real = asked[i] >= -1
            true[row], predicted[row] = asked[i][real].cpu().numpy(), answers[i][real].cpu().numpy()
            nats[row] = summed[i]
    return true, predicted, nats


Answers = Sequence[np.ndarray]


def label_scores(true: Answers, predicted: Answers, names: Sequence[str]) -> dict[str, metrics.Score]:
    """macro_f1, of one label an example."""
    return {"macro_f1": metrics.macro_f1(np.concatenate(true), np.concatenate(predicted), len(names))}


def tag_scores(true: Answers, predicted: Answers, names: Sequence[str]) -> dict[str, metrics.Score]:
    """f1 of whole spans where tags name spans (Tjong Kim Sang & De Meulder 2003)."""
    if not name_spans(names):
        return {}
    found = [(spans(t.tolist(), names), spans(p.tolist(), names)) for t, p in zip(true, predicted, strict=True)]
    return {"f1": metrics.ratio([2 * len(t & p) for t, p in found], [len(t) + len(p) for t, p in found])}


Scores = Callable[[Answers, Answers, Sequence[str]], dict[str, metrics.Score]]


def judge(
    model: nn.Module,
    batches: Iterable[Batch],
    n: int,
    names: Sequence[str],
    more: Scores = label_scores,
    whole: Answers | None = None,
) -> Judged:
    """loss, perplexity, accuracy and the scores of `more`. `said`: the predicted label, or tags, of each example. `whole`: the true tags of
    each example in full; words that the model could not read for the length of their text are missed (UNSAID)."""
    true, predicted, nats = predictions(model, batches, n)
    if whole is not None:
        predicted = [np.append(p, np.full(len(w) - len(p), UNSAID)) for p, w in zip(predicted, whole, strict=True)]
        true = list(whole)
    right = [int((t == p).sum()) for t, p in zip(true, predicted, strict=True)]
    scores = metrics.of_loss(nats, [int((t >= 0).sum()) for t in true])
    scores |= {"accuracy": metrics.ratio(right, [len(t) for t in true])} | more(true, predicted, names)
    asked = [tuple(names[i] if i >= 0 else "?" for i in t.tolist()) for t in true]
    return Judged(n, scores, asked, predicted)


class Classification:
    """The task as the training loop sees it. `held()`: the held-out batches with their `rows`, `n` examples in all; `shown`: the first of
    them for people, as text and their true labels; `more`, `whole`: see `judge`."""

    def __init__(
        self,
        held: Callable[[], Iterable[Batch]],
        n: int,
        names: Sequence[str],
        shown: Shown = (),
        metric: str = "accuracy",
        label_smoothing: float = 0.0,
        more: Scores = label_scores,
        whole: Answers | None = None,
    ) -> None:
        self.whole = whole
        self.held, self.n, self.names, self.shown, self.more = held, n, names, shown, more
        self.metric, self.higher_is_better, self.label_smoothing = metric, metric != "loss", label_smoothing
        self.last: Sequence[np.ndarray] = ()

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Summed over the targets, with label smoothing, each by its weight where the batch has weights."""
        said, targets = logits(model, batch), truth(batch)
        real = targets >= 0
        losses = F.cross_entropy(
            said[real].float(), targets[real], reduction="none", label_smoothing=self.label_smoothing
        )
        return (losses * batch["weights"][real] if "weights" in batch else losses).sum()

    def count(self, batch: Batch) -> int:
        """Targets."""
        return int((truth(batch) >= 0).sum())

    def judge(self, model: nn.Module) -> Judged:
        """See `judge`."""
        judged = judge(model, self.held(), self.n, self.names, self.more, self.whole)
        self.last = judged.said
        return judged

    def samples(self, model: nn.Module) -> list[str]:
        """What was said of the first examples when they were judged just now."""
        said = [[self.names[i] if i >= 0 else "?" for i in row] for row in self.last[: len(self.shown)]]
        return [
            f"{text[:LINE]} → {' '.join(ours)}" + ("" if ours == list(true) else f"   (should be: {' '.join(true)})")
            for (text, true), ours in zip(self.shown, said, strict=True)
        ]
