"""PyTorch's own `nn.MultiheadAttention` and `nn.Transformer`, taken over by a table of names: the same numbers from our parts."""

import torch.nn.functional as F
from torch import nn

from pellucid.errors import DataError
from pellucid.models.pretrained.mapping import Row, per_layer, row, to_ours
from pellucid.parts.attention import Attention, Widths
from pellucid.parts.config import Dropout, Norm, StackConfig
from pellucid.parts.norms import make_norm
from pellucid.parts.stack import Block, CrossBlock, Stack


def attention(theirs: nn.MultiheadAttention) -> Attention:
    """An `Attention` with the weights of `theirs`. Inputs are [B,T,D] here whatever their batch_first says."""
    if theirs.bias_k is not None or theirs.add_zero_attn:
        raise DataError("nn.MultiheadAttention with add_bias_kv or add_zero_attn has no counterpart here")
    widths = Widths(theirs.embed_dim, theirs.kdim, theirs.vdim)
    biased = theirs.in_proj_bias is not None
    ours = Attention(theirs.embed_dim, theirs.num_heads, widths=widths, bias=biased, dropout=theirs.dropout)
    return _taken_over(ours, theirs, _attention_rows("", "", theirs.in_proj_weight is not None))


def transformer(theirs: nn.Transformer) -> tuple[Stack, Stack]:
    """Encoder and decoder with the weights of `theirs`; each call gets positions that it does not use, masks as `Mask`."""
    encoder, decoder = theirs.encoder, theirs.decoder
    first = encoder.layers[0]
    activation = {F.relu: "relu", F.gelu: "gelu"}.get(first.activation)
    if activation is None:
        raise DataError(
            f"nn.Transformer with activation {first.activation} has no counterpart here", "relu and gelu have"
        )
    rate = first.dropout1.p
    config = StackConfig(
        d_model=theirs.d_model,
        n_layers=len(encoder.layers),
        n_heads=theirs.nhead,
        d_ff=first.linear1.out_features,
        feedforward=activation,  # type: ignore[arg-type]
        norm=Norm("layer", first.norm1.eps),
        residual="pre" if first.norm_first else "post",
        bias=first.linear1.bias is not None,
        dropout=Dropout(0.0, first.self_attn.dropout, first.dropout.p, rate),
    )
    return _stack(config, encoder, Block), _stack(config, decoder, CrossBlock)


def _stack(config: StackConfig, theirs: nn.Module, block: type[nn.Module]) -> Stack:
    """One side. PyTorch has a final norm behind post-norm layers too: it goes into the stack's slot."""
    n_layers = len(theirs.layers)  # type: ignore[arg-type]
    ours = Stack(StackConfig(**{**vars(config), "n_layers": n_layers}), block)
    ours.norm = make_norm(config.norm, config.d_model) if theirs.norm is not None else nn.Identity()
    norm = "norm_in" if config.residual == "pre" else "norm_out"
    places = [("self_attn", "norm1", "attention")]
    places += [("multihead_attn", "norm2", "cross")] if block is CrossBlock else []
    rows = []
    for attn, norm_name, name in places:
        rows += _attention_rows(f"layers.{{i}}.{attn}.", f"blocks.{{i}}.{name}.branch.", True)
        rows += _pair(f"layers.{{i}}.{norm_name}", f"blocks.{{i}}.{name}.{norm}")
    rows += _pair(f"layers.{{i}}.norm{len(places) + 1}", f"blocks.{{i}}.feedforward.{norm}")
    rows += _pair("layers.{i}.linear1", "blocks.{i}.feedforward.branch.up")
    rows += _pair("layers.{i}.linear2", "blocks.{i}.feedforward.branch.down") + _pair("norm", "norm")
    return _taken_over(ours, theirs, per_layer(rows, n_layers))


def _pair(theirs: str, ours: str) -> list[Row]:
    return [row(f"{theirs}.{kind}", f"{ours}.{kind}") for kind in ("weight", "bias")]


def _attention_rows(theirs: str, ours: str, packed: bool) -> list[Row]:
    names = ("query", "key", "value")
    weights = [row(theirs + "in_proj_weight", *(f"{ours}{name}.weight" for name in names))]
    if not packed:
        weights = [row(f"{theirs}{name[0]}_proj_weight", f"{ours}{name}.weight") for name in names]
    biases = row(theirs + "in_proj_bias", *(f"{ours}{name}.bias" for name in names))
    return [*weights, biases, *_pair(theirs + "out_proj", ours + "out")]


def _taken_over(ours, theirs: nn.Module, rows: list[Row]):  # type: ignore[no-untyped-def]
    shapes = {name: p.shape for name, p in ours.state_dict().items()}
    tensors = {name: p.detach().clone() for name, p in theirs.state_dict().items()}
    ours.load_state_dict(to_ours(rows, tensors, shapes))
    return ours.train(theirs.training)
