"""Llama and its kin as `transformers` lays them out: RMS norm, rotary positions, gated feed-forward, grouped queries.

Llama (Touvron et al. 2023) has no biases or, rarely, all; Mistral (Jiang et al. 2023) a window and heads of any width; Qwen2 (Yang et al.
2024) biases of queries, keys and values; Qwen3 (Yang et al. 2025) a norm over each head's queries and keys instead. What they share is
read and written once; each says at the end only what is its own.
"""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from pellucid.errors import DataError
from pellucid.models.config import ModelConfig
from pellucid.models.pretrained.family import Family, Theirs
from pellucid.models.pretrained.fields import OTHER_DROPOUT, check_types, honour, other_dropout
from pellucid.models.pretrained.mapping import Row, both, per_layer, row
from pellucid.parts.config import Dropout, Heads, Norm, StackConfig
from pellucid.parts.positions import Rotary
from pellucid.parts.rotary_scaling import SCALED_FROM

HONOURED = {
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size",
    "rms_norm_eps", "max_position_embeddings", "tie_word_embeddings", "rope_theta", "rope_scaling", "rope_parameters", "attention_dropout",
    OTHER_DROPOUT, "pretraining_tp", "is_llama_config", "transformers.js_config",  # the last three have no effect
}  # fmt: skip
WINDOWS = {"use_sliding_window", "sliding_window", "max_window_layers", "layer_types"}
GATES = {"silu": "swiglu", "gelu": "geglu", "gelu_pytorch_tanh": "geglu_tanh"}
ONLY = {
    "hidden_act": tuple(GATES),
    "attention_bias": False,
    "mlp_bias": False,
    "partial_rotary_factor": 1.0,
    "rope_interleaved": False,
    "use_mrope": False,
}
FREE = ("stack.n_kv_heads", "heads.width", "tied", "rope_base", "rope_scaling")
STANDARD = {
    "family": "gpt",
    "positions": "rotary",
    "stack.norm.kind": "rms",
    "stack.feedforward": tuple(GATES.values()),
    "stack.bias": False,
}

# What `transformers` takes where config.json does not say.
LLAMA_DEFAULTS = {"max_position_embeddings": 2048}
MISTRAL_DEFAULTS = {"max_position_embeddings": 131072, "num_key_value_heads": 8, "sliding_window": 4096}
QWEN2_DEFAULTS = {"max_position_embeddings": 32768, "num_key_value_heads": 32, "sliding_window": 4096}
QWEN2_DEFAULTS |= {"max_window_layers": 28}
QWEN3_DEFAULTS = QWEN2_DEFAULTS | {"head_dim": 128}


# --- what they share -----------------------------------------------------------------------------------------------------


def _config(
    theirs: Theirs,
    honoured: Collection[str] = (),
    heads: Heads = Heads(),  # noqa: B008 (frozen)
    bias: bool = False,
) -> ModelConfig:
    """config.json, its defaults filled in, as a ModelConfig. Raises DataError naming a field that cannot be honoured."""
    honour(theirs, HONOURED | set(honoured), ONLY)
    d_model, n_heads = theirs["hidden_size"], theirs["num_attention_heads"]
    n_kv_heads, width = theirs.get("num_key_value_heads"), theirs.get("head_dim") or d_model // n_heads
    stack = StackConfig(
        d_model=d_model,
        n_layers=theirs["num_hidden_layers"],
        n_heads=n_heads,
        n_kv_heads=None if n_kv_heads == n_heads else n_kv_heads,
        d_ff=theirs["intermediate_size"],
        feedforward=GATES[theirs.get("hidden_act", "silu")],  # type: ignore[arg-type]
        norm=Norm("rms", theirs.get("rms_norm_eps", 1e-6)),
        bias=bias,
        dropout=Dropout(attention=theirs.get("attention_dropout") or 0.0, **theirs.get(OTHER_DROPOUT, {})),
    )
    base, scaling = _rope(theirs, width)
    return ModelConfig(
        "gpt",
        stack,
        theirs["vocab_size"],
        theirs["max_position_embeddings"],
        "rotary",
        replace(heads, width=None if width * n_heads == d_model else width),
        tied=theirs.get("tie_word_embeddings", False),
        rope_base=base,
        rope_scaling=scaling,
    )


