"""Which parts there are (train, valid, test), what belongs to which, and what prepared data depends on.

Held out by a hash of what an example asks (the source, the text, the sentence, case and outer spaces aside; the pixels of an
image), so that copies are on one side, and more data moves nothing across. Imports no torch.
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pellucid.data.config import DataConfig
from pellucid.data.dates import SPLITS, Split
from pellucid.data.sources import fingerprint
from pellucid.errors import DataError

VERSION = 5
"""Of what is written and of the synthetic generators: raise it when either changes."""
AT_ONCE = 2048
"""Examples that are tokenised together."""
_FROM_TABLES = {"pairs": "pairs", "labels": "texts", "tags": "sentences"}  # kind -> what its examples are called
_FROM_FILES = ("text", "images", *_FROM_TABLES)
_END = 2**64  # above every hash
T = TypeVar("T")
Read = Callable[[DataConfig, Sequence[str], list[str] | None], Iterator[T]]


class TokenizerLike(Protocol):
    """What is asked of a tokenizer here (`pellucid.text.tokenizer.Tokenizer` has it)."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def kind(self) -> str: ...
    @property
    def eos_id(self) -> int | None: ...
    @property
    def unk_id(self) -> int | None: ...
    @property
    def target(self) -> "TokenizerLike": ...
    def encode_batch(self, texts: list[str]) -> list[list[int]]: ...
    def hash(self) -> str: ...


def parts_of(config: DataConfig) -> list[Split]:
    """The parts there will be: those with files of their own, and those that are held out of the training files (or made)."""
    if config.kind not in _FROM_FILES:
        return list(SPLITS)
    held_out = config.holdout > 0 and bool(config.train)
    apart = {"train": bool(config.train), "valid": held_out, "test": held_out and config.kind != "text"}
    return [part for part in SPLITS if getattr(config, part) or apart[part]]


def key_of(config: DataConfig, seed: int, **more: object) -> dict[str, object]:
    """All that prepared data depends on; `more`: what else. Raises DataError: see `refuse_wrong`; missing files."""
    refuse_wrong(config)
    key: dict[str, object] = {"version": VERSION, "kind": config.kind, **more}
    if config.kind not in _FROM_FILES:
        return key | {"seed": seed, "examples": config.examples, "held_out": config.held_out}
    files = {part: fingerprint(getattr(config, part)) for part in SPLITS if getattr(config, part)}
    columns = {"columns": config.columns} if config.kind in _FROM_TABLES else {}
    return key | {"files": files, "holdout": config.holdout} | columns


def refuse_wrong(config: DataConfig) -> None:
    """DataError for a holdout that cannot be, and for columns where there are none."""
    if not 0 <= config.holdout < 0.5:
        raise DataError(f"data.holdout is {config.holdout}: must be at least 0 and less than 0.5")
    if config.columns and config.kind not in _FROM_TABLES:
        raise DataError(
            f"data.columns is {' '.join(config.columns)}, and data.kind {config.kind!r} has no columns",
            "leave it out (one column of a Parquet file as text: FILE.parquet:COLUMN)",
        )


def nothing_left(what: str, part: str) -> DataError:
    """A part (of texts, images, …) that came out empty."""
    return DataError(
        f"no {what} are left for {part}",
        "give more of them (copies stay together, so few different ones may all be held out), or --data.valid and --data.test files",
    )


def read_part(
    config: DataConfig, part: Split, read: Read[T], identity: Callable[[T], str], notes: list[str]
) -> Iterator[T]:
    """The examples of a part: all of its own files, else those of the training files whose `identity` falls to it.

    `read(config, files, notes)` and `identity` are functions of a module, not made on the spot: what they give is remembered.
    Raises DataError where none fall to it.
    """
    if part != "train" and getattr(config, part):
        yield from read(config, getattr(config, part), notes)
        return
    low, high = _borders(config, fingerprint(config.train), read, identity)
    empty = True
    for example in read(config, config.train, notes if part == "train" else None):
        if part == fallen(number_of(identity(example)), low, high):
            empty = False
            yield example
    if empty:
        raise nothing_left(_FROM_TABLES[config.kind], part)


def number_of(text: str) -> int:
    """A hash of a text, in [0, 2**64)."""
    return int.from_bytes(hashlib.blake2b(text.strip().casefold().encode(), digest_size=8).digest(), "big")


def borders(config: DataConfig, numbers: Iterable[int]) -> tuple[int, int]:
    """Hashes below the first are valid, from the second on test: `holdout` of all possible hashes each, and at least one of
    the training files' (`numbers`). A part with files of its own takes none."""
    share = int(config.holdout * 2**64)
    if not share or (config.valid and config.test):
        return 0, _END
    least, most = _END, -1
    for number in numbers:
        least, most = min(least, number), max(most, number)
    return 0 if config.valid else max(share, least + 1), _END if config.test else min(2**64 - share, most)


def fallen(number: int, low: int, high: int) -> Split:
    """The part that a hash falls to."""
    return "valid" if number < low else "test" if number >= high else "train"


@lru_cache(maxsize=4)
def _borders(config: DataConfig, files: str, read: Read[Any], identity: Callable[[Any], str]) -> tuple[int, int]:
    """`files` is the fingerprint of the training files: where they change, they are read again."""
    return borders(config, (number_of(identity(example)) for example in read(config, config.train, None)))


def repeated(part: str, its: Sequence[int], training: Sequence[int], what: str) -> list[str]:
    """A note on how many of a part's examples, told by their hashes, are in training too: none that are held out, but files of
    their own may repeat what training has."""
    known = set(training)
    n = 0 if part == "train" else sum(number in known for number in its)
    if not n:
        return []
    return [
        f"{n:,} of {len(its):,} {what} of {part} are also in training: an answer to them may be remembered, not learnt"
    ]


def batched(items: Iterable[T], n: int) -> Iterator[list[T]]:
    """Lists of n, the last one shorter."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, n)):
        yield batch


def spread(n: int, of: int) -> range | list[int]:
    """n places of `of`, evenly spread (all if n is 0 or too many): the first n of a file sorted by label would be one label."""
    return range(of) if not 0 < n < of else [i * of // n for i in range(n)]


def read_json_lines(file: Path, places: Sequence[int] | None = None, n: int | None = None) -> Iterator[Any]:
    """The objects of a .jsonl file at ascending `places` (None = all), the first n of those (None = all)."""
    with open(file, encoding="utf-8") as lines:
        if places is None:
            yield from map(json.loads, itertools.islice(lines, n))
            return
        wanted = set(places[:n])
        last = max(wanted, default=-1)
        yield from (json.loads(line) for i, line in enumerate(itertools.islice(lines, last + 1)) if i in wanted)


def write_info(folder: Path, part: str, info: dict[str, object]) -> None:
    """What is to be remembered of a part besides its arrays."""
    (folder / f"{part}.json").write_text(json.dumps(info), encoding="utf-8")


def read_info(folder: Path, part: str) -> dict[str, Any]:
    """What `write_info` wrote."""
    return json.loads((folder / f"{part}.json").read_text(encoding="utf-8"))
