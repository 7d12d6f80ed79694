"""A compiled loss: tried only where it can pay, replayed on resume, and the same loss."""

import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pellucid.errors import UserError
from pellucid.training.compiled import decide, one_shape
from pellucid.training.config import TrainingConfig
from pellucid.training.devices import Choices

CHOICES = Choices(reason="asked for")
LONG = TrainingConfig(steps=10**9, compile="auto")


def slow_as_it_is(model: nn.Linear, seconds: float) -> Any:
    """A loss that takes `seconds` unless it is compiled."""

    def loss(i: int, quick: bool) -> Tensor:
        time.sleep(0.0 if quick else seconds)
        return model.weight.sum()

    return loss


def never(i: int, quick: bool) -> Tensor:
    """A loss that must not be compiled."""
    assert not quick
    return torch.zeros((), requires_grad=True)


def impossible(i: int, quick: bool) -> Tensor:
    """A loss that cannot be compiled."""
    if quick:
        raise torch._dynamo.exc.TorchDynamoException("no compiler\nand a long trace")
    return torch.zeros((), requires_grad=True)


def test_batches_of_one_shape_are_known() -> None:
    assert one_shape(lambda step: {"ids": torch.zeros(6, 4)}, 3)
    assert not one_shape(lambda step: {"ids": torch.zeros(6, 4)}, 4)
    assert not one_shape(lambda step: {"ids": torch.zeros(6, 4 + step % 2)}, 1)


def test_where_it_cannot_pay_nothing_is_compiled() -> None:
    model = nn.Linear(2, 2)
    assert decide(LONG, CHOICES, model, never, fixed=False) == CHOICES
    assert decide(replace(LONG, compile="off"), CHOICES, model, never, fixed=True) == CHOICES
    assert decide(TrainingConfig(steps=10), CHOICES, model, never, fixed=True) == CHOICES


@pytest.mark.parametrize(("seconds", "taken"), [(0.02, True), (0.0, False)])
def test_a_long_run_takes_it_if_it_is_faster(seconds: float, taken: bool) -> None:
    model = nn.Linear(2, 2)
    loss = slow_as_it_is(model, seconds) if taken else lambda i, quick: slow_as_it_is(model, 0.02)(i, not quick)
    found = decide(LONG, CHOICES, model, loss, fixed=True)
    assert found.compiled == taken and set(found.step_seconds or {}) == {"as it is", "compiled"}
    assert model.weight.grad is None


def test_what_cannot_be_compiled_is_told() -> None:
    found = decide(LONG, CHOICES, nn.Linear(2, 2), impossible, fixed=True)
    assert not found.compiled and found.reason == "asked for; not compiled: no compiler"
    on = replace(LONG, compile="on")
    with pytest.raises(UserError, match="cannot be compiled here: no compiler\n"):
        decide(on, CHOICES, nn.Linear(2, 2), impossible, fixed=True)
    with pytest.raises(UserError, match="different shapes"):
        decide(on, CHOICES, nn.Linear(2, 2), never, fixed=False)