def _rope(theirs: Theirs, head_dim: int) -> tuple[float, dict[str, Any] | None]:
    """Base and scaling, from the fields of today or those of before. Raises UserError naming what is not supported."""
    said = theirs.get("rope_scaling") or theirs.get("rope_parameters") or {}
    said = {name: value for name, value in said.items() if value is not None}
    old = said.pop("type", "default")
    kind = said.pop("rope_type", old)
    base = said.pop("rope_theta", theirs.get("rope_theta", 10000.0))
    check_types({"rope_theta": base})
    base = float(base)
    if kind in SCALED_FROM:
        said.setdefault("original_max_position_embeddings", theirs["max_position_embeddings"])
    Rotary(head_dim, base, {"rope_type": kind, **said})
    said.pop("partial_rotary_factor", None)
    return base, None if kind == "default" else {"rope_type": kind, **said}


def _fields(c: ModelConfig) -> dict[str, Any]:
    """A ModelConfig as config.json."""
    s = c.stack
    rope = {"rope_theta": c.rope_base, **(c.rope_scaling or {})}
    rope.setdefault("rope_type", rope.pop("type", "default"))
    return {
        "hidden_size": s.d_model,
        "num_hidden_layers": s.n_layers,
        "num_attention_heads": s.n_heads,
        "num_key_value_heads": s.n_kv_heads or s.n_heads,
        "head_dim": c.head_dim,
        "intermediate_size": s.d_ff,
        "hidden_act": next(theirs for theirs, ours in GATES.items() if ours == s.feedforward),
        "rms_norm_eps": s.norm.eps,
        "max_position_embeddings": c.max_length,
        "rope_parameters": rope,
        "attention_dropout": s.dropout.attention,
        "tie_word_embeddings": c.tied,
    } | other_dropout(c, ["attention"])


def _biased(c: ModelConfig) -> str:
    """Which projections of attention have a bias."""
    return c.heads.bias or ("all" if c.stack.bias else "none")


def rows(c: ModelConfig) -> list[Row]:
    """The table of names."""
    ours, theirs = "stack.blocks.{i}.", "model.layers.{i}."
    attention, feedforward = ours + "attention.branch.", ours + "feedforward.branch."
    inputs = [
        (f"self_attn.{name[0]}_proj", attention + name, _biased(c) != "none") for name in ("query", "key", "value")
    ]
    out = ("self_attn.o_proj", attention + "out", _biased(c) == "all")
    gated = [(f"mlp.{name}_proj", feedforward + name, c.stack.bias) for name in ("gate", "up", "down")]
    layers = [
        row(theirs + "input_layernorm.weight", ours + "attention.norm_in.weight"),
        row(theirs + "post_attention_layernorm.weight", ours + "feedforward.norm_in.weight"),
    ]
    for name, of, bias in (*inputs, out, *gated):
        layers += both(theirs + name, of) if bias else [row(f"{theirs}{name}.weight", f"{of}.weight")]
    if c.heads.norm == "rms":
        norms = (("q_norm", "norm_query"), ("k_norm", "norm_key"))
        layers += [row(f"{theirs}self_attn.{name}.weight", f"{attention}{of}.weight") for name, of in norms]
    ends = [row("model.embed_tokens.weight", "embed.tokens.weight"), row("model.norm.weight", "stack.norm.weight")]
    head = [] if c.tied else [row("lm_head.weight", "head.weight")]
    return per_layer(layers, c.stack.n_layers) + ends + head


def tidy(name: str, c: ModelConfig) -> str | None:
    """The name of a tensor in a file as the table has it, a tied head's is the embedding's; None for what a file may carry along and nobody
    needs. A file without the head may leave out the first part."""
    if name.endswith("rotary_emb.inv_freq"):
        return None
    if c.tied and name == "lm_head.weight":
        return "model.embed_tokens.weight"
    return f"model.{name}" if name.startswith(("layers.", "embed_tokens.", "norm.")) else name


# --- Llama ---------------------------------------------------------------------------------------------------------------


def llama_config(theirs: Theirs, names: Collection[str]) -> ModelConfig:
    """Biases: in all projections of attention or none, in the feed-forward or not."""
    attention, mlp = bool(theirs.get("attention_bias")), bool(theirs.get("mlp_bias"))
    heads = Heads(bias=None if attention == mlp else "all" if attention else "none")
    return _config(LLAMA_DEFAULTS | {**theirs}, ("attention_bias", "mlp_bias"), heads, mlp)


