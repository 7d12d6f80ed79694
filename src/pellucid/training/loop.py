"""The loop: any model learns any task, and can be stopped at any moment and go on as if nothing had happened.

It knows no family. A `Task` says what the loss is and how to judge a model, `Data` gives the batch of any
step, everything else is config.

Exact by counting, not by remembering: the batch, the learning rate and the random numbers of a forward pass
(dropout) are pure functions of (seed, step, micro-batch, rank), on CPU and on GPU. So what was asked for at a
step does not depend on how the run came to it. A micro-batch's summed loss is divided by the targets of the
whole batch: accumulation and ranks weigh every token alike, whatever the lengths.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from torch import Tensor, nn

from pellucid.errors import DataError
from pellucid.training import blackbox, checkpoints, devices, ranks, schedules
from pellucid.training.contracts import Batch, Data, Outcome, Run, State, Task
from pellucid.training.learner import Learner
from pellucid.training.seeds import seed

__all__ = ["Batch", "Data", "Outcome", "Run", "State", "Task", "train"]


def train(run: Run, finish: Callable[[nn.Module, dict[str, float]], None]) -> Outcome:
    """Begin the run in `run.folder`, or go on from its newest whole checkpoint, until it ends or a signal
    stops it.

    When it ends, `finish(model, metrics)` is called with the weights to keep; resuming a run that has ended
    only calls it again. Raises DataError (a loss that is not finite, no whole checkpoint left, one of another
    model), UserError (another process trains here), checkpoints.NoSpace. Whatever is raised, the run can be
    resumed from its last checkpoint.
    """
    guard = checkpoints.lock(run.folder) if ranks.rank() == 0 else nullcontext()
    with guard, devices.using(run.choices), stop_signals() as stop:
        learner = Learner(run)
        try:
            learner.begin()
            asked = False
            while not (learner.state.ended or asked):
                asked = step(learner, stop)
                review(learner)
            if not learner.state.ended:
                learner.save()
                return Outcome("stopped", learner.state.step, learner.state.metrics)
            metrics = learner.take_best()
            if ranks.rank() == 0:
                finish(run.model, metrics)
            return Outcome(learner.state.ended, learner.state.step, metrics)
        finally:
            run.log.close()


def step(learner: Learner, stop: threading.Event) -> bool:
    """One update of the weights.

    True if some rank was asked to stop. DataError, weights untouched, if the loss or the gradient is not
    finite.
    """
    run, state, start = learner.run, learner.state, time.perf_counter()
    batch = run.data.batch(state.step)
    targets = run.task.count(batch)
    if targets <= 0:
        raise DataError(f"the batch of step {state.step} has nothing to predict", "look for empty examples in the data")
    losses = [gradient(learner, micro, i, targets) for i, micro in enumerate(micro_batches(learner, batch))]
    ranks.sum_gradients(learner.parameters)
    norm = clip(learner.parameters, run.config.clip or math.inf)
    loss, asked = ranks.sum_numbers(sum(map(float, losses)), float(stop.is_set()), device=learner.device)
    if not (math.isfinite(loss) and math.isfinite(norm)):
        blackbox.stop(run.folder, run.task, state.step, run.seed, batch, {"loss": loss, "gradient norm": norm})
    factor = schedules.factor(state.step, run.config)
    learner.optimizer.step(factor)
    if learner.ema:
        learner.ema.update(run.model, state.step)
    seconds = time.perf_counter() - start
    state.step, state.tokens, state.seconds = state.step + 1, state.tokens + targets, state.seconds + seconds
    record = {"step": state.step, "loss": loss, "lr": run.config.lr * factor, "grad_norm": norm, "tokens": state.tokens}
    write = due(state.step, run.config.log_every) or state.step == run.config.steps
    run.log.step({**record, "seconds": round(state.seconds, 3)}, targets, seconds, write)
    return asked > 0


def gradient(learner: Learner, micro: Batch, index: int, targets: int) -> Tensor:
    """Add the gradient of a micro-batch's share of the loss, and return that share.

    The random numbers depend on where it stands, on nothing before.
    """
    run = learner.run
    seed(learner.device, run.seed, learner.state.step, index, ranks.rank())
    with run.choices.autocast():
        loss = learner.loss(run.model, micro) / targets
    loss.backward()
    return loss.detach()


def clip(parameters: list[nn.Parameter], most: float) -> float:
    """The norm of the whole gradient, which is made no longer than `most` (Pascanu et al. 2013)."""
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if norm > most:
        nn.utils.clip_grads_with_norm_(parameters, most, norm)
    return float(norm)


def micro_batches(learner: Learner, batch: Batch) -> Iterator[Batch]:
    """This rank's rows in `accumulate` parts (rows i, i + n, …), on the device; parts without rows are left
    out.
    """
    mine, count = ranks.rows(batch, ranks.rank(), ranks.world()), learner.run.config.accumulate
    for i in range(count):
        micro = ranks.rows(mine, i, count)
        if ranks.n_rows(micro):
            yield {name: tensor.to(learner.device, non_blocking=True) for name, tensor in micro.items()}


def review(learner: Learner) -> None:
    """After a step: evaluate if due, decide whether the run has ended, save if due.

    In this order, so that a checkpoint knows its evaluation.
    """
    state, config = learner.state, learner.run.config
    last = state.step >= config.steps
    better = learner.evaluate() if last or due(state.step, config.evaluate_every) else False
    if last:
        state.ended = "done"
    elif config.patience and state.bad >= config.patience:
        state.ended = "early"
    if better or state.ended or due(state.step, config.checkpoint_every):
        learner.save()


def due(step: int, every: int) -> bool:
    """Whether something that happens every `every` steps (0 = never) happens after this one."""
    return every > 0 and step % every == 0


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event set by SIGTERM or Ctrl-C, so that the step at hand is finished first; a second signal acts as
    it did before.
    """
    event = threading.Event()
    before: dict[int, object] = {}

    def ask(number: int, frame: object) -> None:
        event.set()
        signal.signal(number, before[number])  # type: ignore[arg-type]

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.getsignal(number) or signal.SIG_DFL
            signal.signal(number, ask)
    try:
        yield event
    finally:
        for known, handler in before.items():
            signal.signal(known, handler)  # type: ignore[arg-type]
