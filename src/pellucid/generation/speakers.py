"""What a family needs to say one more token: its cache, its padding, its memory. The search on top knows no
family.

A speaker holds one row per text. `next_logits(None)` reads the beginnings, then each call adds one token per
row; `select` reorders, repeats or drops rows, which is how finished texts leave the batch and how beams move.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from pellucid.errors import DataError
from pellucid.models.config import ModelConfig
from pellucid.models.pretrained.fields import start_of


class Speaker(Protocol):
    """One row per text."""

    @property
    def history(self) -> list[list[int]]:
        """Of each row, the tokens of its own text that the model sees."""
        ...

    def next_logits(self, said: Sequence[int] | None = None) -> Float[Tensor, "B V"]:
        """Logits [B,V], float32, of the token after `said` (one per row), or after the beginnings."""
        ...

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order; repeats allowed."""
        ...


def start_ids(config: ModelConfig) -> list[int]:
    """What a text starts from when nothing else is there: what the config says, <bos>, or <eos> where a model has no <bos>."""
    if start := list(start_of(config)):
        return start
    raise DataError(
        "the model has neither a <bos> nor an <eos> token, so nothing can start an empty text",
        "give a text to go on with, or set bos_id or eos_id in the model's config.json",
    )


def pad(
    rows: Sequence[Sequence[int]], left: bool, device: torch.device
) -> tuple[Int[Tensor, "B T"], Bool[Tensor, "B T"]]:
    """Rows of any length as ids [B,T] and keep [B,T] (True = real). Pads hold id 0: `keep` alone says what
    they are.
    """
    width = max(1, *map(len, rows)) if rows else 1
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    keep = torch.zeros(len(rows), width, dtype=torch.bool)
    for b, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        ids[b, place] = torch.tensor(row, dtype=torch.long)
        keep[b, place] = True
    return ids.to(device), keep.to(device)


class _Past:
    """What both families share: own texts, left-padded, with their cache. `keep` None = no row is padded,
    which is quicker.
    """

    def __init__(self, model: nn.Module, history: list[list[int]]) -> None:
        self.history = history
        self.model: Any = model
        self.device = next(model.parameters()).device
        self.restart()

    def restart(self) -> None:
        """Forget keys and values: the whole history is read at the next step."""
        self.cache = self.model.new_cache()
        self.ids, keep = pad(self.history, left=True, device=self.device)
        self.keep = None if bool(keep.all()) else keep

    def add(self, said: Sequence[int]) -> None:
        """One more token per row."""
        for row, token in zip(self.history, said, strict=True):
            row.append(token)
        width = self.cache.length + 1
        if max(map(len, self.history)) < width > self.model.config.max_length:  # too wide only by padding
            return self.restart()
        self.ids = torch.tensor(said, dtype=torch.long, device=self.device)[:, None]
        if self.keep is not None:
            self.keep = torch.cat((self.keep, self.keep.new_ones(len(said), 1)), dim=1)

    def select(self, rows: Sequence[int]) -> Tensor | None:
        """Keep these rows; returns them as a tensor, or None where nothing changes."""
        if list(rows) == list(range(len(self.history))):
            return None
        index = torch.tensor(rows, dtype=torch.long, device=self.device)
        self.history = [list(self.history[row]) for row in rows]
        self.cache.select(index)
        self.keep = None if self.keep is None else self.keep[index]
        return index


