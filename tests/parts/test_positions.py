"""Positions: against the formulas of the papers, against `transformers`, and the properties that they were
invented for.
"""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pellucid.errors import UserError
from pellucid.parts.attention import Attention
from pellucid.parts.positions import Alibi, Learned, Rotary, Sinusoidal, Sinusoidal2d, Swin2d, T5Bias, rotate

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def ids(*positions: int) -> Tensor:
    return torch.tensor([positions])


@pytest.mark.parametrize("width", [1, 2, 5, 16])
def test_sinusoidal_is_the_papers_formula(width: int) -> None:
    got = Sinusoidal(width)(ids(0, 3, 70000))
    assert got.shape == (1, 3, width) and got.dtype == torch.float32
    for t, p in enumerate((0, 3, 70000)):
        for d in range(width):
            angle = p / 10000 ** ((d - d % 2) / width)
            assert got[0, t, d].item() == pytest.approx(math.cos(angle) if d % 2 else math.sin(angle), abs=1e-7)


@given(st.integers(0, 5000), st.integers(-50, 50), st.integers(1, 8))
def test_shifting_sinusoidal_positions_is_a_rotation(position: int, shift: int, half: int) -> None:
    """PE(p + s) = R(s) PE(p), with R(s) the same for all p (section 3.5: why sinusoids were chosen)."""
    here, there = Sinusoidal(2 * half)(ids(position, position + shift))[0].double().view(2, half, 2)
    angle = shift / 10000 ** (torch.arange(half).double() / half)
    sin, cos = here.unbind(-1)
    turned = torch.stack((sin * angle.cos() + cos * angle.sin(), cos * angle.cos() - sin * angle.sin()), -1)
    assert torch.allclose(turned, there, atol=1e-6)


def test_rows_have_positions_of_their_own() -> None:
    positions = torch.tensor([[0, 1, 2], [5, 6, 7]])
    for part in (Sinusoidal(6), Learned(8, 6)):
        assert torch.equal(part(positions)[1:], part(positions[1:]))
    for bias in (Alibi(3), T5Bias(3)):
        assert torch.equal(bias(positions, positions)[1:], bias(positions[1:], positions[1:]))


def test_two_dimensional_follows_mae() -> None:
    """MAE: np.meshgrid(w, h), the first half from the columns; each half sin | cos of pos / 10000^(i /
    (d/4)).
    """
    got = Sinusoidal2d(8, 3)(torch.arange(6)[None]).view(2, 3, 8)
    for row in range(2):
        for column in range(3):
            expected = [f(p / 100**i) for p in (column, row) for f in (math.sin, math.cos) for i in (0, 1)]
            assert got[row, column].tolist() == pytest.approx(expected, abs=1e-6)
    with pytest.raises(UserError, match="multiple of 4"):
        Sinusoidal2d(6, 2)


@given(st.integers(0, 2000), st.integers(0, 2000), st.integers(0, 500), st.sampled_from([None, 4.0, LLAMA3]))
def test_rotary_products_depend_on_distances_only(
    query: int, key: int, shift: int, scaling: dict | float | None
) -> None:
    rotary = Rotary(8, scaling=scaling)
    a, b = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(query)).unbind(0)

    def product(at: int) -> Tensor:
        return (rotate(a, rotary(ids(query + at))) * rotate(b, rotary(ids(key + at)))).sum()

    assert torch.allclose(product(0), product(shift), atol=5e-3)  # float32 angles of a few thousand radians


def test_rotary_keeps_lengths_dtype_and_position_zero() -> None:
    x = torch.randn(2, 3, 4, 6)
    rotary = Rotary(6)
    turned = rotate(x, rotary(torch.arange(4)[None]))
    assert torch.allclose(turned.norm(dim=-1), x.norm(dim=-1), atol=1e-5)
    assert torch.equal(turned[:, :, 0], x[:, :, 0])
    assert rotate(x.bfloat16(), rotary(torch.arange(4)[None])).dtype == torch.bfloat16
    assert torch.equal(rotary.bfloat16()(ids(999))[0], Rotary(6)(ids(999))[0])


def test_rotary_refuses_what_it_does_not_know() -> None:
    for bad in (
        {"rope_type": "lama3"},
        {"rope_type": "linear"},
        {"rope_type": "default", "partial_rotary_factor": 0.5},
    ):
        with pytest.raises(UserError):
            Rotary(8, scaling=bad)
    with pytest.raises(UserError, match="even"):
        Rotary(7)
    assert Rotary(8, scaling={"type": "default", "rope_theta": 5e5}).base == 5e5


@pytest.mark.parametrize("n_heads", [1, 2, 8, 3, 6, 12, 20])
def test_alibi_slopes(n_heads: int) -> None:
    slopes = Alibi(n_heads).slopes()
    assert slopes.shape == (n_heads,)
    if n_heads == 8:
        assert slopes.tolist() == [2.0**-i for i in range(1, 9)]
    bias = Alibi(n_heads)(ids(5), ids(3, 5, 9))
    assert torch.allclose(bias[0, :, 0], -slopes[:, None] * torch.tensor([2, 0, 4]))


def test_biases_depend_on_differences_and_train() -> None:
    for bias in (Alibi(3), T5Bias(3, 8, 20), T5Bias(3, 8, 20, bidirectional=False)):
        here, there = (bias(torch.arange(s + 5, s + 12)[None], torch.arange(s, s + 12)[None]) for s in (0, 100))
        assert here.shape == (1, 3, 7, 12) and torch.equal(here, there)
    decoder = T5Bias(2, bidirectional=False)
    decoder(ids(4), ids(0, 4)).sum().backward()
    assert decoder.weight.grad is not None and decoder.weight.grad.any(dim=1).nonzero().flatten().tolist() == [0, 4]


