"""T5 as `transformers` lays it out: pre-norm, RMS norm, scores that are not divided, one table of relative biases for all layers of a side,
heads of any width, no biases (Raffel et al. 2020); gated and untied from v1.1 on (Shazeer 2020).

A tied head reads states times 1/√d_model, one of its own reads them as they are. `transformers` keeps that apart by tie_word_embeddings
= false, which says no more than "do not scale": whether the head is the table again is seen in the file. Where it writes a config.json
itself, scale_decoder_outputs says it.

Relative positions know no end: `transformers` reads texts of any length, and n_positions of the first files, the length of the texts that
were trained on, is read by nobody. So is it here: a T5 from there has the max_length `ANY_LENGTH`, and one that was made here with another
says so in a field of ours.
"""

from collections.abc import Collection
from typing import Any

from pellucid.models.config import ANY_LENGTH, ModelConfig
from pellucid.models.pretrained.family import Family, Theirs
from pellucid.models.pretrained.fields import OTHER_DROPOUT, honour, start_misfits, unlike_residual
from pellucid.models.pretrained.mapping import Row, per_layer, row
from pellucid.parts.config import Dropout, Heads, Norm, StackConfig

HONOURED = {
    "vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers", "num_heads", "relative_attention_num_buckets",
    "relative_attention_max_distance", "dropout_rate", "layer_norm_epsilon", "tie_word_embeddings", "scale_decoder_outputs", OTHER_DROPOUT,
}  # fmt: skip
WITHOUT_EFFECT = {"initializer_factor", "classifier_dropout", "num_labels", "n_positions"}
LENGTH = "pellucid_max_length"
FEED_FORWARDS = {  # "gelu_new" is the approximation by tanh, and "gated-gelu" has it too
    "relu": "relu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "silu": "silu",
    "gated-gelu": "geglu_tanh",
    "gated-gelu_new": "geglu_tanh",
    "gated-silu": "swiglu",
    "gated-swish": "swiglu",
}
SAID_FIRST = {ours: theirs for theirs, ours in reversed(FEED_FORWARDS.items())}


def to_config(theirs: Theirs, names: Collection[str]) -> ModelConfig:
    """config.json as a ModelConfig. Raises DataError naming a field that cannot be honoured."""
    kind = theirs.get("feed_forward_proj", "relu")
    gated, act = kind.startswith("gated-"), kind.removeprefix("gated-")
    says_again = {
        "hidden_size": theirs["d_model"],
        "num_hidden_layers": theirs["num_layers"],
        "head_dim": theirs["d_kv"],
    }
    says_again |= {"num_attention_heads": theirs["num_heads"], "is_gated_act": gated, "is_encoder_decoder": True}
    says_again |= {"dense_act_fn": ("gelu_new", "gelu") if kind == "gated-gelu" else act}
    honour(theirs, {*HONOURED, *WITHOUT_EFFECT, LENGTH}, says_again | {"feed_forward_proj": tuple(FEED_FORWARDS)})
    exact = kind == "gated-gelu" and theirs.get("dense_act_fn") == "gelu"  # the one that feed_forward_proj cannot say
    d_model, n_heads, n_layers = theirs["d_model"], theirs["num_heads"], theirs["num_layers"]
    rates = dict.fromkeys(("embedding", "attention", "hidden", "residual"), theirs.get("dropout_rate", 0.1))
    stack = StackConfig(
        d_model=d_model,
        n_layers=n_layers,
        n_heads=n_heads,
        d_ff=theirs["d_ff"],
        feedforward="geglu" if exact else FEED_FORWARDS[kind],  # type: ignore[arg-type]
        norm=Norm("rms", theirs.get("layer_norm_epsilon", 1e-6)),
        bias=False,
        dropout=Dropout(**{**rates, **theirs.get(OTHER_DROPOUT, {})}),
    )
    decoder = theirs.get("num_decoder_layers")
    scaled = theirs.get("scale_decoder_outputs", theirs.get("tie_word_embeddings") is not False)
    own_head = "lm_head.weight" in names if names else theirs.get("tie_word_embeddings") is False
    return ModelConfig(
        "seq2seq",
        stack,
        theirs["vocab_size"],
        theirs.get(LENGTH, ANY_LENGTH),
        "t5",
        Heads(None if theirs["d_kv"] * n_heads == d_model else theirs["d_kv"], score="dot"),
        tied=scaled or not own_head,
        head_scale=d_model**-0.5 if scaled else 1.0,
        relative_buckets=theirs.get("relative_attention_num_buckets", 32),
        relative_distance=theirs.get("relative_attention_max_distance", 128),
        decoder_layers=None if decoder == n_layers else decoder,
    )