def _indivisible(c: ModelConfig) -> list[str]:
    """`transformers` asks a Llama, and none of its kin, for this also where heads have a width of their own."""
    d_model, n_heads = c.stack.d_model, c.stack.n_heads
    return [f"stack.d_model = {d_model} (llama has a multiple of stack.n_heads {n_heads})"] if d_model % n_heads else []


LLAMA = Family(
    model_type="llama",
    standard=STANDARD | {"stack.bias": (False, True), "heads.bias": (None, "none", "all")},
    free=FREE,
    to_config=llama_config,
    from_config=lambda c: _fields(c) | {"attention_bias": _biased(c) == "all", "mlp_bias": c.stack.bias},
    architecture=lambda c: "LlamaForCausalLM",
    rows=rows,
    tidy=tidy,
    misfits=_indivisible,
)

# --- Mistral -------------------------------------------------------------------------------------------------------------


def mistral_config(theirs: Theirs, names: Collection[str]) -> ModelConfig:
    """A window for all layers, or none."""
    theirs = MISTRAL_DEFAULTS | {**theirs}
    return replace(_config(theirs, ["sliding_window"]), window=theirs["sliding_window"])


MISTRAL = Family(
    model_type="mistral",
    standard=STANDARD,
    free=(*FREE, "window"),
    to_config=mistral_config,
    from_config=lambda c: _fields(c) | {"sliding_window": c.window},
    architecture=lambda c: "MistralForCausalLM",
    rows=rows,
    tidy=tidy,
)

# --- Qwen2 ---------------------------------------------------------------------------------------------------------------


def qwen2_config(theirs: Theirs, names: Collection[str]) -> ModelConfig:
    """Biases where attention begins; a window for all layers, or none."""
    theirs = QWEN2_DEFAULTS | {**theirs}
    return replace(_config(theirs, WINDOWS, Heads(bias="inputs")), window=_window(theirs))


def _window(theirs: Theirs) -> int | None:
    """What all layers share. Raises DataError where some see everything and others do not."""
    n_layers = theirs["num_hidden_layers"]
    window = theirs["sliding_window"] if theirs.get("use_sliding_window") else None
    full = n_layers if window is None else min(n_layers, theirs["max_window_layers"])
    usual = ["full_attention"] * (full > 0) + ["sliding_attention"] * (full < n_layers)
    kinds = sorted(set(theirs.get("layer_types") or usual))
    if kinds == ["full_attention"]:
        return None
    if kinds == ["sliding_attention"] and window is not None:
        return window
    asked = f"use_sliding_window = {theirs.get('use_sliding_window')}, sliding_window = {window}"
    raise DataError(
        f"config.json: layer_types of {', '.join(kinds)} with {asked} are not supported",
        "all layers must see everything, or all have the same window",
    )


def _windows(c: ModelConfig) -> dict[str, Any]:
    """`_window` backwards."""
    kind = "full_attention" if c.window is None else "sliding_attention"
    layers = {
        "max_window_layers": c.stack.n_layers if c.window is None else 0,
        "layer_types": [kind] * c.stack.n_layers,
    }
    return {"use_sliding_window": c.window is not None, "sliding_window": c.window} | layers


QWEN2 = Family(
    model_type="qwen2",
    standard=STANDARD | {"heads.bias": "inputs"},
    free=(*FREE, "window"),
    to_config=qwen2_config,
    from_config=lambda c: _fields(c) | _windows(c),
    architecture=lambda c: "Qwen2ForCausalLM",
    rows=rows,
    tidy=tidy,
)

# --- Qwen3 ---------------------------------------------------------------------------------------------------------------


def qwen3_config(theirs: Theirs, names: Collection[str]) -> ModelConfig:
    """A norm over each head's queries and keys; biases in attention or not; a window for all layers, or none."""
    theirs = QWEN3_DEFAULTS | {**theirs}
    heads = Heads(bias="all" if theirs.get("attention_bias") else None, norm="rms")
    return replace(_config(theirs, {"attention_bias", *WINDOWS}, heads), window=_window(theirs))


QWEN3 = Family(
    model_type="qwen3",
    standard=STANDARD | {"heads.norm": "rms", "heads.bias": (None, "all")},
    free=(*FREE, "window"),
    to_config=qwen3_config,
    from_config=lambda c: _fields(c) | {"attention_bias": _biased(c) == "all"} | _windows(c),
    architecture=lambda c: "Qwen3ForCausalLM",
    rows=rows,
    tidy=tidy,
)
