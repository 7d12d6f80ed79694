"""Foreign config.json files: every field is honoured, known to be without effect on the numbers, or an error."""

from collections.abc import Collection, Mapping
from typing import Any

from pellucid.errors import DataError
from pellucid.models.config import ModelConfig

WITHOUT_EFFECT = {
    "architectures", "model_type", "transformers_version", "torch_dtype", "dtype", "use_cache", "initializer_range", "_name_or_path",
    "bos_token_id", "eos_token_id", "pad_token_id", "task_specific_params", "gradient_checkpointing", "output_past", "output_attentions",
    "output_hidden_states", "return_dict", "return_dict_in_generate", "is_encoder_decoder", "is_decoder", "add_cross_attention", "id2label",
    "label2id", "problem_type", "chunk_size_feed_forward", "cross_attention_hidden_size", "decoder_start_token_id", "finetuning_task",
    "tokenizer_class", "prefix", "sep_token_id", "unk_token_id",
}  # fmt: skip


def honour(theirs: Mapping[str, Any], honoured: Collection[str], only: Mapping[str, Any]) -> None:
    """Raises DataError naming the first field that is neither honoured, nor without effect, nor at the one value we compute (`only`)."""
    for name, value in theirs.items():
        if name in honoured or name in WITHOUT_EFFECT or value is None:
            continue
        if name not in only:
            raise DataError(
                f"config.json: {name} = {value!r} is not understood",
                "this model's numbers could differ: it is not loaded",
            )
        known = only[name] if isinstance(only[name], tuple) else (only[name],)
        if value not in known:
            raise DataError(f"config.json: {name} = {value!r} is not supported, only {' or '.join(map(repr, known))}")


def spoken(theirs: Mapping[str, Any], generation: Mapping[str, Any], family: str) -> dict[str, Any]:
    """The tokens by which a model speaks, as fields of a ModelConfig: from config.json, and from generation_config.json, which counts."""
    said = {**theirs, **{name: value for name, value in generation.items() if value is not None}}
    eos = said.get("eos_token_id")
    ends = [*eos] if isinstance(eos, list) else [eos] if eos is not None else []
    ids: dict[str, Any] = {"pad_id": said.get("pad_token_id"), "bos_id": said.get("bos_token_id")}
    ids |= {"eos_id": ends[0] if ends else None, "ends": tuple(ends[1:])}
    if family == "seq2seq":
        start = (said.get("decoder_start_token_id", ids["bos_id"]), said.get("forced_bos_token_id"))
        start = tuple(token for token in start if token is not None)
        ids["start"] = () if start == (ids["bos_id"],) else start
    banned = {words[0] for words in said.get("bad_words_ids") or () if len(words) == 1}
    banned |= set(said.get("suppress_tokens") or ())
    ids["suppress"] = None if banned == silent(**ids) else tuple(sorted(banned))
    return ids


def to_speak(c: ModelConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """`spoken` backwards: what config.json and what generation_config.json says."""
    ends = None if c.eos_id is None else [c.eos_id, *c.ends] if c.ends else c.eos_id
    ids = {"pad_token_id": c.pad_id, "bos_token_id": c.bos_id, "eos_token_id": ends}
    if c.family == "seq2seq":
        start = c.start or tuple(token for token in (c.bos_id,) if token is not None)
        forced = dict(zip(("decoder_start_token_id", "forced_bos_token_id"), start, strict=False))
        ids |= forced
    banned = silent(c.pad_id, c.bos_id, c.eos_id, c.ends, c.start) if c.suppress is None else c.suppress
    speaks = {"max_length": c.max_length} if c.family in ("gpt", "seq2seq") else {}
    speaks |= {"suppress_tokens": sorted(banned)} if speaks and banned else {}
    return ids, ids | speaks


def silent(
    pad_id: int | None, bos_id: int | None, eos_id: int | None, ends: Collection[int] = (), start: Collection[int] = ()
) -> set[int]:
    """What is never said unless told otherwise: padding and the start, where they end nothing."""
    return {token for token in (pad_id, bos_id) if token is not None} - {eos_id, *ends}
