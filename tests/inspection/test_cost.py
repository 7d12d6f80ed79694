"""Costs told before anything is allocated are those of a real run."""

import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from pellucid.inspection.cost import Cost, Setting, by_part, cost, kept_for_backward
from pellucid.inspection.machine import LARGE, UTILISATION, Machine, measure
from pellucid.inspection.recorder import Step, Value
from pellucid.inspection.trace import trace
from pellucid.models.build import build, count
from pellucid.models.presets import PRESETS
from pellucid.parts.cache import KeyValueCache
from pellucid.parts.config import Dropout
from pellucid.tasks import language, translation
from pellucid.training.config import TrainingConfig
from pellucid.training.optimizers import Optimizer
from pellucid.training.recompute import recompute
from tests import families
from tests.inspection.subjects import hand_flops, inputs

pytestmark = pytest.mark.slow  # each is quick, together they are a quarter of the quick ones

BATCH, LENGTH = 3, 9
SPECIALS: Any = SimpleNamespace(pad_id=0, bos_id=1, eos_id=2, edges=([], []))
every_family = pytest.mark.parametrize("name", families.ALL)


def config_of(name: str, dropout: float = 0.1) -> Any:
    config = families.ALL[name]
    return replace(config, stack=replace(config.stack, dropout=Dropout(*[dropout] * 4)))


def predicted(name: str, **setting: Any) -> Cost:
    return cost(config_of(name), Setting(LENGTH, BATCH, **setting))


def real_loss(model: Any) -> torch.Tensor:
    """As training computes it: the tasks' own where there are tasks."""
    ids = families.ids(BATCH, LENGTH)
    real = torch.ones(BATCH, LENGTH, dtype=torch.bool)
    if model.config.family == "gpt":
        return language.loss(model, {"ids": ids, "targets": ids})
    if model.config.family == "seq2seq":
        batch = {"source": ids, "source_keep": real, "target_in": ids, "target_out": ids, "target_keep": real}
        states, targets, real = translation.seq2seq(SPECIALS).read(model, batch)
        return model.head.loss(states[real], targets[real])
    if model.config.family == "vit":
        return nn.functional.cross_entropy(model(**inputs("vit", BATCH)), torch.zeros(BATCH, dtype=torch.long))
    if model.config.head == "words":
        return language.loss(model, {"ids": ids, "targets": ids})
    out = model(ids, real)
    if model.config.head == "vector":
        return out.sum()
    return nn.functional.cross_entropy(out.flatten(0, -2), torch.zeros(out.shape[:-1], dtype=torch.long).flatten())


@every_family
def test_flops_are_those_of_a_trace_and_of_hand_formulas(name: str) -> None:
    model, found = build(config_of(name)).eval(), predicted(name)
    with torch.no_grad():
        story = trace(model, **inputs(name, BATCH, LENGTH, LENGTH))
    assert sum(found.forward.values()) == story.totals["flops"] == hand_flops(model, BATCH, LENGTH, LENGTH)
    attends = [s for s in story.root.walk() if s.kind == "Attend"]
    assert found.forward["attention"] == sum(step.flops for step in attends) > 0
    heads = [s for s in story.root.steps if s.path in ("head", "classifier")]
    assert found.forward.get("head", 0) == sum(step.flops for step in heads)
    assert found.forward["head"] > 0 or model.config.head == "states", "only who says nothing has no head to pay"
    assert found.step["backward"] == pytest.approx(2 * found.step["forward"], rel=0.03)  # pixels need no gradient


@every_family
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_autograd_keeps_is_foreseen(name: str, precision: str) -> None:
    torch.manual_seed(0)
    model = build(config_of(name)).train()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"), kept_for_backward(model) as kept:
        value = real_loss(model)
    found = predicted(name, precision=precision).memory["activations"]
    assert kept() == pytest.approx(found, rel=0.1) and found > 1000
    value.backward()


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@every_family
def test_a_real_step_holds_the_tensors_that_were_foreseen(name: str, optimizer: Any) -> None:
    model, memory = build(config_of(name)).train(), predicted(name, optimizer=optimizer).memory
    real_loss(model).backward()
    parameters = [p for p in model.parameters() if p.grad is not None]
    assert memory["weights"] == sum(p.nbytes for p in model.parameters())
    assert memory["gradients"] == sum(p.grad.nbytes for p in parameters if p.grad is not None)
    driven = Optimizer(model, TrainingConfig(optimizer=optimizer))
    driven.step(1.0)
    assert memory["optimizer"] == pytest.approx(sum(t.nbytes for t in driven.tensors().values()), rel=0.01)
    assert memory["training step"] == sum(memory[k] for k in ("weights", "gradients", "optimizer", "activations"))
    assert (
        memory["weights"] + memory["optimizer"] + memory["activations"] < memory["peak"] < 3 * memory["training step"]
    )


