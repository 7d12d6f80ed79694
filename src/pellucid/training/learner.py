"""A run in motion: model, optimizer, average of the weights and state, moved together between memory and
checkpoints; and its judge.

What is stored is stored at step boundaries only: weights (float32), their average, optimizer state, `State`.
Random states are not: see `loop`.
"""

import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from pellucid.errors import DataError
from pellucid.training import checkpoints, ranks
from pellucid.training.compiled import program
from pellucid.training.contracts import Run, State
from pellucid.training.ema import Ema, mean
from pellucid.training.optimizers import Optimizer
from pellucid.training.seeds import seed


class Learner:
    """Everything of a run that changes. Built new; `begin` brings it to where the run stands."""

    def __init__(self, run: Run) -> None:
        self.run, self.state, self.saved_at = run, State(), -1
        self.device = torch.device(run.choices.device)
        self.folder = run.folder / "checkpoints"
        run.model.to(self.device).train()
        self.optimizer = Optimizer(run.model, run.config, run.choices.precision)
        self.ema = Ema(run.model, run.config.ema) if run.config.ema else None
        self.loss = program(run.task.loss, run.choices.compiled)
        self.parameters = [p for p in run.model.parameters() if p.requires_grad]

    def begin(self) -> None:
        """Load the newest whole checkpoint; a new run writes number 0, so that it can be resumed from any
        moment.

        DataError if the run has begun but no checkpoint is whole: never a silent fresh start.
        """
        metrics = self.run.folder / "metrics.jsonl"
        if checkpoints.all_steps(self.folder) or (metrics.exists() and metrics.stat().st_size):
            self.load(checkpoints.latest(self.folder, self.run.log.note))
            self.run.log.note(f"going on from step {self.state.step:,}")
        ranks.wait()
        self.run.log.open(self.state.step)
        if ranks.rank() == 0:
            checkpoints.tidy(self.folder, self.state.step)
        if self.saved_at < 0:
            self.save()

    def load(self, path: Path) -> None:
        """Take over everything a checkpoint holds. DataError if it is another model's."""
        checkpoints.load_weights(self.run.model, checkpoints.read(path, "model"), str(path / "model.safetensors"))
        self.optimizer.load(checkpoints.read(path, "optimizer"))
        if self.ema:
            self.ema.load(checkpoints.read(path, "ema"), str(path / "ema.safetensors"))
        self.state = State(**checkpoints.read_state(path))
        self.saved_at = self.state.step

    def save(self) -> None:
        """Write a checkpoint of this step unless there is one, then drop those no longer needed."""
        run, step = self.run, self.state.step
        if self.saved_at != step and ranks.rank() == 0:
            run.log.sync()
            tensors = {"model": checkpoints.weights(run.model), "optimizer": self.optimizer.tensors()}
            if self.ema:
                tensors["ema"] = self.ema.tensors
            checkpoints.write(self.folder, step, tensors, asdict(self.state), run.copies)
            checkpoints.prune(self.folder, run.config.keep, {self.state.best_step, *self.to_average()})
        self.saved_at = step
        ranks.wait()

    def to_average(self) -> list[int]:
        """The last `average` checkpoints that every run of this config has: not those that a signal or a best
        evaluation happened to make.
        """
        every, count = self.run.config.checkpoint_every, self.run.config.average
        steps = [
            s
            for s in checkpoints.all_steps(self.folder)
            if s and (s == self.run.config.steps or every and s % every == 0)
        ]
        return steps[-count:] if count else []

    def evaluate(self) -> bool:
        """Judge the weights (their average over time, if there is one). True if they are the best so far."""
        state = self.state
        with self.ema.used_by(self.run.model) if self.ema else nullcontext():
            metrics, samples = self.judge()
        better = self.is_better(metrics)
        if better:
            state.best, state.best_step, state.metrics = metrics[self.run.task.metric], state.step, metrics
        state.bad = 0 if better else state.bad + 1
        self.run.log.evaluation(state.step, metrics, samples, better)
        return better

    @torch.no_grad()
    def judge(self) -> tuple[dict[str, float], list[str]]:
        """The task's own metrics and samples for the weights as they are, found by rank 0; the state of
        training is not disturbed.
        """
        run, modes = self.run, {module: module.training for module in self.run.model.modules()}
        metrics: dict[str, float] = {}
        samples: list[str] = []
        run.model.eval()
        seed(self.device, run.seed, self.state.step, -1)
        if ranks.rank() == 0:
            with run.choices.autocast():
                numbers, samples = run.task.judge(run.model).numbers(), run.task.samples(run.model)
                metrics = {name: number for name, number in numbers.items() if isinstance(number, float)}
        for module, mode in modes.items():
            module.training = mode
        return ranks.from_first(metrics), samples

    def is_better(self, metrics: Mapping[str, float]) -> bool:
        """Whether the task's metric beats the best; one that is not finite never does."""
        value, sign = metrics[self.run.task.metric], 1 if self.run.task.higher_is_better else -1
        return math.isfinite(value) and (self.state.best is None or sign * value > sign * self.state.best)

    def take_best(self) -> dict[str, float]:
        """Put into the model the weights to keep: the best evaluated ones, or the mean of the last
        checkpoints if that is better still.

        Returns their metrics. Where the checkpoint of the best is broken, says so and keeps the weights of
        the last step. The optimizer is at its end: its state is let go, the last checkpoint has it.
        """
        self.optimizer.parts.clear()
        best = self.whole(self.state.best_step)
        last: dict[str, Tensor] = {}
        if not best:
            last = {name: tensor.clone() for name, tensor in checkpoints.weights(self.run.model).items()}
            last |= self.ema.tensors if self.ema else {}
        paths = [path for path in map(self.whole, self.to_average()) if path]
        if paths:
            self.put(mean(checkpoints.read(path, "model") for path in paths))
            averaged, _ = self.judge()
            better = self.is_better(averaged)
            told = f"{self.run.task.metric} {averaged[self.run.task.metric]:.4f}"
            self.run.log.note(
                f"mean of the last {len(paths)} checkpoints: {told}{'' if better else ', not better: not taken'}"
            )
            if better:
                return averaged
        self.put({**checkpoints.read(best, "model"), **checkpoints.read(best, "ema")} if best else last)
        return self.state.metrics if best else self.judge()[0]

    def put(self, tensors: Mapping[str, Tensor]) -> None:
        """These weights into the model."""
        checkpoints.load_weights(self.run.model, tensors, str(self.folder))

    def whole(self, step: int) -> Path | None:
        """The checkpoint of a step, or None, with a note if it is there but broken."""
        path = checkpoints.all_steps(self.folder).get(step)
        try:
            if path:
                checkpoints.verify(path)
        except DataError as error:
            self.run.log.note(f"broken checkpoint: {error.problem}; not used")
            return None
        return path
