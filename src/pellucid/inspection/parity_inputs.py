"""What a parity check asks of both libraries: texts as rows of ids (do the tokenizers agree?), and a padded batch in the words of each."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pellucid.data.text import IGNORE
from pellucid.errors import UserError
from pellucid.generation.speakers import pad, start_ids
from pellucid.inspection.subject import random_subject, text_subject
from pellucid.models.config import ModelConfig
from pellucid.text.tokenizer import Tokenizer

TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "Ein Hund läuft – wohin? – über die Brücke. 3,14",
    "天地玄黃，宇宙洪荒。 Ναι, да! 🙂",
)
LONGEST = 24
"""Tokens read of a text, at most."""


# --- rows of ids ---------------------------------------------------------------------------------------------------------


@dataclass
class Rows:
    """ids: rows of different lengths, none for a model that reads pixels. tokenizer_equal: whether the two tokenizers agree; None = they
    could not be compared."""

    ids: list[list[int]] = field(default_factory=list)
    tokenizer_equal: bool | None = None
    notes: list[str] = field(default_factory=list)


def rows_for(model: Any, tokenizer: Tokenizer | None, theirs: Any, text: str | None = None) -> Rows:
    """The text (None = TEXTS) as the model reads it, or random ids where there is no tokenizer. theirs: their tokenizer, None = there is
    none. Raises UserError for a text that cannot be read."""
    config: ModelConfig = model.config
    if config.family == "vit":
        return Rows()
    longest = min(LONGEST, config.max_length // 2)
    if tokenizer is None:
        if text is not None:
            raise UserError("this model has no tokenizer to read a text with", "leave out --text for random ids")
        ids = next(iter(random_subject(config, longest, 3).inputs.values())).tolist()
        return Rows(
            [row[: max(1, longest - 5 * i)] for i, row in enumerate(ids)], notes=["the ids are random: no tokenizer"]
        )
    read = {one: _read(model, tokenizer, one) for one in ([text] if text is not None else TEXTS)}
    rows = [row[:longest] for row in read.values()]
    if len(rows) == 1:
        rows.append(rows[0][: max(1, len(rows[0]) // 2)])  # a shorter one, so that there is padding
    if theirs is None:
        return Rows(rows, notes=["the ids are ours: transformers reads no tokenizer here"])
    notes = _disagreements(tokenizer, theirs, read)
    return Rows(rows, not notes, notes)


def their_tokenizer(library: Any, folder: Path) -> Any:
    """What `AutoTokenizer` makes of the folder; None where it makes nothing of it, which it says in many ways."""
    try:
        return library.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception:  # noqa: BLE001
        return None


def _read(model: Any, tokenizer: Tokenizer, text: str) -> list[int]:
    """A text as this model reads it; what asks for an answer is left out, for theirs has it in the chat template."""
    ids = next(iter(text_subject(model, tokenizer, text, target="").inputs.values()))[0].tolist()
    return ids[:-1] if ids[-1] == tokenizer.answer_id else ids


def _disagreements(tokenizer: Tokenizer, theirs: Any, read: Mapping[str, list[int]]) -> list[str]:
    """Of texts, alone and as the model reads them: where the ids are not the same."""
    found = []
    for text, whole in read.items():
        alone = theirs(text, add_special_tokens=False)["input_ids"]
        for what, ours, other in (
            ("", tokenizer.encode(text), alone),
            (", as it is read", whole, theirs(text)["input_ids"]),
        ):
            if ours != other:
                found.append(f"{text!r}{what}: ours {ours}, theirs {other}")
    return found


# --- the batch -----------------------------------------------------------------------------------------------------------


@dataclass
class Asked:
    """One batch in both libraries' words. keeps: part of the model ("", "encoder ", "decoder ") -> which places are real, None = all.
    labels: what their loss is asked for, None = there is none to compare; targets: ours, where they move theirs by a place themselves."""

    ours: dict[str, Tensor]
    theirs: dict[str, Tensor]
    keeps: dict[str, Tensor | None]
    labels: Tensor | None = None
    targets: Tensor | None = None


def batch_for(model: Any, theirs: Any, rows: list[list[int]]) -> Asked:
    """Rows padded on the right, or random pixels, as this model's family takes them, with what the loss needs where they have one."""
    config, device = model.config, next(model.parameters()).device
    takes = set(inspect.signature(theirs.forward).parameters)
    asked = BATCHES[config.family](config, rows, takes, device)
    if asked.labels is None or "labels" not in takes:
        return replace(asked, labels=None, targets=None)
    asked.theirs["labels"] = asked.labels
    return replace(asked, targets=asked.labels if asked.targets is None else asked.targets)


