"""Parts against PyTorch's own: attention with copied weights, embeddings, norms, feed-forward."""

from functools import partial

import pytest
import torch
from torch import nn

from pellucid.errors import UserError
from pellucid.models.config import ModelConfig
from pellucid.models.pretrained import torch_nn
from pellucid.parts.attention import Attention, Widths, attend, attend_explicit
from pellucid.parts.config import Dropout, Heads, StackConfig
from pellucid.parts.embeddings import Embedding, Patches, Tokens
from pellucid.parts.init import TABLE, initialise
from pellucid.parts.masks import Mask
from pellucid.parts.norms import BatchNormOverTime
from pellucid.parts.positions import Sinusoidal
from pellucid.parts.scores import Additive
from pellucid.parts.stack import Block
from tests.families import close, ids


@pytest.mark.parametrize("widths", [(16, 16), (6, 10)], ids=["same widths", "keys and values of their own widths"])
@pytest.mark.parametrize("bias", [True, False])
def test_attention_equals_pytorchs(widths: tuple[int, int], bias: bool) -> None:
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(16, 4, bias=bias, kdim=widths[0], vdim=widths[1], batch_first=True).eval()
    ours = torch_nn.attention(theirs)
    q, k, v = torch.randn(2, 3, 16), torch.randn(2, 5, widths[0]), torch.randn(2, 5, widths[1])
    ignore = torch.tensor([[False, False, True, False, True], [False] * 5])
    reference = theirs(q, k, v, key_padding_mask=ignore, need_weights=False)[0]
    assert close(ours(q, k, v, Mask.ones_masked(ignore)), reference)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("norm_first", [True, False])
def test_transformer_equals_pytorchs(norm_first: bool) -> None:
    torch.manual_seed(0)
    theirs = nn.Transformer(16, 4, 2, 3, 32, activation="gelu", batch_first=True, norm_first=norm_first)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    encoder, decoder = torch_nn.transformer(theirs.eval())
    source, target, ignore = torch.randn(2, 5, 16), torch.randn(2, 4, 16), torch.zeros(2, 5, dtype=torch.bool)
    ignore[0, 3:] = True
    causal = nn.Transformer.generate_square_subsequent_mask(4)
    theirs.encoder.enable_nested_tensor = False
    padding = {"src_key_padding_mask": ignore, "memory_key_padding_mask": ignore}
    with torch.enable_grad():  # PyTorch's fast path, taken without gradients, rounds differently
        reference = theirs(source, target, tgt_mask=causal, **padding)
    places, kept = [torch.arange(n)[None] for n in (5, 4)], Mask.ones_masked(ignore)
    memory = encoder(source, places[0], places[0], mask=kept)
    ours = decoder(target, places[1], places[1], memory=memory, memory_mask=kept, mask=Mask(causal=True))
    assert close(ours, reference)


def test_a_kind_without_counterpart_is_refused() -> None:
    from pellucid.errors import DataError

    with pytest.raises(DataError, match="add_bias_kv"):
        torch_nn.attention(nn.MultiheadAttention(8, 2, add_bias_kv=True))


def test_attention_with_additive_score_and_widths_of_its_own() -> None:
    torch.manual_seed(0)
    attention = Attention(12, 3, widths=Widths(5, 7, 9), score=Additive(4, 4, 8, n_heads=3))
    out = attention(
        torch.randn(2, 6, 5), torch.randn(2, 4, 7), torch.randn(2, 4, 9), Mask.lengths(torch.tensor([4, 2]), 4)
    )
    assert out.shape == (2, 6, 12)


def test_query_and_key_norm_bound_the_scores() -> None:
    attention = Attention(16, 2, norm=partial(nn.RMSNorm, elementwise_affine=False))
    seen: list[torch.Tensor] = []
    attention.attend.register_forward_hook(lambda m, args, out: seen.extend(args[:2]))
    attention(torch.randn(1, 5, 16) * 100)
    for x in seen:
        assert close(x.square().mean(-1), torch.ones(x.shape[:-1]), 1e-3)


def test_heads_that_do_not_divide_are_named() -> None:
    with pytest.raises(ValueError, match="d_model 10 must be a multiple of n_heads 4"):
        Attention(10, 4)


def test_dropout_acts_on_the_weights_in_training_only() -> None:
    torch.manual_seed(0)
    attention, x = Attention(16, 2, dropout=0.5), torch.randn(1, 6, 16)
    assert not torch.equal(attention(x), attention(x))
    attention.eval()
    assert torch.equal(attention(x), attention(x))


