"""A text column of a Parquet file, row by row, through pyarrow (an extra: pip install 'pellucid[parquet]').
Imports no torch."""

from collections.abc import Iterator
from pathlib import Path

from pellucid.errors import DataError, did_you_mean


def read_column(path: Path, column: str) -> Iterator[str]:
    """The rows of a column of strings; missing values are empty strings. Raises DataError (no such column,
    not strings, no rows)."""
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
        schema = file.schema_arrow
        if column not in schema.names:
            raise DataError(f"{path} has no column {column!r}", did_you_mean(column, schema.names))
        kind = schema.field(column).type
        if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
            raise DataError(f"{path}:{column} holds {kind}, not text", "name a column of strings")
        if file.metadata.num_rows == 0:
            raise DataError(f"{path} is empty", "give a file with text in it")
        for batch in file.iter_batches(batch_size=1024, columns=[column]):
            yield from (row or "" for row in batch.column(0).to_pylist())
