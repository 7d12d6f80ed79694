"""Words and the tag of each: from CoNLL files or JSONL to batches, bucketed by length, a pure function of (seed, step).

A word is tokenised by itself, so that its pieces are known; the first carries its tag, the others carry none (Devlin et al.
2019, section 5.3). torch is imported where a batch becomes tensors.
"""

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.data.buckets import Buckets
from pellucid.data.config import DataConfig
from pellucid.data.conll import Sentence, read_sentences
from pellucid.data.dates import Split
from pellucid.data.framed import Framed
from pellucid.data.holdout import (
    AT_ONCE,
    TokenizerLike,
    batched,
    key_of,
    number_of,
    parts_of,
    read_info,
    read_json_lines,
    read_part,
    repeated,
    spread,
    write_info,
)
from pellucid.data.labels import UNSEEN, Numbers, settle
from pellucid.data.text import IGNORE
from pellucid.data.tokenised import Ragged, Writer, cached, open_ragged
from pellucid.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

_WHAT = "words", "tag"
_SPACED = ("byte-bpe", "char")
"""Tokenizers whose pieces hold the space before a word: a word by itself is read with the space it has in the sentence."""


@dataclass(frozen=True)
class TagSet:
    """One part, tokenised. `tags`, one for each of `ids`: a place in `names`, UNSEEN (-1) for a tag that training never shows,
    IGNORE (-100) on pieces that do not begin a word; `notes`: what a person should be told."""

    ids: Ragged
    tags: Ragged
    names: tuple[str, ...]
    file: Path
    notes: tuple[str, ...] = ()
    places: Sequence[int] | None = None

    def examples(self, n: int | None = None) -> list[Sentence]:
        """The words and tags of the first n (None = all) sentences, read from disk."""
        return [Sentence(*map(tuple, pair)) for pair in read_json_lines(self.file, self.places, n)]

    def first(self, n: int) -> "TagSet":
        """n of them (0 = all), evenly spread over the part."""
        places = spread(n, len(self.ids))
        if len(places) == len(self.ids):
            return self
        return replace(self, ids=self.ids.take(places), tags=self.tags.take(places), places=places)


def prepare_tags(
    config: DataConfig, tokenizer: TokenizerLike, seed: int, names: tuple[str, ...] | None = None
) -> dict[str, TagSet]:
    """{"train": TagSet, "valid": …, "test": …}, those that exist; see `prepare_labels` for `names` and what is cached.
    Raises DataError: see `read_sentences` and `labels.settle`."""

    def fill(folder: Path) -> None:
        numbers, asked = Numbers(), dict[str, list[int]]()
        for part in parts_of(config):
            notes: list[str] = []
            asked[part] = []
            with (
                Writer(folder, f"{part}.ids", tokenizer.vocab_size) as ids,
                Writer(folder, f"{part}.tags", None) as tags,
                open(folder / f"{part}.jsonl", "w", encoding="utf-8", newline="\n") as raw,
            ):
                for batch in batched(_sentences(config, part, notes), AT_ONCE):
                    raw.writelines(json.dumps(sentence, ensure_ascii=False) + "\n" for sentence in batch)
                    pieces = word_pieces(tokenizer, [sentence.words for sentence in batch])
                    ids.extend([list(itertools.chain.from_iterable(words)) for words in pieces])
                    tags.extend([_on_first(words, s.tags, numbers) for words, s in zip(pieces, batch, strict=True)])
                    asked[part] += [number_of(_joined(sentence)) for sentence in batch]
            if not ids.count:
                raise DataError(f"no sentences are left for {part}", "give more, or --data.valid and --data.test files")
            notes += repeated(part, asked[part], asked.get("train", []), "sentences")
            write_info(folder, part, {"notes": notes})
        write_info(folder, "labels", {"known": list(numbers)})

    folder = cached(key_of(config, seed, tokenizer=tokenizer.hash()), fill)
    parts, known = parts_of(config), read_info(folder, "labels")["known"]
    tags = {part: open_ragged(folder, f"{part}.tags") for part in parts}
    counts = {str(p): np.bincount(t.tokens[t.tokens != IGNORE], minlength=len(known)) for p, t in tags.items()}
    settled = settle(known, counts, names, _WHAT)
    found: dict[str, TagSet] = {}
    for part in parts:
        stored = tags[part].tokens
        numbered = np.where(stored == IGNORE, IGNORE, settled.table[stored * (stored != IGNORE)]).astype(np.int32)
        notes = (*read_info(folder, part)["notes"], *settled.notes[part])
        ids, file = open_ragged(folder, f"{part}.ids"), folder / f"{part}.jsonl"
        found[part] = TagSet(ids, Ragged(numbered, tags[part].offsets), settled.names, file, notes)
    return found


