"""Rules of the house about whole lists, after the ranker has spoken. What must not be listed at all never enters a slate."""

from __future__ import annotations

import numpy as np


def first(order_bn: np.ndarray, item_bn: np.ndarray, most: int, category: np.ndarray, cap: int | None) -> np.ndarray:
    """The first ``most`` places of each row of ``order_bn`` (positions in ``item_bn``, best first) that the rules let stand.

    Of a category (``category`` of each item, -1: none) at most ``cap`` items stand; the list closes up, and may end sooner.
    Returns (B, at most ``most``), -1 padded.
    """
    if cap is None:
        return order_bn[:, :most]
    item = np.take_along_axis(item_bn, order_bn, 1)
    kind = np.where(item >= 0, category[item], -1)
    stands = (item >= 0) & ((kind < 0) | (_nth(kind) < cap))
    kept = np.where(stands, order_bn, -1)
    # Stable: what stands keeps its order and moves up.
    return np.take_along_axis(kept, np.argsort(~stands, axis=1, kind="stable"), 1)[:, :most]


def explored(order_bk: np.ndarray, draw_bn: np.ndarray, most: int, places: int) -> np.ndarray:
    """Of places best first: ``most``, the last ``places`` of which are drawn from themselves and all that follows, by the least ``draw_bn``.

    What is drawn keeps its order. -1 where there is nothing.
    """
    fixed = most - places
    rest = order_bk[:, fixed:]
    draw = np.where(rest >= 0, np.take_along_axis(draw_bn, np.maximum(rest, 0), 1), np.iinfo(draw_bn.dtype).max)
    chosen = np.sort(np.argsort(draw, axis=1, kind="stable")[:, :places], axis=1)
    return np.concatenate([order_bk[:, :fixed], np.take_along_axis(rest, chosen, 1)], axis=1)


def pinned_first(order_bn: np.ndarray, item_bn: np.ndarray, pinned: np.ndarray, places: int) -> np.ndarray:
    """The places of ``order_bn`` with the first ``places`` pinned items of each row before all others (``pinned``: items)."""
    if not len(pinned):
        return order_bn
    which = np.isin(np.take_along_axis(item_bn, order_bn, 1), pinned)
    which &= np.cumsum(which, axis=1) <= places
    return np.take_along_axis(order_bn, np.argsort(~which, axis=1, kind="stable"), 1)


def taken(values_bn: np.ndarray, order_bk: np.ndarray, nothing: float) -> np.ndarray:
    """Values at the places of ``first``; ``nothing`` where it has none."""
    return np.where(order_bk >= 0, np.take_along_axis(values_bn, np.maximum(order_bk, 0), 1), nothing).astype(values_bn.dtype)


def _nth(kind_bn: np.ndarray) -> np.ndarray:
    """How many of the same kind come before each place of its row."""
    order = np.argsort(kind_bn, axis=1, kind="stable")
    ordered = np.take_along_axis(kind_bn, order, 1)
    begins = np.concatenate([np.ones((len(ordered), 1), bool), ordered[:, 1:] != ordered[:, :-1]], axis=1)
    at = np.broadcast_to(np.arange(kind_bn.shape[1]), kind_bn.shape)
    start = np.maximum.accumulate(np.where(begins, at, 0), axis=1)
    out = np.empty_like(order)
    np.put_along_axis(out, order, at - start, 1)
    return out
