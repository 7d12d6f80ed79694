"""The chunked cross-entropy is PyTorch's, in value and gradients; nothing of it depends on where the chunks are cut."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pellucid.parts import losses
from pellucid.parts.losses import linear_cross_entropy

N, D, V = 13, 2, 17
CHUNKS = [1, 5 * V + 3, N * V, 2**22]
"""Two rows at a time (never fewer than D), five (the last chunk is smaller), all in one, far more than there is."""


def problem(bias: bool) -> tuple[list[Tensor], Tensor]:
    """[states, weight, (bias)] with gradients, targets."""
    random = torch.Generator().manual_seed(1)
    shapes = [(N, D), (V, D), (V,)][: 3 if bias else 2]
    inputs = [torch.randn(shape, generator=random).requires_grad_() for shape in shapes]
    return inputs, torch.randint(V, (N,), generator=random)


def plain(states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """The twin: all logits at once."""
    logits = F.linear(states, weight, bias).float()
    return F.cross_entropy(logits, targets, reduction="sum", label_smoothing=smoothing)


def with_gradients(loss: object, inputs: list[Tensor], targets: Tensor, smoothing: float) -> list[Tensor]:
    """[value, gradient of each input], of three times the loss: the slope that comes from above counts too."""
    states, weight, *bias = inputs
    value = loss(states, weight, bias[0] if bias else None, targets, smoothing)  # type: ignore[operator]
    return [value.detach(), *torch.autograd.grad(3 * value, inputs)]


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("bias", [False, True])
def test_equals_the_plain_one(monkeypatch: pytest.MonkeyPatch, chunk: int, smoothing: float, bias: bool) -> None:
    monkeypatch.setattr(losses, "CHUNK", chunk)
    monkeypatch.setattr(losses, "SLICE", 3 * V + 1)
    inputs, targets = problem(bias)
    ours = with_gradients(linear_cross_entropy, inputs, targets, smoothing)
    for a, b in zip(ours, with_gradients(plain, inputs, targets, smoothing), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("bias", [False, True])
def test_under_autocast_it_is_as_near_as_bfloat16_allows(
    monkeypatch: pytest.MonkeyPatch, chunk: int, bias: bool
) -> None:
    """Gradients come back in the dtype of what they belong to."""
    monkeypatch.setattr(losses, "CHUNK", chunk)
    monkeypatch.setattr(losses, "SLICE", 3 * V + 1)
    inputs, targets = problem(bias)
    truth = with_gradients(plain, inputs, targets, 0.1)
    with torch.autocast("cpu", torch.bfloat16):
        ours = with_gradients(linear_cross_entropy, inputs, targets, 0.1)
    assert [g.dtype for g in ours] == [torch.float32] * len(ours)
    for a, b in zip(ours, truth, strict=True):
        assert (a - b).norm() <= 0.02 * b.norm()


def test_what_is_not_asked_for_gets_no_gradient() -> None:
    (states, weight, bias), targets = problem(True)
    linear_cross_entropy(states, weight.detach(), bias, targets).backward()
    assert weight.grad is None and states.grad is not None and bias.grad is not None
    with torch.no_grad():
        value = linear_cross_entropy(states, weight, bias, targets)
    torch.testing.assert_close(value, plain(states, weight, bias, targets).detach())


def test_no_targets_cost_nothing() -> None:
    (states, weight, bias), targets = problem(True)
    loss = linear_cross_entropy(states[:0], weight, bias, targets[:0])
    loss.backward()
    assert loss == 0 and weight.grad is not None and not weight.grad.any()


def test_large_logits_do_not_overflow() -> None:
    (states, weight), targets = problem(False)
    ours = with_gradients(linear_cross_entropy, [states * 1e4, weight], targets, 0.0)
    assert all(bool(g.isfinite().all()) for g in ours)
