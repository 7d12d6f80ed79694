"""LoRA: a new update changes nothing, only updates learn, merged is attached."""

from fnmatch import fnmatchcase

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pellucid.errors import UserError
from pellucid.parts.lora import Lora, attach, attached, merge
from pellucid.training.optimizers import groups
from tests.families import ALL, make
from tests.laws.test_recording import run

INNER = ("*.query", "*.value", "*.out", "*.up", "*.gate", "*.down")


def taught(name: str, targets: tuple[str, ...] = INNER, rank: int = 3, alpha: float = 5.0) -> nn.Module:
    """A tiny model with updates that have learnt something."""
    model = make(name)
    attach(model, [t for t in targets if matches(model, t)], rank, alpha, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for lora in attached(model).values():
            lora.b.weight.normal_(0.0, 0.2, generator=generator)
    return model.eval()


def matches(model: nn.Module, target: str) -> list[str]:
    return [path for path, m in model.named_modules() if isinstance(m, nn.Linear) and fnmatchcase(path, target)]


@pytest.mark.parametrize("name", ALL)
def test_a_new_update_changes_nothing_a_taught_one_does_and_merging_keeps_it(name: str) -> None:
    plain, fresh, model = make(name), make(name), taught(name)
    attach(fresh, ["*"], 2, 7.0)
    with torch.no_grad():
        before, after = run(plain), run(model)
        assert torch.equal(run(fresh.eval()), before)
        assert (after - before).abs().max() > 1e-2
        merged = merge(model)
        torch.testing.assert_close(run(merged), after, rtol=1e-5, atol=1e-5)
    assert not attached(merged)
    shapes = {name: p.shape for name, p in plain.named_parameters()}
    assert shapes == {name: p.shape for name, p in merged.named_parameters()}


@given(st.integers(1, 9), st.integers(1, 12), st.integers(1, 12), st.floats(0.1, 64.0))
def test_merged_weights_are_exact(rank: int, n_in: int, n_out: int, alpha: float) -> None:
    torch.manual_seed(rank)
    base = nn.Linear(n_in, n_out)
    weight, lora = base.weight.detach().double(), Lora(base, rank, alpha)
    nn.init.normal_(lora.b.weight, std=0.1)
    update = alpha / rank * lora.b.weight.double() @ lora.a.weight.double()
    x = torch.randn(5, n_in)
    before = lora(x)
    torch.testing.assert_close(lora.merged().weight.double(), weight + update, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(lora.base(x), before, rtol=1e-4, atol=1e-5)


def test_law_10_updates_begin_by_rule_are_trained_and_decay() -> None:
    model, twin = make("llama"), make("llama")
    torch.manual_seed(0)
    attach(model, INNER, 4, 8.0, seed=5)
    torch.manual_seed(1)  # the generator is its own
    attach(twin, INNER, 4, 8.0, seed=5)
    loras = attached(model)
    assert len(loras) == 2 * len(INNER)
    for path, lora in loras.items():
        a, bound = lora.a.weight, lora.base.in_features**-0.5
        assert torch.equal(a, attached(twin)[path].a.weight) and not lora.b.weight.any()
        assert a.abs().max() <= bound and 0.35 * bound < a.std() < 0.8 * bound, "uniform: bound / √3"
    for lora in loras.values():
        nn.init.normal_(lora.b.weight)
    out = run(model)
    (out * torch.randn(out.shape)).sum().backward()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {f"{path}.{side}.weight" for path in loras for side in "ab"} == set(groups(model)["matrix"])
    for name, p in model.named_parameters():
        assert (p.grad is not None and p.grad.abs().sum() > 1e-7) if name in trained else p.grad is None, name


def test_new_parts_learn_whole() -> None:
    model = make("bert-labels")
    attach(model, ["*"], 2, 4.0, trained=["head.classifier.weight", "head.classifier.bias"])
    assert isinstance(model.head.classifier, nn.Linear) and model.head.classifier.weight.requires_grad
    assert "head.pool.dense" in attached(model) and not model.embed.tokens.weight.requires_grad


def test_dropout_is_for_the_update_only() -> None:
    lora = Lora(nn.Linear(64, 3), 2, 4.0, dropout=0.5).train()
    nn.init.ones_(lora.b.weight)
    x = torch.randn(8, 64)
    assert not torch.equal(lora(x), lora(x))
    nn.init.zeros_(lora.b.weight)
    assert torch.equal(lora(x), lora.base(x))


@pytest.mark.parametrize("pattern", ["*.qeury", "*.attention", "embed.tokens"])
def test_a_name_that_is_no_linear_layer_is_refused(pattern: str) -> None:
    model = make("llama")
    with pytest.raises(UserError, match="no linear layer is called") as error:
        attach(model, ["*.value", pattern], 2, 4.0)
    assert not attached(model) and all(p.requires_grad for p in model.parameters())
    assert pattern != "*.qeury" or "did you mean '*.query'" in error.value.remedy
