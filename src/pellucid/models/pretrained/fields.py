"""Foreign config.json files: every field is honoured, known to be without effect on the numbers, or an error."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from pellucid.errors import DataError
from pellucid.models.config import ModelConfig
from pellucid.parts.config import Dropout, FeedForwardKind

WITHOUT_EFFECT = {
    "architectures", "model_type", "transformers_version", "torch_dtype", "dtype", "use_cache", "initializer_range", "_name_or_path",
    "bos_token_id", "eos_token_id", "pad_token_id", "task_specific_params", "gradient_checkpointing", "output_past", "output_attentions",
    "output_hidden_states", "return_dict", "return_dict_in_generate", "is_encoder_decoder", "id2label",
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
    """Raises DataError naming the first field that is neither honoured, nor without effect, nor at the one value we compute (`only`).

    A setting is a number, a truth, or a short name that chooses. A text that is no name (a table of characters, a sentence) in a field
    nobody knows is told to people or to other programs: it chooses nothing, and stands in nobody's way."""
    only = {**EVERYWHERE, **only}
    for name, value in theirs.items():
        if name in honoured or name in WITHOUT_EFFECT or value is None:
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
    names = {int(i): name for i, name in (theirs.get("id2label") or {}).items()}
    if sorted(names) != list(range(len(names))):
        raise DataError(f"config.json: id2label has the numbers {sorted(names)}, not 0 to {len(names) - 1}")
    labels = tuple(str(names[i]) for i in range(len(names)))
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


def spoken(theirs: Mapping[str, Any], generation: Mapping[str, Any], family: str) -> dict[str, Any]:
    """The tokens by which a model speaks, as fields of a ModelConfig: from config.json, and from generation_config.json, which counts."""
    unsaid = UNSAID.get(str(theirs.get("model_type")), {})
    said = {**unsaid, **theirs, **{name: value for name, value in generation.items() if value is not None}}
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


def to_speak(c: ModelConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """`spoken` backwards: what config.json and what generation_config.json says."""
    ends = None if c.eos_id is None else [c.eos_id, *c.ends] if c.ends else c.eos_id
    ids = {"pad_token_id": c.pad_id, "bos_token_id": c.bos_id, "eos_token_id": ends}
    if c.family == "seq2seq":
        start = c.start or _usual_start(c.bos_id, c.eos_id)
        ids |= dict(zip(("decoder_start_token_id", "forced_bos_token_id"), start, strict=False))
    banned = silent(c.pad_id, c.bos_id, c.eos_id, c.ends, c.start) if c.suppress is None else set(c.suppress)
    speaks: dict[str, Any] = {"max_length": c.max_length} if c.family in ("gpt", "seq2seq") else {}
    forced = banned & set(c.start[1:])  # theirs refuses to suppress what it forces, so that is a bad word
    speaks |= {"suppress_tokens": sorted(banned - forced)} if speaks and banned - forced else {}
    speaks |= {"bad_words_ids": [[token] for token in sorted(forced)]} if speaks and forced else {}
    return ids, ids | speaks


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
