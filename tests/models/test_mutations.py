"""Any field of a config.json with another value: the numbers of `transformers`, or an error that names the field. Nothing between."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pellucid.errors import DataError
from pellucid.models import storage
from tests.models import parity

SIDE = {"d_model": 16, "encoder_layers": 2, "decoder_layers": 1, "encoder_ffn_dim": 20, "decoder_ffn_dim": 20}
SIDE |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "vocab_size": 31, "max_position_embeddings": 24}
SIDE |= {"pad_token_id": 0, "decoder_start_token_id": 0, "forced_eos_token_id": None}
BODY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20}
TEXT = BODY | {"vocab_size": 31, "max_position_embeddings": 24}
LLAMA = TEXT | {"num_key_value_heads": 1, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
T5 = {
    "d_model": 16,
    "d_kv": 6,
    "d_ff": 20,
    "num_layers": 2,
    "num_heads": 2,
    "vocab_size": 31,
    "decoder_start_token_id": 0,
}
KINDS: dict[str, dict[str, Any]] = {  # a class of theirs -> fields of its config
    "GPT2LMHeadModel": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 24, "vocab_size": 31, "bos_token_id": 1, "eos_token_id": 2},
    "LlamaForCausalLM": LLAMA,
    "MistralForCausalLM": LLAMA | {"sliding_window": 5},
    "Qwen2ForCausalLM": LLAMA,
    "Qwen3ForCausalLM": LLAMA | {"head_dim": 6},
    "BertForMaskedLM": TEXT,
    "BertModel": TEXT,
    "BertForSequenceClassification": TEXT | {"num_labels": 3},
    "DistilBertForMaskedLM": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 20, "vocab_size": 31, "max_position_embeddings": 24},
    "ViTForImageClassification": BODY | {"image_size": 8, "patch_size": 4, "num_labels": 3},
    "ViTModel": BODY | {"image_size": 8, "patch_size": 4},
    "MarianMTModel": SIDE | {"eos_token_id": 2},
    "PegasusForConditionalGeneration": SIDE | {"eos_token_id": 2},
    "RobertaPreLayerNormForMaskedLM": TEXT,
    "BartForConditionalGeneration": SIDE,
    "T5ForConditionalGeneration": T5,
    "T5ForConditionalGeneration gated": T5 | {"feed_forward_proj": "gated-gelu"},
}  # fmt: skip
ONE_MORE: dict[str, list[Any]] = {  # fields that a config need not have, and values of those that mean most
    "is_decoder": [True], "is_encoder_decoder": [False, True], "add_cross_attention": [True], "pruned_heads": [{"0": [1]}],
    "dense_act_fn": ["gelu", "gelu_new", None], "is_gated_act": [False, True, None], "tie_word_embeddings": [True, False],
    "rope_theta": [5.0, 0, "x"], "rope_scaling": [{"type": "linear", "factor": 2.0}, []], "num_attention_heads": [0],
    "layer_types": [["sliding_attention", "full_attention"]], "position_embedding_type": ["relative_key"], "n_positions": [4, None],
    "normalize_before": [True], "scale_embedding": [True], "static_position_embeddings": [True, False], "qkv_bias": [False],
    "attention_bias": [True], "sliding_window": [3], "use_sliding_window": [True], "final_logit_softcapping": [30.0],
    "num_labels": [2, -1], "id2label": [{"0": None}, {"x": "y"}, 3],
}  # fmt: skip
TOGETHER = (
    "does not fit its config.json",
    "is not a multiple of",
    "need an even head width",
    "pooler_output_size",
    "dense_act_fn",
    "is_gated_act",
)
"""What is said where a field is right by itself, and does not go with others or with the weights."""
ASIDE = {
    "architectures",
    "model_type",
    "dtype",
    "torch_dtype",
    "transformers_version",
}  # which class, and as what it is opened


def others(value: Any) -> list[Any]:
    """Values of the same type and of others."""
    if isinstance(value, bool):
        return [not value, None, "x"]
    if isinstance(value, int):
        return [value + 1, value * 2, 0, -1, float(value), None, "x"]
    if isinstance(value, float):
        return [value + 0.25, value * 3, None, math.nan, "x"]
    if isinstance(value, str):
        return ["other", "relu", "gelu", "silu", "gelu_new", None, 3]
    return [[], {}, None, 3] if isinstance(value, list | dict) else [True, 1, 3, 0.5, "other", [1, 2]]


def mutations(said: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(the field that is another, the config) for all fields but those aside."""
    for name in [*said, *(ONE_MORE.keys() - said)]:
        if name not in ASIDE:
            values = (others(said[name]) if name in said else []) + ONE_MORE.get(name, [])
            yield from ((name, said | {name: value}) for value in values)
            yield name, {other: value for other, value in said.items() if other != name}


@torch.no_grad()
def theirs_of(kind: Any, folder: Path) -> Any:
    """What `transformers` computes, or None where it refuses, in whatever way, or makes up weights."""
    try:
        model, told = kind.from_pretrained(folder, output_loading_info=True)
        if any(told[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys")):
            return None
        both = kind.__name__.startswith(("Marian", "Pegasus", "Bart", "T5"))
        out = model.eval()(**given(model.main_input_name, both), return_dict=True)
    except Exception:  # noqa: BLE001
        return None
    return out.logits if hasattr(out, "logits") else out.pooler_output


def given(name: str, both: bool) -> dict[str, Any]:
    if name == "pixel_values":
        return {name: torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))}
    ids = {"input_ids": parity.words(2, 11, 31)}
    return ids | ({"decoder_input_ids": parity.words(2, 7, 31, 1)} if both else {})


@torch.no_grad()
def ours_of(folder: Path) -> Any:
    model, _ = storage.load(folder)
    family = model.config.family
    return model(*given("pixel_values" if family == "vit" else "input_ids", family == "seq2seq").values())


@pytest.mark.slow
@pytest.mark.reference
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.filterwarnings("ignore")
def test_every_field_is_honoured_or_refused_by_name(name: str, tmp_path: Path) -> None:
    """No field is left out: what is without effect has none in `transformers` either."""
    import transformers

    kind = getattr(transformers, name.split()[0])
    torch.manual_seed(0)
    parity.shaken(kind(kind.config_class(**KINDS[name])), by=0.1).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    said = json.loads(json.dumps(kind.config_class(**KINDS[name]).to_dict() | json.loads(path.read_text())))
    opened = refused = 0
    for field, changed in mutations(said):
        path.write_text(json.dumps(changed))
        told = f"{field} = {changed.get(field, 'left out')!r}"
        try:
            ours = ours_of(tmp_path)
        except DataError as error:
            assert any(words in str(error) for words in (field, *TOGETHER)), f"{told}: {error}"
            refused += 1
            continue
        theirs = theirs_of(kind, tmp_path)
        opened += theirs is not None
        if theirs is not None:
            parity.same(ours, theirs, told)
    assert opened > 20 and refused > 20
