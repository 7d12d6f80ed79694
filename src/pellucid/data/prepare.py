"""From a DataConfig to tokens on disk: parts (train, valid, test) are set apart, tokenised once and found
again while nothing changed.

Held out of pairs: by a hash of the source text (case and outer spaces aside), so that copies and other
translations of a sentence are on one side, and more data moves no sentence across. Held out of text: the last
share of the stream, as tiny Shakespeare is always cut. The tokenizer is the caller's, trained on
`texts_for_tokenizer`: the training part only. Imports no torch.
"""

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from pellucid.data.config import DataConfig
from pellucid.data.dates import SPLITS, Split
from pellucid.data.files import Chunk, Example, fingerprint, read_chunks, read_pairs
from pellucid.data.synthetic import GENERATORS
from pellucid.data.tokenised import Ragged, Writer, cached, open_ragged
from pellucid.errors import DataError

_EXAMPLES_AT_ONCE = 2048
_CHUNKS_AT_ONCE = 64
T = TypeVar("T")
_VERSION = 2  # of what is written and of the synthetic generators: raise it when either changes


class TokenizerLike(Protocol):
    """What is asked of a tokenizer here (`pellucid.text.tokenizer.Tokenizer` has it)."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def eos_id(self) -> int | None: ...
    @property
    def unk_id(self) -> int | None: ...
    def encode_batch(self, texts: list[str]) -> list[list[int]]: ...
    def hash(self) -> str: ...


@dataclass(frozen=True)
class PairSet:
    """One part of the pairs, tokenised. `notes`: what a person should be told."""

    sources: Ragged
    targets: Ragged
    file: Path
    notes: tuple[str, ...] = ()

    def examples(self, n: int | None = None) -> list[Example]:
        """The first n (None = all) pairs as text with their group, in the order of `sources`; read from disk."""
        with open(self.file, encoding="utf-8") as lines:
            return [Example(*json.loads(line)) for line in itertools.islice(lines, n)]


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
    key = _key(config, seed, tokenizer.hash())

    def fill(folder: Path) -> None:
        for part in _parts(config):
            notes: list[str] = []
            with (
                Writer(folder, f"{part}.source", tokenizer.vocab_size) as sources,
                Writer(folder, f"{part}.target", tokenizer.vocab_size) as targets,
                open(folder / f"{part}.jsonl", "w", encoding="utf-8", newline="\n") as raw,
            ):
                for batch in _batched(_examples(config, part, seed, notes), _EXAMPLES_AT_ONCE):
                    raw.writelines(json.dumps(example, ensure_ascii=False) + "\n" for example in batch)
                    sources.extend(tokenizer.encode_batch([e.source for e in batch]))
                    targets.extend(tokenizer.encode_batch([e.target for e in batch]))
            if not targets.count:
                raise DataError(
                    f"no pairs are left for {part}", "give more pairs, or --data.valid and --data.test files"
                )
            _write_info(folder, part, {"notes": notes})

    folder = cached(key, fill)
    found: dict[str, PairSet] = {}
    for part in _parts(config):
        sources, targets = open_ragged(folder, f"{part}.source"), open_ragged(folder, f"{part}.target")
        found[part] = PairSet(sources, targets, folder / f"{part}.jsonl", tuple(_info(folder, part)["notes"]))
    return found


def prepare_text(config: DataConfig, tokenizer: TokenizerLike) -> dict[str, TextSet]:
    """{"train": TextSet, "valid": …, "test": …}, those that exist. Each document (file, Parquet row) begins with
    <eos> if the tokenizer has one: what ends one text is what the next starts from.
    Without `valid` files the last `holdout` of the characters is
    valid; without `test` files there is no test part."""
    key = _key(config, 0, tokenizer.hash())

    def fill(folder: Path) -> None:
        for part in _parts(config):
            n_bytes = n_unknown = 0
            with Writer(folder, part, tokenizer.vocab_size) as writer:
                eos = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
                between = eos if part == "train" or getattr(config, part) else []  # else the text is cut in the middle
                for chunks in _batched(_chunks(config, part), _CHUNKS_AT_ONCE):
                    for chunk, ids in zip(chunks, tokenizer.encode_batch([c.text for c in chunks]), strict=True):
                        writer.extend([between + ids])
                        n_bytes += len(chunk.text.encode())
                        n_unknown += ids.count(tokenizer.unk_id) if tokenizer.unk_id is not None else 0
                        between = eos if chunk.last else []
            if not writer.length:
                raise DataError(f"no text is left for {part}", "give more text, or other --data.holdout")
            share = n_unknown / writer.length
            notes = [f"{share:.2%} of the tokens of {part} are unknown to the tokenizer"] if n_unknown else []
            _write_info(folder, part, {"n_bytes": n_bytes, "notes": notes})

    folder = cached(key, fill)
    found: dict[str, TextSet] = {}
    for part in _parts(config):
        info = _info(folder, part)
        found[part] = TextSet(open_ragged(folder, part).tokens, info["n_bytes"], tuple(info["notes"]))
    return found


def texts_for_tokenizer(config: DataConfig, seed: int = 0) -> Iterator[str]:
    """The texts of the training part only: sources and targets of pairs, or pieces of the text."""
    if config.kind == "text":
        yield from (chunk.text for chunk in _chunks(config, "train"))
    else:
        for example in _examples(config, "train", seed, []):
            yield example.source
            yield example.target


def _parts(config: DataConfig) -> list[Split]:
    """The parts there will be."""
    if config.kind not in ("pairs", "text"):
        return list(SPLITS)
    held_out = config.holdout > 0 and bool(config.train)
    apart = {"train": bool(config.train), "valid": held_out, "test": held_out and config.kind == "pairs"}
    return [part for part in SPLITS if getattr(config, part) or apart[part]]


def _key(config: DataConfig, seed: int, tokenizer: str) -> dict[str, object]:
    if not 0 <= config.holdout < 0.5:
        raise DataError(f"data.holdout is {config.holdout}: must be at least 0 and less than 0.5")
    key: dict[str, object] = {"version": _VERSION, "kind": config.kind, "tokenizer": tokenizer}
    if config.kind in ("pairs", "text"):
        files = {part: fingerprint(getattr(config, part)) for part in SPLITS if getattr(config, part)}
        return key | {"files": files, "holdout": config.holdout}
    return key | {"seed": seed, "examples": config.examples, "held_out": config.held_out}


def _examples(config: DataConfig, part: Split, seed: int, notes: list[str]) -> Iterator[Example]:
    if config.kind in ("dates", "copy", "reverse"):
        n = config.examples if part == "train" else config.held_out
        return GENERATORS[config.kind](part, n, seed)
    own = getattr(config, part)
    if own and part != "train":
        return read_pairs(own, notes)
    return _split_by_source(config, part, notes)


def _hash(source: str) -> int:
    return int.from_bytes(hashlib.blake2b(source.strip().casefold().encode(), digest_size=8).digest(), "big")


@lru_cache(maxsize=4)
def _borders(config: DataConfig, files: str) -> tuple[int, int]:
    """Hashes below the first are valid, from the second on test: `holdout` of all possible hashes each, and
    at least one source. `files` is their fingerprint."""
    share = int(config.holdout * 2**64)
    if not share:
        return 0, 2**64
    least, most = 2**64, -1
    for example in read_pairs(config.train):
        number = _hash(example.source)
        least, most = min(least, number), max(most, number)
    return 0 if config.valid else max(share, least + 1), 2**64 if config.test else min(2**64 - share, most)


def _split_by_source(config: DataConfig, part: Split, notes: list[str]) -> Iterator[Example]:
    low, high = _borders(config, fingerprint(config.train))
    for example in read_pairs(config.train, notes if part == "train" else None):
        number = _hash(example.source)
        if part == ("valid" if number < low else "test" if number >= high else "train"):
            yield example


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


def _batched(items: Iterable[T], n: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, n)):
        yield batch


def _write_info(folder: Path, part: str, info: dict[str, object]) -> None:
    (folder / f"{part}.json").write_text(json.dumps(info), encoding="utf-8")


def _info(folder: Path, part: str) -> dict:
    return json.loads((folder / f"{part}.json").read_text(encoding="utf-8"))
