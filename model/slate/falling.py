"""Retrieval of what people like the user chose, without looking at the whole catalogue, and yet exact.

A taste has length one, so no item scores more than the length of its audience. Items are gone through from the longest on; a user
for whom the next is shorter than the last score in the list is done.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.as_of.keys import NOTHING, best, bound, by_row, items, keys, scores
from model.as_of.pairs import Pairs
from model.machine.device import accelerator
from model.slate.retrieval import by_block, top_of_catalogue

_BLOCK = 1_024
_ROUNDING = 1 + 1e-5


@dataclass(frozen=True)
class Falling:
    """Items by falling length of their vectors, with the lengths; ``place`` of each item of the catalogue, -1 where it is left out."""

    order: np.ndarray
    length: np.ndarray
    place: np.ndarray

    @classmethod
    def of(cls, y_ID: np.ndarray, able: np.ndarray) -> Falling:
        """Those items that are ``able``."""
        kept = np.flatnonzero(able)
        length = np.linalg.norm(y_ID[kept], axis=1)
        by_length = np.argsort(-length, kind="stable")
        place = np.full(len(y_ID), -1)
        place[kept[by_length]] = np.arange(len(kept))
        return cls(kept[by_length], length[by_length] * _ROUNDING, place)


@torch.no_grad()
def top_by_length(x_BD: Tensor, y_ID: Tensor, falling: Falling, barred: Pairs | None, most: int, block: int = _BLOCK) -> np.ndarray:
    """Exact top ``most`` of x·y of the items that are able, ties by item; (B, most), -1 where nothing is left.

    Rows of ``x`` have length one, or zero: those find nothing.
    """
    found = np.full((len(x_BD), most), NOTHING)
    if not most:
        return items(found)
    if accelerator() is not None:
        return _of_all(x_BD, y_ID, falling, barred, most)
    less = by_block(_moved(barred, falling), len(falling.order), block)
    live = np.flatnonzero(x_BD.any(dim=1).numpy())
    for start in range(0, len(falling.order), block):
        last = scores(found[live, -1:])
        needed = last[:, 0] <= falling.length[start]
        live, last = live[needed], last[needed]
        if not len(live):
            break
        item = falling.order[start : start + block]
        score = (x_BD[torch.from_numpy(live)] @ y_ID[torch.from_numpy(item)].T).numpy()
        if less is not None:
            row, place, _ = less(start)
            at = np.minimum(np.searchsorted(live, row), len(live) - 1)
            there = live[at] == row
            score[at[there], place[there]] = -np.inf
        if not start:
            last = bound(score, most)
        # An equal score may be that of an item with a smaller number.
        row, place = np.divmod(np.flatnonzero(score > np.nextafter(last, np.float32(-np.inf))), len(item))
        new = by_row(row, keys(score[row, place], item[place]), len(live))
        found[live] = best(np.concatenate([found[live], new], axis=1), most)
    return items(found)


def _of_all(x_BD: Tensor, y_ID: Tensor, falling: Falling, barred: Pairs | None, most: int) -> np.ndarray:
    """The same where products are cheap: passing over the short ones would take longer than they do."""
    bias = torch.full((len(y_ID),), -torch.inf)
    bias[torch.from_numpy(falling.order)] = 0.0
    out = np.full((len(x_BD), most), -1)
    some = x_BD.any(dim=1).numpy()
    found = top_of_catalogue(x_BD, y_ID, bias, None, barred, most)
    out[some, : found.shape[1]] = found[some]
    return out


def _moved(barred: Pairs | None, falling: Falling) -> Pairs | None:
    """Pairs of a user and the place of the item."""
    if barred is None:
        return None
    place = falling.place[barred.item]
    kept = place >= 0
    return Pairs.gather(barred.user[kept], place[kept], barred.values[kept], max(len(falling.order), 1))
