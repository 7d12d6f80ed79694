"""From a DataConfig to pairs and running text as tokens on disk: parts (train, valid, test) are set apart (see `holdout`),
tokenised once and found again while nothing changed. Labels, tags and images: `labelled`, `tagged`, `images`.

Held out of pairs: by the source text, so that other translations of a sentence are on its side. Held out of text: the last
share of the stream, as tiny Shakespeare is always cut. The tokenizer is the caller's, trained on `texts_for_tokenizer`: the
training part only. Imports no torch.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import numpy as np

from pellucid.data import labelled, tagged
from pellucid.data.config import DataConfig
from pellucid.data.dates import Split
from pellucid.data.files import Chunk, Example, read_chunks, read_pairs
from pellucid.data.holdout import (
    AT_ONCE,
    TokenizerLike,
    batched,
    key_of,
    parts_of,
    read_info,
    read_json_lines,
    read_part,
    refuse_wrong,
    write_info,
)
from pellucid.data.synthetic import GENERATORS
from pellucid.data.tokenised import Ragged, Writer, cached, encoded, open_ragged
from pellucid.errors import DataError

_CHUNKS_AT_ONCE = 16
_source = attrgetter("source")


@dataclass(frozen=True)
class PairSet:
    """One part of the pairs, tokenised. `notes`: what a person should be told."""

    sources: Ragged
    targets: Ragged
    file: Path
    notes: tuple[str, ...] = ()

    def examples(self, n: int | None = None) -> list[Example]:
        """The first n (None = all) pairs as text with their group, in the order of `sources`; read from disk."""
        return [Example(*example) for example in read_json_lines(self.file, n=n)]


@dataclass(frozen=True)
class TextSet:
    """One part of a text: `tokens` [N] memory-mapped; `n_bytes` of UTF-8 they stand for (for bits per byte)."""

    tokens: np.ndarray
    n_bytes: int
    notes: tuple[str, ...] = ()


def prepare_pairs(config: DataConfig, tokenizer: TokenizerLike, seed: int) -> dict[str, PairSet]:
    """{"train": PairSet, "valid": …, "test": …}, those that exist. Files are read only if they, the tokenizer
    or the options changed.

    Raises DataError (see `read_pairs`), also where too few pairs are left to set any apart.
    """
    key = key_of(config, seed, tokenizer=tokenizer.hash())

    def fill(folder: Path) -> None:
        for part in parts_of(config):
            notes: list[str] = []
            with (
                Writer(folder, f"{part}.source", tokenizer.vocab_size) as sources,
                Writer(folder, f"{part}.target", tokenizer.target.vocab_size) as targets,
                open(folder / f"{part}.jsonl", "w", encoding="utf-8", newline="\n") as raw,
            ):
                for batch in batched(_examples(config, part, seed, notes), AT_ONCE):
                    raw.writelines(json.dumps(example, ensure_ascii=False) + "\n" for example in batch)
                    sources.append(*encoded(tokenizer, [e.source for e in batch]))
                    targets.append(*encoded(tokenizer.target, [e.target for e in batch]))
            write_info(folder, part, {"notes": notes})

    folder = cached(key, fill)
    found: dict[str, PairSet] = {}
    for part in parts_of(config):
        sources, targets = open_ragged(folder, f"{part}.source"), open_ragged(folder, f"{part}.target")
        found[part] = PairSet(sources, targets, folder / f"{part}.jsonl", tuple(read_info(folder, part)["notes"]))
    return found


def prepare_text(config: DataConfig, tokenizer: TokenizerLike) -> dict[str, TextSet]:
    """{"train": TextSet, "valid": …, "test": …}, those that exist. Each document (file, Parquet row) begins with
    <eos> if the tokenizer has one: what ends one text is what the next starts from.
    Without `valid` files the last `holdout` of the characters is
    valid; without `test` files there is no test part."""
    key = key_of(config, 0, tokenizer=tokenizer.hash())

    def fill(folder: Path) -> None:
        for part in parts_of(config):
            n_bytes = n_unknown = 0
            first = part == "train" or bool(getattr(config, part))  # else the text is cut in the middle
            with Writer(folder, part, tokenizer.vocab_size) as writer:
                for chunks in batched(_chunks(config, part), _CHUNKS_AT_ONCE):
                    texts = [chunk.text for chunk in chunks]
                    ids, lengths = encoded(tokenizer, texts)
                    n_bytes += sum(len(text.encode()) for text in texts)
                    n_unknown += 0 if tokenizer.unk_id is None else int((ids == tokenizer.unk_id).sum())
                    begins = np.array([first, *(chunk.last for chunk in chunks)])
                    first = chunks[-1].last
                    if tokenizer.eos_id is not None:
                        ids = np.insert(ids, (np.cumsum(lengths) - lengths)[begins[:-1]], tokenizer.eos_id)
                        lengths = lengths + begins[:-1]
                    writer.append(ids, lengths)
            if not writer.length:
                raise DataError(f"no text is left for {part}", "give more text, or other --data.holdout")
            share = n_unknown / writer.length
            notes = [f"{share:.2%} of the tokens of {part} are unknown to the tokenizer"] if n_unknown else []
            notes += getattr(tokenizer, "notes", [])
            write_info(folder, part, {"n_bytes": n_bytes, "notes": notes})

    folder = cached(key, fill)
    found: dict[str, TextSet] = {}
    for part in parts_of(config):
        info = read_info(folder, part)
        found[part] = TextSet(open_ragged(folder, part).tokens, info["n_bytes"], tuple(info["notes"]))
    return found


def texts_for_tokenizer(config: DataConfig, seed: int = 0) -> Iterator[str]:
    """The texts of the training part only: sources and targets of pairs, pieces of the text, texts that have labels, sentences
    whose words have tags. Raises DataError: see `prepare_pairs`, `prepare_labels`, `prepare_tags`."""
    refuse_wrong(config)
    if config.kind == "text":
        yield from (chunk.text for chunk in _chunks(config, "train"))
    elif config.kind == "labels":
        yield from labelled.training_texts(config)
    elif config.kind == "tags":
        yield from tagged.training_texts(config)
    else:
        for example in _examples(config, "train", seed, []):
            yield example.source
            yield example.target


def _examples(config: DataConfig, part: Split, seed: int, notes: list[str]) -> Iterator[Example]:
    if config.kind in ("dates", "copy", "reverse"):
        n = config.examples if part == "train" else config.held_out
        return GENERATORS[config.kind](part, n, seed)
    return read_part(config, part, _read, _source, notes)


def _read(config: DataConfig, files: Sequence[str], notes: list[str] | None) -> Iterator[Example]:
    return read_pairs(files, notes, config.columns)


def _chunks(config: DataConfig, part: Split) -> Iterator[Chunk]:
    own = getattr(config, part)
    if part != "train" and own:
        return read_chunks(own)
    if config.valid or not config.holdout:
        return read_chunks(config.train)
    total = sum(len(chunk.text) for chunk in read_chunks(config.train))
    cut = int(total * (1 - config.holdout))
    return (
        _between(read_chunks(config.train), 0, cut)
        if part == "train"
        else _between(read_chunks(config.train), cut, total)
    )


def _between(chunks: Iterable[Chunk], start: int, end: int) -> Iterator[Chunk]:
    """The characters [start, end) of a stream of chunks."""
    place = 0
    for chunk in chunks:
        text = chunk.text[max(0, start - place) : max(0, end - place)]
        place += len(chunk.text)
        if text:
            yield Chunk(text, chunk.last)
        if place >= end:
            break
