"""Texts and the label of each: from tables to sets. Their batches: `framed`. Imports no torch."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pellucid.data.columns import LABEL, TEXT
from pellucid.data.config import DataConfig
from pellucid.data.dates import Split
from pellucid.data.files import Example
from pellucid.data.framed import FramedData as LabelData
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
from pellucid.data.tables import both_given, read_table
from pellucid.data.tokenised import Ragged, Writer, cached, open_flat, open_ragged

__all__ = ["LabelData", "LabelSet", "prepare_labels", "training_texts"]

_WHAT = Named("texts", "label", "are the columns the right ones? --data.columns TEXT LABEL")


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
            notes += repeated(part, asked[part], asked.get("train", []), _WHAT.examples)
            write_info(folder, part, {"notes": notes})
        write_info(folder, "labels", {"known": list(numbers)})

    folder = cached(key_of(config, seed, tokenizer=tokenizer.hash()), fill)
    labels = {part: open_flat(folder / f"{part}.labels", "<i8") for part in parts_of(config)}
    settled = settled_in(folder, labels, names, _WHAT)
    found: dict[str, LabelSet] = {}
    for part, its in labels.items():
        texts, file = open_ragged(folder, f"{part}.text"), folder / f"{part}.jsonl"
        found[part] = LabelSet(texts, settled.table[its], settled.names, file, tuple(settled.notes[part]))
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
