"""A tiny model with dropout and tied weights, a task and data: everything the loop may assume, nothing more."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn

from pellucid.tasks.judged import Judged
from pellucid.training.config import TrainingConfig
from pellucid.training.devices import Choices
from pellucid.training.log import Log
from pellucid.training.loop import Run, train

VOCAB, WIDTH = 11, 8


class Toy(nn.Module):
    """Predicts the next token from this one. The head is tied to the embedding."""

    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH, bias=False)
        self.norm, self.dropout = nn.LayerNorm(WIDTH), nn.Dropout(dropout)
        self.head = nn.Linear(WIDTH, VOCAB, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("scale", torch.ones(1))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids) * self.scale
        return self.head(self.norm(x + self.dropout(self.down(F.gelu(self.up(x))))))


class ToyTask:
    metric, higher_is_better = "loss", False

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        logits = model(batch["ids"]).float() if batch["ids"].dtype == torch.long else model(batch["ids"])
        keep = batch["keep"]
        return F.cross_entropy(logits[keep], batch["targets"][keep], reduction="sum")

    def count(self, batch: Any) -> int:
        return int(batch["keep"].sum())

    def judge(self, model: nn.Module) -> Judged:
        torch.rand(3)  # an evaluation may draw random numbers
        assert not model.training
        batch = ToyData().batch(10**6)
        loss = float(self.loss(model, batch)) / self.count(batch)
        return Judged(1, {"loss": lambda rows: loss})

    def samples(self, model: nn.Module) -> list[str]:
        return ["a sample"]

    def decode(self, batch: Any) -> list[str]:
        return [" ".join(map(str, row)) for row in batch["ids"].tolist()]


class ToyData:
    """Rows of unequal length; the next token is the token plus one."""

    def __init__(self, hook: Callable[[int], None] = lambda step: None) -> None:
        self.hook = hook

    def batch(self, step: int) -> dict[str, Tensor]:
        self.hook(step)
        random = torch.Generator().manual_seed(step)
        ids = torch.randint(VOCAB, (6, 7), generator=random)
        lengths = torch.randint(1, 8, (6, 1), generator=random)
        return {"ids": ids, "targets": (ids + 1) % VOCAB, "keep": torch.arange(7) < lengths}


def toy_run(folder: Path, hook: Callable[[int], None] = lambda step: None, **changes: Any) -> Run:
    torch.manual_seed(0)
    plain: dict[str, Any] = {"steps": 8, "warmup": 2, "lr": 1e-2, "log_every": 1, "evaluate_every": 4}
    precision, dropout = changes.pop("precision", "float32"), changes.pop("dropout", 0.1)
    config = TrainingConfig(**{**plain, "checkpoint_every": 2, **changes})
    log = Log(folder, config.steps, console=Console(quiet=True))
    return Run(Toy(dropout), ToyTask(), ToyData(hook), config, folder, 7, Choices("cpu", precision), log)


class Finished:
    """What `finish` was called with."""

    def __init__(self) -> None:
        self.weights: dict[str, Tensor] = {}
        self.metrics: dict[str, float] = {}

    def __call__(self, model: nn.Module, metrics: dict[str, float]) -> None:
        self.weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        self.metrics = metrics


@pytest.fixture
def toy() -> SimpleNamespace:
    return SimpleNamespace(Model=Toy, Task=ToyTask, Data=ToyData, run=toy_run, Finished=Finished, train=train)
