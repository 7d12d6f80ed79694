"""What a tokenizer.json, as a dictionary, is: its kind by the field's names, and whether it keeps every text. Imports no torch."""

from typing import Any

from pellucid.text.pieces import BYTES


def kind_of(state: dict[str, Any]) -> str:
    """See `Tokenizer.kind`."""
    model, decoder = state["model"], state["decoder"] or {"type": ""}
    if model["type"] != "BPE":
        return {"WordPiece": "wordpiece", "Unigram": "unigram", "WordLevel": "word"}[model["type"]]
    if any(step["type"] == "ByteLevel" for step in decoder.get("decoders", [decoder])):
        return "byte-bpe"
    if model["byte_fallback"]:
        return "byte-fallback-bpe"
    return "char" if decoder["type"] == "Fuse" and not state["pre_tokenizer"] else "bpe"


def keeps_text(kind: str, state: dict[str, Any]) -> bool:
    """See `Tokenizer.promises_round_trip`."""
    if any(not token["special"] for token in state["added_tokens"]):
        return False
    if kind == "byte-bpe":
        return _keeps_bytes(state)
    if kind == "byte-fallback-bpe":  # with ▁ for spaces a ▁ of the text is lost
        last = (state["decoder"].get("decoders") or [{}])[-1]
        prefixed = state["normalizer"] == {"type": "Prepend", "prepend": " "} and not state["pre_tokenizer"]
        return prefixed and last == {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    return kind == "char" and not state["normalizer"]


def _keeps_bytes(state: dict[str, Any]) -> bool:
    steps, model = state["pre_tokenizer"] or {}, state["model"]
    *before, last = steps.get("pretokenizers", [steps])
    kept = all(step["type"] == "Digits" or step["type"] == "Split" and step["behavior"] != "Removed" for step in before)
    bytewise = last.get("type") == "ByteLevel" and not last["add_prefix_space"]
    whole = not model["end_of_word_suffix"] and not model["continuing_subword_prefix"]
    return kept and bytewise and whole and BYTES.keys() <= model["vocab"].keys() and not state["normalizer"]
