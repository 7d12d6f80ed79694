"""The loop: resumed = uninterrupted bit for bit, accumulated = big batch, nothing learned from what is not finite."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pellucid.errors import DataError, UserError
from pellucid.tasks.judged import Judged
from pellucid.training import checkpoints
from pellucid.training.learner import Learner
from pellucid.training.loop import clip, gradient, micro_batches

TIMES = ("seconds", "tokens_per_second")


def records(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines]


def interrupt_at(*steps: int):
    """SIGTERM, once, while the batch of each of these steps is made."""
    left = list(steps)

    def hook(step: int) -> None:
        if step in left:
            left.remove(step)
            os.kill(os.getpid(), signal.SIGTERM)

    return hook


def same(a: Path, b: Path) -> None:
    """The newest checkpoints hold the same bits, and the records are the same but for times."""
    one, other = (max(checkpoints.all_steps(folder / "checkpoints").items()) for folder in (a, b))
    assert one[0] == other[0]
    stems = {path.stem for path in one[1].glob("*.safetensors")}
    assert stems >= {"model", "optimizer"}
    for stem in stems:
        x, y = checkpoints.read(one[1], stem), checkpoints.read(other[1], stem)
        assert x.keys() == y.keys()
        assert all(torch.equal(x[name], y[name]) for name in x), stem
    x, y = checkpoints.read_state(one[1]), checkpoints.read_state(other[1])
    assert {**x, "seconds": 0} == {**y, "seconds": 0}
    assert records(a) == records(b)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_resumed_is_uninterrupted(tmp_path, toy, optimizer, accumulate, ema, precision):
    """Also twice in a row, at steps where no checkpoint was due; and once more after the last."""
    changes = {"optimizer": optimizer, "accumulate": accumulate, "ema": ema, "precision": precision, "average": 2}
    whole, parts = toy.Finished(), toy.Finished()
    assert toy.train(toy.run(tmp_path / "a", **changes), whole).kind == "done"
    for kind, step in (("stopped", 0), ("stopped", 4), ("done", 99)):
        outcome = toy.train(toy.run(tmp_path / "b", interrupt_at(step), **changes), parts)
        assert (outcome.kind, outcome.exit_code) == (kind, 75 if kind == "stopped" else 0)
    again = toy.Finished()
    toy.train(toy.run(tmp_path / "b", **changes), again)
    same(tmp_path / "a", tmp_path / "b")
    for other in (parts, again):
        assert whole.metrics == other.metrics
        assert all(torch.equal(whole.weights[name], other.weights[name]) for name in whole.weights)


def test_resumes_from_a_checkpoint_before_and_drops_later_records(tmp_path, toy):
    toy.train(toy.run(tmp_path / "a"), toy.Finished())
    with pytest.raises(RuntimeError):
        toy.train(toy.run(tmp_path / "b", fail_at(7)), toy.Finished())
    assert records(tmp_path / "b")[-1]["step"] == 7
    assert max(checkpoints.all_steps(tmp_path / "b/checkpoints")) == 6
    toy.train(toy.run(tmp_path / "b"), toy.Finished())
    same(tmp_path / "a", tmp_path / "b")


def fail_at(bad: int):
    def hook(step: int) -> None:
        if step == bad:
            raise RuntimeError("power cut")

    return hook


@pytest.mark.parametrize("accumulate", [2, 3, 6, 9])
def test_accumulated_is_big_batch(tmp_path, toy, accumulate):
    """Rows have unequal token counts; every token weighs the same."""
    gradients = []
    for count in (1, accumulate):
        run = toy.run(tmp_path / str(count), accumulate=count)
        run.model = toy.Model(dropout=0.0).double()
        run.model.load_state_dict(toy.run(tmp_path).model.state_dict())
        learner, batch = Learner(run), run.data.batch(0)
        for i, micro in enumerate(micro_batches(learner, batch)):
            gradient(learner, micro, i, run.task.count(batch))
        gradients.append([p.grad for p in run.model.parameters()])
    for one, many in zip(*gradients, strict=True):
        assert (one - many).norm() <= 1e-6 * one.norm()


class Poisoned(nn.Module):
    def __init__(self, model: nn.Module, where: str) -> None:
        super().__init__()
        self.model, self.where, self.calls = model, where, 0

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        logits = self.model(ids)
        if self.calls < 3:
            return logits
        if self.where == "loss":
            return logits * torch.nan
        logits.register_hook(lambda g: g * torch.inf)
        return logits


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_loss_that_is_not_finite_stops_before_the_step(tmp_path, toy, where):
    run = toy.run(tmp_path, ema=0.9)
    run.model = Poisoned(run.model, where)
    with pytest.raises(DataError, match="not finite at step 2") as raised:
        toy.train(run, toy.Finished())
    assert str(tmp_path / "blackbox.json") in raised.value.remedy
    box = json.loads((tmp_path / "blackbox.json").read_text())
    batch = run.data.batch(2)
    assert (box["step"], box["seed"]) == (2, 7)
    assert box["batch"]["ids"] == batch["ids"].tolist()
    assert box["texts"] == run.task.decode(batch)
    kept = checkpoints.read(tmp_path / "checkpoints/step-000002", "model")
    assert all(torch.equal(kept[name], tensor) for name, tensor in checkpoints.weights(run.model).items())


def test_a_batch_without_targets_is_named(tmp_path, toy, monkeypatch):
    monkeypatch.setattr(toy.Task, "count", lambda self, batch: 0)
    with pytest.raises(DataError, match="step 0 has nothing to predict"):
        toy.train(toy.run(tmp_path), toy.Finished())


def judged(loss: float) -> Judged:
    return Judged(1, {"loss": lambda rows: loss})


def test_early_stopping_keeps_the_best(tmp_path, toy, monkeypatch):
    losses = iter([3.0, 1.0, 2.0, float("nan"), 0.5])
    monkeypatch.setattr(toy.Task, "judge", lambda self, model: judged(next(losses)))
    done = toy.Finished()
    outcome = toy.train(toy.run(tmp_path, steps=99, evaluate_every=1, checkpoint_every=50, patience=2), done)
    assert (outcome.kind, outcome.step, outcome.exit_code, outcome.metrics) == ("early", 4, 0, {"loss": 1.0})
    best = checkpoints.read(tmp_path / "checkpoints/step-000002", "model")
    assert all(torch.equal(best[name], done.weights[name]) for name in best)
    assert records(tmp_path)[-1]["loss"] is None
    (tmp_path / "checkpoints/step-000002/state.json").unlink()  # then the last ones are kept, and judged anew
    assert toy.train(toy.run(tmp_path, steps=99, patience=2), done).metrics == {"loss": 0.5}
    last = checkpoints.read(tmp_path / "checkpoints/step-000004", "model")
    assert all(torch.equal(last[name], done.weights[name]) for name in last)
    assert set(checkpoints.all_steps(tmp_path / "checkpoints")) == {2, 4}


def test_the_mean_of_checkpoints_is_taken_if_better(tmp_path, toy, monkeypatch):
    """Of those that an uninterrupted run has, too: not the one that a signal made."""
    losses = iter([3.0, 2.0, 0.1])
    monkeypatch.setattr(toy.Task, "judge", lambda self, model: judged(next(losses)))
    done = toy.Finished()
    assert toy.train(toy.run(tmp_path, interrupt_at(6), average=3), done).kind == "stopped"
    outcome = toy.train(toy.run(tmp_path, average=3), done)
    assert outcome.metrics == {"loss": 0.1}
    last = [checkpoints.read(tmp_path / f"checkpoints/step-{s:06d}", "model") for s in (4, 6, 8)]
    for name in last[-1]:
        torch.testing.assert_close(done.weights[name], sum(w[name] for w in last) / 3)


def test_tied_weights_are_stored_once_and_load_tied(tmp_path, toy):
    done = toy.Finished()
    toy.train(toy.run(tmp_path), done)
    stored = checkpoints.read(tmp_path / "checkpoints/step-000008", "model")
    assert "embedding.weight" in stored and "head.weight" not in stored
    assert torch.equal(done.weights["head.weight"], done.weights["embedding.weight"])


def test_signal_handlers_are_given_back(tmp_path, toy):
    before = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]
    toy.train(toy.run(tmp_path, interrupt_at(1)), toy.Finished())
    assert before == [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]


def test_a_second_process_is_refused(tmp_path, toy):
    with checkpoints.lock(tmp_path), pytest.raises(UserError, match="another process"):
        toy.train(toy.run(tmp_path), toy.Finished())


def test_evaluation_leaves_frozen_parts_and_modes_alone(tmp_path, toy):
    run = toy.run(tmp_path)
    learner = Learner(run)
    run.model.dropout.eval()
    learner.judge()
    assert run.model.training and not run.model.dropout.training


def test_another_model_is_refused(tmp_path, toy):
    toy.train(toy.run(tmp_path), toy.Finished())
    run = toy.run(tmp_path)
    run.model.up = nn.Linear(8, 16)
    with pytest.raises(DataError, match="'up.bias' has shape"):
        toy.train(run, toy.Finished())


def test_learns(tmp_path, toy):
    for optimizer in ("adamw", "muon"):
        outcome = toy.train(toy.run(tmp_path / optimizer, steps=150, optimizer=optimizer, lr=0.02), toy.Finished())
        assert outcome.metrics["loss"] < 0.5


@pytest.mark.parametrize("step", [0, 7])
def test_stopped_at_the_ends(tmp_path, toy, step):
    """Before the first step there is checkpoint 0; a signal in the last step does not keep the run from ending."""
    toy.train(toy.run(tmp_path / "a"), toy.Finished())
    with pytest.raises(RuntimeError):
        toy.train(toy.run(tmp_path / "b", fail_at(step)), toy.Finished())
    assert (tmp_path / "b/checkpoints/step-000000").is_dir() == (step == 0)
    assert toy.train(toy.run(tmp_path / "b", interrupt_at(7)), toy.Finished()).kind == "done"
    same(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_gradient_is_clipped_as_pytorch_clips(scale: float) -> None:
    """To the bit; one that is short enough is not touched."""
    random = torch.Generator().manual_seed(0)
    ours, theirs = ([nn.Parameter(torch.zeros(n)) for n in (3, 50, 7)] for _ in range(2))
    for a, b in zip(ours[:2], theirs[:2], strict=True):  # the third has no gradient
        a.grad = scale * torch.randn(a.shape, generator=random)
        b.grad = a.grad.clone()
    assert clip(ours, 1.0) == float(nn.utils.clip_grad_norm_(theirs, 1.0))
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(ours[:2], theirs[:2], strict=True))
    assert clip([nn.Parameter(torch.zeros(2))], 1.0) == 0.0
