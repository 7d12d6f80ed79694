"""generation_config.json, the file in which a model folder says how its model speaks unless told otherwise. Imports no torch.

The tokens in it are read by `pretrained.fields.spoken`. Here is the rest: what `GenerationOptions` has too, under its names, and what is
not done here, which is to be said aloud.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pellucid.errors import DataError
from pellucid.models.config import ModelConfig
from pellucid.models.pretrained.fields import start_of
from pellucid.text.beside import read_json

FILE = "generation_config.json"
SAME = {
    "num_beams": "beam", "num_return_sequences": "n_best", "length_penalty": "length_penalty",
    "repetition_penalty": "repetition_penalty", "no_repeat_ngram_size": "no_repeat", "stop_strings": "stop",
}  # fmt: skip
"""Their name -> ours, where both mean the same."""
SAMPLED: dict[str, Any] = {"temperature": 1.0, "top_k": 50, "top_p": 1.0}
"""How `transformers` samples where nothing is said of it; both names are the same."""
ONLY_SAMPLED = {*SAMPLED, "min_p", "typical_p", "top_h", "epsilon_cutoff", "eta_cutoff"}
STOPPING: dict[Any, str] = {"never": "never", False: "heuristic", True: "full"}
"""Their early_stopping -> ours; False where nothing is said."""
ONLY_BEAMS = {"num_beam_groups", "diversity_penalty", "low_memory"}
TOKENS = {
    "bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_bos_token_id", "suppress_tokens", "bad_words_ids",
}  # fmt: skip
LENGTHS = {"max_length", "max_new_tokens", "min_length", "min_new_tokens", "forced_eos_token_id"}
WITHOUT_EFFECT = {
    "_from_model_config", "transformers_version", "do_sample", "use_cache", "cache_implementation", "cache_config", "max_cache_len",
    "compile_config", "disable_compile", "return_dict_in_generate", "output_attentions", "output_hidden_states", "output_scores",
    "output_logits", "return_legacy_cache", "remove_invalid_values", "is_assistant", "num_assistant_tokens",
    "num_assistant_tokens_schedule", "assistant_confidence_threshold", "assistant_early_exit", "assistant_lookbehind", "target_lookbehind",
    "prompt_lookup_num_tokens", "max_matching_ngram_size", "trust_remote_code", "prefill_chunk_size", "force_bos_token_to_be_generated",
    "_commit_hash",
}  # fmt: skip
"""Fields about computing, or about what is handed out beside the tokens."""
OLD = (
    {*SAME}
    | ONLY_SAMPLED
    | ONLY_BEAMS
    | TOKENS
    | LENGTHS
    | {"do_sample", "early_stopping", "encoder_no_repeat_ngram_size"}
)
"""What a config.json says where there is no such file yet, and what two families say without a word: at the limit a text ends."""
UNSAID = {"bart": 2, "marian": 0}
OFF = {"typical_p": 1, "encoder_repetition_penalty": 1, "guidance_scale": 1, "num_beam_groups": 1}
"""The value at which a field does nothing, where that is not 0, false or empty."""


def read(folder: Path, c: ModelConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """How the model of a folder speaks: fields of GenerationOptions, and the fields of the file that ask for what is not done here, with
    their values. A folder from before that file has them in its config.json. Raises DataError naming the file."""
    where = folder / FILE
    said = read_json(where)
    if not where.is_file():
        old = read_json(where := folder / "config.json")
        said = {"forced_eos_token_id": UNSAID.get(old.get("model_type", ""))}
        said |= {name: value for name, value in old.items() if name in OLD}
    said = {name: value for name, value in said.items() if value is not None}
    try:
        return _options(said, c), _others(said, c)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise DataError(f"{where}: a field is not of its type ({error})", "copy the model again") from None


def _options(said: Mapping[str, Any], c: ModelConfig) -> dict[str, Any]:
    """What can be done as it is asked for."""
    options = {ours: said[name] for name, ours in SAME.items() if said.get(name)}
    if isinstance(options.get("stop"), str):
        options["stop"] = [options["stop"]]
    if said.get("do_sample"):
        options |= {name: said.get(name, usual) for name, usual in SAMPLED.items()} | {"beam": 1}
    if options.get("beam", 1) > 1:
        options["stopping"] = STOPPING[said.get("early_stopping", False)]
    else:
        options.pop("n_best", None)
    given = max(0, len(start_of(c)) - 1)  # what is forced behind the first token is new to them
    most, least = said.get("max_new_tokens", 0) - given, said.get("min_new_tokens", 0) - given
    if c.family == "seq2seq":
        most = most if "max_new_tokens" in said else said.get("max_length", 0) - given - 1
        least = max(least, said.get("min_length", 0) - given - 1)
    options |= {"max_new": most} if most > 0 else {}
    options |= {"min_new": least} if least > 0 else {}
    return options | ({"force_end": True} if said.get("forced_eos_token_id") in {c.eos_id, *c.ends} - {None} else {})


def _others(said: Mapping[str, Any], c: ModelConfig) -> dict[str, Any]:
    """What is not done here, and would change what is said."""
    samples, beams = bool(said.get("do_sample")), said.get("num_beams", 1)
    known = TOKENS | LENGTHS | WITHOUT_EFFECT | {*SAME, "early_stopping"}
    known |= ONLY_BEAMS | ({*SAMPLED} if samples else ONLY_SAMPLED)
    others = {name: v for name, v in said.items() if name not in known and v and v != OFF.get(name)}
    if beams > 1 and not samples:
        others |= {name: said[name] for name in ONLY_BEAMS & {*said} if said[name] and said[name] != OFF.get(name)}
    if samples:
        others |= {name: said[name] for name in ("num_beams", "num_return_sequences") if said.get(name, 1) > 1}
    if c.family == "gpt":  # of prompt and answer together
        others |= {name: said[name] for name in ("min_length", "forced_bos_token_id") if said.get(name)}
        if "max_new_tokens" not in said and 0 < said.get("max_length", 0) < c.max_length:
            others["max_length"] = said["max_length"]
    if said.get("forced_eos_token_id") not in (None, c.eos_id, *c.ends):
        others["forced_eos_token_id"] = said["forced_eos_token_id"]
    phrases = [words for words in said.get("bad_words_ids", ()) if len(words) > 1]
    return others | ({"bad_words_ids": phrases} if phrases else {})


def note(others: Mapping[str, Any]) -> list[str]:
    """The sentence about what `read` found that is not done here; nothing where there is nothing."""
    asks = ", ".join(f"{name} = {value!r}" for name, value in sorted(others.items()))
    return [f"the model's {FILE} asks for {asks}: not done here"] if others else []


def written(options: Mapping[str, Any], c: ModelConfig) -> dict[str, Any]:
    """`read` backwards: fields of GenerationOptions as their generate needs them for the same answer. Stop strings are left out: theirs
    would ask for a tokenizer."""
    o, start = options, start_of(c)
    said: dict[str, Any] = {}
    if o["temperature"] > 0:
        said |= {"do_sample": True, **{name: o[name] for name in SAMPLED}}
    if o["beam"] > 1:
        said |= {
            "num_beams": o["beam"],
            "length_penalty": o["length_penalty"],
            "early_stopping": next(k for k, v in STOPPING.items() if v == o["stopping"]),
        }
        said |= {"num_return_sequences": o["n_best"]} if o["n_best"] > 1 else {}
    said |= {"repetition_penalty": o["repetition_penalty"]} if o["repetition_penalty"] != 1 else {}
    said |= {"no_repeat_ngram_size": o["no_repeat"]} if o["no_repeat"] else {}
    said |= {"min_new_tokens": o["min_new"] + max(0, len(start) - 1)} if o["min_new"] else {}
    said |= {"forced_eos_token_id": c.eos_id} if o["force_end"] and c.eos_id is not None else {}
    if c.family == "seq2seq":
        return said | {"max_length": min(len(start) + o["max_new"], c.max_length + 1)}
    return said | ({"max_new_tokens": o["max_new"]} if o["max_new"] < c.max_length else {"max_length": c.max_length})
