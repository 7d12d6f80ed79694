"""What the loop asks of others and tells them: a task, data, a run, its state and its outcome."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from torch import Tensor, nn

from pellucid.tasks.judged import Judged
from pellucid.training.config import TrainingConfig
from pellucid.training.devices import Choices
from pellucid.training.log import Log

Batch = Mapping[str, Tensor]


class Task(Protocol):
    """What is asked of a model.

    A task may also have `decode(batch) -> list[str]`, by which a bad batch is shown as text.
    """

    @property
    def metric(self) -> str:
        """Which of `judge`'s scores tells the best model."""

    @property
    def higher_is_better(self) -> bool:
        """Whether more of it is better."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """A scalar with a gradient: the loss in nats, summed over the targets of the batch."""

    def count(self, batch: Batch) -> int:
        """How many targets the batch has."""

    def judge(self, model: nn.Module) -> Judged:
        """What the model does with the held-out data; among its scores is always "loss" (nats per target)."""

    def samples(self, model: nn.Module) -> list[str]:
        """What the model says now, a few lines for people."""


class Data(Protocol):
    """Where batches come from."""

    def batch(self, step: int) -> Batch:
        """The global batch: tensors [B, …] on the CPU, all with the same B; a pure function of the step."""


@dataclass
class Run:
    """One run: what learns what, from what, how and where.

    `copies` (file name -> text: the recipe, …) are put into every checkpoint.
    """

    model: nn.Module
    task: Task
    data: Data
    config: TrainingConfig
    folder: Path
    seed: int
    choices: Choices
    log: Log
    copies: Mapping[str, str] = field(default_factory=dict)


@dataclass
class State:
    """Where a run stands, the content of state.json.

    `best`: best value of the task's metric so far; `metrics`: all metrics then; `bad`: evaluations since;
    `tokens`: targets learned from; `seconds`: spent in steps.
    """

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best: float | None = None
    best_step: int = -1
    bad: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    ended: Literal["", "done", "early"] = ""


@dataclass(frozen=True)
class Outcome:
    """How training ended: all steps "done", "early" because nothing got better, or "stopped" by a signal and
    ready to resume.
    """

    kind: Literal["done", "early", "stopped"]
    step: int
    metrics: dict[str, float]

    @property
    def exit_code(self) -> int:
        """For the command line: 75 = stopped, resumable."""
        return 75 if self.kind == "stopped" else 0
