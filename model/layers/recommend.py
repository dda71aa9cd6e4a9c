"""h: judges the slate as a whole. A Transformer between candidates, and a straight path from the plain signals.

The straight path makes the ranker at least as good as a linear one from the first steps; attention between candidates
adds what depends on the others (a substitute beside it, a slate full of one category).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from conf.settings import Model as ModelSettings
from model.layers.attention import Block
from model.layers.interaction import Interaction
from model.layers.item_temporal import FixedScale


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
        of_signals, curved = self._of_signals(f)
        z = of_signals + self._taste(x_BD, y_BND)
        if self.settings.use_interaction:
            z = z + self.interaction(y_BND, **events)
        z = z + self.mix(self.norm(z))
        if self.settings.use_slate:
            # A row of padding only (no candidate) attends to all of it: a softmax over nothing is not a number.
            real = real_BN | ~real_BN.any(dim=1, keepdim=True)
            for layer in self.layers:
                z = layer(z, real)
        score = self.score(z) + self.straight(f) + self.curved[1:](curved)
        return score.squeeze(-1).masked_fill(~real_BN, -torch.inf)

    def _of_signals(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """The two wide maps of the signals, as one product of matrices."""
        parts = (self.signals, cast(nn.Linear, self.curved[0]))
        out = nn.functional.linear(f, torch.cat([p.weight for p in parts]), torch.cat([p.bias for p in parts]))
        of_signals, curved = out.split([len(p.weight) for p in parts], dim=-1)
        return of_signals, curved

    def _taste(self, x_BD: Tensor, y_BND: Tensor) -> Tensor:
        """A map of (x̂, ŷ, x̂·ŷ), as one matrix for each user: two thirds of the work would be the same for each candidate."""
        of_x, of_y, of_both = self.taste.weight.split(y_BND.shape[-1], dim=1)
        matrix = of_y.T + x_BD[:, :, None] * of_both.T
        return torch.baddbmm(nn.functional.linear(x_BD, of_x, self.taste.bias)[:, None], y_BND, matrix)
