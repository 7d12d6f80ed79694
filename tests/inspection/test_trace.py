"""A trace tells the truth: no number changes, names are right also where sizes collide, FLOPs are those of the formulas."""

from dataclasses import replace
from io import StringIO
from itertools import combinations
from math import prod

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pellucid.errors import UserError
from pellucid.inspection import tell, twins
from pellucid.inspection.recorder import Step
from pellucid.inspection.trace import Story, trace
from pellucid.models.build import build
from pellucid.models.config import ModelConfig
from pellucid.parts.config import StackConfig
from tests import families
from tests.inspection.subjects import hand_flops, inputs

every_family = pytest.mark.parametrize("name", families.ALL)


def traced(name: str, **sizes: int) -> Story:
    with torch.no_grad():
        return trace(families.make(name), **inputs(name, **sizes))


def modules(story: Story) -> list[Step]:
    return [step for step in story.root.walk() if not step.is_operation]


def named(story: Story, ending: str) -> Step:
    return next(step for step in modules(story) if step.path.endswith(ending))


@every_family
@pytest.mark.parametrize("training", [False, True])
def test_a_trace_changes_no_bit(name: str, training: bool) -> None:
    model, given = families.make(name, dropout=0.2), inputs(name)
    model.train(training)
    results, gradients = [], []
    for run in (lambda: model(**given), lambda: trace(model, **given).result):
        torch.manual_seed(5)
        out = run()
        model.zero_grad()
        out.square().sum().backward()
        results.append(out)
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    assert torch.equal(*results)
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert model.training == training and not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@every_family
def test_names_give_the_sizes_and_every_axis_of_a_module_has_one(name: str) -> None:
    story, c = traced(name, batch=3, length=7, source=11), families.ALL[name]
    s, width = c.stack, c.head_dim
    sizes = {"batch": 3, "tokens": 7, "source": 11, "d_model": s.d_model, "d_ff": s.d_ff, "heads": s.n_heads}
    sizes |= {
        "kv_heads": s.n_kv_heads or s.n_heads,
        "head_dim": width,
        "head_dim/2": width // 2,
        "vocab": families.VOCABULARY,
    }
    sizes |= {"labels": 3, "patch rows": 2, "patch columns": 2, "patches": 4, "1+patches": 5}
    for step in modules(story):
        for value in step.outputs:
            for axis, size in zip(value.axes, value.shape, strict=True):
                if axis and "query" not in axis and "key" not in axis:
                    assert prod(sizes[part] for part in axis.split("·")) == size, (step.path, str(value))
                assert axis or size == 1 or (size, step.kind) in {(2, "Rotary"), (2, "AsAngles")}, (
                    step.path,
                    str(value),
                )


@every_family
def test_names_do_not_depend_on_the_sizes(name: str) -> None:
    """Also where everything has one size: 16 rows of 16 tokens, as wide as d_model."""
    apart, collided = traced(name, batch=3, length=7, source=11), traced(name, batch=16, length=16, source=16)
    for one, other in zip(apart.root.walk(), collided.root.walk(), strict=True):
        assert [value.axes for value in one.outputs] == [value.axes for value in other.outputs], one.path


def test_names_where_everything_is_of_one_size() -> None:
    config = ModelConfig("gpt", StackConfig(64, 1, 8, 8, 64, "swiglu"), 64, 64, "rotary")
    with torch.no_grad():
        story = trace(build(config), torch.zeros(64, 64, dtype=torch.long))
    assert named(story, "attend").outputs[0].axes == ("batch", "heads", "tokens", "head_dim")
    assert named(story, "query").outputs[0].axes == ("batch", "tokens", "heads·head_dim")
    assert named(story, "out").outputs[0].axes == ("batch", "tokens", "d_model")
    assert named(story, "up").outputs[0].axes == ("batch", "tokens", "d_ff")
    assert named(story, "head").outputs[0].axes == ("batch", "tokens", "vocab")


def test_scores_stand_on_queries_and_keys_and_cross_attention_on_the_source() -> None:
    story = trace(families.make("modern"), **inputs("modern"))  # with gradients: the explicit way, grouped heads
    cross = named(story, "cross.branch.attend")
    assert cross.inputs[1].axes == ("batch", "kv_heads", "source", "head_dim")
    assert cross.steps[0].outputs[0].axes == ("batch", "heads", "query", "key")
    grouped = [value.axes for step in cross.operations() for value in step.outputs]
    assert ("batch·kv_heads", "heads/kv_heads·query", "key") in grouped


def test_sizes_of_twins_have_products_of_their_own() -> None:
    derived = {
        twins.KV_HEADS * twins.GROUP,
        twins.ROWS * twins.COLUMNS,
        twins.ROWS * twins.PATCH,
        twins.COLUMNS * twins.PATCH,
    }
    for name, config in families.ALL.items():
        sizes = {size for axis, size in twins._twin_sizes(config).items() if not axis.endswith("/2")}
        products = [prod(some) for n in (1, 2, 3) for some in combinations(sorted(sizes - derived), n)]
        assert len(products) == len(set(products)), name


@every_family
def test_flops_are_those_written_by_hand_and_by_torch(name: str) -> None:
    model, given = families.make(name), inputs(name, 3, 7, 11)
    by_hand = hand_flops(model, 3, 7, 11)
    with torch.no_grad():
        assert trace(model, **given).totals["flops"] == by_hand  # the fused kernel, for which torch counts 0 on a CPU
    with FlopCounterMode(display=False) as counter:
        model(**given)
    assert trace(model, **given).totals["flops"] == counter.get_total_flops() == by_hand


