"""Weights in few bits: each kernel beside its slow twin, how near they are to the model, and what is refused."""

import copy
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
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
from pellucid.parts import products
from pellucid.parts.heads import FreeHead
from pellucid.parts.lora import place
from pellucid.parts.products import has_onednn, weight_of
from pellucid.parts.quantized import (
    GROUP,
    PRECISIONS,
    Quantized,
    check_precision,
    quantize,
    whole_steps,
)
from tests import families
from tests.families import ALL, GPTS, SEQ2SEQS, close, ids, make

needs_onednn = pytest.mark.skipif(not has_onednn(), reason="this PyTorch was built without oneDNN")
KINDS = [pytest.param(kind, marks=() if kind == "float32" else needs_onednn) for kind in PRECISIONS]
ROUNDED = KINDS[1:]

ROUNDING = {"float32": 1e-6, "bfloat16": 1e-2, "int8": 1.5e-2, "int4": 5e-3}
"""Of what comes in: between a kernel and its slow twin, which rounds the weight alone. Relative, in the root of the mean square."""


def rounded(model: nn.Module, quantized: nn.Module) -> nn.Module:
    """The model in float32, with its weights as the other one has them."""
    layers = dict(model.named_modules())
    for path, module in quantized.named_modules():
        if isinstance(module, Quantized):
            layer = FreeHead(*module.weight.T.shape)
            layer.weight, layer.bias = nn.Parameter(module.weight), weight_of(layers[path])[1]  # type: ignore[index]
            place(model, path, layer)
    return model


def error_allowed(weight: torch.Tensor, precision: str) -> torch.Tensor:
    """Of each weight: half a step, and for int4 the rounding of what tells the steps to bfloat16."""
    groups = weight.unflatten(1, (-1, GROUP if precision == "int4" else 1))
    largest, range_ = groups.abs().amax(-1, keepdim=True), groups.amax(-1, keepdim=True) - groups.amin(-1, keepdim=True)
    return {
        "float32": torch.zeros_like(weight),
        "bfloat16": weight.abs() * 2**-8,
        "int8": (weight.abs().amax(1, keepdim=True) / (2 * whole_steps()) * 1.01).expand_as(weight),
        "int4": (range_ / 30 + (largest + range_) * 2**-7).expand_as(groups).flatten(1),
    }[precision]


def apart(found: torch.Tensor, reference: torch.Tensor) -> float:
    return ((found - reference).norm() / reference.norm()).item()


