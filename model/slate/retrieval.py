"""Retrieval: the exact best items of the whole catalogue for each user, in memory that does not grow with the catalogue.

Items are scored a block at a time into one buffer. A row keeps its best so far; of a new block only what beats the last of
them is looked at, which after a few blocks is next to nothing: most of the time goes into the product of matrices.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from model.as_of.keys import NOTHING, best, bound, by_row, items, keys, scores
from model.as_of.pairs import Pairs
from model.machine.device import accelerator
from model.slate.retrieval_device import top_on

_BLOCK = 8_192
"""Items a block: scores of 256 users then fit into a processor's cache of 8 MiB."""
_BLOCK_THERE = 131_072
"""Where an accelerator has memory for more, which saves starting its kernels again and again."""


@torch.no_grad()
def top_of_catalogue(
    x_BD: Tensor, y_ID: Tensor, bias_I: Tensor, extra: Pairs | None, barred: Pairs | None, most: int, block: int | None = None
) -> np.ndarray:
    """Exact top ``most`` of x·y + bias (+ extra of a pair) over all items, ties by item; (B, most), -1 where nothing is left.

    ``bias_I`` is -inf where an item may not be recommended; ``barred`` pairs are left out. Both are applied before the cut,
    so that no list is shorter for them than it has to be.
    """
    rows, catalogue = len(x_BD), len(y_ID)
    most = min(most, catalogue)
    where = accelerator()
    block = block or (_BLOCK if where is None else _BLOCK_THERE)
    found = np.full((rows, most), NOTHING)
    if not most or not rows:
        return np.zeros((rows, most), np.int64)
    more, less = (by_block(pairs, catalogue, block) for pairs in (extra, barred))
    if where is not None:
        return top_on(where, x_BD, y_ID, bias_I, more, less, most, block)
    buffer = torch.empty(rows * min(block, catalogue))
    beats = np.empty(rows * min(block, catalogue), bool)
    for start in range(0, catalogue, block):
        y = y_ID[start : start + block]
        product = buffer[: rows * len(y)].view(rows, -1)
        score = torch.addmm(bias_I[start : start + block], x_BD, y.T, out=product).numpy()
        if more is not None:
            row, item, value = more(start)
            score[row, item] += value
        if less is not None:
            row, item, _ = less(start)
            score[row, item] = -np.inf
        if not start:
            last = bound(score, most)
        # Into a buffer, and looked through by numpy: several times faster than torch's comparison and nonzero.
        at = np.flatnonzero(np.greater(score, last, out=beats[: score.size].reshape(score.shape)))
        if len(at):
            row, item = np.divmod(at, score.shape[1])
            new = by_row(row, keys(score.ravel()[at], item + start), rows)
            found = best(np.concatenate([found, new], axis=1), most)
            last = scores(found[:, -1:])  # a later item needs a better score, not an equal one
    return items(found)


def by_block(pairs: Pairs | None, catalogue: int, block: int) -> Callable[[int], tuple[np.ndarray, ...]] | None:
    """A function from a block's first item to (row, item in the block, value) of its pairs; None without any."""
    if pairs is None or not len(pairs.keys):
        return None
    order = np.argsort(pairs.item, kind="stable")
    row, item = pairs.user[order], pairs.item[order]
    value = pairs.values[order, 0].astype(np.float32)
    bounds = np.searchsorted(item, np.arange(0, catalogue + block, block))

    def of(start: int) -> tuple[np.ndarray, ...]:
        mine = slice(bounds[start // block], bounds[start // block + 1])
        return row[mine], item[mine] - start, value[mine]

    return of