def test_swin_looks_up_the_offset() -> None:
    bias = Swin2d(1, 2, 3)
    with torch.no_grad():
        bias.weight.copy_(torch.arange(15.0)[:, None])
    patches = torch.arange(6)[None]
    whole = bias(patches, patches)
    assert whole.shape == (1, 1, 6, 6)
    # query (1,2), key (0,0): offset (+1,+2) is the last of the table; the reverse the first; the same patch the middle
    assert (whole[0, 0, 5, 0], whole[0, 0, 0, 5], whole[0, 0, 4, 4]) == (14, 0, 7)
    assert torch.equal(bias(patches[:, 2:4], patches[:, 1:]), whole[:, :, 2:4, 1:])


@pytest.mark.reference
@pytest.mark.parametrize("scaling", [None, {"rope_type": "linear", "factor": 4.0}, LLAMA3])
def test_rotary_is_llamas(scaling: dict | None) -> None:
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

    parameters = {**(scaling or {"rope_type": "default"}), "rope_theta": 10000.0}
    config = LlamaConfig(hidden_size=64, num_attention_heads=2, rope_parameters=parameters)
    q, k = torch.randn(2, 2, 2, 300, 32).unbind(0)
    positions = torch.arange(300)[None]
    cos, sin = LlamaRotaryEmbedding(config)(q, positions)
    for ours, theirs in zip((q, k), apply_rotary_pos_emb(q, k, cos, sin), strict=True):
        assert torch.allclose(rotate(ours, Rotary(32, scaling=scaling)(positions)), theirs, atol=1e-6)


@pytest.mark.reference
def test_llama3_frequencies_are_llamas() -> None:
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config = LlamaConfig(hidden_size=64, num_attention_heads=1, rope_parameters={**LLAMA3, "rope_theta": 500000.0})
    ours = Rotary(64, 500000.0, LLAMA3).frequencies(torch.device("cpu"))
    assert torch.equal(ours, LlamaRotaryEmbedding(config).inv_freq)


@pytest.mark.reference
@pytest.mark.parametrize("bidirectional", [True, False])
def test_t5_buckets_and_bias(bidirectional: bool) -> None:
    from transformers import T5Config
    from transformers.models.t5.modeling_t5 import T5Attention

    offsets = torch.arange(-3000, 3000)
    for n, far in ((32, 128), (8, 20), (48, 1000)):
        theirs = T5Attention._relative_position_bucket(offsets, bidirectional, n, far)
        assert torch.equal(T5Bias(1, n, far, bidirectional).buckets(offsets), theirs)
    config = T5Config(d_model=8, d_kv=2, num_heads=4, is_decoder=not bidirectional)
    reference = T5Attention(config, has_relative_attention_bias=True, layer_idx=0)
    ours = T5Bias(4, bidirectional=bidirectional)
    ours.load_state_dict(reference.relative_attention_bias.state_dict())
    assert torch.equal(ours(torch.arange(30)[None], torch.arange(40)[None]), reference.compute_bias(30, 40))


@pytest.mark.reference
def test_mae_alibi_marian_and_swin() -> None:
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor
    from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding
    from transformers.models.swin.modeling_swin import SwinRelativePositionBias
    from transformers.models.vit_mae import modeling_vit_mae

    marian = MarianSinusoidalPositionalEmbedding(600, 10).create_weight()  # all sines, then all cosines
    ours = Sinusoidal(10)(torch.arange(600)[None])[0]
    assert torch.allclose(torch.cat((ours[:, 0::2], ours[:, 1::2]), 1), marian, atol=1e-7)

    for n_heads in (1, 4, 6, 12, 16):  # theirs counts from the first key: slope * position, up to a constant per row
        theirs = build_alibi_tensor(torch.ones(1, 2), n_heads, torch.float32)[:, 0, 1]
        assert torch.allclose(Alibi(n_heads).slopes(), theirs, rtol=1e-6)

    swin, mine = SwinRelativePositionBias(3, (4, 5)), Swin2d(3, 4, 5)
    torch.nn.init.normal_(swin.relative_position_bias_table)
    with torch.no_grad():
        mine.weight.copy_(swin.relative_position_bias_table)
    patches = torch.arange(20)[None]
    assert torch.equal(mine(patches, patches), swin())

    grid = [f for n, f in vars(modeling_vit_mae).items() if "2d" in n and callable(f)]
    if grid:  # `transformers` 5 puts the rows first, unlike the authors' code
        theirs = grid[0](4, 6, 16)
        assert torch.allclose(Sinusoidal2d(16, 6)(torch.arange(24)[None])[0].roll(8, dims=1), theirs.float(), atol=1e-6)


def test_rotary_attention_to_a_memory_depends_on_the_distance_alone() -> None:
    """Queries and keys are turned by positions of their own: shifting both alike changes nothing, shifting one does."""
    torch.manual_seed(0)
    attention, rotary = Attention(16, 2), Rotary(8)
    queries, memory = torch.randn(1, 3, 16), torch.randn(1, 5, 16)

    def run(of_queries: int, of_keys: int) -> torch.Tensor:
        angles = rotary(torch.arange(3)[None] + of_queries), rotary(torch.arange(5)[None] + of_keys)
        return attention(queries, memory, angles=angles)

    assert torch.allclose(run(0, 0), run(11, 11), atol=1e-5)
    assert not torch.allclose(run(0, 0), run(0, 4), atol=1e-3)
