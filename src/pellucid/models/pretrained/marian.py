"""Marian as `transformers` lays it out: the encoder-decoder of the paper (Vaswani et al. 2017; Junczys-Dowmunt et al. 2018).

Its positions are all sines, then all cosines, where ours take turns: the same numbers at other places of d_model (`order`). What it
shares with BART is read and written once: post-norm, biases, both sides alike but for their number of layers.
"""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from pellucid.errors import DataError
from pellucid.models.config import ModelConfig
from pellucid.models.pretrained.family import Family, Theirs
from pellucid.models.pretrained.fields import (
    OTHER_DROPOUT,
    activation,
    activation_said,
    honour,
    start_misfits,
    unlike_residual,
)
from pellucid.models.pretrained.mapping import IN_ONE_ROW, Row, behind, both, per_layer, row
from pellucid.parts.config import Dropout, StackConfig

SHARED = {
    "vocab_size", "d_model", "encoder_layers", "decoder_layers", "encoder_ffn_dim", "decoder_ffn_dim", "encoder_attention_heads",
    "decoder_attention_heads", "max_position_embeddings", "activation_function", "dropout", "attention_dropout", "activation_dropout",
    "scale_embedding", OTHER_DROPOUT,
}  # fmt: skip
OF_TRAINING = {
    "init_std",
    "encoder_layerdrop",
    "decoder_layerdrop",
    "classifier_dropout",
    "classif_dropout",
    "_num_labels",
    "num_labels",
}
ONLY = {"normalize_before": False, "add_final_layer_norm": False, "add_bias_logits": False}
STANDARD = {
    "family": "seq2seq",
    "stack.residual": "post",
    "stack.norm.eps": 1e-5,
    "stack.feedforward": ("relu", "gelu", "silu", "gelu_tanh"),
}
FREE = ("decoder_layers", "scale_embedding", "head_bias")


# --- what it shares with BART ----------------------------------------------------------------------------------------------


def sides(theirs: Theirs, honoured: Collection[str], only: Mapping[str, Any]) -> tuple[StackConfig, dict[str, Any]]:
    """The encoder's stack, and what else the two families have in common, as fields of a ModelConfig. Raises DataError naming a field that
    cannot be honoured, or in which the sides differ."""
    sizes = {"hidden_size": theirs["d_model"], "num_hidden_layers": theirs["encoder_layers"]}
    sizes |= {"num_attention_heads": theirs["encoder_attention_heads"]}
    honour(theirs, SHARED | OF_TRAINING | set(honoured), ONLY | sizes | dict(only))
    for name in ("ffn_dim", "attention_heads"):
        if theirs[f"encoder_{name}"] != theirs[f"decoder_{name}"]:
            both = f"encoder_{name} = {theirs[f'encoder_{name}']} and decoder_{name} = {theirs[f'decoder_{name}']}"
            raise DataError(f"config.json: {both} are not supported", "both sides must be of one shape")
    rate = theirs.get("dropout", 0.1)
    rates = {"embedding": rate, "attention": theirs.get("attention_dropout", 0.0), "residual": rate}
    stack = StackConfig(
        d_model=theirs["d_model"],
        n_layers=theirs["encoder_layers"],
        n_heads=theirs["encoder_attention_heads"],
        d_ff=theirs["encoder_ffn_dim"],
        feedforward=activation(theirs, "activation_function"),
        residual="post",
        dropout=Dropout(**{**rates, "hidden": theirs.get("activation_dropout", 0.0), **theirs.get(OTHER_DROPOUT, {})}),
    )
    decoder = theirs["decoder_layers"]
    return stack, {
        "family": "seq2seq",
        "vocab_size": theirs["vocab_size"],
        "max_length": theirs.get("max_position_embeddings", 1024),
        "scale_embedding": bool(theirs.get("scale_embedding", False)),
        "decoder_layers": None if decoder == stack.n_layers else decoder,
    }


def fields(c: ModelConfig) -> dict[str, Any]:
    """`sides` backwards."""
    s = c.stack
    layers = s.n_layers if c.decoder_layers is None else c.decoder_layers
    return {
        "d_model": s.d_model,
        "max_position_embeddings": c.max_length,
        "encoder_layers": s.n_layers,
        "decoder_layers": layers,
        "encoder_ffn_dim": s.d_ff,
        "decoder_ffn_dim": s.d_ff,
        "encoder_attention_heads": s.n_heads,
        "decoder_attention_heads": s.n_heads,
        "activation_function": activation_said(s.feedforward),
        "dropout": s.dropout.residual,
        "attention_dropout": s.dropout.attention,
        "activation_dropout": s.dropout.hidden,
        "scale_embedding": c.scale_embedding,
        "tie_word_embeddings": c.tied,
        "is_encoder_decoder": True,
        "forced_eos_token_id": None,
    } | unlike_residual(c, ["embedding"])


