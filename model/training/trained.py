"""What a training leaves behind, in memory: model/train.py makes it, model/versions/checkpoint.py stores it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from conf.settings import Settings
from model.as_of.catalogue import Catalogue
from model.as_of.ease import Ease
from model.layers.item_temporal import ItemTable
from model.layers.recommend import Ranker
from model.network import Encoder
from model.slate.newcomers import FUSED


@dataclass
class Trained:
    """What a run leaves: the networks, what they were told about the items, and how it went."""

    encoder: Encoder
    ranker: Ranker
    catalogue: Catalogue
    table: ItemTable
    sales: np.ndarray
    basis: np.ndarray
    """Tastes as of as_of (model/as_of/audience.py), aligned with the catalogue."""
    ease: Ease
    """What goes with what as of as_of."""
    settings: Settings
    anchors_us: tuple[int, ...] = ()
    """The moments that it learned from."""
    newcomers: str = FUSED
    """Name of the ranking for whoever has no history (model/slate/newcomers.py)."""
    history: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    volume: dict[str, float] = field(default_factory=dict)
    inputs: dict[str, list[float]] = field(default_factory=dict)
    """What it was fed (model/training/inputs.py)."""
    report: dict[str, Any] = field(default_factory=dict)
    """What people may want to see of the training (model/training/report.py); no part of the model."""
