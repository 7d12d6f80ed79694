"""Texts and the label of each: from tables to batches. A batch is a pure function of (seed, step), bucketed by length. torch is
imported where a batch becomes tensors."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.data.buckets import Buckets
from pellucid.data.config import DataConfig
from pellucid.data.dates import Split
from pellucid.data.files import Example
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
from pellucid.data.tables import LABEL, TEXT, both_given, read_table
from pellucid.data.tokenised import Ragged, Writer, cached, open_flat, open_ragged
from pellucid.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

_WHAT = "texts", "label"


@dataclass(frozen=True)
class LabelSet:
    """One part, tokenised. `labels` int64 [N]: places in `names`, UNSEEN (-1) for a label that training never shows; `notes`:
    what a person should be told."""

    texts: Ragged
    labels: np.ndarray
    names: tuple[str, ...]
    file: Path
    notes: tuple[str, ...] = ()
    places: Sequence[int] | None = None

    def examples(self, n: int | None = None) -> list[Example]:
        """The first n (None = all) texts (`source`) and their labels as the file has them (`target`), read from disk."""
        return [Example(*pair) for pair in read_json_lines(self.file, self.places, n)]

    def first(self, n: int) -> "LabelSet":
        """n of them (0 = all), evenly spread over the part: a file may be sorted by label."""
        places = spread(n, len(self.labels))
        if len(places) == len(self.labels):
            return self
        return replace(self, texts=self.texts.take(places), labels=self.labels[places], places=places)


def prepare_labels(
    config: DataConfig, tokenizer: TokenizerLike, seed: int, names: tuple[str, ...] | None = None
) -> dict[str, LabelSet]:
    """{"train": LabelSet, "valid": …, "test": …}, those that exist; files are read only if they, the tokenizer or the options
    changed. `names`: labels in the order of a model that knows them; None = those of the training part, sorted (by value if
    all are whole numbers).

    Rows without a text or a label are skipped and counted in `notes`. Raises DataError: see `read_table` and `labels.settle`.
    """

    def fill(folder: Path) -> None:
        numbers, asked = Numbers(), dict[str, list[int]]()
        for part in parts_of(config):
            notes: list[str] = []
            asked[part] = []
            with (
                Writer(folder, f"{part}.text", tokenizer.vocab_size) as texts,
                open(folder / f"{part}.labels", "wb") as labels,
                open(folder / f"{part}.jsonl", "w", encoding="utf-8", newline="\n") as raw,
            ):
                for batch in batched(_rows(config, part, notes), AT_ONCE):
                    raw.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in batch)
                    texts.extend(tokenizer.encode_batch([text for text, _ in batch]))
                    labels.write(np.array([numbers[label] for _, label in batch], "<i8").tobytes())
                    asked[part] += [number_of(text) for text, _ in batch]
            if not texts.count:
                raise DataError(f"no texts are left for {part}", "give more, or --data.valid and --data.test files")
            notes += repeated(part, asked[part], asked.get("train", []), _WHAT[0])
            write_info(folder, part, {"notes": notes})
        write_info(folder, "labels", {"known": list(numbers)})

    folder = cached(key_of(config, seed, tokenizer=tokenizer.hash()), fill)
    parts, known = parts_of(config), read_info(folder, "labels")["known"]
    labels = {part: open_flat(folder / f"{part}.labels", "<i8") for part in parts}
    counts = {part: np.bincount(labels[part], minlength=len(known)) for part in parts}
    settled = settle(known, {str(part): count for part, count in counts.items()}, names, _WHAT)
    found: dict[str, LabelSet] = {}
    for part in parts:
        notes = (*read_info(folder, part)["notes"], *settled.notes[part])
        texts, file = open_ragged(folder, f"{part}.text"), folder / f"{part}.jsonl"
        found[part] = LabelSet(texts, settled.table[labels[part]], settled.names, file, notes)
    return found


def training_texts(config: DataConfig) -> Iterator[str]:
    """The texts of the training part."""
    return (text for text, _ in _rows(config, "train", []))


def _rows(config: DataConfig, part: Split, notes: list[str]) -> Iterator[tuple[str, str]]:
    return read_part(config, part, _read, _text, notes)


def _read(config: DataConfig, files: Sequence[str], notes: list[str] | None) -> Iterator[tuple[str, str]]:
    return both_given(read_table(files, (TEXT, LABEL), config.columns, notes), "rows", "no text or no label", notes)


def _text(row: tuple[str, str]) -> str:
    return row[0]


class LabelData:
    """Batches of texts and their labels, about `batch_tokens` tokens each (padding not counted), in training only those with a
    label that is known. Texts longer than `max_length`, <bos> and <eos> counted, lose their end; `notes` says how many."""

    def __init__(
        self,
        texts: Ragged,
        labels: np.ndarray,
        *,
        pad_id: int,
        bos_id: int,
        eos_id: int,
        batch_tokens: int,
        seed: int = 0,
        max_length: int | None = None,
    ) -> None:
        if len(texts) != len(labels):
            raise ValueError(f"{len(texts)} texts, {len(labels)} labels")
        self.framed = Framed(texts, pad_id, bos_id, eos_id, max_length)
        self.labels, self.batch_tokens, self.seed = labels, batch_tokens, seed
        self.notes = self.framed.notes("texts")
        self._kept = np.flatnonzero(labels != UNSEEN)

    def __len__(self) -> int:
        """Texts per epoch."""
        return len(self._kept)

    @cached_property
    def buckets(self) -> Buckets:
        """The plan of the epochs. Raises DataError where no text has a known label."""
        return self.framed.buckets(self._kept, self.batch_tokens, self.seed)

    @property
    def steps_per_epoch(self) -> int:
        """Batches."""
        return self.buckets.steps_per_epoch

    def rows(self, step: int) -> np.ndarray:
        """The texts of a step's batch, as places in `texts`: int64 [B]."""
        return self._kept[self.buckets.rows(step)]

    def batch(self, step: int) -> "dict[str, Tensor]":
        """The global batch of a step, see `collate`. A pure function of (seed, step)."""
        return self.collate(self.rows(step))

    def collate(self, rows: np.ndarray) -> "dict[str, Tensor]":
        """Rows [B] -> "ids" int64 [B,T], "keep" bool [B,T] (True on tokens), "labels" int64 [B]."""
        import torch

        arrays = {**self.framed.arrays(rows), "labels": self.labels[rows]}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def sequential(self, batch_tokens: int | None = None) -> "Iterator[dict[str, Any]]":
        """Every text once, also those whose label is UNSEEN; long ones first, at most `batch_tokens` a batch with padding.
        Batches as of `collate`, and "rows" int64 [B]: places in `texts`."""
        import torch

        size = batch_tokens or self.batch_tokens
        for rows in self.framed.buckets(np.arange(len(self.labels)), size).sequential(size):
            yield {**self.collate(rows), "rows": torch.from_numpy(rows)}