def word_pieces(tokenizer: TokenizerLike, sentences: Sequence[Sequence[str]]) -> list[list[list[int]]]:
    """The ids of each word of each sentence, as they are in the sentence where the tokenizer reads words one by one. A word of
    which it makes nothing (a lone accent, say) is <unk>."""
    space = " " if tokenizer.kind in _SPACED else ""
    words = [space * (i > 0) + word for sentence in sentences for i, word in enumerate(sentence)]
    unknown = [] if tokenizer.unk_id is None else [tokenizer.unk_id]
    pieces = iter(tokenizer.encode_batch(words))
    return [[next(pieces) or unknown for _ in sentence] for sentence in sentences]


def training_texts(config: DataConfig) -> Iterator[str]:
    """The sentences of the training part, words joined by spaces."""
    return map(_joined, _sentences(config, "train", []))


def _sentences(config: DataConfig, part: Split, notes: list[str]) -> Iterator[Sentence]:
    return read_part(config, part, _read, _joined, notes)


def _read(config: DataConfig, files: Sequence[str], notes: list[str] | None) -> Iterator[Sentence]:
    return read_sentences(files, config.columns, notes)


def _joined(sentence: Sentence) -> str:
    return " ".join(sentence.words)


def _on_first(pieces: list[list[int]], tags: Sequence[str], numbers: Numbers) -> list[int]:
    """The tags' numbers on the first piece of each word, IGNORE on the others."""
    spread_out: list[int] = []
    for word, tag in zip(pieces, tags, strict=True):
        spread_out += [numbers[tag] if i == 0 else IGNORE for i in range(len(word))]
    return spread_out


class TagData:
    """Batches of sentences and their tags, about `batch_tokens` tokens each (padding not counted). Sentences longer than
    `max_length`, <bos> and <eos> counted, lose their end and its tags; `notes` says how many."""

    def __init__(
        self,
        ids: Ragged,
        tags: Ragged,
        *,
        pad_id: int,
        bos_id: int,
        eos_id: int,
        batch_tokens: int,
        seed: int = 0,
        max_length: int | None = None,
    ) -> None:
        if not np.array_equal(ids.offsets, tags.offsets):
            raise ValueError("not as many tags as pieces")
        self.framed = Framed(ids, pad_id, bos_id, eos_id, max_length)
        self.tags, self.batch_tokens, self.seed = tags, batch_tokens, seed
        self.notes = self.framed.notes("sentences")

    def __len__(self) -> int:
        """Sentences per epoch."""
        return len(self._kept)

    @cached_property
    def _kept(self) -> np.ndarray:
        """Sentences with a tag to learn within what is read of them."""
        has = [(self.tags[i][: self.framed.longest] >= 0).any() for i in range(len(self.tags))]
        return np.flatnonzero(np.array(has, bool))

    @cached_property
    def buckets(self) -> Buckets:
        """The plan of the epochs. Raises DataError where no word has a known tag."""
        return self.framed.buckets(self._kept, self.batch_tokens, self.seed)

    @property
    def steps_per_epoch(self) -> int:
        """Batches."""
        return self.buckets.steps_per_epoch

    def rows(self, step: int) -> np.ndarray:
        """The sentences of a step's batch, as places in `ids`: int64 [B]."""
        return self._kept[self.buckets.rows(step)]

    def batch(self, step: int) -> "dict[str, Tensor]":
        """The global batch of a step, see `collate`; tags that training never shows are IGNORE. A pure function of (seed, step)."""
        batch = self.collate(self.rows(step))
        batch["targets"][batch["targets"] == UNSEEN] = IGNORE
        return batch

    def collate(self, rows: np.ndarray) -> "dict[str, Tensor]":
        """Rows [B] -> "ids" int64 [B,T], "keep" bool [B,T] (True on tokens), "targets" int64 [B,T]: the tag where a word
        begins, else IGNORE; UNSEEN for a tag that training never shows."""
        import torch

        arrays = {**self.framed.arrays(rows), "targets": self.framed.inside(self.tags, rows, IGNORE)}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def sequential(self, batch_tokens: int | None = None) -> "Iterator[dict[str, Any]]":
        """Every sentence once, long ones first, at most `batch_tokens` a batch with padding. Batches as of `collate`, and
        "rows" int64 [B]: places in `ids`."""
        import torch

        size = batch_tokens or self.batch_tokens
        for rows in self.framed.buckets(np.arange(len(self.tags)), size).sequential(size):
            yield {**self.collate(rows), "rows": torch.from_numpy(rows)}
