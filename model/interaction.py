"""g: the candidate looks back at the user's events. Cross-attention with event ages and marks of likeness.

For each candidate: which of the user's events matter to it now? Attention weights come from the vectors, from the age
of the event, and from whether the event was the same item or shares a facet (category, product type, …).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from conf import columns as c
from conf.settings import Model as ModelSettings
from model.time_encoding import CALENDAR_WIDTH, GAP_WIDTH, calendar_features, gap_features

#: Newest events that a candidate looks at.
EVENTS = 50
#: An age, and its place in the day and the week: an event of a week ago says more of today than one of five days ago may.
_AGE_WIDTH = GAP_WIDTH + CALENDAR_WIDTH


class Interaction(nn.Module):
    """(B, N) candidates and (B, L) events to (B, N, D)."""

    def __init__(self, facets: int, settings: ModelSettings):
        super().__init__()
        width = settings.width
        self.settings = settings
        self.event = nn.Linear(width + _AGE_WIDTH, width)
        self.kind = nn.Embedding(len(c.EVENT_TYPES), width)
        self.norm = nn.LayerNorm(width)
        self.looks = nn.ModuleList(_Look(1 + facets, settings) for _ in range(settings.interaction_layers))

    def forward(self, y_BND: Tensor, e_BLD: Tensor, kind_BL: Tensor, age_BL: Tensor, real_BL: Tensor,
                same_BNLM: Tensor) -> Tensor:  # fmt: skip
        """``age_BL`` int64 microseconds before as_of; ``same_BNLM`` 1 where candidate n and event l are alike in m."""
        ages = torch.cat([gap_features(age_BL), calendar_features(age_BL)], dim=-1) * self.settings.use_time_gaps
        event = self.norm(self.event(torch.cat([e_BLD, ages], dim=-1)) + self.kind(kind_BL))
        found = torch.zeros_like(y_BND)
        for look in self.looks:
            found = found + look(y_BND + found, event, ages, real_BL, same_BNLM)
        return found


class _Look(nn.Module):
    """One look of the candidates at the events."""

    def __init__(self, likeness: int, settings: ModelSettings):
        super().__init__()
        width, self.heads = settings.width, settings.heads
        self.key, self.value, self.query = (nn.Linear(width, width) for _ in range(3))
        self.age = nn.Sequential(nn.Linear(_AGE_WIDTH, 16), nn.GELU(), nn.Linear(16, self.heads))
        self.match = nn.Parameter(torch.ones(likeness, self.heads))
        self.nothing = nn.Parameter(torch.zeros(self.heads))
        self.out = nn.Linear(width + likeness * self.heads, width)

    def forward(self, y_BND: Tensor, event_BLD: Tensor, ages_BLG: Tensor, real_BL: Tensor, same_BNLM: Tensor) -> Tensor:
        """(B, N, D): what each candidate finds among the events."""
        q, k, v = (self._split(t) for t in (self.query(y_BND), self.key(event_BLD), self.value(event_BLD)))
        logits = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        bias = (same_BNLM @ self.match).permute(0, 3, 1, 2) + self.age(ages_BLG).permute(0, 2, 1)[:, :, None, :]
        logits = (logits + bias).masked_fill(~real_BL[:, None, None, :], -1e9)
        # A place for "none of them": a candidate like no event is not forced to attend to one.
        nothing = self.nothing[None, :, None, None].expand(*logits.shape[:3], 1)
        weight = torch.cat([logits, nothing], dim=-1).softmax(dim=-1)[..., :-1]
        seen = (weight @ v).transpose(1, 2).flatten(2)
        alike = torch.einsum("bhnl,bnlm->bnmh", weight, same_BNLM).flatten(2)
        return self.out(torch.cat([seen, alike], dim=-1))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