def wide(name: str, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """The family's model, wide enough for groups of int4."""
    config = ALL[name]
    monkeypatch.setitem(families.ALL, name, replace(config, stack=replace(config.stack, d_model=64, d_ff=128)))
    return make(name)


@pytest.mark.parametrize("precision", KINDS)
@given(
    n_in=st.sampled_from([1, 3, 37, 64, 256]),
    n_out=st.integers(1, 150),
    rows=st.integers(1, 40),
    bias=st.booleans(),
    seed=st.integers(0, 9**9),
)
def test_kernels_agree_with_their_slow_twins(
    precision: str, n_in: int, n_out: int, rows: int, bias: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    n_in = max(n_in, 64) if precision == "int4" else n_in
    weight, x = torch.randn(n_out, n_in, generator=generator), torch.randn(rows, 1, n_in, generator=generator)
    added = torch.randn(n_out, generator=generator) if bias else None
    product = PRECISIONS[precision](weight, added)
    assert ((product.weight() - weight).abs() <= error_allowed(weight, precision)).all()
    twin = F.linear(x, product.weight(), added)
    found = product(x)
    assert found.dtype == torch.float32 and found.shape == twin.shape
    scale = x.norm(dim=-1, keepdim=True) * product.weight().norm(dim=-1) + (0 if added is None else added.abs())
    assert ((found - twin).abs() / scale.clamp(min=1e-6)).max() <= ROUNDING[precision]


OLDER = """
import torch
from pellucid.errors import UserError
from pellucid.parts.quantized import PRECISIONS, check_precision
torch.manual_seed(0)
weight, x = torch.randn(256, 512), torch.randn(40, 512)
for precision in PRECISIONS:
    try:
        check_precision(precision)
        found, truth = PRECISIONS[precision](weight, None)(x), x @ weight.T
        print(precision, ((found - truth).abs().max() / truth.abs().max()).item())
    except UserError as error:
        print(precision, 0.0 if "has no kernel" in error.problem else error)
"""


@needs_onednn
@pytest.mark.parametrize("processor", ["AVX2", "AVX512_CORE"])
def test_older_processors_are_right_or_say_that_they_cannot(processor: str) -> None:
    """Without VNNI pairs of products overflow; without AVX-512 there is no bfloat16."""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": processor}
    ran = subprocess.run([sys.executable, "-c", OLDER], capture_output=True, text=True, env=environment, check=True)
    found = {kind: float(error) for kind, error in (line.split(" ", 1) for line in ran.stdout.splitlines())}
    assert all(
        found[kind] <= most for kind, most in {"float32": 1e-5, "bfloat16": 0.01, "int8": 0.03, "int4": 0.1}.items()
    )


@pytest.mark.parametrize("precision", ROUNDED)
def test_what_all_words_share_changes_no_words_probability(precision: str) -> None:
    """Logits near -100, as GPT-2's: 8 bits of them would tell only halves."""
    head, x = FreeHead(64, 500), torch.randn(9, 64, generator=torch.Generator().manual_seed(0))
    nn.init.normal_(head.weight, std=0.5, generator=torch.Generator().manual_seed(1))
    x[:, 0] = 30.0
    found = quantize(nn.Sequential(copy.deepcopy(head)), precision)(x).log_softmax(-1)
    with torch.no_grad():
        head.weight[:, 0] -= 3.3
    shifted = quantize(nn.Sequential(head), precision)(x).log_softmax(-1)
    assert (shifted - found).abs().mean() <= 0.02


@pytest.mark.parametrize("precision", [pytest.param("int8", marks=needs_onednn), "int4"])
def test_zeros_and_outliers_stay_what_they_are(precision: str) -> None:
    weight = torch.zeros(64, 64)
    weight[3, 5] = 1000.0
    product = PRECISIONS[precision](weight, None)
    assert close(product.weight(), weight, 1e-2)
    assert (product(torch.zeros(2, 64)) == 0).all()


@pytest.mark.parametrize("precision", ROUNDED)
@given(rows=st.integers(2, 9), seed=st.integers(0, 99))
def test_a_token_rounds_by_itself(precision: str, rows: int, seed: int) -> None:
    """Company, even a thousand times as large, changes no more than the order of sums; of whole numbers not even that."""
    generator = torch.Generator().manual_seed(seed)
    product = PRECISIONS[precision](torch.randn(70, 64, generator=generator), None)
    x = torch.randn(rows, 64, generator=generator)
    x[1:] *= 1000
    together, alone = product(x)[:1], product(x[:1])
    assert torch.equal(together, alone) if precision == "int8" else apart(together, alone) <= 5e-3


@pytest.mark.parametrize("precision", KINDS)
@pytest.mark.parametrize("name", ALL)
def test_every_family_opens_in_every_precision(
    name: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = wide(name, monkeypatch)
    storage.save(model, tmp_path / "m")
    pipeline = load(tmp_path / "m", precision=precision)
    kinds = Counter(m.precision for m in pipeline.model.modules() if isinstance(m, Quantized))
    assert kinds[precision] > 0.8 * kinds.total() > 0
    assert not any(isinstance(m, nn.Linear | FreeHead) for m in pipeline.model.modules())
    given_ = (
        (torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)),)
        if name.startswith("vit")
        else (ids(2, 5), ids(2, 4, 1))
        if name in SEQ2SEQS
        else (ids(2, 5),)
    )
    with torch.no_grad():
        found, reference = pipeline.model(*given_), rounded(model, pipeline.model)(*given_)
    assert found.dtype == torch.float32
    assert apart(found, reference) <= {"float32": 1e-5, "bfloat16": 0.03, "int8": 0.1, "int4": 0.03}[precision]


@pytest.mark.parametrize("name", GPTS)
@pytest.mark.parametrize("precision", KINDS)
def test_what_is_said_step_by_step_is_what_is_read_at_once(
    name: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cached = uncached, to the rounding of the precision; in float32 to that of every law."""
    model = quantize(wide(name, monkeypatch), precision)
    batch, cache = ids(2, 9), model.new_cache()
    with torch.no_grad():
        whole = model(batch)
        parts = torch.cat([model(batch[:, i : i + 1], None, cache) for i in range(9)], 1)
    if precision == "float32":
        assert close(parts, whole)
    assert apart(parts, whole) <= 0.03


@needs_onednn
def test_what_cannot_be_is_said_plainly(tmp_path: Path) -> None:
    storage.save(make("gpt2"), tmp_path / "m")
    with pytest.raises(UserError, match="did you mean 'int8'"):
        load(tmp_path / "m", precision="int-8")
    with pytest.raises(UserError, match="meta"):
        quantize(make("llama").to("meta"), "int8")
    with pytest.raises(UserError, match="dtype"):
        load(tmp_path / "m", dtype=torch.bfloat16, precision="int8")
    model = load(tmp_path / "m", precision="int8").model
    with pytest.raises(UserError, match="already"):
        quantize(model, "int4")
    with pytest.raises(UserError, match="gradients"):
        model.head(torch.randn(2, 16, requires_grad=True))
    with pytest.raises(UserError, match="cannot be saved"):
        storage.save(model, tmp_path / "n")


def test_a_processor_or_a_pytorch_without_the_kernel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise RuntimeError("needs the cpu support avx512bw")

    monkeypatch.setitem(PRECISIONS, "int4", missing)  # type: ignore[arg-type]
    monkeypatch.setattr(products.torch.backends.mkldnn, "is_available", lambda: True)
    with pytest.raises(UserError, match="this processor has no kernel for weights in int4\n.*int8"):
        check_precision("int4")
    monkeypatch.setattr(products.torch.backends.mkldnn, "is_available", lambda: False)
    with pytest.raises(UserError, match="built without oneDNN"):
        check_precision("int8")
    model, batch = make("gpt2"), ids(2, 5)
    with torch.no_grad():
        assert close(quantize(copy.deepcopy(model), "float32")(batch), model(batch))


@pytest.mark.parametrize("precision", KINDS)
def test_a_copy_says_the_same(precision: str) -> None:
    model, batch = quantize(make("gpt2"), precision), ids(2, 5)
    assert torch.equal(copy.deepcopy(model)(batch), model(batch))


def test_a_quantized_model_speaks_alike_in_any_company() -> None:
    model = quantize(make("llama"), "float32")
    inputs, options = [[3, 4], [5] * 7, [6, 7, 8]], GenerationOptions(max_new=8)
    together = generate(model, inputs, options)
    assert [generate(model, [one], options)[0][0].ids for one in inputs] == [best[0].ids for best in together]
    assert any(isinstance(module, Quantized) for module in model.modules())
