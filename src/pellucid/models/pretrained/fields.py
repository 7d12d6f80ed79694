"""Foreign config.json files: every field is honoured, known to be without effect on the numbers, or an error."""

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pellucid.errors import DataError
from pellucid.models.config import ANY_LENGTH, ModelConfig
from pellucid.parts.config import Dropout, FeedForwardKind

WITHOUT_EFFECT = {
    "architectures", "model_type", "transformers_version", "torch_dtype", "dtype", "use_cache", "initializer_range", "_name_or_path",
    "bos_token_id", "eos_token_id", "pad_token_id", "task_specific_params", "gradient_checkpointing", "output_past", "output_attentions",
    "output_hidden_states", "return_dict", "return_dict_in_generate", "id2label",
    "label2id", "problem_type", "chunk_size_feed_forward", "cross_attention_hidden_size", "decoder_start_token_id", "finetuning_task",
    "tokenizer_class", "prefix", "sep_token_id", "unk_token_id",
} | {  # how `generate` searches unless told otherwise, and what `spoken` reads
    "max_length", "min_length", "do_sample", "num_beams", "num_beam_groups", "num_return_sequences", "early_stopping", "length_penalty",
    "diversity_penalty", "repetition_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "temperature", "top_k", "top_p",
    "typical_p", "output_scores", "remove_invalid_values", "forced_eos_token_id", "forced_bos_token_id", "force_bos_token_to_be_generated",
    "bad_words_ids", "suppress_tokens",
}  # fmt: skip
NAME = re.compile(r"[\w./:+-]{0,40}", re.ASCII)
UNSAID: dict[str, dict[str, Any]] = {  # the tokens that `transformers` takes where a config.json says nothing of them
    "marian": {"pad_token_id": 58100, "eos_token_id": 0, "decoder_start_token_id": 58100},
    "bart": {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2},
    "t5": {"pad_token_id": 0, "eos_token_id": 1},
    "bert": {"pad_token_id": 0},
    "distilbert": {"pad_token_id": 0},
}
EVERYWHERE: dict[str, Any] = {
    "is_encoder_decoder": (False, True),
    "is_decoder": False,
    "add_cross_attention": False,
    "pruned_heads": {},
    "torchscript": (False, True),
    "use_bfloat16": (False, True),
    "_attn_implementation_autoset": (False, True),
}
"""Fields that any config.json may hold, and what we compute, where a family says nothing else of them."""
OTHER_DROPOUT = "pellucid_dropout"
ACTIVATIONS: dict[str, FeedForwardKind] = {
    "gelu": "gelu", "gelu_python": "gelu", "relu": "relu", "silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh", "gelu_fast": "gelu_tanh",
}  # fmt: skip


def honour(theirs: Mapping[str, Any], honoured: Collection[str], only: Mapping[str, Any]) -> None:
    """Raises DataError naming the first field that is neither honoured, nor without effect, nor at the one value we compute (`only`; a
    tuple = any of these). null in a field that a family says nothing of is as good as no field; in one of `only` it is a value like others.

    A setting is a number, a truth, or a short name that chooses. A text that is no name (a table of characters, a sentence) in a field
    nobody knows is told to people or to other programs: it chooses nothing, and stands in nobody's way."""
    family, only = only, {**EVERYWHERE, **only}
    for name, value in theirs.items():
        if name in honoured or name in WITHOUT_EFFECT or (value is None and name not in family):
            continue
        if name not in only and isinstance(value, str) and not NAME.fullmatch(value):
            continue
        if name not in only:
            raise DataError(
                f"config.json: {name} = {value!r} is not understood",
                "this model's numbers could differ: it is not loaded",
            )
        known = only[name] if isinstance(only[name], tuple) else (only[name],)
        if value not in known:
            raise DataError(f"config.json: {name} = {value!r} is not supported, only {' or '.join(map(repr, known))}")


def is_size(value: Any) -> bool:
    """Whether it is a whole number from 1 on; true and 1.0 are none."""
    return type(value) is int and 0 < value < 1 << 31