def from_config(c: ModelConfig) -> dict[str, Any]:
    """A ModelConfig as config.json."""
    s = c.stack
    more: dict[str, Any] = {"scale_decoder_outputs": False} if c.tied and c.head_scale == 1.0 else {}
    more |= {"dense_act_fn": "gelu", "is_gated_act": True} if s.feedforward == "geglu" else {}
    more |= {LENGTH: c.max_length} if c.max_length != ANY_LENGTH else {}
    return (
        {
            "d_model": s.d_model,
            "d_kv": c.head_dim,
            "d_ff": s.d_ff,
            "num_layers": s.n_layers,
            "num_decoder_layers": s.n_layers if c.decoder_layers is None else c.decoder_layers,
            "num_heads": s.n_heads,
            "feed_forward_proj": SAID_FIRST.get(s.feedforward, "gated-gelu"),
            "relative_attention_num_buckets": c.relative_buckets,
            "relative_attention_max_distance": c.relative_distance,
            "dropout_rate": s.dropout.residual,
            "layer_norm_epsilon": s.norm.eps,
            "tie_word_embeddings": c.tied,
            "is_encoder_decoder": True,
        }
        | more
        | unlike_residual(c, ["embedding", "attention", "hidden"])
    )


def rows(c: ModelConfig) -> list[Row]:
    """The table of names."""
    decoder = c.stack.n_layers if c.decoder_layers is None else c.decoder_layers
    table = [row("shared.weight", "embed.tokens.weight")]
    for side, n_layers in (("encoder", c.stack.n_layers), ("decoder", decoder)):
        bias = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        table += per_layer(_layer(side, gated="glu" in c.stack.feedforward), n_layers)
        table.append(row(bias, f"{side}.relative.relative.weight"))
        table.append(row(f"{side}.final_layer_norm.weight", f"{side}.norm.weight"))
    return table if c.tied else [*table, row("lm_head.weight", "head.weight")]


def _layer(side: str, gated: bool) -> list[Row]:
    """One layer of the encoder or the decoder: attention, in the decoder to the memory too, feed-forward."""
    ours, theirs = f"{side}.blocks.{{i}}.", f"{side}.block.{{i}}.layer."
    attentions = [("SelfAttention", "attention")] + [("EncDecAttention", "cross")] * (side == "decoder")
    layer = []
    for n, (name, part) in enumerate(attentions):
        for projection in ("query", "key", "value", "out"):
            layer.append(row(f"{theirs}{n}.{name}.{projection[0]}.weight", f"{ours}{part}.branch.{projection}.weight"))
        layer.append(row(f"{theirs}{n}.layer_norm.weight", f"{ours}{part}.norm_in.weight"))
    n = len(attentions)
    ups = (("wi_0", "gate"), ("wi_1", "up")) if gated else (("wi", "up"),)
    for name, part in (*ups, ("wo", "down")):
        layer.append(row(f"{theirs}{n}.DenseReluDense.{name}.weight", f"{ours}feedforward.branch.{part}.weight"))
    return [*layer, row(f"{theirs}{n}.layer_norm.weight", f"{ours}feedforward.norm_in.weight")]


def tidy(name: str, c: ModelConfig) -> str | None:
    """The name of a tensor in a file as the table has it: copies of the table of tokens go by its name. The first files carry a bias of
    the memory's positions along, which was never used."""
    copies = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"] + ["lm_head.weight"] * c.tied
    unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    return None if name == unused else "shared.weight" if name in copies else name


def misfits(c: ModelConfig) -> list[str]:
    """A head scales as theirs does."""
    scales = (1.0, c.stack.d_model**-0.5) if c.tied else (1.0,)
    wrong = c.head_scale not in scales
    return start_misfits(c) + [f"head_scale = {c.head_scale!r} (t5 has {' or '.join(map(repr, scales))})"] * wrong


T5 = Family(
    model_type="t5",
    standard={
        "family": "seq2seq",
        "positions": "t5",
        "stack.norm.kind": "rms",
        "stack.bias": False,
        "stack.feedforward": (*SAID_FIRST, "geglu"),
        "heads.score": "dot",
    },
    free=("heads.width", "tied", "head_scale", "relative_buckets", "relative_distance", "decoder_layers"),
    to_config=to_config,
    from_config=from_config,
    architecture=lambda c: "T5ForConditionalGeneration",
    rows=rows,
    tidy=tidy,
    misfits=misfits,
)
