"""How a candidate compares with those beside it: signals standardised within their slate, and their ranks in it."""

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


def _standardised(value: np.ndarray, real_bn: np.ndarray) -> np.ndarray:
    weight = real_bn.astype(np.float32)
    count = np.maximum(weight.sum(axis=1), 1)[:, None]
    out = value - (np.einsum("bfn,bn->bf", value, weight) / count)[..., None]
    out *= weight[:, None]
    deviation = np.sqrt(np.einsum("bfn,bfn->bf", out, out) / count)
    out /= np.maximum(deviation, 1e-3)[..., None]
    return np.clip(out, -_LIMIT, _LIMIT, out=out)


def _reciprocal_ranks(value: np.ndarray, real_bn: np.ndarray) -> np.ndarray:
    """Sorted as whole numbers that hold the value, made to fall, and the place: numpy sorts rows of these by vectors."""
    places = np.arange(value.shape[2])
    falling = np.where(real_bn[:, None], np.float32(0) - value, np.float32(np.inf)) + np.float32(0)
    bits = falling.view(np.int32)
    bits ^= (bits >> 31) & 0x7FFFFFFF
    key = (bits.astype(np.int64) << _PLACE_BITS) | places
    key.sort(axis=2)
    place = key & ((1 << _PLACE_BITS) - 1)
    key >>= _PLACE_BITS
    first = np.zeros(key.shape, np.int32)
    np.multiply(key[..., 1:] != key[..., :-1], places[1:], out=first[..., 1:], casting="unsafe")
    np.maximum.accumulate(first, axis=2, out=first)
    place += (np.arange(place.shape[0] * place.shape[1]) * place.shape[2]).reshape(*place.shape[:2], 1)
    out = np.empty(value.shape, np.float32)
    out.ravel()[place] = (1 / (1 + places)).astype(np.float32).take(first)
    return out
