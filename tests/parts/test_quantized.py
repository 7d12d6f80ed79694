"""Weights in few bits: each kernel beside its slow twin, how near they are to the model, and what is refused."""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pellucid.api import load
from pellucid.errors import UserError
from pellucid.generation.options import GenerationOptions
from pellucid.generation.search import generate
from pellucid.models import storage
from pellucid.parts.products import WORTH_ASKING, WORTH_MOVING, quick
from pellucid.parts.quantized import GROUP, PRECISIONS, Quantized, check_precision, is_quantized, quantize
from tests.families import ALL, GPTS, SEQ2SEQS, close, ids, make

ROUNDING = {"float32": 1e-6, "bfloat16": 1e-2, "int8": 1.5e-2, "int4": 5e-3}
"""Of what comes in: between a kernel and its slow twin, which rounds the weight alone. Relative, in the root of the mean square."""


def error_allowed(weight: torch.Tensor, precision: str) -> torch.Tensor:
    """Of each weight: half a step, and for int4 the rounding of what tells the steps to bfloat16."""
    groups = weight.unflatten(1, (-1, GROUP))
    largest, range_ = groups.abs().amax(-1, keepdim=True), groups.amax(-1, keepdim=True) - groups.amin(-1, keepdim=True)
    return {
        "float32": torch.zeros_like(weight),
        "bfloat16": weight.abs() * 2**-8,
        "int8": (weight.abs().amax(1, keepdim=True) / 254 * 1.01).expand_as(weight),
        "int4": (range_ / 30 + (largest + range_) * 2**-7).expand_as(groups).flatten(1),
    }[precision]


def apart(found: torch.Tensor, reference: torch.Tensor) -> float:
    return ((found - reference).norm() / reference.norm()).item()


@pytest.mark.parametrize("precision", PRECISIONS)
@given(
    n_in=st.integers(1, 4),
    n_out=st.integers(1, 150),
    rows=st.integers(1, 40),
    bias=st.booleans(),
    seed=st.integers(0, 9**9),
)
def test_kernels_agree_with_their_slow_twins(
    precision: str, n_in: int, n_out: int, rows: int, bias: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight, x = torch.randn(n_out, 64 * n_in, generator=generator), torch.randn(rows, 1, 64 * n_in, generator=generator)
    added = torch.randn(n_out, generator=generator) if bias else None
    product = PRECISIONS[precision](weight, added)
    assert ((product.weight() - weight).abs() <= error_allowed(weight, precision)).all()
    twin = F.linear(x, product.weight(), added)
    found = product(x)
    assert found.dtype == torch.float32 and found.shape == twin.shape
    scale = (x.norm(dim=-1, keepdim=True) * product.weight().norm(dim=-1)).clamp(min=1e-6)
    assert ((found - twin).abs() / scale).max() <= ROUNDING[precision]


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_zeros_and_outliers_stay_what_they_are(precision: str) -> None:
    weight = torch.zeros(64, 64)
    weight[3, 5] = 1000.0
    product = PRECISIONS[precision](weight, None)
    assert close(product.weight(), weight, 1e-2)
    assert (product(torch.zeros(2, 64)) == 0).all()


@pytest.mark.parametrize("precision", ["bfloat16", "int8", "int4"])
@given(rows=st.integers(2, 9), seed=st.integers(0, 99))
def test_a_token_rounds_by_itself(precision: str, rows: int, seed: int) -> None:
    """Company, even a thousand times as large, changes no more than the order of sums."""
    generator = torch.Generator().manual_seed(seed)
    product = PRECISIONS[precision](torch.randn(70, 64, generator=generator), None)
    x = torch.randn(rows, 64, generator=generator)
    x[1:] *= 1000
    assert apart(product(x)[:1], product(x[:1])) <= (1e-2 if precision == "bfloat16" else 5e-3)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ALL)
def test_every_family_opens_in_every_precision(name: str, precision: str, tmp_path: Path) -> None:
    model = make(name)
    storage.save(model, tmp_path / "m")
    pipeline = load(tmp_path / "m", precision=precision)
    assert is_quantized(pipeline.model) and not any(isinstance(m, nn.Linear) for m in pipeline.model.modules())
    given_ = (
        (torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)),)
        if name.startswith("vit")
        else (ids(2, 5), ids(2, 4, 1))
        if name in SEQ2SEQS
        else (ids(2, 5),)
    )
    with torch.no_grad():
        found, reference = pipeline.model(*given_), model(*given_)
    assert found.dtype == torch.float32
    assert apart(found, reference) <= {"float32": 1e-5, "bfloat16": 0.05, "int8": 0.1, "int4": 0.6}[precision]


@pytest.mark.parametrize("name", GPTS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8", "int4"])
def test_what_is_said_step_by_step_is_what_is_read_at_once(name: str, precision: str) -> None:
    """Cached = uncached, to the rounding of the precision; in float32 to that of every law."""
    model = quantize(make(name), precision)
    batch, cache = ids(2, 9), model.new_cache()
    with torch.no_grad():
        whole = model(batch)
        parts = torch.cat([model(batch[:, i : i + 1], None, cache) for i in range(9)], 1)
    if precision == "float32":
        assert close(parts, whole)
    assert apart(parts, whole) <= 0.03


def test_what_cannot_be_is_said_plainly(tmp_path: Path) -> None:
    storage.save(make("gpt2"), tmp_path / "m")
    with pytest.raises(UserError, match="did you mean 'int8'"):
        load(tmp_path / "m", precision="int-8")
    with pytest.raises(UserError, match="meta"):
        check_precision("int8", "meta")
    with pytest.raises(UserError, match="cannot be saved"):
        storage.save(load(tmp_path / "m", precision="int8").model, tmp_path / "n")


# --- layers as they are ----------------------------------------------------------------------------------------------


class Big(nn.Module):
    """Layers large enough to be worth asking oneDNN, one of them a part of a larger weight, as GPT-2's queries are."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.part = nn.Linear(512, 640), nn.Linear(640, 512, bias=False)
        self.part.weight = nn.Parameter(torch.randn(640, 1024)[:, :512].t())
        assert self.up.weight.numel() >= WORTH_ASKING and not self.part.weight.is_contiguous()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.part(self.up(x))


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


def test_within_the_block_gradients_are_those_of_the_layer() -> None:
    model, x = Big(), torch.randn(3, 512)
    model(x).square().mean().backward()
    expected = model.up.weight.grad.clone()
    model.zero_grad()
    with quick(model):
        model(x).square().mean().backward()
    assert torch.equal(model.up.weight.grad, expected)


def test_a_quantized_model_speaks_alike_in_any_company() -> None:
    model = quantize(make("llama"), "float32")
    inputs, options = [[3, 4], [5] * 7, [6, 7, 8]], GenerationOptions(max_new=8)
    together = generate(model, inputs, options)
    assert [generate(model, [one], options)[0][0].ids for one in inputs] == [best[0].ids for best in together]
    assert any(isinstance(module, Quantized) for module in model.modules())
