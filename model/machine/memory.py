"""Memory that is freed: kept for the next block of users, which needs as much again; given back after a stage that will not."""

from __future__ import annotations

import ctypes
import functools
import sys

import pyarrow as pa

_TRIM, _MMAP = -1, -3
_KEPT = 1 << 30
_LARGEST = 32 << 20
"""Larger arrays are given back all the same: glibc allows no more."""


@functools.cache
def keep_freed() -> bool:
    """Tell glibc so, once in a process; elsewhere nothing is done, and False returned.

    A block of users needs the same arrays of some MiB again and again. By default each is mapped, filled with zeros by the
    system page by page, and unmapped: a third of the time of scoring.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_MMAP, _LARGEST)) and bool(mallopt(_TRIM, _KEPT))


def give_back() -> None:
    """Return what is freed to the system: Arrow's pool keeps it, and glibc where arrays of other sizes came and went."""
    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is not None:
        trim(0)