def _continuation(config: ModelConfig, rows: list[list[int]], takes: set[str], device: torch.device) -> Asked:
    ids, keep = pad(rows, left=False, device=device)
    theirs = {"input_ids": ids, "attention_mask": keep.long()}
    return Asked({"ids": ids, "keep": keep}, theirs, {"": keep}, ids.masked_fill(~keep, IGNORE), _next(ids, keep))


def _reading(config: ModelConfig, rows: list[list[int]], takes: set[str], device: torch.device) -> Asked:
    ids, keep = pad(rows, left=False, device=device)
    asked = Asked({"ids": ids, "keep": keep}, {"input_ids": ids, "attention_mask": keep.long()}, {"": keep})
    if "token_type_ids" in takes and config.n_segments > 1:
        segments = (torch.arange(ids.shape[1], device=device) > 2).long().expand_as(ids)
        asked.ours["segments"] = asked.theirs["token_type_ids"] = segments
    if config.head == "words":
        asked.labels = ids.masked_fill(~keep, IGNORE)
    if config.head == "tags":
        asked.labels = (ids % config.n_labels).masked_fill(~keep, IGNORE)
    if config.head == "labels":
        asked.labels = _some_labels(config, len(ids), device)
    return asked


def _answering(config: ModelConfig, rows: list[list[int]], takes: set[str], device: torch.device) -> Asked:
    """The answers are the same rows in reverse order, so that the two sides differ in length."""
    size = config.decoder_vocab_size or config.vocab_size
    answers = [[*start_ids(config), *(i % size for i in row)] for row in reversed(rows)]
    (ids, keep), (target, real) = pad(rows, left=False, device=device), pad(answers, left=False, device=device)
    ours = {"source": ids, "target": target, "source_keep": keep, "target_keep": real}
    theirs = {"input_ids": ids, "attention_mask": keep.long()}
    theirs |= {"decoder_input_ids": target, "decoder_attention_mask": real.long()}
    return Asked(ours, theirs, {"encoder ": keep, "decoder ": real}, _next(target, real))


def _seeing(config: ModelConfig, rows: list[list[int]], takes: set[str], device: torch.device) -> Asked:
    images = random_subject(config, batch=2).inputs["images"].to(device)
    asked = Asked({"images": images}, {"pixel_values": images}, {"": None}, _some_labels(config, 2, device))
    if "noise" in takes:  # by which patches are shuffled: here they stay where they are
        places = torch.arange((config.image_size // config.patch_size) ** 2, device=device)
        asked.theirs["noise"] = places.float().expand(2, -1)
    return asked


BATCHES = {"gpt": _continuation, "bert": _reading, "seq2seq": _answering, "vit": _seeing}


def _next(ids: Tensor, keep: Tensor) -> Tensor:
    """At each place the token behind it, IGNORE where there is none."""
    behind = ids.masked_fill(~keep, IGNORE)[:, 1:]
    return torch.cat([behind, behind.new_full((len(ids), 1), IGNORE)], 1)


def _some_labels(config: ModelConfig, n: int, device: torch.device) -> Tensor | None:
    """A label for each row; None for a single "label": that is a regression there."""
    return torch.arange(n, device=device) % config.n_labels if config.n_labels > 1 else None