@pytest.mark.parametrize("name", ["gpt2", "original", "bert", "vit"])
def test_recomputation_keeps_less_and_works_more(name: str) -> None:
    plain, again = predicted(name), predicted(name, recompute=True)
    assert again.memory["activations"] < 0.6 * plain.memory["activations"]
    assert again.memory["peak"] < plain.memory["peak"]
    assert plain.step["backward"] + 0.5 * plain.step["forward"] < again.step["backward"]
    assert again.forward == plain.forward and again.parameters == plain.parameters
    model = recompute(build(config_of(name)).train())
    with kept_for_backward(model) as kept:
        value = real_loss(model)
    assert kept() == pytest.approx(again.memory["activations"], rel=0.1)
    value.backward()


@pytest.mark.parametrize("name", families.GPTS | families.SEQ2SEQS)
def test_a_real_cache_holds_the_bytes_that_were_foreseen(name: str) -> None:
    model: Any = families.make(name)
    ids, cache = families.ids(BATCH, LENGTH), model.new_cache()
    with torch.no_grad():
        if model.config.family == "gpt":
            logits = model(ids, cache=cache)
        else:
            logits = model.head(model.decode(ids, model.encode(ids), cache=cache))
    memory = predicted(name).memory
    assert memory["cache"] == held(cache)
    assert memory["logits"] == logits.nbytes
    sides = 2 if model.config.family == "seq2seq" else 1
    assert memory["cache per token"] * BATCH * LENGTH * sides == memory["cache"]


def held(cache: KeyValueCache) -> int:
    """Bytes of the keys and values of real tokens."""
    pairs = [layer.own._room for layer in cache.layers if layer.own]
    own = [t[:, :, : cache.length] for pair in pairs if pair for t in pair]
    memory = [t for layer in cache.layers if layer.memory and layer.memory._kept for t in layer.memory._kept]
    return sum(t.numel() * t.itemsize for t in own + memory)


@every_family
def test_every_parameter_is_of_one_part(name: str) -> None:
    model = build(config_of(name))
    parts = by_part(model)
    assert sum(parts.values()) == sum(p.numel() for p in model.parameters())
    projections = [f".{name}." for name in ("query", "key", "value", "out", "norm_query", "norm_key")]
    found = sum(p.numel() for n, p in model.named_parameters() if any(name in n for name in projections))
    assert parts["attention"] == found
    assert {"embeddings", "attention", "feed-forward", "norms"} <= set(parts)


def test_the_known_parts_of_gpt2() -> None:
    with torch.device("meta"):
        parts = by_part(build(PRESETS["gpt2"]))
    assert parts == {
        "embeddings": (50257 + 1024) * 768,
        "attention": 12 * 4 * (768 * 768 + 768),
        "feed-forward": 12 * (2 * 768 * 3072 + 3072 + 768),
        "norms": 25 * 2 * 768,
    }


@pytest.mark.parametrize("length, how", [(8, "step by step"), (300, "fused")])
def test_the_kernel_of_training_is_the_one_that_would_run(length: int, how: str) -> None:
    config = config_of("llama", dropout=0.0)
    found = cost(config, Setting(length, 1))
    assert how in found.kernel
    model = build(config).train()
    ids = families.ids(1, length)
    with kept_for_backward(model) as kept:
        language.loss(model, {"ids": ids, "targets": ids})
    assert kept() == pytest.approx(found.memory["activations"], rel=0.1)


def test_nothing_is_allocated() -> None:
    wide = replace(PRESETS["gpt2"].stack, d_model=12288, n_heads=96, d_ff=49152, n_layers=2)
    huge = replace(PRESETS["gpt2"], stack=wide, vocab_size=2048)
    resource = pytest.importorskip("resource", reason="Windows does not tell the most memory a process had")
    unit = 1 if sys.platform == "linux" else 1024  # macOS counts bytes, Linux KiB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = cost(huge, Setting(256, 64))
    assert found.memory["training step"] > 5 * 10**10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20 * unit  # under a gigabyte
    assert sum(found.parameters.values()) == count(huge)


def test_the_time_is_that_of_products_or_of_memory_and_of_each_operation() -> None:
    machine = Machine(peak=1e9, bandwidth=1e8, large=1e6, slow=1e7, cold=1e6, forward=1e-3, step=2e-3)
    small, large = Value((1,), "float32", 4), Value((1,), "float32", LARGE)
    product = Step("mm", "", outputs=[small], flops=10**9, moved=10)
    weights = Step("mm", "", outputs=[small], flops=10, moved=10**6)
    total = Step("add", "", outputs=[small], moved=10**8)
    gelu = Step("gelu_backward", "", outputs=[small], moved=10**7)
    fresh = Step("add", "", outputs=[large], moved=10**6)
    assert machine.seconds([product], 0.0) == pytest.approx(1 / UTILISATION)
    assert [machine.seconds([one], machine.forward) for one in (weights, total, gelu, fresh)] == pytest.approx(
        [1.001] * 4
    )


def test_this_machine_is_measured_and_a_prediction_is_within_reason() -> None:
    """A busy machine may be anything: only the order of magnitude is held here (benchmarks/cost.py compares)."""
    machine = measure("cpu", "float32")
    seconds = predicted("llama").seconds(machine)
    assert 0 < seconds["forward_least"] < seconds["forward"] < seconds["step"] < 10
    assert seconds["step_least"] < seconds["step"]
