"""GPT-2 as `transformers` lays it out: packed projections stored as [in, out] (Radford et al. 2019)."""

from typing import Any

from pellucid.models.config import ModelConfig
from pellucid.models.pretrained.fields import honour, token_ids
from pellucid.models.pretrained.mapping import Row, per_layer, row
from pellucid.parts.config import Dropout, Norm, StackConfig

MODEL_TYPE, ARCHITECTURE = "gpt2", "GPT2LMHeadModel"

HONOURED = {
    "vocab_size", "n_embd", "n_layer", "n_head", "n_inner", "n_positions", "layer_norm_epsilon", "embd_pdrop", "attn_pdrop", "resid_pdrop",
    "n_ctx",
}  # fmt: skip
ONLY = {
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "reorder_and_upcast_attn": False,
    "tie_word_embeddings": True,
}
SUMMARY = {"summary_type", "summary_use_proj", "summary_activation", "summary_first_dropout", "summary_proj_to_labels"}


def fits(c: ModelConfig) -> bool:
    """Whether a model of ours is a GPT-2."""
    s = c.stack
    shape = (
        c.family,
        c.positions,
        s.norm.kind,
        s.feedforward,
        s.residual,
        s.bias,
        c.tied,
        c.head_bias,
        c.scale_embedding,
    )
    alike = shape == ("gpt", "learned", "layer", "gelu_tanh", "pre", True, True, False, False)
    return alike and s.n_kv_heads in (None, s.n_heads)


def to_config(theirs: dict[str, Any]) -> ModelConfig:
    """config.json as a ModelConfig. Raises DataError naming a field that cannot be honoured."""
    honour(theirs, HONOURED | SUMMARY, ONLY)
    width = theirs["n_embd"]
    rates = [theirs.get(name, 0.1) for name in ("embd_pdrop", "attn_pdrop", "resid_pdrop")]
    stack = StackConfig(
        d_model=width,
        n_layers=theirs["n_layer"],
        n_heads=theirs["n_head"],
        d_ff=theirs.get("n_inner") or 4 * width,
        feedforward="gelu_tanh",
        norm=Norm("layer", theirs.get("layer_norm_epsilon", 1e-5)),
        dropout=Dropout(embedding=rates[0], attention=rates[1], residual=rates[2]),
    )
    return ModelConfig("gpt", stack, theirs["vocab_size"], theirs["n_positions"], "learned", **token_ids(theirs))  # type: ignore[arg-type]


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
        "activation_function": "gelu_new",
        "embd_pdrop": s.dropout.embedding,
        "attn_pdrop": s.dropout.attention,
        "resid_pdrop": s.dropout.residual,
        "tie_word_embeddings": True,
    }


def rows(c: ModelConfig) -> list[Row]:
    """The table of names."""
    ours, theirs = "stack.blocks.{i}.", "transformer.h.{i}."
    attention, feedforward = ours + "attention.branch.", ours + "feedforward.branch."
    layers, ends = (
        [],
        [row("transformer.wte.weight", "embed.tokens.weight"), row("transformer.wpe.weight", "embed.positions.weight")],
    )
    for kind, transposed in (("weight", True), ("bias", False)):
        packed = [attention + f"{name}.{kind}" for name in ("query", "key", "value")]
        layers += [
            row(theirs + f"ln_1.{kind}", ours + f"attention.norm_in.{kind}"),
            row(theirs + f"attn.c_attn.{kind}", *packed, transposed=transposed),
            row(theirs + f"attn.c_proj.{kind}", attention + f"out.{kind}", transposed=transposed),
            row(theirs + f"ln_2.{kind}", ours + f"feedforward.norm_in.{kind}"),
            row(theirs + f"mlp.c_fc.{kind}", feedforward + f"up.{kind}", transposed=transposed),
            row(theirs + f"mlp.c_proj.{kind}", feedforward + f"down.{kind}", transposed=transposed),
        ]
        ends.append(row(f"transformer.ln_f.{kind}", f"stack.norm.{kind}"))
    return per_layer(layers, c.stack.n_layers) + ends


def tidy(name: str, c: ModelConfig) -> str | None:
    """The name of a tensor in a file as the table has it; None for what older files carry along and nobody needs."""
    if name.endswith((".attn.bias", ".attn.masked_bias")) or name == "lm_head.weight":
        return None
    return name if name.startswith("transformer.") else f"transformer.{name}"