class GPTSpeaker:
    """Goes on with prompts. An empty prompt starts from <bos>.

    A context that has become longer than the model's `max_length` is cut to its last max_length // 2 tokens
    and read afresh; each row by its own length, so company changes nothing.
    """

    goes_on = True

    def __init__(self, model: nn.Module, inputs: Sequence[Sequence[int]], prefixes: Sequence[Sequence[int]]) -> None:
        self.config: ModelConfig = model.config  # type: ignore[assignment]
        texts = zip(inputs, prefixes, strict=True)
        begun = [[*(prompt or start_ids(self.config)), *prefix] for prompt, prefix in texts]
        self.past = _Past(model, [self._view(row) for row in begun])

    @staticmethod
    def room(config: ModelConfig, prompt: Sequence[int], prefix: Sequence[int]) -> float:
        """How many tokens may follow: any number. Raises DataError where the input cannot be read at all."""
        _check_ids((*prompt, *prefix), config.vocab_size)
        return float("inf")

    @property
    def history(self) -> list[list[int]]:
        """What each row sees."""
        return self.past.history

    def _view(self, row: list[int]) -> list[int]:
        return row if len(row) <= self.config.max_length else row[-max(1, self.config.max_length // 2) :]

    @torch.no_grad()
    def next_logits(self, said: Sequence[int] | None = None) -> Float[Tensor, "B V"]:
        """See `Speaker`."""
        past = self.past
        if said is not None:
            past.add(said)
            if any(len(row) > self.config.max_length for row in past.history):
                past.history = [self._view(row) for row in past.history]
                past.restart()
        states = past.model.hidden(past.ids, past.keep, past.cache)
        return past.model.head(states[:, -1]).float()

    def select(self, rows: Sequence[int]) -> None:
        """See `Speaker`."""
        self.past.select(rows)


class Seq2SeqSpeaker:
    """Answers sources. Each is read once; an answer starts from <bos>, then its forced prefix."""

    goes_on = False

    def __init__(self, model: nn.Module, inputs: Sequence[Sequence[int]], prefixes: Sequence[Sequence[int]]) -> None:
        config: ModelConfig = model.config  # type: ignore[assignment]
        self.past = _Past(model, [[*start_ids(config), *prefix] for prefix in prefixes])
        source, self.source_keep = pad(inputs, left=False, device=self.past.device)
        with torch.no_grad():
            self.memory = self.past.model.encode(source, self.source_keep)

    @staticmethod
    def room(config: ModelConfig, source: Sequence[int], prefix: Sequence[int]) -> float:
        """How many tokens may follow the prefix. Raises DataError where source or prefix do not fit the
        model.
        """
        _check_ids(source, config.vocab_size)
        _check_ids(prefix, config.decoder_vocab_size or config.vocab_size)
        for what, length in (("has", len(source)), ("is forced to start with", len(prefix) + len(start_ids(config)))):
            if length > config.max_length:
                raise DataError(
                    f"{what} {length} tokens, and the model was made for {config.max_length}",
                    "split it, or train with a larger model.max_length",
                )
        return max(0, config.max_length + 1 - len(start_ids(config)) - len(prefix))

    @property
    def history(self) -> list[list[int]]:
        """What each row has said so far, <bos> first."""
        return self.past.history

    @torch.no_grad()
    def next_logits(self, said: Sequence[int] | None = None) -> Float[Tensor, "B V"]:
        """See `Speaker`."""
        past = self.past
        if said is not None:
            past.add(said)
        states = past.model.decode(past.ids, self.memory, self.source_keep, past.keep, past.cache)
        return past.model.head(states[:, -1]).float()

    def select(self, rows: Sequence[int]) -> None:
        """See `Speaker`."""
        index = self.past.select(rows)
        if index is not None:
            self.memory, self.source_keep = self.memory[index], self.source_keep[index]


def _check_ids(ids: Sequence[int], vocab_size: int) -> None:
    wrong = [token for token in ids if not 0 <= token < vocab_size]
    if wrong:
        raise DataError(
            f"has token {wrong[0]}, and the model knows tokens 0 to {vocab_size - 1}",
            "use the tokenizer that the model was trained with",
        )


SPEAKERS = {"gpt": GPTSpeaker, "seq2seq": Seq2SeqSpeaker}


def speaker_of(model: nn.Module) -> type[GPTSpeaker] | type[Seq2SeqSpeaker]:
    """The speaker of a model's family. DataError for families that do not speak."""
    family = model.config.family  # type: ignore[union-attr]
    if family not in SPEAKERS:
        raise DataError(f"a {family} model does not generate text", f"use a model of family {' or '.join(SPEAKERS)}")
    return SPEAKERS[family]  # type: ignore[return-value,index]
