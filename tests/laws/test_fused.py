"""Law 3: fused = explicit, values and gradients, for every mask, bias, number of key heads and dtype."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pellucid.parts.attention as attention
from pellucid.parts.masks import Mask
from pellucid.parts.scores import Additive, Dot, ScaledDot
from tests.families import close


@st.composite
def masks(draw: st.DrawFn, batch: int, n_query: int, n_key: int) -> Mask:
    """Any combination of constraints that fits the sizes, rows that see nothing included."""

    def bits(*shape: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
        return (torch.rand(*shape, generator=generator) < 0.6) & draw(st.booleans())

    def maybe(make: Callable[[], torch.Tensor]) -> torch.Tensor | None:
        return make() if draw(st.booleans()) else None

    return Mask(
        causal=draw(st.booleans()),
        window=draw(st.sampled_from([None, 1, 3])),
        keep=maybe(lambda: bits(batch, n_key)),
        query_keep=maybe(lambda: bits(batch, n_query)),
        segments=maybe(lambda: bits(batch, n_key).long()) if n_query <= n_key else None,
        prefix=maybe(lambda: torch.randint(0, n_key + 1, (batch,))),
        pairs=maybe(lambda: bits(draw(st.sampled_from([1, batch])), n_query, n_key)),
    )


def both_ways(q, k, v, mask, bias, score):  # type: ignore[no-untyped-def]
    """(output, gradients) by the fused kernel and by the explicit way."""
    results = []
    for way in (attention.attend, lambda *a: attention.attend_explicit(*a)[0]):
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        out = way(*leaves, mask, bias, score)
        out.backward(torch.linspace(-1, 1, out.shape[-1]).expand_as(out) / out.shape[-1] ** 0.5)
        results.append((out, [x.grad for x in leaves]))
    return results


@settings(max_examples=150)
@given(data=st.data())
def test_fused_equals_explicit(data: st.DataObject) -> None:
    batch, n_query, n_key = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 7)), data.draw(st.integers(1, 7))
    heads, kv_heads = data.draw(st.sampled_from([(4, 4), (4, 2), (4, 1), (1, 1)]))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 10**6)))
    q = torch.randn(batch, heads, n_query, 8, generator=generator)
    k, v = (torch.randn(batch, kv_heads, n_key, 8, generator=generator) for _ in range(2))
    bias = data.draw(st.sampled_from([None, torch.randn(1, heads, n_query, n_key, generator=generator)]))
    score = data.draw(st.sampled_from([Dot(), ScaledDot()]))
    mask = data.draw(masks(batch, n_query, n_key))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "EXPLICIT_UP_TO", 0)
        (fused, fused_grads), (explicit, explicit_grads) = both_ways(q, k, v, mask, bias, score)
    assert close(fused, explicit)
    for a, b in zip(fused_grads, explicit_grads, strict=True):
        assert close(a, b)
    seen = mask.dense(n_query, n_key).any(-1).expand(batch, 1, n_query)[:, 0]
    for row, seeing in zip(explicit.transpose(1, 2), seen, strict=True):
        assert (row[~seeing] == 0).all()
    for gradient, seeing in zip(fused_grads[0].transpose(1, 2), seen, strict=True):
        assert (gradient[~seeing] == 0).all()


@pytest.mark.parametrize("mask", [Mask(), Mask(causal=True), Mask(window=2)], ids=["open", "causal", "window"])
def test_bfloat16_agrees_within_its_rounding(mask: Mask) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 4, 6, 8) for _ in range(3))
    exact = attention.attend_explicit(q, k, v, mask)[0]
    for way in (attention.attend, lambda *a: attention.attend_explicit(*a)[0]):
        assert close(way(q.bfloat16(), k.bfloat16(), v.bfloat16(), mask).float(), exact, 0.03)


def test_weights_are_probabilities_over_what_may_be_seen() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 4, 6, 8) for _ in range(3))
    mask = Mask(causal=True) & Mask(keep=torch.tensor([[1, 1, 1, 1, 0, 0], [0, 1, 1, 1, 1, 1]]).bool())
    weights = attention.attend_explicit(q, k, v, mask)[1]
    allowed = mask.dense(6, 6).expand_as(weights)
    assert (weights[~allowed] == 0).all()
    assert close(weights.sum(-1), allowed.any(-1).float())


@pytest.mark.parametrize("budget", [1, 500, 2**24])
def test_additive_score_in_chunks_equals_its_formula(budget: int) -> None:
    torch.manual_seed(0)
    score = Additive(5, 7, 6, n_heads=2, max_elements=budget)
    q, k = torch.randn(3, 2, 4, 5, requires_grad=True), torch.randn(3, 2, 9, 7)
    hidden = torch.tanh((q @ score.query).unsqueeze(3) + (k @ score.key).unsqueeze(2))
    formula = torch.einsum("bhqka,ha->bhqk", hidden, score.value)
    ours = score(q, k)
    assert close(ours, formula)
    (a,), (b,) = torch.autograd.grad(ours.square().sum(), q), torch.autograd.grad(formula.square().sum(), q)
    assert close(a, b)