@every_family
def test_a_module_is_the_sum_of_its_steps_and_parameters_count_once(name: str) -> None:
    model = families.make(name)
    story = traced(name)
    assert story.totals["parameters"] == sum(p.numel() for p in model.parameters())
    for step in modules(story):
        assert step.flops == sum(inner.flops for inner in step.steps)
        assert step.seconds == pytest.approx(sum(inner.seconds for inner in step.operations()))
    assert story.totals["operations"] > 20 and story.totals["seconds"] > 0


def test_a_tied_table_is_said() -> None:
    assert named(traced("gpt2"), "head").reads == ["embed.tokens.weight"]
    story = traced("original")
    assert story.tied == {"embed_target.tokens.weight": "embed.tokens.weight"}
    again = [step for step in modules(story) if step.path == "embed.tokens"]
    assert [step.again for step in again] == [False, True] and again[1].parameters == 0


def test_the_largest_activation_is_where_it_is() -> None:
    largest = traced("llama", batch=2, length=6).totals["largest"]
    assert largest["module"].endswith(("gate", "up")) and largest["bytes"] == 2 * 6 * 32 * 4  # d_ff 32 > vocabulary 17


def test_each_mask_is_drawn_once_with_its_users() -> None:
    model, given = families.make("original"), inputs("original", length=4, source=3)
    keep = torch.tensor([[True, True, True], [True, True, False]])
    words = {"source": ["ein", "Hund", "<pad>"], "tokens": ["<bos>", "a", "dog", "runs"]}
    with torch.no_grad():
        story = trace(model, labels=words, source_keep=keep, **given)
    encoder, own, cross = sorted(story.masks, key=lambda one: ("cross" in one.users[0], one.n_query))
    assert own.constraints == ("causal",) and len(own.drawings) == 1 and len(own.users) == 2
    assert encoder.n_key == 3 and all("encoder" in user for user in encoder.users)
    assert cross.drawings[1].splitlines()[1].split() == ["a", "■", "■", "·"]
    assert "keys, left to right: ein Hund <pad>" in cross.drawings[0]
    assert "decoder.blocks.0…1.cross.branch.attend" in str(cross)


def test_a_long_mask_is_shrunk() -> None:
    with torch.no_grad():
        picture = str(trace(families.make("llama"), families.ids(1, 60)).masks[0])
    rows = [line.split() for line in picture.splitlines() if "■" in line or "▒" in line]
    assert len(rows) == 24 and all(len(row) == 24 for row in rows)
    assert rows[0][0] == "▒" and rows[0][2] == "·" and rows[-1][0] == "■" and "shrunk" in picture


@every_family
def test_the_story_reads_well(name: str) -> None:
    story = traced(name)
    folded, every = tell.plain(story), tell.plain(story, every=True)
    last = families.ALL[name].stack.n_layers - 1
    assert f"blocks.{last}" in every and folded.count("\n") < every.count("\n")
    assert len(tell.rows(story.root, depth=0)) == 1
    shown = tell.rows(story.root, depth=1, operations=True)
    assert {row[1] == "" for row in shown} == {True, False} and not any("blocks" in row[0] for row in shown)
    operations = tell.rows(story.root, operations=True, every=True)
    assert sum(row[1] == "" for row in operations) == story.totals["operations"]
    assert "multiply-add" in folded and "parameters" in folded


def test_a_users_error_comes_out() -> None:
    with pytest.raises(UserError, match="positions"):
        trace(families.make("gpt2"), families.ids(1, 65))


@pytest.mark.parametrize("width", [60, 90, 200])
def test_a_terminal_is_never_too_narrow(width: int) -> None:
    console = Console(width=width, file=StringIO(), force_terminal=True)
    console.print(tell.rich_table(tell.rows(traced("gpt2").root), width))
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "vocab 17" in said and ("float32" in said) == (width == 200)


class Cached(nn.Module):
    """Keeps a mask it made in its first forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm, self.mask = nn.Linear(8, 8), nn.BatchNorm1d(8), None

    def forward(self, x: Tensor) -> Tensor:
        if self.mask is None:
            self.mask = torch.ones(x.shape[1], x.shape[1]).tril()
        return self.norm((self.mask @ self.linear(x)).transpose(1, 2))


def test_any_module_can_be_traced_and_keeps_only_what_is_real() -> None:
    one, other, x = Cached(), Cached(), torch.randn(4, 6, 8)
    other.load_state_dict(one.state_dict())
    story, expected = trace(one, x), other(x)
    assert torch.equal(story.result, expected)
    assert type(one.mask) is Tensor and one.mask.shape == (6, 6)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
    assert named(story, "linear").outputs[0].axes == ("batch", "tokens", "")
    assert named(story, "norm").outputs[0].axes == ("batch", "", "tokens")


def test_names_of_a_strangers_axes_can_be_given_and_batch_first_is_heard() -> None:
    story = trace(nn.Linear(8, 3), torch.randn(5, 8), axes={"input": ("people", "")})
    assert story.root.outputs[0].axes == ("people", "")
    layer = nn.TransformerEncoderLayer(16, 2, 32).eval()
    assert trace(layer, torch.randn(7, 3, 16)).root.outputs[0].axes == ("tokens", "batch", "")
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    assert trace(layer, torch.randn(7, 3, 16)).root.outputs[0].axes == ("batch", "tokens", "")


def test_bfloat16_models_are_named_too() -> None:
    model = families.make("llama").to(torch.bfloat16)
    with torch.no_grad():
        value = trace(model, families.ids(2, 6)).root.outputs[0]
    assert value.dtype == "bfloat16" and value.axes == ("batch", "tokens", "vocab")


def test_an_unlabelled_vit_gives_its_state() -> None:
    model = build(replace(families.VITS["vit"], n_labels=0))
    with torch.no_grad():
        assert trace(model, **inputs("vit")).root.outputs[0].axes == ("batch", "d_model")