TYPES: dict[str, tuple[Callable[[Any], bool], set[str]]] = {
    "a whole number from 1 on": (is_size, {
        "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size", "sliding_window",
        "max_position_embeddings", "type_vocab_size", "n_embd", "n_head", "n_layer", "n_inner", "n_positions", "dim", "n_heads", "n_layers",
        "hidden_dim", "d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers", "num_heads", "relative_attention_num_buckets",
        "relative_attention_max_distance", "encoder_layers", "decoder_layers", "encoder_ffn_dim", "decoder_ffn_dim",
        "encoder_attention_heads", "decoder_attention_heads", "decoder_vocab_size", "num_channels", "num_labels", "_num_labels",
        "pellucid_max_length",
    }),
    "a whole number from 0 on": (lambda v: is_size(v) or (type(v) is int and v == 0), {"vocab_size", "max_window_layers"}),
    "a number above 0": (lambda v: _is_number(v) and 0 < v < math.inf, {
        "rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "rope_theta",
    }),
    "a rate": (lambda v: _is_number(v) and 0 <= v < 1, {
        "dropout", "dropout_rate", "attention_dropout", "activation_dropout", "embd_pdrop", "attn_pdrop", "resid_pdrop",
        "hidden_dropout_prob", "attention_probs_dropout_prob",
    }),
    "true or false": (lambda v: isinstance(v, bool), {
        "tie_word_embeddings", "scale_embedding", "scale_attn_weights", "scale_decoder_outputs", "attention_bias", "mlp_bias",
        "use_sliding_window", "share_encoder_decoder_embeddings",
    }),
    "a word": (lambda v: isinstance(v, str), {
        "hidden_act", "activation", "activation_function", "feed_forward_proj", "pooler_act",
    }),
    "a table": (lambda v: isinstance(v, dict), {"id2label", "rope_scaling", "rope_parameters", OTHER_DROPOUT}),
    "a list of words": (lambda v: _is_list(v, str), {"architectures", "layer_types"}),
    "a token": (lambda v: type(v) is int, {"pad_token_id", "bos_token_id", "decoder_start_token_id", "forced_bos_token_id"}),
    "a token or a list of them": (lambda v: type(v) is int or _is_list(v, int), {"eos_token_id", "suppress_tokens"}),
    "a list of lists": (lambda v: _is_list(v, list), {"bad_words_ids"}),
}  # fmt: skip
"""What a field that we honour may hold, whatever the family."""
MAY_BE_NULL = {
    "num_key_value_heads", "head_dim", "n_inner", "sliding_window", "num_decoder_layers", "decoder_vocab_size", "rope_scaling",
    "rope_parameters", "id2label", "num_labels", "_num_labels", "architectures", "layer_types", "pad_token_id", "bos_token_id",
    "decoder_start_token_id", "forced_bos_token_id", "eos_token_id", "suppress_tokens", "bad_words_ids",
}  # fmt: skip


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_list(value: Any, of: type) -> bool:
    return isinstance(value, list) and all(type(part) is of for part in value)


def check_types(theirs: Mapping[str, Any], where: Path | str = "config.json") -> None:
    """Raises DataError naming a field that is of another type, or outside the range that it has in every family."""
    for what, (fits, names) in TYPES.items():
        for name in theirs.keys() & names:
            value = theirs[name]
            if not fits(value) and not (value is None and name in MAY_BE_NULL):
                raise DataError(f"{where}: {name} = {value!r:.200} is not {what}", "copy the model again")


def other_dropout(c: ModelConfig, said: Collection[str]) -> dict[str, Any]:
    """The rates of dropout that a family has no field for, as a field beside its own: `transformers` keeps it and does not read it."""
    rates = {name: rate for name, rate in vars(c.stack.dropout).items() if rate and name not in said}
    return {OTHER_DROPOUT: rates} if rates else {}


def one_dropout(theirs: Mapping[str, Any], hidden: str, attention: str) -> Dropout:
    """The rates of a family that has a field for embeddings and branches, `hidden`, and one for attention weights."""
    rate = theirs.get(hidden) or 0.0
    rates = {"embedding": rate, "residual": rate, "attention": theirs.get(attention) or 0.0}
    return Dropout(**(rates | theirs.get(OTHER_DROPOUT, {})))


def one_dropout_said(c: ModelConfig, hidden: str, attention: str) -> dict[str, Any]:
    """`one_dropout` backwards: rates that the two fields do not say stand beside them."""
    d = c.stack.dropout
    other = {"embedding": d.embedding} if d.embedding != d.residual else {}
    other |= {"hidden": d.hidden} if d.hidden else {}
    return {hidden: d.residual, attention: d.attention} | ({OTHER_DROPOUT: other} if other else {})


