"""Forward passes that fail are told up to there, and explained: typical broken models of users."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.inspection.trace import trace
from pellucid.parts.masks import Mask
from tests import families
from tests.inspection.subjects import Broken

X = torch.randn(2, 10, 64)
LINEAR = nn.Linear(64, 64)


def heads(module: Any, x: Tensor, mask: Tensor | None) -> Tensor:
    q = module.first(x).unflatten(-1, (4, 16)).transpose(1, 2)
    return F.scaled_dot_product_attention(q, q, q, attn_mask=mask)


CASES: dict[str, tuple[nn.Module, tuple, str, str, str]] = {  # model, inputs, operation, problem, cause
    "widths": (
        Broken(lambda m, x, _: m.second(m.first(x)), first=nn.Linear(64, 128), second=nn.Linear(256, 64)),
        (X,),
        "linear",
        "takes 256 numbers (in_features), the input's last axis has 128",
        "in_features 128",
    ),
    "axes swapped before a layer": (
        Broken(lambda m, x, _: m.first(x.transpose(1, 2)), first=LINEAR),
        (X,),
        "linear",
        "last axis has 10",
        "axis 1 of the input has 64",
    ),
    "batch and tokens swapped": (
        Broken(lambda m, x, other: m.first(x) + other, first=LINEAR),
        (X, X.transpose(0, 1)),
        "add",
        "does not agree",
        "another order",
    ),
    "heads that do not divide": (
        Broken(lambda m, x, _: m.first(x).view(2, 10, 5, 64 // 5), first=LINEAR),
        (X,),
        "view",
        "1280 numbers [batch 2, tokens 10, 64] do not fill",
        "number of heads",
    ),
    "heads that do not divide, unflattened": (
        Broken(lambda m, x, _: m.first(x).unflatten(-1, (5, -1)), first=LINEAR),
        (X,),
        "unflatten",
        "64 cannot be cut into [5, -1]",
        "number of heads",
    ),
    "mask of another length": (
        Broken(heads, first=LINEAR),
        (X, torch.ones(12, 12, dtype=torch.bool)),
        "scaled_dot_product_attention",
        "has 12 where attention has 10",
        "another length",
    ),
    "mask on scores": (
        Broken(lambda m, x, other: (x @ x.mT).masked_fill(other, -1e9), first=LINEAR),
        (X, torch.ones(16, 16, dtype=torch.bool)),
        "masked_fill",
        "key 10 and",
        "mask[:query, :key]",
    ),
    "keys not transposed": (
        Broken(lambda m, x, _: m.first(x) @ x, first=LINEAR),
        (X,),
        "matmul",
        "64 on its last axis, the right one 10",
        "transpose(-2, -1)",
    ),
    "residual of another width": (
        Broken(lambda m, x, _: x + m.first(x), first=nn.Linear(64, 32)),
        (X,),
        "add",
        "axis -1 does not agree: 64 and 32",
        "a residual needs x and f(x)",
    ),
    "ids out of the vocabulary": (
        Broken(lambda m, x, _: m.first(x), first=nn.Embedding(17, 8)),
        (torch.tensor([[3, 29]]),),
        "embedding",
        "ids go from 3 to 29, the table has 17 rows",
        "vocabulary",
    ),
    "ids that are no whole numbers": (
        Broken(lambda m, x, _: m.first(x), first=nn.Embedding(17, 8)),
        (torch.rand(2, 3),),
        "embedding",
        "whole numbers",
        ".long()",
    ),
    "ids not embedded": (
        Broken(lambda m, x, _: m.first(x), first=LINEAR),
        (torch.ones(2, 64, dtype=torch.long),),
        "linear",
        "whole numbers",
        "embed ids first",
    ),
    "types": (
        Broken(lambda m, x, _: m.first(x.double()), first=LINEAR),
        (X,),
        "linear",
        "different types: float32 and float64",
        "cast",
    ),
    "norm": (
        Broken(lambda m, x, _: m.first(x), first=nn.LayerNorm(32)),
        (X,),
        "layer_norm",
        "made for [32], the input ends in [64]",
        "d_model",
    ),
    "cat": (
        Broken(lambda m, x, other: torch.cat([x, other], dim=1), first=LINEAR),
        (X, torch.randn(3, 10, 64)),
        "cat",
        "axis 0 does not agree",
        "is dim right",
    ),
    "torch's attention": (
        Broken(lambda m, x, _: m.first(x, x, x)[0], first=nn.MultiheadAttention(32, 4, batch_first=True)),
        (X,),
        "multi_head_attention_forward",
        "made for 32 (embed_dim), the queries are 64 wide",
        "the layer before",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_clash_is_explained(case: str, caplog: pytest.LogCaptureFixture) -> None:
    model, given, operation, problem, cause = CASES[case]
    story = trace(model, *given)
    clash = story.clash
    assert clash is not None and story.result is None
    assert clash.operation == operation and problem in clash.problem and cause in clash.cause
    assert clash.said and any("[" in operand for operand in clash.operands)
    assert clash.line.startswith(("test_clash.py", "subjects.py"))
    assert "The forward pass stopped here" in str(story) and "did not end" in str(story)
    assert not caplog.records  # the twin fails quietly


def test_everything_up_to_the_clash_is_told_and_operands_say_where_they_come_from() -> None:
    model = CASES["widths"][0]
    story = trace(model, X)
    assert [step.path for step in story.root.steps] == ["first", "second"]
    assert story.root.steps[0].outputs[0].axes == ("batch", "tokens", "") and not story.root.steps[1].ended
    assert story.clash and story.clash.module == "second (Linear)"
    assert story.clash.operands[0] == "from first [batch 2, tokens 10, 128]"
    assert story.clash.operands[1] == "parameter second.weight [64, 256]"


def test_a_family_that_fails_inside_names_its_axes() -> None:
    model: Any = families.make("llama")
    model.stack.blocks[1].feedforward.branch.down = nn.Linear(30, 16)
    story = trace(model, families.ids(2, 6))
    assert story.clash and story.clash.module == "stack.blocks.1.feedforward.branch.down (Linear)"
    assert story.clash.operands[0].endswith("[batch 2, tokens 6, d_ff 32]")


def test_what_is_no_clash_of_shapes_is_told_as_it_is() -> None:
    story = trace(LINEAR, X, 5)
    assert story.clash and "takes 2 positional arguments" in story.clash.said
    model: Any = families.make("gpt2")
    attention = model.stack.blocks[0].attention.branch
    with torch.no_grad():
        story = trace(attention, torch.randn(1, 4, 16), mask=Mask(keep=torch.ones(1, 5, dtype=torch.bool)))
    assert story.clash and "mask.keep has 5 places" in story.clash.said and "attend" in story.clash.module


def test_an_error_that_was_handled_explains_nothing() -> None:
    def work(module: Any, x: Tensor, other: Tensor | None) -> Tensor:
        try:
            return x @ x
        except RuntimeError:
            raise KeyError("table") from None

    story = trace(Broken(work), X)
    assert story.clash and story.clash.said == "'table'" and not story.clash.problem


def test_a_call_no_diagnosis_knows_is_told_by_pytorch() -> None:
    story = trace(Broken(lambda m, x, _: F.layer_norm(x, normalized_shape=[32])), X)
    assert story.clash and story.clash.operation == "layer_norm" and "normalized_shape" in story.clash.said
