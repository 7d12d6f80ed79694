"""Llama as `transformers` lays it out: RMS norm, rotary positions, SwiGLU, grouped queries, no biases (Touvron et al. 2023)."""

from collections.abc import Collection
from typing import Any

from pellucid.models.config import ModelConfig
from pellucid.models.pretrained.family import Family, Theirs
from pellucid.models.pretrained.fields import honour
from pellucid.models.pretrained.mapping import Row, per_layer, row
from pellucid.parts.config import Dropout, Norm, StackConfig

HONOURED = {
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size", "rms_norm_eps",
    "max_position_embeddings", "tie_word_embeddings", "rope_theta", "rope_scaling", "rope_parameters", "attention_dropout",
}  # fmt: skip
ONLY = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "pretraining_tp": 1}


def to_config(theirs: Theirs, names: Collection[str]) -> ModelConfig:
    """config.json as a ModelConfig. Raises DataError naming a field that cannot be honoured."""
    heads, width = theirs["num_attention_heads"], theirs["hidden_size"]
    honour(theirs, HONOURED, ONLY | {"head_dim": width // heads})
    rope = dict(theirs.get("rope_parameters") or theirs.get("rope_scaling") or {})
    base = float(rope.pop("rope_theta", None) or theirs.get("rope_theta") or 10000.0)
    kind = rope.get("rope_type", rope.get("type", "default"))
    stack = StackConfig(
        d_model=width,
        n_layers=theirs["num_hidden_layers"],
        n_heads=heads,
        n_kv_heads=theirs.get("num_key_value_heads") or heads,
        d_ff=theirs["intermediate_size"],
        feedforward="swiglu",
        norm=Norm("rms", theirs.get("rms_norm_eps", 1e-6)),
        bias=False,
        dropout=Dropout(attention=theirs.get("attention_dropout", 0.0)),
    )
    return ModelConfig(
        "gpt",
        stack,
        theirs["vocab_size"],
        theirs.get("max_position_embeddings", 2048),
        "rotary",
        tied=theirs.get("tie_word_embeddings", False),
        rope_base=base,
        rope_scaling=None if kind == "default" else rope,
    )


def from_config(c: ModelConfig) -> dict[str, Any]:
    """A ModelConfig as config.json."""
    s = c.stack
    return {
        "hidden_size": s.d_model,
        "num_hidden_layers": s.n_layers,
        "num_attention_heads": s.n_heads,
        "num_key_value_heads": s.n_kv_heads or s.n_heads,
        "head_dim": s.d_model // s.n_heads,
        "intermediate_size": s.d_ff,
        "hidden_act": "silu",
        "rms_norm_eps": s.norm.eps,
        "max_position_embeddings": c.max_length,
        "rope_parameters": {"rope_type": "default", **(c.rope_scaling or {}), "rope_theta": c.rope_base},
        "attention_dropout": s.dropout.attention,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": c.tied,
    }


def rows(c: ModelConfig) -> list[Row]:
    """The table of names."""
    ours, theirs = "stack.blocks.{i}.", "model.layers.{i}."
    attention, feedforward = ours + "attention.branch.", ours + "feedforward.branch."
    layers = [
        row(theirs + "input_layernorm.weight", ours + "attention.norm_in.weight"),
        row(theirs + "self_attn.q_proj.weight", attention + "query.weight"),
        row(theirs + "self_attn.k_proj.weight", attention + "key.weight"),
        row(theirs + "self_attn.v_proj.weight", attention + "value.weight"),
        row(theirs + "self_attn.o_proj.weight", attention + "out.weight"),
        row(theirs + "post_attention_layernorm.weight", ours + "feedforward.norm_in.weight"),
        row(theirs + "mlp.gate_proj.weight", feedforward + "gate.weight"),
        row(theirs + "mlp.up_proj.weight", feedforward + "up.weight"),
        row(theirs + "mlp.down_proj.weight", feedforward + "down.weight"),
    ]
    ends = [row("model.embed_tokens.weight", "embed.tokens.weight"), row("model.norm.weight", "stack.norm.weight")]
    head = [] if c.tied else [row("lm_head.weight", "head.weight")]
    return per_layer(layers, c.stack.n_layers) + ends + head


def tidy(name: str, c: ModelConfig) -> str | None:
    """The name of a tensor in a file as the table has it; None for what a file may carry along and nobody needs."""
    return None if name.endswith("rotary_emb.inv_freq") or (c.tied and name == "lm_head.weight") else name


LLAMA = Family(
    model_type="llama",
    standard={
        "family": "gpt",
        "positions": "rotary",
        "stack.norm.kind": "rms",
        "stack.feedforward": "swiglu",
        "stack.bias": False,
    },
    free=("stack.n_kv_heads", "tied", "rope_base", "rope_scaling"),
    to_config=to_config,
    from_config=from_config,
    architecture=lambda c: "LlamaForCausalLM",
    rows=rows,
    tidy=tidy,
)
