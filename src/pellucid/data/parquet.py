"""Columns of a Parquet file, row by row, through pyarrow (an extra: pip install 'pellucid[parquet]'). Imports no torch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pellucid.errors import DataError, did_you_mean


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """pyarrow's file. Raises DataError (pyarrow is missing, no Parquet, no rows)."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError(f"reading {path} needs pyarrow", "pip install 'pellucid[parquet]'") from None
    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise DataError(f"cannot read {path} as Parquet: {error}", "is it damaged?") from None
    with file:
        if file.metadata.num_rows == 0:
            raise DataError(f"{path} is empty", "give a file with text in it")
        try:
            yield file
        except (OSError, pyarrow.ArrowInvalid) as error:
            raise DataError(f"cannot read {path} as Parquet: {error}", "is it damaged?") from None


def _is_text(kind: Any) -> bool:
    """Strings, also those of categories."""
    from pyarrow import types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    return types.is_string(kind) or types.is_large_string(kind)


def columns_of(path: Path) -> list[str]:
    """The names of the columns in order."""
    with _opened(path) as file:
        return list(file.schema_arrow.names)


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """The values of these columns, row by row: str, int, float, bool, None, or what else is stored."""
    with _opened(path) as file:
        for batch in file.iter_batches(batch_size=1024, columns=list(dict.fromkeys(columns))):
            yield from zip(*(batch.column(name).to_pylist() for name in columns), strict=True)


def read_column(path: Path, column: str) -> Iterator[str]:
    """The rows of a column of strings; missing values are empty strings. Raises DataError (no such column,
    not strings, no rows)."""
    with _opened(path) as file:
        schema = file.schema_arrow
        if column not in schema.names:
            raise DataError(f"{path} has no column {column!r}", did_you_mean(column, schema.names))
        kind = schema.field(column).type
        if not _is_text(kind):
            raise DataError(f"{path}:{column} holds {kind}, not text", "name a column of strings")
    yield from (row or "" for (row,) in read_rows(path, [column]))
