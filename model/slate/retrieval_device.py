"""Retrieval where an accelerator does the sums: the same lists as model/slate/retrieval.py, all in torch, so that nothing but lists comes back.

Where there is none, the processor's way is faster: it sorts and compares by numpy.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from model.as_of.keys import NOTHING

_ITEM_BITS = 32
_ITEM_MASK = (1 << _ITEM_BITS) - 1
_kept: dict[tuple[torch.device, int], tuple[Tensor, Tensor]] = {}
_MOST_KEPT = 4
"""The catalogue's vectors and three audiences."""


@torch.no_grad()
def top_on(
    where: torch.device, x_BD: Tensor, y_ID: Tensor, bias_I: Tensor, more: Callable | None, less: Callable | None, most: int, block: int
) -> np.ndarray:
    """As ``top_of_catalogue``; ``more`` and ``less`` are ``by_block`` of the pairs. Item vectors are brought over once."""
    x, y, bias = x_BD.to(where), _there(where, y_ID), bias_I.to(where)
    found = torch.full((len(x), most), int(NOTHING), device=where)
    for start in range(0, len(y), block):
        score = torch.addmm(bias[start : start + block], x, y[start : start + block].T)
        for told, add in ((more, True), (less, False)):
            if told is not None:
                row, item, value = (torch.from_numpy(np.ascontiguousarray(a)).to(where) for a in told(start))
                score[row, item] = score[row, item] + value if add else -torch.inf
        best = _keys(score, start).topk(min(most, score.shape[1]), dim=1).values
        found = torch.cat([found, best], dim=1).topk(most, dim=1).values
    return torch.where(found == int(NOTHING), -1, _ITEM_MASK - (found & _ITEM_MASK)).cpu().numpy()


def _keys(score: Tensor, start: int) -> Tensor:
    """As model/as_of/keys.py has them; NOTHING for a score of -inf."""
    bits = (score + 0.0).view(torch.int32)
    rising = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(torch.int64)
    item = torch.arange(start, start + score.shape[1], device=score.device)
    return torch.where(score == -torch.inf, int(NOTHING), (rising << _ITEM_BITS) | (_ITEM_MASK - item))


def _there(where: torch.device, y_ID: Tensor) -> Tensor:
    """The same vectors on the device; the last ones brought over are kept."""
    key = where, id(y_ID)
    if key not in _kept:
        while len(_kept) >= _MOST_KEPT:
            del _kept[next(iter(_kept))]
        _kept[key] = (y_ID, y_ID.to(where))
    return _kept[key][1]
