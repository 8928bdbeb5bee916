"""Tables as others have them -> Arrow and back: Arrow itself, pandas, and dicts of numpy arrays as Ray passes them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa


def to_arrow(batch: Any) -> tuple[pa.Table, Callable[[pa.Table], Any]]:
    """A table, and what makes its kind of an Arrow table.

    Raises:
        TypeError: something else; the sentence lists what is taken.
    """
    if isinstance(batch, pa.Table):
        return batch, lambda table: table
    if isinstance(batch, pa.RecordBatch):
        return pa.Table.from_batches([batch]), _to_record_batch
    if isinstance(batch, Mapping):
        return pa.table({name: _column(values) for name, values in batch.items()}), _to_numpy
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(batch, pandas.DataFrame):
        table = pa.Table.from_pandas(batch, preserve_index=False)
        return table, lambda results: _to_pandas(batch, results)
    raise TypeError(
        f"expected a table or record batch of pyarrow, a DataFrame of pandas or a dict of numpy arrays, "
        f"got {type(batch).__name__}"
    )


def _column(values: Any) -> pa.Array:
    """Of a numpy array; those of several dimensions become lists."""
    array = np.asarray(values)
    if array.ndim > 1:
        return pa.array(list(array))
    return pa.array(array, from_pandas=True)


def _to_record_batch(table: pa.Table) -> pa.RecordBatch:
    combined = table.combine_chunks().to_batches()
    return combined[0] if combined else pa.RecordBatch.from_pylist([], schema=table.schema)


def _to_numpy(table: pa.Table) -> dict[str, Any]:
    return {name: _array(table.column(name)) for name in table.column_names}


def _array(column: pa.ChunkedArray) -> Any:
    """Vectors of a fixed size become a matrix, where none is missing; other lists an array of objects."""
    if pa.types.is_fixed_size_list(column.type) and not column.null_count:
        whole = column.combine_chunks()
        return whole.flatten().to_numpy(zero_copy_only=False).reshape(len(whole), column.type.list_size)
    return column.to_numpy()


def _to_pandas(batch: Any, table: pa.Table) -> Any:
    """The caller's frame, its index and its own columns as they were, with what is new."""
    new = {name: table.column(name).to_pandas() for name in table.column_names if name not in batch.columns}
    return batch.assign(**{name: values.to_numpy() for name, values in new.items()})
