"""Layers as they are, through oneDNN: what they say, what their copies take, and that nothing is left behind."""

import copy

import pytest
import torch
from torch import nn

from pellucid import room
from pellucid.generation.options import GenerationOptions
from pellucid.generation.search import generate
from pellucid.parts import products
from pellucid.parts.products import WORTH_ASKING, WORTH_MOVING, has_onednn, quick
from tests.families import make

needs_onednn = pytest.mark.skipif(not has_onednn(), reason="this PyTorch was built without oneDNN")


def apart(found: torch.Tensor, reference: torch.Tensor) -> float:
    return ((found - reference).norm() / reference.norm()).item()


class Big(nn.Module):
    """Layers large enough to be worth asking oneDNN, one of them a part of a larger weight, as GPT-2's queries are."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.part = nn.Linear(512, 640), nn.Linear(640, 512, bias=False)
        self.part.weight = nn.Parameter(torch.randn(640, 1024)[:, :512].t())
        assert self.up.weight.numel() >= WORTH_ASKING and not self.part.weight.is_contiguous()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.part(self.up(x))


@needs_onednn
def test_quick_products_are_float32_and_leave_nothing_behind() -> None:
    torch.manual_seed(0)
    model, x = Big(), torch.randn(3, 512)
    reference, calls = copy.deepcopy(model).double()(x.double()), []
    model.up.register_forward_hook(lambda *_: calls.append(1))
    with quick(model), torch.no_grad():
        found = [model(x) for _ in range(WORTH_MOVING + 3)]  # as they are, then laid out
        model.up.weight.mul_(2)
        changed = model(x)
    for one in found:
        assert apart(one, reference) <= 1e-6
    assert apart(changed, found[0]) > 0.1  # what was laid out before is not used
    assert len(calls) == WORTH_MOVING + 4
    assert "forward" not in vars(model.up) and "forward" not in vars(model.part)


@needs_onednn
def test_copies_take_no_more_than_their_share(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, copied = Big(), torch.randn(3, 512), []
    monkeypatch.setattr(products, "laid_out", lambda weight: copied.append(weight) or weight)
    for free, share, expected in (
        (2**40, 0.25, 2),
        (4 * 4 * 512 * 640, 0.25, 1),
        (4 * 512 * 640, 0.25, 0),
        (2**40, 0.0, 0),
        (None, 0.25, 0),
    ):
        monkeypatch.setattr(room, "free", lambda free=free: free)
        copied.clear()
        with quick(model, share), torch.no_grad():
            for _ in range(WORTH_MOVING + 3):
                model(x)
        assert len(copied) == expected


@needs_onednn
def test_a_model_made_in_inference_mode_is_laid_out_too() -> None:
    with torch.inference_mode():
        model, x = Big(), torch.randn(3, 512)
        with quick(model):
            first, *_, last = [model(x) for _ in range(WORTH_MOVING + 3)]
    assert apart(last, first) <= 1e-6


@needs_onednn
def test_who_asks_for_determinism_is_answered_by_one_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which one multiplies depends on how often it did, and so on what was said before."""
    copied, laid_out = [], products.laid_out
    monkeypatch.setattr(products, "WORTH_ASKING", 0)
    monkeypatch.setattr(products, "WORTH_MOVING", 2)
    monkeypatch.setattr(products, "laid_out", lambda weight: copied.append(weight) or laid_out(weight))
    for deterministic in (True, False):
        generate(make("llama"), [[3, 4]], GenerationOptions(max_new=40, min_new=40, deterministic=deterministic))
        assert bool(copied) is not deterministic


def test_within_the_block_gradients_are_those_of_the_layer() -> None:
    model, x = Big(), torch.randn(3, 512)
    model(x).square().mean().backward()
    expected = model.up.weight.grad.clone()
    model.zero_grad()
    with quick(model):
        model(x).square().mean().backward()
    assert torch.equal(model.up.weight.grad, expected)