def rows(c: ModelConfig) -> list[Row]:
    """The table of names of both families."""
    parts: list[Row] = []
    n_layers = {
        "encoder": c.stack.n_layers,
        "decoder": c.stack.n_layers if c.decoder_layers is None else c.decoder_layers,
    }
    for side, embed in (("encoder", "embed"), ("decoder", "embed_target")):
        parts += per_layer(_layer(side), n_layers[side])
        if c.positions == "learned":
            parts.append(row(f"model.{side}.embed_positions.weight", f"{embed}.positions.weight", form=behind(2)))
        if c.embedding_norm:
            parts += both(f"model.{side}.layernorm_embedding", f"{embed}.norm")
    tables = [row(f"{table}.weight", f"{ours}.tokens.weight") for table, ours in _tables(c).items()]
    head = [] if c.tied else [row("lm_head.weight", "head.weight")]
    bias = [row("final_logits_bias", "head.bias", form=IN_ONE_ROW)] if c.head_bias else []
    return parts + tables + head + bias


def _tables(c: ModelConfig) -> dict[str, str]:
    if c.decoder_vocab_size is None:
        return {"model.shared": "embed"}
    return {"model.encoder.embed_tokens": "embed", "model.decoder.embed_tokens": "embed_target"}


def _layer(side: str) -> list[Row]:
    """One layer of the encoder or the decoder."""
    ours, theirs = f"{side}.blocks.{{i}}.", f"model.{side}.layers.{{i}}."
    attentions = [("self_attn", "attention")] + [("encoder_attn", "cross")] * (side == "decoder")
    layer = []
    for name, part in attentions:
        for projection in ("query", "key", "value"):
            layer += both(f"{theirs}{name}.{projection[0]}_proj", f"{ours}{part}.branch.{projection}")
        layer += both(f"{theirs}{name}.out_proj", f"{ours}{part}.branch.out")
        layer += both(f"{theirs}{name}_layer_norm", f"{ours}{part}.norm_out")
    layer += both(f"{theirs}fc1", f"{ours}feedforward.branch.up") + both(
        f"{theirs}fc2", f"{ours}feedforward.branch.down"
    )
    return layer + both(f"{theirs}final_layer_norm", f"{ours}feedforward.norm_out")


def tidy(name: str, c: ModelConfig) -> str | None:
    """The name of a tensor in a file as the table has it: copies of a table that is shared go by its name, and a file without the head
    may leave out the first part."""
    if name.startswith(("shared.", "encoder.", "decoder.")):
        name = f"model.{name}"
    if c.decoder_vocab_size is None and name in (
        "model.encoder.embed_tokens.weight",
        "model.decoder.embed_tokens.weight",
    ):
        name = "model.shared.weight"
    if c.tied and name == "lm_head.weight":
        name = "model.shared.weight" if c.decoder_vocab_size is None else "model.decoder.embed_tokens.weight"
    unused = c.decoder_vocab_size is not None and name == "model.shared.weight"
    return None if unused or name in ("model.encoder.version", "model.decoder.version") else name


# --- Marian ----------------------------------------------------------------------------------------------------------------


def to_config(theirs: Theirs, names: Collection[str]) -> ModelConfig:
    """config.json as a ModelConfig. Raises DataError naming a field that cannot be honoured."""
    own = {"share_encoder_decoder_embeddings", "decoder_vocab_size", "tie_word_embeddings", "extra_pos_embeddings"}
    stack, common = sides(theirs, own, {"static_position_embeddings": True, "normalize_embedding": False})
    tied, shared = theirs.get("tie_word_embeddings", True), theirs.get("share_encoder_decoder_embeddings", True)
    second = theirs.get("decoder_vocab_size") or theirs["vocab_size"]
    if shared and second != theirs["vocab_size"]:
        asked = f"decoder_vocab_size = {second} with vocab_size = {theirs['vocab_size']}"
        raise DataError(f"config.json: {asked} is not supported", "a shared table has one size")
    return ModelConfig(
        **common,
        stack=stack,
        positions="sinusoidal",
        tied=tied,
        head_bias="final_logits_bias" in names,
        decoder_vocab_size=None if shared and tied else second,  # what is not tied is not shared either
    )


def from_config(c: ModelConfig) -> dict[str, Any]:
    """A ModelConfig as config.json."""
    tables = {"share_encoder_decoder_embeddings": c.decoder_vocab_size is None}
    return fields(c) | tables | {"decoder_vocab_size": c.decoder_vocab_size or c.vocab_size}


def order(c: ModelConfig) -> Tensor:
    """Ours: sine, cosine, sine, …; theirs: all sines, then all cosines. An odd width has one sine more, here as there."""
    places = torch.empty(c.stack.d_model, dtype=torch.long)
    n_sines = (c.stack.d_model + 1) // 2
    places[0::2], places[1::2] = torch.arange(n_sines), torch.arange(n_sines, c.stack.d_model)
    return places


def tidy_marian(name: str, c: ModelConfig) -> str | None:
    """As `tidy`; older files carry the sines and cosines along."""
    found = tidy(name, c)
    return None if found and found.endswith(".embed_positions.weight") else found


def misfits(c: ModelConfig) -> list[str]:
    """A head of its own goes with tables of their own."""
    free_head = not c.tied and c.decoder_vocab_size is None
    return (
        start_misfits(c) + ["tied = False with decoder_vocab_size = None (marian has both shared or none)"] * free_head
    )


MARIAN = Family(
    model_type="marian",
    standard=STANDARD | {"positions": "sinusoidal"},
    free=(*FREE, "decoder_vocab_size", "tied"),
    to_config=to_config,
    from_config=from_config,
    architecture=lambda c: "MarianMTModel",
    rows=rows,
    tidy=tidy_marian,
    order=order,
    misfits=misfits,
)
