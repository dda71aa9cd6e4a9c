"""f_user: interest as a time series. An LSTM over the last events (short term), fused with the profile (long term).

The state after each event is turned into a query for a moment: how long ago the event was, and what hour and weekday it
is then. A learned gate decides, per dimension, how much the long-term profile counts.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from conf import columns as c
from conf.settings import Model as ModelSettings
from model.as_of.users import PROFILE_WIDTH
from model.layers.item_temporal import FixedScale
from model.layers.time_encoding import CALENDAR_WIDTH, GAP_WIDTH, calendar_features, gap_features


class UserInterest(nn.Module):
    """Turns events into states, and states into queries."""

    def __init__(self, settings: ModelSettings):
        super().__init__()
        width = settings.width
        self.settings = settings
        self.kind = nn.Embedding(len(c.EVENT_TYPES), width)
        self.when = nn.Linear(GAP_WIDTH + CALENDAR_WIDTH + 2, width)
        self.norm_in = nn.LayerNorm(width)
        self.drop = nn.Dropout(settings.dropout)
        rnn = nn.LSTM if settings.rnn == "lstm" else nn.GRU
        self.rnn = rnn(width, width, batch_first=True)
        self.start = nn.Parameter(torch.zeros(width))
        self.short = nn.Linear(width + GAP_WIDTH + CALENDAR_WIDTH, width)
        self.scale = FixedScale(PROFILE_WIDTH)
        self.long = nn.Sequential(nn.Linear(PROFILE_WIDTH + 2 * width, width), nn.GELU(), nn.Linear(width, width))
        self.no_profile = nn.Parameter(torch.zeros(width))
        self.gate = nn.Linear(2 * width, width)
        self.norm_out = nn.LayerNorm(width)
        nn.init.normal_(self.kind.weight, std=0.05)

    def states(self, item_BLD: Tensor, kind_BL: Tensor, us_BL: Tensor, value_BL: Tensor, start_BL: Tensor) -> Tensor:
        """State after each event, (B, L, D); padding stands behind the events and so cannot reach them."""
        gap = torch.zeros_like(us_BL)
        gap[:, 1:] = us_BL[:, 1:] - us_BL[:, :-1]
        time = torch.cat([gap_features(gap), calendar_features(us_BL)], dim=-1)
        if not self.settings.use_time_gaps:
            time = torch.zeros_like(time)
        rest = torch.stack([start_BL.float(), torch.log1p(value_BL.clamp(min=0))], dim=-1)
        x = item_BLD * 4 + self.kind(kind_BL) + self.when(torch.cat([time, rest], dim=-1))
        return self.rnn(self.drop(self.norm_in(x)))[0]

    def query(self, state: Tensor, age_us: Tensor, moment_us: Tensor, long: Tensor | None) -> Tensor:
        """(P, D) states, their ages and the moments asked about to (P, D) interest; ``long`` None: no profile known."""
        time = torch.cat([gap_features(age_us), calendar_features(moment_us)], dim=-1)
        if not self.settings.use_time_gaps:
            time = torch.zeros_like(time)
        short = self.short(torch.cat([state, time], dim=-1))
        far = self.no_profile.expand_as(short) if long is None else long
        gate = torch.sigmoid(self.gate(torch.cat([short, far], dim=-1)))
        return self.norm_out(short + gate * far)

    def profile(self, profile_BP: Tensor, habit_BD: Tensor, category_BD: Tensor) -> Tensor:
        """Long-term vector from profile numbers, mean vector of what is chosen again, mean vector of categories."""
        return self.long(torch.cat([self.scale(profile_BP), habit_BD * 4, category_BD * 4], dim=-1))

    def last(self, states: Tensor, length: Tensor) -> Tensor:
        """The state after the last event, (B, D); a learned one for users without events."""
        at = (length - 1).clamp(min=0)
        last = states[torch.arange(len(states), device=states.device), at]
        return torch.where((length > 0)[:, None], last, self.start)
