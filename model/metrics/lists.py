"""Lists of items laid end to end, whether they came as Python sequences or as an Arrow list array."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

#: One list of values a user, best first: Python sequences or an Arrow list array. A NULL list is an empty one.
Lists: TypeAlias = Sequence[Sequence[Hashable]] | pa.Array | pa.ChunkedArray


@dataclass(frozen=True)
class Ragged:
    """The values, whose list each is in (rows) and at which place, from 0; lengths: one a list."""

    values: pa.Array
    rows: np.ndarray
    places: np.ndarray
    lengths: np.ndarray


def ragged(lists: Lists) -> Ragged:
    """Lay the lists end to end."""
    array = lists if isinstance(lists, pa.Array | pa.ChunkedArray) else pa.array(lists)
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if pa.types.is_null(array.type) or (pa.types.is_list(array.type) and pa.types.is_null(array.type.value_type)):
        array = array.cast(pa.list_(pa.string()))  # only empty lists: nothing tells the type of their items
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    starts = np.cumsum(lengths) - lengths
    return Ragged(array.flatten(), rows, np.arange(len(rows)) - np.repeat(starts, lengths), lengths)


def grid(lists: Lists, k: int) -> np.ndarray:
    """The first k numbers of each list, [U, k] float64; NaN behind the end of a list and for NULL. Raises ValueError for k < 1."""
    if k < 1:
        raise ValueError(f"k = {k}: at least one place is needed")
    shown = ragged(lists)
    out = np.full((len(shown.lengths), k), np.nan)
    inside = shown.places < k
    values = pc.cast(shown.values, pa.float64()).to_numpy(zero_copy_only=False)
    out[shown.rows[inside], shown.places[inside]] = values[inside]
    return out


def mean_of_known(values_UK: np.ndarray) -> np.ndarray:
    """Mean of the numbers in each row, [U]; NaN for a row without one."""
    known_UK = ~np.isnan(values_UK)
    with np.errstate(invalid="ignore"):
        return np.where(known_UK, values_UK, 0).sum(1) / known_UK.sum(1)
