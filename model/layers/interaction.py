"""g: the candidate looks back at the user's events. Cross-attention with event ages and marks of likeness.

For each candidate: which of the user's events matter to it now? Attention weights come from the vectors, from the age
of the event, and from whether the event was the same item or shares a facet (category, product type, …). Beside it, how
many events are like the candidate in each way, by how long ago they were: whoever had it yesterday may be tired of it, and long
for it in a week. The counts need no weights to be learned before they say so.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from conf import columns as c
from conf.settings import Model as ModelSettings
from model.as_of.item_state import DAY_US
from model.layers.time_encoding import CALENDAR_WIDTH, GAP_WIDTH, calendar_features, gap_features

#: Newest events that a candidate looks at.
EVENTS = 50
#: An age, and its place in the day and the week: an event of a week ago says more of today than one of five days ago may.
_AGE_WIDTH = GAP_WIDTH + CALENDAR_WIDTH
_AGES_DAYS = (1 / 24, 1 / 4, 1, 2, 3, 4, 6, 8, 12, 17, 24, 35, 70)
"""Ages around which events like a candidate are counted; one in between counts to both, on a logarithmic scale."""


class Interaction(nn.Module):
    """(B, N) candidates and (B, L) events to (B, N, D)."""

    def __init__(self, facets: int, settings: ModelSettings):
        super().__init__()
        width = settings.width
        self.settings = settings
        self.event = nn.Linear(width + _AGE_WIDTH, width)
        self.kind = nn.Embedding(len(c.EVENT_TYPES), width)
        self.norm = nn.LayerNorm(width)
        self.knots: Tensor
        self.register_buffer("knots", torch.tensor(_AGES_DAYS).log(), persistent=False)
        self.response = nn.Linear((1 + facets) * len(_AGES_DAYS), width)
        nn.init.zeros_(self.response.weight)
        self.looks = nn.ModuleList(_Look(1 + facets, settings) for _ in range(settings.interaction_layers))

    def forward(self, y_BND: Tensor, e_BLD: Tensor, kind_BL: Tensor, age_BL: Tensor, real_BL: Tensor,
                same_BMLN: Tensor) -> Tensor:  # fmt: skip
        """``age_BL`` int64 microseconds before as_of; ``same_BMLN`` 1 where event l and candidate n are alike in m.

        The last of the L places is no event: it stands for "none of them", so that a candidate like no event is not forced
        to attend to one. ``real_BL`` is false there, as it is where a user has fewer events.
        """
        ages = torch.cat([gap_features(age_BL), calendar_features(age_BL)], dim=-1) * self.settings.use_time_gaps
        event = self.norm(self.event(torch.cat([e_BLD, ages], dim=-1)) + self.kind(kind_BL))
        found = self.response(self.counts(age_BL, real_BL, same_BMLN))
        for look in self.looks:
            found = found + look(y_BND + found, event, ages, real_BL, same_BMLN)
        return found

    def counts(self, age_BL: Tensor, real_BL: Tensor, same_BMLN: Tensor) -> Tensor:
        """(B, N, M * ages): log of one more than the events that are like the candidate in each way, around each age."""
        ages = len(self.knots)
        at = (age_BL.clamp(min=1).double() / DAY_US).log().float().clamp(self.knots[0], self.knots[-1])
        after = torch.bucketize(at, self.knots).clamp(1, ages - 1)
        place = after - 1 + (at - self.knots[after - 1]) / (self.knots[after] - self.knots[after - 1])
        about = (1 - (place[..., None] - torch.arange(ages, device=place.device)).abs()).clamp(min=0)
        if not self.settings.use_time_gaps:
            about = about.mean(dim=-1, keepdim=True).expand_as(about)
        about = (about * real_BL[..., None]).transpose(1, 2)
        return torch.log1p(about[:, None] @ same_BMLN).flatten(1, 2).transpose(1, 2)


class _Look(nn.Module):
    """One look of the candidates at the events. Candidates are the last axis of all that is large: sums over events then run along rows."""

    def __init__(self, likeness: int, settings: ModelSettings):
        super().__init__()
        width, self.heads = settings.width, settings.heads
        self.key, self.value, self.query = (nn.Linear(width, width) for _ in range(3))
        self.age = nn.Sequential(nn.Linear(_AGE_WIDTH, 16), nn.GELU(), nn.Linear(16, self.heads))
        self.match = nn.Parameter(torch.ones(likeness, self.heads))
        self.nothing = nn.Parameter(torch.zeros(self.heads))
        self.out = nn.Linear(width + likeness * self.heads, width)

    def forward(self, y_BND: Tensor, event_BLD: Tensor, ages_BLG: Tensor, real_BL: Tensor, same_BMLN: Tensor) -> Tensor:
        """(B, N, D): what each candidate finds among the events."""
        q, k, v = (self._split(t) for t in (self.query(y_BND), self.key(event_BLD), self.value(event_BLD)))
        k, v = k * real_BL[:, None, :, None], v * real_BL[:, None, :, None]
        age = self.age(ages_BLG).masked_fill(~real_BL[..., None], -1e9)
        age = torch.cat([age[:, :-1], self.nothing.expand(len(age), 1, -1)], dim=1).transpose(1, 2)
        alike = torch.bmm(self.match.T.expand(len(age), -1, -1), same_BMLN.flatten(2))
        bias = alike.view(*age.shape, -1).add_(age[..., None])
        scale = 1 / math.sqrt(q.shape[-1])
        logits = torch.baddbmm(bias.flatten(0, 1), k.flatten(0, 1), q.flatten(0, 1).transpose(1, 2), alpha=scale)
        weight = logits.view_as(bias).softmax(dim=2)
        seen = (weight.transpose(2, 3) @ v).transpose(1, 2).flatten(2)
        # Head by head: all at once would be an array of heads x marks x events x candidates.
        alike = torch.stack([(one[:, None] * same_BMLN).sum(dim=2) for one in weight.unbind(1)], dim=-1)
        return self.out(torch.cat([seen, alike.transpose(1, 2).flatten(2)], dim=-1))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