def test_embedding_is_scaled_tokens_and_positions() -> None:
    tokens = Tokens(17, 16, pad_id=0)
    embedding, batch = Embedding(tokens, Sinusoidal(16), scaled=True), ids(2, 5)
    places = torch.arange(5)[None]
    assert close(embedding(batch, places), tokens.weight[batch] * 4 + Sinusoidal(16)(places))


def test_pretrained_vectors_are_taken_over_and_frozen_if_asked() -> None:
    vectors = torch.randn(6, 4)
    frozen, free = Tokens.from_pretrained(vectors), Tokens.from_pretrained(vectors, freeze=False, pad_id=2)
    assert torch.equal(frozen.weight, vectors) and not frozen.weight.requires_grad
    assert free.weight.requires_grad and (free.weight[2] == 0).all() and torch.equal(free.weight[3], vectors[3])


def test_patches_are_the_squares_of_the_image_row_by_row() -> None:
    patches = Patches(2, 1, 6, 4)
    with torch.no_grad():
        patches.project.weight.copy_(torch.eye(4).view(4, 1, 2, 2))
        patches.project.bias.zero_()
        patches.positions.weight.zero_()
    image = torch.arange(24.0).view(1, 1, 4, 6)
    assert patches(image)[0, 1:3].tolist() == [[0, 1, 6, 7], [2, 3, 8, 9]]


def test_batch_norm_equals_pytorchs_and_ignores_padding() -> None:
    torch.manual_seed(0)
    ours, theirs = BatchNormOverTime(6), nn.BatchNorm1d(6)
    x = torch.randn(3, 5, 6) * 2 + 1
    assert close(ours(x), theirs(x.transpose(1, 2)).transpose(1, 2))
    assert close(ours.running_var, theirs.running_var) and close(
        ours.eval()(x), theirs.eval()(x.transpose(1, 2)).transpose(1, 2)
    )
    keep = torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [True] + [False] * 4])
    padded, alone = BatchNormOverTime(6), BatchNormOverTime(6)
    out = padded(x.masked_fill(~keep.unsqueeze(-1), 99.0), keep)
    assert close(out[keep], alone(x[keep][None])[0]) and (out[~keep] == 0).all()
    assert close(padded.running_mean, alone.running_mean) and close(padded.running_var, alone.running_var)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"n_heads": 3}, "d_model 256 is not a multiple of stack.n_heads 3"),
        ({"n_kv_heads": 3}, "n_heads 4 is not a multiple of stack.n_kv_heads 3"),
        ({"n_layers": 0}, "stack.n_layers is 0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_by_the_config(sizes: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        ModelConfig(stack=StackConfig(**sizes))
    with pytest.raises(UserError, match="dropout.residual is 1.0"):
        Dropout(residual=1.0)


@pytest.mark.parametrize("scheme", TABLE)
def test_additive_scores_are_initialised_head_by_head(scheme: str) -> None:
    attention = Attention(128, 2, score=Additive(64, 64, 64, n_heads=2))
    initialise(attention, scheme, 1)
    bound = (6 / 128) ** 0.5
    assert 0.95 * bound < attention.attend.score.query.abs().max() <= bound


@pytest.mark.parametrize("residual", ["pre", "post"])
def test_under_autocast_the_residual_stream_stays_float32(residual: str) -> None:
    block = Block(StackConfig(16, 1, 2, d_ff=32, residual=residual))
    with torch.autocast("cpu", torch.bfloat16):
        assert block(torch.randn(1, 3, 16)).dtype == torch.float32


def test_a_bias_that_forbids_a_whole_row_is_no_reason_for_nan() -> None:
    q, k, v = (torch.randn(1, 2, 3, 4) for _ in range(3))
    bias = torch.zeros(1, 2, 3, 3)
    bias[:, :, 1] = float("-inf")
    fused, explicit = attend(q, k, v, bias=bias), attend_explicit(q, k, v, bias=bias)[0]
    assert fused.isfinite().all() and close(fused, explicit)


@pytest.mark.parametrize("scheme", TABLE)
def test_dot_products_start_as_large_as_scaled_ones(scheme: str) -> None:
    """What is not divided by √C is so from the start, by the weights: both say the same."""
    config, x = StackConfig(d_model=16, n_layers=1, n_heads=2, d_ff=8), torch.randn(2, 5, 16)
    blocks = [Block(config, Heads(score=score)) for score in ("scaled_dot", "dot")]
    for block in blocks:
        initialise(block, scheme, 1, seed=4)
    assert close(*(block(x) for block in blocks), tolerance=1e-6)
    assert not torch.equal(*(block.attention.branch.query.weight for block in blocks))
