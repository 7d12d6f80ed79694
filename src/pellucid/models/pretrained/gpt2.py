"""GPT-2 as `transformers` lays it out: packed projections stored as [in, out] (Radford et al. 2019)."""

from collections.abc import Collection
from typing import Any

from pellucid.models.config import ModelConfig
from pellucid.models.pretrained.family import Family, Theirs
from pellucid.models.pretrained.fields import OTHER_DROPOUT, honour, other_dropout
from pellucid.models.pretrained.mapping import TRANSPOSED, Row, both, per_layer, row
from pellucid.parts.config import Dropout, Heads, Norm, StackConfig

HONOURED = {
    "vocab_size", "n_embd", "n_layer", "n_head", "n_inner", "n_positions", "layer_norm_epsilon", "embd_pdrop", "attn_pdrop", "resid_pdrop",
    "scale_attn_weights", "tie_word_embeddings", OTHER_DROPOUT,
    "n_ctx", "reorder_and_upcast_attn", "summary_type", "summary_use_proj", "summary_activation", "summary_first_dropout",
    "summary_proj_to_labels",  # these and those of the line above have no effect on the numbers of a language model in float32
}  # fmt: skip
ACTIVATIONS = {
    "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu", "relu": "relu", "silu": "silu",
}  # fmt: skip
ONLY = {"activation_function": tuple(ACTIVATIONS), "scale_attn_by_inverse_layer_idx": False}


def to_config(theirs: Theirs, names: Collection[str]) -> ModelConfig:
    """config.json as a ModelConfig. Raises DataError naming a field that cannot be honoured."""
    honour(theirs, HONOURED, ONLY)
    width = theirs["n_embd"]
    rates = [theirs.get(name, 0.1) for name in ("embd_pdrop", "attn_pdrop", "resid_pdrop")]
    stack = StackConfig(
        d_model=width,
        n_layers=theirs["n_layer"],
        n_heads=theirs["n_head"],
        d_ff=theirs.get("n_inner") or 4 * width,
        feedforward=ACTIVATIONS[theirs.get("activation_function", "gelu_new")],  # type: ignore[arg-type]
        norm=Norm("layer", theirs.get("layer_norm_epsilon", 1e-5)),
        dropout=Dropout(embedding=rates[0], attention=rates[1], residual=rates[2], **theirs.get(OTHER_DROPOUT, {})),
    )
    heads = Heads(score="scaled_dot" if theirs.get("scale_attn_weights", True) else "dot")
    tied = theirs.get("tie_word_embeddings", True)
    return ModelConfig("gpt", stack, theirs["vocab_size"], theirs["n_positions"], "learned", heads, tied=tied)


def from_config(c: ModelConfig) -> dict[str, Any]:
    """A ModelConfig as config.json."""
    s = c.stack
    return {
        "n_embd": s.d_model,
        "n_layer": s.n_layers,
        "n_head": s.n_heads,
        "n_inner": s.d_ff,
        "n_positions": c.max_length,
        "layer_norm_epsilon": s.norm.eps,
        "activation_function": next(theirs for theirs, ours in ACTIVATIONS.items() if ours == s.feedforward),
        "embd_pdrop": s.dropout.embedding,
        "attn_pdrop": s.dropout.attention,
        "resid_pdrop": s.dropout.residual,
        "scale_attn_weights": c.heads.score == "scaled_dot",
        "tie_word_embeddings": c.tied,
    } | other_dropout(c, ["embedding", "attention", "residual"])


def rows(c: ModelConfig) -> list[Row]:
    """The table of names."""
    ours, theirs = "stack.blocks.{i}.", "transformer.h.{i}."
    attention, feedforward = ours + "attention.branch.", ours + "feedforward.branch."
    query_key_value = [attention + name for name in ("query", "key", "value")]
    layers = [
        *both(theirs + "ln_1", ours + "attention.norm_in"),
        row(theirs + "attn.c_attn.weight", *(f"{name}.weight" for name in query_key_value), form=TRANSPOSED),
        row(theirs + "attn.c_attn.bias", *(f"{name}.bias" for name in query_key_value)),
        *both(theirs + "attn.c_proj", attention + "out", TRANSPOSED),
        *both(theirs + "ln_2", ours + "feedforward.norm_in"),
        *both(theirs + "mlp.c_fc", feedforward + "up", TRANSPOSED),
        *both(theirs + "mlp.c_proj", feedforward + "down", TRANSPOSED),
    ]
    tables = [("transformer.wte", "embed.tokens"), ("transformer.wpe", "embed.positions")]
    tables += [] if c.tied else [("lm_head", "head")]
    ends = [row(f"{name}.weight", f"{of}.weight") for name, of in tables]
    return per_layer(layers, c.stack.n_layers) + ends + both("transformer.ln_f", "stack.norm")


def tidy(name: str, c: ModelConfig) -> str | None:
    """The name of a tensor in a file as the table has it, a tied head's is the embedding's; None for what a file may carry along and nobody
    needs. The first files leave out the first part."""
    if name.endswith((".attn.bias", ".attn.masked_bias")):
        return None
    if c.tied and name == "lm_head.weight":
        return "transformer.wte.weight"
    return f"transformer.{name}" if name.startswith(("h.", "wte.", "wpe.", "ln_f.")) else name


GPT2 = Family(
    model_type="gpt2",
    standard={"family": "gpt", "positions": "learned", "stack.feedforward": tuple(ACTIVATIONS.values())},
    free=("tied", "heads.score"),
    to_config=to_config,
    from_config=from_config,
    architecture=lambda c: "GPT2LMHeadModel",
    rows=rows,
    tidy=tidy,
)
