"""(score, item) as one int64: the best are found by sorting whole numbers, ties go by item, and no order is left to chance.

numpy sorts rows of whole numbers by vectors of the processor, several times faster than a top-k of floats.
"""

from __future__ import annotations

import numpy as np

_ITEM_BITS = 32
_ITEM_MASK = np.int64((1 << _ITEM_BITS) - 1)
_GROUP = 16
_SMALL = 1 << 20
#: Below the key of every score that is a number.
NOTHING = np.iinfo(np.int64).min


def keys(score: np.ndarray, item: np.ndarray) -> np.ndarray:
    """int64 whose order is that of (score, falling item): the bits of the float32, made to rise, above those of the item."""
    bits = (score + np.float32(0)).view(np.int32)  # -0.0 becomes 0.0: they are equal
    rising = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (rising.astype(np.int64) << _ITEM_BITS) | (_ITEM_MASK - item)


def items(key: np.ndarray) -> np.ndarray:
    """The items in keys; -1 where there is nothing."""
    return np.where(key == NOTHING, -1, _ITEM_MASK - (key & _ITEM_MASK))


def scores(key: np.ndarray) -> np.ndarray:
    """The scores in keys, float32; -inf where there is nothing."""
    rising = (key >> _ITEM_BITS).astype(np.int32)
    score = (rising ^ ((rising >> 31) & 0x7FFFFFFF)).view(np.float32)
    return np.where(key == NOTHING, np.float32(-np.inf), score)


def best(key_bn: np.ndarray, most: int) -> np.ndarray:
    """The ``most`` largest keys of each row, largest first."""
    width = key_bn.shape[1]
    if not most:
        return key_bn[:, :0]
    if width > most:
        key_bn = np.partition(key_bn, width - most, axis=1)[:, width - most :]
    return np.sort(key_bn, axis=1)[:, ::-1]


def best_by_row(row: np.ndarray, key: np.ndarray, rows: int, most: int) -> np.ndarray:
    """The same of keys that lie row by row: (rows, most), NOTHING where a row has fewer."""
    count = np.bincount(row, minlength=rows)
    if rows > 1 and rows * int(count.max()) > 8 * len(row) + _SMALL:  # one long row must not make a matrix of its width for all
        half = rows // 2
        cut = int(count[:half].sum())
        parts = (row[:cut], key[:cut], half), (row[cut:] - half, key[cut:], rows - half)
        return np.concatenate([best_by_row(*part, most) for part in parts])
    return best(by_row(row, key, rows, most), most)


def by_row(row: np.ndarray, key: np.ndarray, rows: int, least: int = 0) -> np.ndarray:
    """Keys that lie row by row as a matrix, NOTHING where a row has fewer than the fullest, or than ``least``."""
    count = np.bincount(row, minlength=rows)
    place = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    out = np.full((rows, max(int(count.max(initial=0)), least)), NOTHING)
    out[row, place] = key
    return out


def bound(score_bn: np.ndarray, most: int) -> np.ndarray:
    """(B, 1): something below the ``most``-th best of each row, at little cost: that many groups have a maximum above it.

    Nothing is above the bound of none.
    """
    if not most:
        return np.full((len(score_bn), 1), np.inf, np.float32)
    groups = score_bn.shape[1] // _GROUP
    if groups < most:
        return np.full((len(score_bn), 1), -np.inf, np.float32)
    maxima = score_bn[:, : groups * _GROUP].reshape(len(score_bn), _GROUP, groups).max(axis=1)
    return np.nextafter(np.partition(maxima, groups - most, axis=1)[:, groups - most, None], np.float32(-np.inf))
