"""How a candidate compares with those beside it: signals standardised within their slate, their ranks in it, and among its like."""

from __future__ import annotations

import numpy as np

_PLACE_BITS = 16
_LIMIT = 5.0
_USERS = 32


def compare(main_bnf: np.ndarray, real_bn: np.ndarray, standard_bnf: np.ndarray, rank_bnf: np.ndarray) -> None:
    """Fill two arrays of the shape of ``main``: standard scores, and 1 / (1 + number of candidates with a greater value).

    Equals share a rank. Candidates are made the last axis, so that sums and sorts run along rows, a few users at a time, so that
    what is sorted stays in the cache.
    """
    for at in range(0, len(main_bnf), _USERS):
        part = slice(at, at + _USERS)
        value = np.ascontiguousarray(main_bnf[part].transpose(0, 2, 1))
        standard_bnf[part] = _standardised(value, real_bn[part]).transpose(0, 2, 1)
        rank_bnf[part] = _reciprocal_ranks(value, real_bn[part]).transpose(0, 2, 1)


def standings(code_bnm: np.ndarray, value_bnv: np.ndarray, real_bn: np.ndarray) -> np.ndarray:
    """(B, N, M * V) float32: 1 / (1 + number of candidates with the same code and a greater value), for each code and value.

    Equals share a place; 0 where a candidate has no code (-1) or is none. An edition that is out of date, a substitute beside a
    better one: what is beside it on the slate tells, nothing else does.
    """
    users, candidates, codes = code_bnm.shape
    values = value_bnv.shape[2]
    out = np.empty((users, candidates, codes, values), np.float32)
    table = _reciprocals(candidates)
    for at in range(0, users, _USERS):
        part = slice(at, at + _USERS)
        code = np.where(real_bn[part, :, None], code_bnm[part], -1).transpose(0, 2, 1)
        rank = _ranks(np.ascontiguousarray(value_bnv[part].transpose(0, 2, 1), np.float32), real_bn[part])
        key = (code.astype(np.int64)[:, :, None] << 2 * _PLACE_BITS) | (rank.astype(np.int64)[:, None] << _PLACE_BITS)
        key = key.reshape(len(key), codes * values, candidates)
        place = _sort(key)
        among = _starts(key)
        key >>= _PLACE_BITS
        among -= _starts(key)
        found = table.take(_put_back(among, place)).reshape(-1, codes, values, candidates)
        found *= (code >= 0)[:, :, None]
        out[part] = found.transpose(0, 3, 1, 2)
    return out.reshape(users, candidates, -1)


def _standardised(value: np.ndarray, real_bn: np.ndarray) -> np.ndarray:
    weight = real_bn.astype(np.float32)
    count = np.maximum(weight.sum(axis=1), 1)[:, None]
    out = value - (np.einsum("bfn,bn->bf", value, weight) / count)[..., None]
    out *= weight[:, None]
    deviation = np.sqrt(np.einsum("bfn,bfn->bf", out, out) / count)
    out /= np.maximum(deviation, 1e-3)[..., None]
    return np.clip(out, -_LIMIT, _LIMIT, out=out)


def _reciprocal_ranks(value: np.ndarray, real_bn: np.ndarray) -> np.ndarray:
    return _reciprocals(value.shape[2]).take(_ranks(value, real_bn))


def _ranks(value: np.ndarray, real_bn: np.ndarray) -> np.ndarray:
    """(B, F, N) int32: number of greater values in the row, of what is real.

    Sorted as whole numbers that hold the value, made to fall, and the place: numpy sorts rows of these by vectors.
    """
    falling = np.where(real_bn[:, None], np.float32(0) - value, np.float32(np.inf)) + np.float32(0)
    bits = falling.view(np.int32)
    bits ^= (bits >> 31) & 0x7FFFFFFF
    key = bits.astype(np.int64) << _PLACE_BITS
    place = _sort(key)
    return _put_back(_starts(key), place)


def _reciprocals(candidates: int) -> np.ndarray:
    return (1 / (1 + np.arange(candidates))).astype(np.float32)


def _sort(key: np.ndarray) -> np.ndarray:
    """Sort rows in place, whose lowest bits are free; what is left of the key, shifted, and the place that each came from."""
    key |= np.arange(key.shape[2])
    key.sort(axis=2)
    place = key & ((1 << _PLACE_BITS) - 1)
    key >>= _PLACE_BITS
    return place


def _starts(key: np.ndarray) -> np.ndarray:
    """Where the run of equals begins that each place of a sorted row is in, int32."""
    first = np.zeros(key.shape, np.int32)
    np.multiply(key[..., 1:] != key[..., :-1], np.arange(1, key.shape[2]), out=first[..., 1:], casting="unsafe")
    return np.maximum.accumulate(first, axis=2, out=first)


def _put_back(sorted_bfn: np.ndarray, place: np.ndarray) -> np.ndarray:
    out = np.empty(sorted_bfn.shape, sorted_bfn.dtype)
    place += (np.arange(place.shape[0] * place.shape[1]) * place.shape[2]).reshape(*place.shape[:2], 1)
    out.ravel()[place] = sorted_bfn
    return out
