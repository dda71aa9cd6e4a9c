"""Histories that might have been: windows cropped, masked and moved in time, for the encoder to learn from beside those that were.

Cropping and masking as in Xie et al., "Contrastive learning for sequential recommendation" (CL4SRec, ICDE 2022). Targets are never
touched, and what is not switched on draws no random number: weights are then the same to the bit as without this module.
"""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import torch

from conf.training import Augment


def cropped(start_W: np.ndarray, stop_W: np.ndarray, how: Augment, generator: torch.Generator) -> np.ndarray:
    """Where windows begin when up to ``crop`` of their oldest events are left out; at least two events are kept."""
    if not how.crop:
        return start_W
    share = torch.rand(len(start_W), generator=generator, dtype=torch.float64).numpy() * how.crop
    return start_W + (share * (stop_W - start_W - 1)).astype(np.int64)


def masked(item_WL: np.ndarray, how: Augment, generator: torch.Generator) -> np.ndarray:
    """Items as the encoder reads them: each is unknown (-1) with the chance ``mask``."""
    if not how.mask:
        return item_WL
    hidden = torch.rand(item_WL.shape, generator=generator, dtype=torch.float64).numpy() < how.mask
    return np.where(hidden, -1, item_WL)


def moved(windows: int, how: Augment, generator: torch.Generator) -> np.ndarray:
    """(W, 1) microseconds, up to ``shift`` back or forth, by which all times of a window move together."""
    if how.shift is None:
        return np.zeros((windows, 1), np.int64)
    way = 2 * torch.rand(windows, generator=generator, dtype=torch.float64).numpy() - 1
    return np.rint(way * (how.shift / timedelta(microseconds=1))).astype(np.int64)[:, None]
