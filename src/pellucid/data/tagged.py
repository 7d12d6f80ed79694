"""Words and the tag of each: from CoNLL files or JSONL to sets. Their batches: `framed`.

A word is tokenised by itself, so that its pieces are known; the first carries its tag, the others carry none (Devlin et al.
2019, section 5.3). Imports no torch.
"""

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pellucid.data.config import DataConfig
from pellucid.data.conll import Sentence, read_sentences
from pellucid.data.dates import Split
from pellucid.data.framed import FramedData as TagData
from pellucid.data.holdout import (
    AT_ONCE,
    TokenizerLike,
    batched,
    key_of,
    number_of,
    parts_of,
    read_json_lines,
    read_part,
    repeated,
    spread,
    write_info,
)
from pellucid.data.labels import Named, Numbers, settled_in
from pellucid.data.text import IGNORE
from pellucid.data.tokenised import Ragged, Writer, cached, open_ragged

__all__ = ["TagData", "TagSet", "prepare_tags", "training_texts", "word_pieces"]

_WHAT = Named("words", "tag", "are the columns the right ones? --data.columns WORD TAG")
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
            notes += repeated(part, asked[part], asked.get("train", []), "sentences")
            write_info(folder, part, {"notes": notes})
        write_info(folder, "labels", {"known": list(numbers)})

    folder = cached(key_of(config, seed, tokenizer=tokenizer.hash()), fill)
    stored = {part: open_ragged(folder, f"{part}.tags") for part in parts_of(config)}
    settled = settled_in(folder, {part: its.tokens for part, its in stored.items()}, names, _WHAT)
    found: dict[str, TagSet] = {}
    for part, its in stored.items():
        places = np.where(its.tokens == IGNORE, IGNORE, settled.table[np.maximum(its.tokens, 0)]).astype(np.int32)
        ids, tags, file = open_ragged(folder, f"{part}.ids"), Ragged(places, its.offsets), folder / f"{part}.jsonl"
        found[part] = TagSet(ids, tags, settled.names, file, tuple(settled.notes[part]))
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
