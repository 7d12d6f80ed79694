"""Activations worked out twice give the same run, to the bit, in less memory."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pellucid.parts import lora, taps
from pellucid.tasks import language
from pellucid.training.recompute import recompute
from pellucid.training.verify import verify_resume
from tests import families
from tests.inspection.subjects import inputs
from tests.runs import copy_recipe, train

KEPT = {"gpt2", "llama", "t5-gpt", "original", "t5", "bert", "vit"}
LENGTH = 9


def learnt(model: nn.Module, name: str, precision: str, again: bool) -> dict[str, Tensor]:
    """Every gradient after a forward and backward pass, the same random numbers drawn."""
    model = recompute(model.train()) if again else model.train()
    torch.manual_seed(5)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        value = model(**inputs(name, 3, LENGTH, LENGTH)).float().square().sum()
    value.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", sorted(KEPT))
def test_gradients_are_the_same_to_the_bit_with_dropout(name: str, precision: str) -> None:
    plain, again = (learnt(families.make(name, dropout=0.3), name, precision, twice) for twice in (False, True))
    assert equal(plain, again) and len(plain) > 10
    assert not equal(plain, learnt(families.make(name, dropout=0.2), name, precision, True)), "dropout was drawn"


def test_padding_changes_nothing_and_updates_of_low_rank_learn_as_before() -> None:
    keep = torch.arange(LENGTH) < torch.tensor([[4], [9]])
    found = []
    for twice in (False, True):
        model: Any = families.make("bert", dropout=0.3).train()
        lora.attach(model, ["*.query", "*.up"], 2, 4.0, dropout=0.2)
        for update in lora.attached(model).values():
            nn.init.normal_(update.b.weight, generator=torch.Generator().manual_seed(1))
        model = recompute(model) if twice else model
        torch.manual_seed(5)
        model(families.ids(2, LENGTH), keep).square().sum().backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert equal(*found)
    assert {name.rpartition(".blocks.")[2].split(".")[-2] for name in found[0]} == {"a", "b"}


def test_names_are_as_before_and_without_gradients_nothing_is_worked_out_twice() -> None:
    model = families.make("llama")
    names, ids = list(model.state_dict()), families.ids(2, LENGTH)
    with torch.no_grad():
        before = model(ids)
        with taps.record(recompute(model), "stack.blocks.1.feedforward") as heard:
            assert torch.equal(model(ids), before)
    assert list(model.state_dict()) == names and len(heard["stack.blocks.1.feedforward"]) == 1


def test_listening_and_editing_while_learning_change_what_they_should_alone() -> None:
    part, ids = "stack.blocks.0.attention.branch", families.ids(2, LENGTH)
    gradients = []
    for twice in (False, True):
        model: Any = families.make("gpt2")
        model = recompute(model) if twice else model
        with taps.edit(model, {part: lambda x: 2 * x}), taps.record(model, part) as heard:
            language.loss(model, {"ids": ids, "targets": ids}).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
        assert len(heard[part]) == 1 + twice, "forward, and once more in the backward pass"
        assert torch.equal(heard[part][0], heard[part][-1])
    assert equal(*gradients)


def test_a_run_is_the_same_to_the_bit_and_resumes(tmp_path: Path) -> None:
    plain, again = copy_recipe(), copy_recipe(recompute=True)
    for recipe, name in ((plain, "plain"), (again, "again")):
        train(recipe, tmp_path / name)
    for one in sorted((tmp_path / "plain").glob("checkpoints/*/*.safetensors")):
        assert one.read_bytes() == (tmp_path / "again" / one.relative_to(tmp_path / "plain")).read_bytes()
    models = [tmp_path / name / "model" / "model.safetensors" for name in ("plain", "again")]
    assert models[0].read_bytes() == models[1].read_bytes()
    assert sorted(p.name for p in models[0].parent.iterdir()) == sorted(p.name for p in models[1].parent.iterdir())


@pytest.mark.slow
def test_law_5_such_a_run_killed_and_resumed_is_the_same(tmp_path: Path) -> None:
    recipe = copy_recipe(recompute=True, ema=0.9, accumulate=2, evaluate_every=0)
    assert verify_resume(recipe, tmp_path, 30).equal
