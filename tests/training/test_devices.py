"""Choices are made once, change nothing in the model, and come back as they were written."""

import json
from typing import Any

import pytest
import torch

from pellucid.errors import DataError, UserError
from pellucid.training import devices
from pellucid.training.config import TrainingConfig


def machine_settings() -> tuple[int, str]:
    backend: Any = torch.backends.mkldnn
    return torch.get_num_threads(), backend.matmul.fp32_precision


def test_choosing_leaves_no_trace(toy, monkeypatch):
    monkeypatch.setattr(devices, "bfloat16_is_native", lambda device: True)
    model, task, batch = toy.Model(), toy.Task(), toy.Data().batch(0)
    model.dropout.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random, settings = torch.get_rng_state(), machine_settings()
    choices = devices.choose(TrainingConfig(device="cpu"), model, lambda i: task.loss(model, batch))
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert settings == machine_settings()
    assert model.training and not model.dropout.training
    assert {name.split(",")[0] for name in choices.step_seconds or {}} == {"float32", "bfloat16"}
    assert choices.precision in ("float32", "bfloat16") and choices.peak_flops > 1e8
    assert devices.Choices.from_dict(json.loads(json.dumps(choices.to_dict()))) == choices


def test_what_is_asked_for_is_not_measured(toy):
    choices = devices.choose(
        TrainingConfig(device="cpu", precision="bfloat16", threads=1), toy.Model(), lambda i: torch.empty(0)
    )
    assert (choices.precision, choices.step_seconds) == ("bfloat16", None)


def test_without_bfloat16_nothing_is_timed(toy, monkeypatch):
    monkeypatch.setattr(devices, "bfloat16_is_native", lambda device: False)
    choices = devices.choose(TrainingConfig(device="cpu", threads=1), toy.Model(), lambda i: torch.empty(0))
    assert (choices.precision, choices.step_seconds) == ("float32", None)


def test_as_few_threads_as_are_fast(toy, monkeypatch):
    seconds = {2: 1.0, 1: 1.04}
    monkeypatch.setattr(devices, "bfloat16_is_native", lambda device: False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(devices, "time_steps", lambda some, *_: {str(c.threads): seconds[c.threads] for c in some})
    chosen = devices.choose(TrainingConfig(device="cpu"), toy.Model(), lambda i: torch.empty(0))
    assert (chosen.threads, chosen.step_seconds) == (1, {"2": 1.0, "1": 1.04})


def test_float32_stays_float32():
    """Whatever kernel is chosen, products keep the precision."""
    torch.manual_seed(0)
    a, b = torch.randn(200, 300), torch.randn(300, 100)
    devices.set_products("onednn" if devices.onednn_is_exact() else "plain")
    try:
        torch.testing.assert_close(a @ b, (a.double() @ b.double()).float(), atol=1e-4, rtol=1e-5)
    finally:
        devices.set_products("plain")


def test_a_device_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for wanted in ("cuda", "cuda:1", "tpu"):
        with pytest.raises(UserError, match=f"{wanted}.* is not available"):
            devices.find(wanted)
    assert devices.find("cpu") == "cpu"


def test_unknown_choices_are_refused():
    with pytest.raises(DataError, match="'speed'"):
        devices.Choices.from_dict({"speed": "fast"})