def activation(theirs: Mapping[str, Any], name: str) -> FeedForwardKind:
    """What a plain feed-forward network computes between its layers. Raises DataError where it is nothing of ours."""
    said = theirs.get(name, "gelu")
    if said not in ACTIVATIONS:
        raise DataError(f"config.json: {name} = {said!r} is not supported, only {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[said]


def activation_said(kind: FeedForwardKind) -> str:
    """`activation` backwards."""
    return next(name for name, ours in ACTIVATIONS.items() if ours == kind)


def labels_of(theirs: Mapping[str, Any], regresses: bool) -> dict[str, Any]:
    """The labels of a classifier, as fields of a ModelConfig; two without names where nothing is said. regresses: whether their class takes
    one label for a number to be met. Raises DataError for numbers, and for several labels at once."""
    said = theirs.get("id2label") or {}
    try:
        names = {int(i): name for i, name in said.items()}
    except ValueError:
        raise DataError(f"config.json: id2label = {said!r:.200} is not supported, only names by numbers") from None
    if sorted(names) != list(range(len(names))):
        raise DataError(f"config.json: id2label has the numbers {sorted(names)}, not 0 to {len(names) - 1}")
    labels = tuple(names[i] for i in range(len(names)))
    if not all(isinstance(label, str) for label in labels):
        raise DataError(f"config.json: id2label = {said!r:.200} is not supported: a label is a text")
    n = len(labels) or theirs.get("num_labels") or theirs.get("_num_labels") or 2
    problem = theirs.get("problem_type") or ("regression" if n == 1 and labels in ((), ("LABEL_0",)) else None)
    if regresses and problem not in (None, "single_label_classification"):
        raise DataError(f"config.json: problem_type = {problem!r} is not supported, only single_label_classification")
    return {"labels": labels, "n_labels": n}


def labels_said(c: ModelConfig) -> dict[str, Any]:
    """How many labels there are, where they have no names; `transformers` gives them some."""
    return {"num_labels": c.n_labels} if c.n_labels and not c.labels else {}


def unlike_residual(c: ModelConfig, names: Collection[str]) -> dict[str, Any]:
    """The same where one field of theirs is the rate of the residual branches and of `names`: those that have another."""
    rates = vars(c.stack.dropout)
    others = {name: rates[name] for name in names if rates[name] != rates["residual"]}
    return {OTHER_DROPOUT: others} if others else {}


GPT2_END = 50256
"""Written by GPT-2's config as the start and the end, whatever the vocabulary: in a smaller one there is no such token."""
EDGES = ("bos_token_id", "eos_token_id")


def spoken(theirs: Mapping[str, Any], generation: Mapping[str, Any], family: str) -> dict[str, Any]:
    """The tokens by which a model speaks, as fields of a ModelConfig: from config.json, and from generation_config.json, which counts."""
    unsaid = UNSAID.get(str(theirs.get("model_type")), {})
    said = {**unsaid, **theirs, **{name: value for name, value in generation.items() if value is not None}}
    if GPT2_END >= theirs.get("vocab_size", 0):
        said = {name: None if name in EDGES and value == GPT2_END else value for name, value in said.items()}
    eos = said.get("eos_token_id")
    ends = [*eos] if isinstance(eos, list) else [eos] if eos is not None else []
    ids: dict[str, Any] = {"pad_id": said.get("pad_token_id"), "bos_id": said.get("bos_token_id")}
    ids |= {"eos_id": ends[0] if ends else None, "ends": tuple(ends[1:])}
    if family == "seq2seq":
        forced = said.get("forced_bos_token_id")
        if forced is None and said.get("force_bos_token_to_be_generated"):
            forced = ids["bos_id"]
        first = said.get("decoder_start_token_id")
        usual = _usual_start(ids["bos_id"], ids["eos_id"])
        start = (*(usual if first is None else (first,)), *(() if forced is None else (forced,)))
        ids["start"] = () if start == usual else start
    if family in ("bert", "vit"):
        return ids
    banned = {words[0] for words in said.get("bad_words_ids") or () if len(words) == 1}
    banned |= set(said.get("suppress_tokens") or ())
    ids["suppress"] = None if banned == silent(**ids) else tuple(sorted(banned))
    return ids


def to_speak(
    c: ModelConfig, size: int | None = None, how: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """`spoken` backwards: what config.json and what generation_config.json says. size: of the vocabulary of what it writes, where that is
    known: rows of the table beyond it stand for nothing and are never said. how: see `speaking.written`; None = to the end of what it sees.
    """
    ends = None if c.eos_id is None else [c.eos_id, *c.ends] if c.ends else c.eos_id
    ids = {"pad_token_id": c.pad_id, "bos_token_id": c.bos_id, "eos_token_id": ends}
    if c.family == "seq2seq":
        ids |= dict(zip(("decoder_start_token_id", "forced_bos_token_id"), start_of(c), strict=False))
    if c.family not in ("gpt", "seq2seq"):
        return ids, ids
    speaks = dict(({"max_length": c.max_length} if c.max_length < ANY_LENGTH else {}) if how is None else how)
    rows = c.decoder_vocab_size or c.vocab_size
    banned = silent(c.pad_id, c.bos_id, c.eos_id, c.ends, c.start) if c.suppress is None else set(c.suppress)
    banned |= set(range(rows if size is None else size, rows)) - {c.eos_id, *c.ends}
    forced = banned & {*c.start[1:]}  # theirs refuses to suppress what it forces, so that is a bad word
    words = [*([token] for token in sorted(forced)), *speaks.pop("bad_words_ids", ())]
    speaks |= {"suppress_tokens": sorted(banned - forced)} if banned - forced else {}
    return ids, ids | speaks | ({"bad_words_ids": words} if words else {})


def named(c: ModelConfig, size: int) -> ModelConfig:
    """`c` without what `to_speak` told of rows that stand for nothing. size: of the vocabulary of what it writes."""
    if c.suppress is None or max(c.suppress, default=0) < size:
        return c
    banned = tuple(token for token in c.suppress if token < size)
    usual = silent(c.pad_id, c.bos_id, c.eos_id, c.ends, c.start)
    return replace(c, suppress=None if {*banned} == usual else banned)


def start_of(c: ModelConfig) -> tuple[int, ...]:
    """What decoding starts from; of a decoder, what an empty text does."""
    return c.start or _usual_start(c.bos_id, c.eos_id)


def _usual_start(bos_id: int | None, eos_id: int | None) -> tuple[int, ...]:
    """What decoding starts from where nothing else is said: <bos>, or <eos> where there is none."""
    return tuple(token for token in (bos_id, eos_id) if token is not None)[:1]


def start_misfits(c: ModelConfig) -> list[str]:
    """What `transformers` cannot be told of how decoding starts: by one token, and at most one that is forced behind it."""
    if len(c.start) > 2:
        return [f"start = {c.start!r} (transformers has at most two tokens)"]
    return [] if c.start or _usual_start(c.bos_id, c.eos_id) else ["start = () with neither bos_id nor eos_id"]


def silent(
    pad_id: int | None, bos_id: int | None, eos_id: int | None, ends: Collection[int] = (), start: Collection[int] = ()
) -> set[int]:
    """What is never said unless told otherwise: padding and the start, where they end nothing."""
    return {token for token in (pad_id, bos_id) if token is not None} - {eos_id, *ends}


def check_ids(c: ModelConfig, where: Path | str) -> None:
    """Raises DataError naming the field in which a token stands that the model does not know."""
    if c.family == "vit":
        return
    if c.vocab_size < 1:
        raise DataError(f"{where}: vocab_size = {c.vocab_size}: the model knows no token", "copy the model again")
    spoken_size = c.decoder_vocab_size or c.vocab_size
    ids = {"bos_token_id": (c.bos_id,), "eos_token_id": (c.eos_id, *c.ends), "suppress_tokens": c.suppress or ()}
    ids |= {"decoder_start_token_id or forced_bos_token_id": c.start, "pad_token_id": (c.pad_id,)}
    for name, tokens in ids.items():
        size = min(c.vocab_size, spoken_size) if name == "pad_token_id" else spoken_size
        wrong = next((i for i in tokens if i is not None and not 0 <= i < size), None)
        if wrong is not None:
            told = f"{where}: {name} = {wrong} is none of the model's tokens, 0 to {size - 1}"
            raise DataError(told, "correct it there")
