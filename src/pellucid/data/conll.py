"""Sentences of tagged words: CoNLL files (a word … its tag on each line, a blank line behind each sentence; Tjong Kim Sang and
De Meulder 2003), CoNLL-U (ten columns, of which form and UPOS count; universaldependencies.org/format.html), or JSONL and Parquet
{"tokens": […], "tags": […]}. Imports no torch."""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from pellucid.data.columns import Role, chosen, pick
from pellucid.data.parquet import columns_of, read_rows
from pellucid.data.sources import Source, expand, lines_of
from pellucid.data.tables import format_of, json_objects, plain
from pellucid.errors import DataError

WORDS = Role("words", ("tokens", "words"))
TAGS = Role("tags", ("tags", "ner_tags", "labels", "pos_tags", "upos"))
_EXAMPLE = "write a word, a tab character and its tag on each line, and a blank line behind each sentence"
_UNIVERSAL = re.compile(r"([0-9]+)([-.][0-9]+)?(\t[^\t]*){9}")
"""A line of CoNLL-U: ten columns, the first a word's number; 1-2 is a contraction of the words below it, 1.1 a word left out."""


class Sentence(NamedTuple):
    """Words and a tag for each."""

    words: tuple[str, ...]
    tags: tuple[str, ...]


def read_sentences(
    patterns: Iterable[str], columns: Sequence[str] = (), notes: list[str] | None = None
) -> Iterator[Sentence]:
    """The tagged sentences of all files. `columns`: of CoNLL files the numbers (from 1) of the word's and the tag's column, else
    the first and the last, of CoNLL-U the second and the fourth; of JSONL and Parquet the two keys. Files ending in .jsonl
    (.ndjson, .json) and .parquet are those. `notes` is told which columns were taken.

    Raises DataError with file and line: a word without a tag, lists of unequal length, no sentence at all.
    """
    if len(columns) not in (0, 2):
        raise DataError(f"data.columns has {len(columns)} names: {' '.join(columns)}", "name two: words and tags")
    told: dict[str, str] = {}
    for source in expand(patterns):
        n = empty = 0
        for sentence in _READERS.get(format_of(source), _conll)(source, columns, told):
            n += 1
            if sentence.words:
                yield sentence
            else:
                empty += 1
        if n == empty:
            raise DataError(f"{source} has no tagged words", _EXAMPLE)
        if empty and notes is not None:
            notes.append(f"{empty:,} sentences of {source} have no words: skipped")
    if notes is not None:
        notes += told.values()


def _conll(source: Source, columns: Sequence[str], told: dict[str, str]) -> Iterator[Sentence]:
    head = (line for line in lines_of(source) if line.strip() and not line.startswith(("# ", "-DOCSTART-")))
    universal = _UNIVERSAL.fullmatch(next(head, "")) is not None
    places = _places(source, columns, universal)
    taken = " and ".join(str(place + 1) if place >= 0 else "the last" for place in places)
    told.setdefault(taken, f"{source}: {'CoNLL-U; ' * universal}words and tags are columns {taken}")
    words: list[str] = []
    tags: list[str] = []
    for number, line in enumerate(itertools.chain(lines_of(source), [""]), 1):
        if not line.strip() or line.startswith("-DOCSTART-"):
            if words:
                yield Sentence(tuple(words), tuple(tags))
            words, tags = [], []
        elif not words and line.startswith("# "):  # a comment stands before a sentence; within, "#" is a word
            continue
        elif not (universal and (found := _UNIVERSAL.fullmatch(line)) and found[2]):
            cells = [cell.strip() for cell in (line.split("\t") if "\t" in line else line.split())]
            if len(cells) < 2 or max(places) >= len(cells) or not (cells[places[0]] and cells[places[1]]):
                raise DataError(f"{source} line {number}: a word and its tag are needed: {line[:60]!r}", _EXAMPLE)
            words.append(cells[places[0]])
            tags.append(cells[places[1]])


def _places(source: Source, columns: Sequence[str], universal: bool) -> tuple[int, int]:
    if not columns:
        return (1, 3) if universal else (0, -1)
    if not all(column.isdecimal() and int(column) for column in columns):
        raise DataError(f"{source}: data.columns is {' '.join(columns)}", "columns of CoNLL files are numbers, from 1")
    return int(columns[0]) - 1, int(columns[1]) - 1


def _jsonl(source: Source, columns: Sequence[str], told: dict[str, str]) -> Iterator[Sentence]:
    keys: list[str] = []
    for record, where in json_objects(source):
        if not keys:
            keys = _keys(list(record), source, columns, told)
        yield _sentence([record.get(key) for key in keys], keys, where)


def _parquet(source: Source, columns: Sequence[str], told: dict[str, str]) -> Iterator[Sentence]:
    keys = _keys(columns_of(source.path), source, columns, told)
    for number, row in enumerate(read_rows(source.path, keys), 1):
        yield _sentence(row, keys, f"{source} row {number}")


def _keys(names: Sequence[str], source: Source, columns: Sequence[str], told: dict[str, str]) -> list[str]:
    keys = pick(names, (WORDS, TAGS), columns, str(source))
    taken = chosen((WORDS, TAGS), keys)
    told.setdefault(taken, f"{source}: {taken}")
    return keys


_READERS = {"jsonl": _jsonl, "parquet": _parquet}


def _sentence(lists: Sequence[Any], keys: list[str], where: str) -> Sentence:
    words, tags = (_texts(value, key, where) for value, key in zip(lists, keys, strict=True))
    if len(words) != len(tags):
        raise DataError(f"{where}: {len(words)} {keys[0]}, {len(tags)} {keys[1]}", "each word needs one tag")
    return Sentence(words, tags)


def _texts(value: Any, key: str, where: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise DataError(f"{where}: {key!r} is no list", '{"tokens": ["Anna", "sleeps"], "tags": ["B-PER", "O"]}')
    found = tuple(plain(one, where).strip() for one in value)
    if not all(found):
        raise DataError(f"{where}: number {found.index('') + 1} of {key!r} is empty", "each word needs one tag")
    return found
