"""Foreign config.json files: every field is honoured, known to be without effect on the numbers, or an error."""

from collections.abc import Collection, Mapping
from typing import Any

from pellucid.errors import DataError

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


def token_ids(theirs: Mapping[str, Any]) -> dict[str, int | None]:
    """pad_id, bos_id, eos_id; the first where several end a text."""
    found = {}
    for name in ("pad", "bos", "eos"):
        value = theirs.get(f"{name}_token_id")
        found[f"{name}_id"] = value[0] if isinstance(value, list) else value
    return found
