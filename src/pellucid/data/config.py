"""Where the data of a run comes from and how it becomes tokens. Imports no torch."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

PYTHON = "python:"
"""Before a glob: among the sources of the running Python's library ("python:**/*.py")."""


def absolute(names: Iterable[str]) -> tuple[str, ...]:
    """Files and globs so that they mean the same from any folder."""
    return tuple(n if n.startswith(PYTHON) else os.path.abspath(os.path.expanduser(n)) for n in names)


@dataclass(frozen=True)
class DataConfig:
    """`train`, `valid`, `test`: files or globs. Text: plain, .gz, or FILE.parquet:COLUMN. Pairs: two files (source, target), or tables
    (TSV, CSV, JSONL, Parquet) of two columns. Labels: tables of a text and a label. Tags: a word and its tag a line, a blank line behind
    each sentence, or JSONL. Images: a folder with a folder for each label, or IDX files (images, labels).

    `columns`: the names of the two columns that count; none = told by their names, or the only two. Without `valid` (or `test`) files,
    `holdout` of the training examples is set apart for each; of a text, the last share for `valid` alone. kind = dates, copy or reverse
    makes its own examples. Images in training: `shift`, moved by up to so many pixels; `flip`, mirrored half of the time.
    """

    kind: Literal["pairs", "text", "labels", "tags", "images", "dates", "copy", "reverse"] = "text"
    columns: tuple[str, ...] = ()
    train: tuple[str, ...] = ()
    valid: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    tokenizer: Literal["byte-bpe", "bpe", "wordpiece", "unigram", "char", "word"] = "byte-bpe"
    vocab_size: int = 8000
    lowercase: bool = False
    examples: int = 100_000
    held_out: int = 2_000
    holdout: float = 0.05
    shift: int = 0
    flip: bool = False
