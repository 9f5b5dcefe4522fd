"""Parquet files that another tool may have written, or a disk have damaged, read after their schema."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pixelvla_core.errors import DataError


def parse(content: bytes, path: Path, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """Return a file's columns in the types of a schema, others left out.

    Args:
        content: of the file.
        path: where it is from, for messages.
        schema: all columns that the file must have; it may have more.
        columns: those that are read; all of them if left out.

    Raises:
        DataError: it is no Parquet, is damaged, lacks columns, or has other types or nulls.
    """
    wanted = pa.schema([schema.field(name) for name in columns or schema.names])
    try:
        file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
        there = file.schema_arrow.names
        table = file.read([name for name in wanted.names if name in there], use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path} is damaged: it cannot be read as Parquet ({_first_line(error)}). Copy it again, or let the tool "
            "that wrote it write it again."
        ) from error
    if missing := [name for name in schema.names if name not in there]:
        raise DataError(f"{path} lacks the columns {', '.join(missing)}; docs/annotations.md lists all of them.")
    try:
        table = table.replace_schema_metadata(None).select(wanted.names)
        return table if table.schema == wanted else table.cast(wanted)
    except (pa.ArrowException, ValueError) as error:
        raise DataError(
            f"{path} has a column of another type than docs/annotations.md lists: {_first_line(error)}. The tool that "
            "wrote it must write it again."
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
