"""How a model's sentence vectors are made, as a folder of sentence-transformers says it (Reimers & Gurevych 2019). Imports no torch.

Such a folder has, beside the model, modules.json: a Transformer, then a Pooling, then perhaps Normalize. Each field of their files is
honoured, known to be without effect, or an error that names it.
"""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pellucid.errors import DataError
from pellucid.models.config import ModelConfig
from pellucid.text.beside import read_json
from pellucid.text.tokenizer import Tokenizer

MODULES = (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"])
MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last",
}
NAMES = {"cls": "cls", "max": "max", "mean": "mean", "lasttoken": "last"}


@dataclass(frozen=True)
class Sentences:
    """pooling: which states make the vector, a name of `tasks.vectors.POOLINGS`; normalised: to length 1; max_length: tokens read, special
    ones included, None = as many as the model knows."""

    pooling: str = "mean"
    normalised: bool = False
    max_length: int | None = None


def read_sentences(folder: Path, config: ModelConfig, tokenizer: Tokenizer | None) -> Sentences:
    """What the folder says; the mean of all states where it says nothing. Raises DataError naming the file and what is not understood."""
    path = folder / "modules.json"
    if not path.is_file():
        return Sentences()
    modules = _modules(path)
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in modules]
    if kinds not in MODULES or modules[0].get("path"):
        said = ", ".join(f"{kind} in {module.get('path')!r}" for kind, module in zip(kinds, modules, strict=True))
        raise DataError(f"{path}: modules {said} are not supported, only a Transformer in '', Pooling and Normalize")
    if config.family != "bert":
        raise DataError(f"{path}: sentence vectors of a {config.family} are not supported, only of a bert")
    _prompt(folder / "config_sentence_transformers.json")
    pooling = _pooling(folder / str(modules[1].get("path")) / "config.json")
    if len(modules) > 2:
        _normal(folder / str(modules[2].get("path")) / "config.json")
    return Sentences(pooling, len(modules) > 2, _max_length(folder, tokenizer))


def _pooling(path: Path) -> str:
    said = _table(path)
    chosen = [mode for mode, on in said.items() if mode.startswith("pooling_mode_") and on]
    _refuse_others(
        path, said, {*MODES, "word_embedding_dimension", "embedding_dimension", "include_prompt", "pooling_mode"}
    )
    modes = [MODES[mode] for mode in chosen] or ["mean"]
    if "pooling_mode" in said:
        named = said["pooling_mode"]
        modes = [NAMES.get(name, "") for name in ([named] if isinstance(named, str) else named)]
    if len(modes) != 1 or not modes[0]:
        asked = said.get("pooling_mode", chosen)
        raise DataError(f"{path}: pooling_mode = {asked!r} is not supported, only one of {', '.join(NAMES)}")
    return modes[0]


def _max_length(folder: Path, tokenizer: Tokenizer | None) -> int | None:
    """What the folder's own file says, else its tokenizer. That letters are lowered may be said of a tokenizer that does it."""
    lowers = tokenizer and tokenizer.library.normalizer and tokenizer.library.normalizer.normalize_str("A") == "a"
    path = folder / "sentence_bert_config.json"
    said = read_json(path)
    only = {
        "do_lower_case": bool(lowers),
        "transformer_task": "feature-extraction",
        "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
        "module_output_name": "token_embeddings",
        "processing_kwargs": {},
    }
    _refuse_others(path, said, ["max_seq_length", "unpad_inputs"], only)
    length = said.get("max_seq_length") or read_json(folder / "tokenizer_config.json").get("model_max_length")
    return None if length is None else int(length)


def _prompt(path: Path) -> None:
    """Raises DataError where words are put before every text."""
    said = read_json(path)
    name = said.get("default_prompt_name")
    if name is not None and (said.get("prompts") or {}).get(name) != "":
        raise DataError(f"{path}: default_prompt_name = {name!r} is not supported: no prompt is put before a text")


def _normal(path: Path) -> None:
    only = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}
    _refuse_others(path, read_json(path), [], only)


def _refuse_others(
    path: Path, said: Mapping[str, Any], known: Collection[str], only: Mapping[str, Any] | None = None
) -> None:
    """Raises DataError naming a field that is switched on, is not known, and not at the one value we compute."""
    for name, value in said.items():
        if name not in known and value not in (None, False) and (only or {}).get(name) != value:
            raise DataError(
                f"{path}: {name} = {value!r} is not supported", "its vectors could differ: it is not loaded"
            )


def _table(path: Path) -> dict[str, Any]:
    """The fields of a file that must be there."""
    if not path.is_file():
        raise DataError(f"{path} is missing", "copy the model again")
    return read_json(path)


def _modules(path: Path) -> list[dict[str, Any]]:
    """The list in modules.json; each of its folders lies beside it."""
    try:
        modules = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged: {str(error)[:200]}", "copy the model again") from None
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise DataError(f"{path} is damaged: it holds no list of modules", "copy the model again")
    for module in modules:
        place = module.get("path") or ""
        if not isinstance(place, str) or not re.fullmatch(r"([\w-][\w.-]*)?", place):
            raise DataError(f"{path}: path = {place!r:.200} is no name of a folder beside it", "copy the model again")
    return modules
