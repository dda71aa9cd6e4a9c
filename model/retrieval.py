"""Retrieval: the exact best items of the whole catalogue for each user, in memory that does not grow with the catalogue.

Items are scored a block at a time into one buffer. A row keeps its best so far; of a new block only what beats the last of
them is looked at, which after a few blocks is next to nothing: most of the time goes into the product of matrices.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from model.pairs import Pairs

_BLOCK = 8_192
"""Items a block: scores of 256 users then fit into a processor's cache of 8 MiB."""
_GROUP = 16
_ITEM_BITS = 32
_ITEM_MASK = (1 << _ITEM_BITS) - 1
#: Below the key of every finite score.
_NOTHING = torch.iinfo(torch.int64).min


@torch.no_grad()
def top_of_catalogue(
    x_BD: Tensor, y_ID: Tensor, bias_I: Tensor, extra: Pairs | None, barred: Pairs | None, most: int, block: int = _BLOCK
) -> np.ndarray:
    """Exact top ``most`` of x·y + bias (+ extra of a pair) over all items, ties by item; (B, most), -1 where nothing is left.

    ``bias_I`` is -inf where an item may not be recommended; ``barred`` pairs are left out. Both are applied before the cut,
    so that no list is shorter for them than it has to be.
    """
    rows, items = len(x_BD), len(y_ID)
    most = min(most, items)
    best = torch.full((rows, most), _NOTHING)
    if not most or not rows:
        return np.zeros((rows, most), np.int64)
    buffer = torch.empty(rows * min(block, items))
    more, less = (_by_block(pairs, items, block) for pairs in (extra, barred))
    for start in range(0, items, block):
        y = y_ID[start : start + block]
        score = buffer[: rows * len(y)].view(rows, -1)
        torch.addmm(bias_I[start : start + block], x_BD, y.T, out=score)
        if more is not None:
            row, item, value = more(start)
            score.index_put_((row, item), value, accumulate=True)
        if less is not None:
            row, item, _ = less(start)
            score[row, item] = -torch.inf
        if not start:
            last = _bound(score, most)
        best, last = _improved(best, last, score, start)
    return np.where(best.numpy() == _NOTHING, -1, _ITEM_MASK - (best.numpy() & _ITEM_MASK))


def _bound(score: Tensor, most: int) -> Tensor:
    """Something below the ``most``-th best of each row, at little cost: that many groups have a maximum above it."""
    groups = score.shape[1] // _GROUP
    if groups < most:
        return torch.full((len(score), 1), -torch.inf)
    maxima = score[:, : groups * _GROUP].unflatten(1, (groups, _GROUP)).amax(dim=2)
    return torch.nextafter(maxima.topk(most, dim=1).values[:, -1:], torch.tensor(-torch.inf))


def _improved(best: Tensor, last: Tensor, score: Tensor, start: int) -> tuple[Tensor, Tensor]:
    """The best keys of each row and the score of its last, with a block more. A later item needs a better score, not an equal one."""
    # numpy finds the few that are true five times faster than torch.
    at = torch.from_numpy(np.flatnonzero((score > last).numpy()))
    if not len(at):
        return best, last
    row, item = at // score.shape[1], at % score.shape[1]
    count = torch.bincount(row, minlength=len(best))
    place = torch.arange(len(row)) - (count.cumsum(0) - count)[row]
    found = torch.full((len(best), int(count.max())), _NOTHING)
    found[row, place] = _keys(score[row, item], item + start)
    best = torch.cat([best, found], dim=1).topk(best.shape[1], dim=1).values
    return best, _scores(best[:, -1:])


def _keys(score: Tensor, item: Tensor) -> Tensor:
    """int64 whose order is that of (score, falling item): the bits of the float, made to rise, above those of the item."""
    bits = (score + 0.0).view(torch.int32)  # -0.0 becomes 0.0: they are equal
    rising = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (rising.to(torch.int64) << _ITEM_BITS) | (_ITEM_MASK - item)


def _scores(keys: Tensor) -> Tensor:
    """The scores in keys; -inf where there is nothing."""
    rising = (keys >> _ITEM_BITS).to(torch.int32)
    score = (rising ^ ((rising >> 31) & 0x7FFFFFFF)).view(torch.float32)
    return torch.where(keys == _NOTHING, -torch.inf, score)


def _by_block(pairs: Pairs | None, items: int, block: int):  # type: ignore[no-untyped-def]
    """A function from a block's first item to (row, item in the block, value) of its pairs."""
    if pairs is None or not len(pairs.keys):
        return None
    order = np.argsort(pairs.item, kind="stable")
    row, item = pairs.user[order], pairs.item[order]
    value = pairs.values[order, 0].astype(np.float32)
    bounds = np.searchsorted(item, np.arange(0, items + block, block))

    def of(start: int) -> tuple[Tensor, Tensor, Tensor]:
        mine = slice(bounds[start // block], bounds[start // block + 1])
        return tuple(torch.from_numpy(a[mine]) for a in (row, item - start, value))  # type: ignore[return-value]

    return of
