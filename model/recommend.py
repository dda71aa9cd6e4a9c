"""h: judges the slate as a whole. A Transformer between candidates, and a straight path from the plain signals.

The straight path makes the ranker at least as good as a linear one from the first steps; attention between candidates
adds what depends on the others (a substitute beside it, a slate full of one category).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from conf.settings import Model as ModelSettings
from model.attention import Block
from model.interaction import Interaction
from model.item_temporal import FixedScale


class Ranker(nn.Module):
    """Scores of a slate from signals, vectors and the interaction g."""

    def __init__(self, signals: int, facets: int, settings: ModelSettings):
        super().__init__()
        width = settings.width
        self.settings = settings
        self.scale = FixedScale(signals)
        self.signals = nn.Linear(signals, width)
        self.taste = nn.Linear(3 * width, width)
        if settings.use_interaction:
            self.interaction = Interaction(facets, settings)
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        if settings.use_slate:
            self.layers = nn.ModuleList(Block(width, settings.heads, settings.dropout) for _ in range(settings.slate_layers))
        self.score = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 1))
        self.straight = nn.Linear(signals, 1)
        self.curved = nn.Sequential(nn.Linear(signals, width), nn.GELU(), nn.Linear(width, 1))
        nn.init.zeros_(self.straight.weight)

    def forward(self, signals_BNF: Tensor, x_BD: Tensor, y_BND: Tensor, real_BN: Tensor,
                events: dict[str, Tensor]) -> Tensor:  # fmt: skip
        """Scores (B, N); -inf at padded candidates. ``events``: the arguments of ``Interaction`` after ``y_BND``."""
        f = self.scale(signals_BNF)
        x_BND = x_BD[:, None, :].expand_as(y_BND)
        z = self.signals(f) + self.taste(torch.cat([x_BND, y_BND, x_BND * y_BND], dim=-1))
        if self.settings.use_interaction:
            z = z + self.interaction(y_BND, **events)
        z = z + self.mix(self.norm(z))
        if self.settings.use_slate:
            # A row of padding only (no candidate) attends to all of it: a softmax over nothing is not a number.
            real = real_BN | ~real_BN.any(dim=1, keepdim=True)
            for layer in self.layers:
                z = layer(z, real)
        score = self.score(z) + self.straight(f) + self.curved(f)
        return score.squeeze(-1).masked_fill(~real_BN, -torch.inf)
