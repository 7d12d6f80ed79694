"""What stands beside a tokenizer's vocabulary in a model folder: tokenizer_config.json, special_tokens_map.json and
added_tokens.json say which tokens were added, which have which role, and what is put around a text. Imports no torch.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, processors

from pellucid.errors import DataError

# Special tokens by the names the field uses, where no file says which is which.
NAMES = {
    "pad": ("<pad>", "[PAD]", "<|pad|>", "<|finetune_right_pad_id|>"),
    "bos": ("<bos>", "<s>", "[CLS]", "<|begin_of_text|>", "<|startoftext|>", "<|endoftext|>"),
    "eos": ("<eos>", "</s>", "[SEP]", "<|end_of_text|>", "<|endoftext|>"),
    "unk": ("<unk>", "[UNK]"),
    "mask": ("<mask>", "[MASK]"),
    "answer": ("<answer>",),
}
ROLES = {"pad": ("pad",), "bos": ("bos", "cls"), "eos": ("eos", "sep"), "unk": ("unk",), "mask": ("mask",)}
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
LISTS = ("additional_special_tokens", "extra_special_tokens")


def read_json(file: Path) -> dict[str, Any]:
    """{} where there is no such file. DataError for anything but one JSON object."""
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is damaged: {error}", "copy the folder again") from None
    if not isinstance(content, dict):
        raise DataError(
            f"{file}: expected one JSON object, found a {type(content).__name__}", "copy the tokenizer again"
        )
    return content


def numbered(file: Path) -> dict[str, int]:
    """A vocab.json: pieces and their ids."""
    ids = read_json(file)
    if not all(type(i) is int and i >= 0 for i in ids.values()) or len(set(ids.values())) != len(ids):
        raise DataError(f"{file}: not every piece has an id of its own", "copy the tokenizer again")
    return ids


def settings_of(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json; where it lists no added tokens of its own, the two older files speak too. `tokenizer_class` is there
    without its "Fast", or ""."""
    config = read_json(folder / "tokenizer_config.json")
    if "added_tokens_decoder" not in config:
        config |= read_json(folder / "special_tokens_map.json")
        added = read_json(folder / "added_tokens.json")
        special = _named(config)
        config["added_tokens_decoder"] = {
            i: {"content": name, "special": name in special, "normalized": name not in special}
            for name, i in added.items()
        }
    config["tokenizer_class"] = str(config.get("tokenizer_class") or "").removesuffix("Fast")
    return config


def roles_of(settings: Mapping[str, Any]) -> dict[str, str | None]:
    """{"pad": "<pad>", …} as far as the settings speak of them; None where they say that there is none."""
    roles: dict[str, str | None] = {}
    for role, keys in ROLES.items():
        told = [f"{key}_token" for key in keys if f"{key}_token" in settings]
        if told:
            roles[role] = next((name for key in told if (name := _content(settings[key]))), None)
    return roles


def complete(tokenizer: Tokenizer, settings: Mapping[str, Any], roles: Mapping[str, str | None], folder: Path) -> None:
    """Adds the tokens that the settings list, marks special ones as such, and puts around a text what they ask for."""
    known = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    for i, told in _added(settings, folder):
        if told["content"] in known:
            continue
        flags = {flag: bool(told[flag]) for flag in FLAGS if flag in told}
        tokenizer.add_tokens([AddedToken(told["content"], **flags)])
        if tokenizer.token_to_id(told["content"]) != i:
            place = tokenizer.token_to_id(told["content"])
            raise DataError(
                f"{folder}: added token {told['content']!r} is said to have id {i}, the vocabulary gives it {place}",
                "the vocabulary and the files beside it belong to different models",
            )
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    names = [name for name in _named(settings) if name not in special and tokenizer.token_to_id(name) is not None]
    tokenizer.add_special_tokens(names)
    if "add_bos_token" in settings or "add_eos_token" in settings:
        edges = [roles.get(name) or "" if settings.get(f"add_{name}_token") else "" for name in ("bos", "eos")]
        put_around(tokenizer, *(name if tokenizer.token_to_id(name) is not None else "" for name in edges))


def put_around(tokenizer: Tokenizer, before: str, behind: str) -> None:
    """These special tokens around a text, and around both texts of a pair; "" for none."""
    around = [name for name in (before, behind) if name]
    single = [name for name in (before, "$A", behind) if name]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single,
        pair=[*single, *(f"{name}:1" for name in (before, "$B", behind) if name)],
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in around],
    )


def _content(token: Any) -> str | None:
    """A token is a name, or an object that has one."""
    name = token.get("content") if isinstance(token, dict) else token
    return name if isinstance(name, str) and name else None


def _named(settings: Mapping[str, Any]) -> list[str]:
    """All special tokens that the settings name."""
    tokens: list[Any] = [settings.get(f"{key}_token") for keys in ROLES.values() for key in keys]
    for key in LISTS:
        more = settings.get(key) or []
        tokens += more.values() if isinstance(more, dict) else more if isinstance(more, list) else []
    return list(dict.fromkeys(name for token in tokens if (name := _content(token))))


def _added(settings: Mapping[str, Any], folder: Path) -> list[tuple[int, dict[str, Any]]]:
    try:
        added = [(int(i), token) for i, token in (settings.get("added_tokens_decoder") or {}).items()]
    except (AttributeError, TypeError, ValueError):
        raise DataError(f"{folder}: the ids of the added tokens cannot be read", "copy the tokenizer again") from None
    for i, token in added:
        if _content(token) is None or not isinstance(token, dict):
            raise DataError(f"{folder}: added token {i} has no content", "copy the tokenizer again")
    return sorted(added, key=lambda pair: pair[0])
