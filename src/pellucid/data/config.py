"""Where the data of a run comes from and how it becomes tokens. Imports no torch."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class DataConfig:
    """`train`, `valid`, `test`: files or globs. Pairs: two files (source, target), or TSV files of two
    columns; text: plain, .gz, or FILE.parquet:COLUMN.

    Without `valid` (or `test`) files, `holdout` of the training pairs is set apart for each; of a text, the
    last share for `valid` alone. kind = dates, copy or reverse makes its own examples.
    """

    kind: Literal["pairs", "text", "dates", "copy", "reverse"] = "text"
    train: tuple[str, ...] = ()
    valid: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    tokenizer: Literal["byte-bpe", "bpe", "wordpiece", "unigram", "char", "word"] = "byte-bpe"
    vocab_size: int = 8000
    lowercase: bool = False
    examples: int = 100_000
    held_out: int = 2_000
    holdout: float = 0.05
