"""Groups by rule, Muon against its mathematics and against torch's, and state that does not depend on order."""

import pytest
import torch
from torch import nn

from pellucid.errors import DataError
from pellucid.models.build import build
from pellucid.training.config import TrainingConfig
from pellucid.training.optimizers import Muon, Optimizer, groups, orthogonal
from tests.families import ALL


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.patches = nn.Conv2d(1, 4, 2)
        self.positions = nn.Parameter(torch.zeros(3, 4))
        self.inner = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 4, bias=False))
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.tied_head, self.lm_head = nn.Linear(4, 7, bias=False), nn.Linear(4, 7)
        self.tied_head.weight = self.embedding.weight


def test_every_trained_parameter_is_in_exactly_one_group():
    model = Mixed()
    found = groups(model)
    assert set(found["matrix"]) == {"inner.0.weight", "inner.2.weight"}
    assert set(found["edge"]) == {"patches.weight", "lm_head.weight"}
    names = [name for group in found.values() for name in group]
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert sorted(names) == sorted(trained)


@pytest.mark.parametrize("name", ALL)
def test_every_familys_weights_decay_but_its_tables(name):
    model = build(ALL[name])
    found = groups(model)
    spared = {name for name, p in found["plain"].items() if p.ndim > 1}
    tables = ("tokens", "positions", "segments", "class_token", "relative")
    assert all(any(word in name for word in tables) for name in spared)
    assert found["matrix"] and not any(word in name for name in found["matrix"] for word in ("tokens", "head"))


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_who_decays(kind):
    model = Mixed()
    optimizer = Optimizer(model, TrainingConfig(optimizer=kind, lr=0.1, weight_decay=0.5))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step(1.0)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"inner.0.weight", "inner.2.weight", "patches.weight", "lm_head.weight"}
    torch.testing.assert_close(model.lm_head.weight.detach(), 0.95 * before["lm_head.weight"])
    assert all(p.grad is None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_muon_orthogonalises(dtype):
    torch.manual_seed(0)
    for rows, columns in ((16, 16), (16, 64), (5, 7)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(3, rows, columns).to(dtype)).float())
        assert values.min() > 0.3 and values.max() < 1.3


def test_muon_is_torchs_but_for_stacking():
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(s)) for s in ((8, 8), (8, 24), (24, 8), (8, 8), (300, 9))]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    own = Muon(ours, 0.1, 0.01, "bfloat16")
    peer = torch.optim.Muon(theirs, lr=0.1, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = b.grad = torch.randn_like(a)
        own.step()
        peer.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=0.02, rtol=0)  # of updates of 0.1 · 0.2 · 3 in bfloat16


def test_state_does_not_depend_on_order():
    torch.manual_seed(0)
    model = Mixed()
    config = TrainingConfig(optimizer="muon")
    optimizer = Optimizer(model, config)
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    optimizer.step(1.0)
    saved = optimizer.tensors()
    fresh = Optimizer(Mixed(), config)
    fresh.load(dict(reversed(saved.items())))
    again = fresh.tensors()
    assert saved.keys() == again.keys() and all(torch.equal(saved[name], again[name]) for name in saved)
    with pytest.raises(DataError, match="gone"):
        fresh.load({**saved, "gone:exp_avg": torch.zeros(1)})
