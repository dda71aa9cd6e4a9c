"""f_item: the vector of an item at a moment, from what it is and how it has been doing.

What it is: id embedding (weighted by how often it was seen, so that an unseen id is silent), facets, content.
How it does: a small Transformer over its sales by day and by hour in patches, and a token of its statistics
(the patching follows PatchTST, Nie et al. 2023). An item released an hour ago has all of this but the id.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from conf import columns as c
from conf.settings import Model as ModelSettings
from model.as_of.catalogue import FACET_BUCKETS, Catalogue
from model.as_of.item_state import DAY_PATCH, FEATURES, HOUR_PATCH, ItemState
from model.layers.attention import Block
from model.machine.device import on

_EVIDENCE = 3.0
"""Sales at which an id counts for half."""


class ItemTable:
    """Tensors of the whole catalogue that ``ItemTower`` gathers from: what does not change, and the state at a moment."""

    def __init__(self, catalogue: Catalogue, vocabulary: np.ndarray, device: torch.device | None = None):
        """``vocabulary``: row of each item in the id embedding, 0 where it has none. ``device``: the encoder's; None: the CPU."""
        self.device = device or torch.device("cpu")
        self.vocabulary = on(self.device, vocabulary.astype(np.int64))
        self.facet = on(self.device, catalogue.facet_bucket.astype(np.int64))
        self.content = None if catalogue.content is None else on(self.device, catalogue.content)
        self.evidence = torch.zeros(len(catalogue), 1, device=self.device)
        self.state: ItemState | None = None

    def know(self, sales: np.ndarray) -> None:
        """Set how often each item was seen in what the encoder has been trained on."""
        n = on(self.device, np.asarray(sales, np.float32))[:, None]
        self.evidence = n / (n + _EVIDENCE)

    def at(self, state: ItemState | None) -> ItemTable:
        """Set the state that vectors in time are made of; None: time is masked."""
        self.state = state
        return self


class ItemTower(nn.Module):
    """Item vectors of width D."""

    def __init__(self, vocabulary: int, content_width: int, settings: ModelSettings):
        super().__init__()
        width = settings.width
        self.settings = settings
        self.id = nn.Embedding(vocabulary, width)
        self.facet = nn.Embedding(FACET_BUCKETS, width, padding_idx=0)
        self.content = nn.Linear(content_width, width, bias=False) if content_width else None
        nn.init.normal_(self.id.weight, std=0.05)
        nn.init.normal_(self.facet.weight, std=0.05)
        self.masked_time = nn.Parameter(torch.zeros(width))
        if settings.use_item_time:
            self.series = _Series(settings)

    def what(self, table: ItemTable, item: Tensor) -> Tensor:
        """(…,) catalogue positions >= 0 to (…, D): what the items are, without time."""
        out = self.id(table.vocabulary[item]) * table.evidence[item] + self.facet(table.facet[item]).sum(dim=-2)
        if self.content is not None and table.content is not None:
            out = out + self.content(table.content[item])
        return out

    def forward(self, table: ItemTable, item: Tensor) -> Tensor:
        """(M,) catalogue positions to (M, D): the items at the table's moment."""
        what = self.what(table, item)
        if table.state is None or not self.settings.use_item_time:
            return what + self.masked_time
        rows = item.cpu().numpy()
        return what + self.series(
            on(table.device, table.state.features[rows]),
            on(table.device, table.state.days[rows].astype(np.float32)),
            on(table.device, table.state.hours[rows].astype(np.float32)),
        )

    @torch.no_grad()
    def all(self, table: ItemTable, block: int = 8192) -> Tensor:
        """Vectors of the whole catalogue, (I, D), in blocks that bound memory."""
        items = torch.arange(len(table.vocabulary), device=table.device)
        return torch.cat([self(table, part) for part in items.split(block)])


class _Series(nn.Module):
    """Day patches, hour patches and a token of statistics, read by a Transformer; its last state of that token is out."""

    def __init__(self, settings: ModelSettings):
        super().__init__()
        width = settings.width
        self.day, self.hour = nn.Linear(DAY_PATCH, width), nn.Linear(HOUR_PATCH, width)
        self.place = nn.Parameter(torch.randn(c.DAY_BUCKETS // DAY_PATCH + c.HOUR_BUCKETS // HOUR_PATCH, width) * 0.02)
        self.scale = FixedScale(len(FEATURES))
        self.statistics = nn.Sequential(nn.Linear(len(FEATURES), width), nn.GELU(), nn.Linear(width, width))
        self.layers = nn.ModuleList(Block(width, settings.heads, settings.dropout) for _ in range(settings.item_layers))
        self.out = nn.Linear(width, width)
        nn.init.normal_(self.out.weight, std=0.01)

    def forward(self, features: Tensor, days: Tensor, hours: Tensor) -> Tensor:
        lively = hours.any(dim=1) | days.any(dim=1)
        day = self.day(torch.log1p(days).unflatten(1, (-1, DAY_PATCH)))
        hour = self.hour(torch.log1p(hours).unflatten(1, (-1, HOUR_PATCH)))
        token = self.statistics(self.scale(features))
        series = torch.cat([day, hour], dim=1) + self.place
        # A series of zeros says nothing that the statistics do not: such an item skips the Transformer.
        read = token.clone()
        if lively.any():
            x = torch.cat([token[lively, None], series[lively]], dim=1)
            for layer in self.layers:
                x = layer(x, first_only=layer is self.layers[-1])
            read[lively] = x[:, 0].to(read.dtype)  # in mixed precision they differ
        return self.out(read)


class FixedScale(nn.Module):
    """Standardises inputs by constants fitted once on training data; a column that never varies becomes zero."""

    def __init__(self, width: int, limit: float = 6.0):
        super().__init__()
        self.limit = limit
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    @torch.no_grad()
    def fit(self, rows: Tensor) -> None:
        """Set mean and scale from (rows, width)."""
        mean, deviation = rows.mean(dim=0), rows.std(dim=0, unbiased=False)
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(deviation > 1e-4, 1 / deviation.clamp(min=1e-4), torch.zeros_like(deviation)))

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) to (…, width)."""
        return (x - self.mean).mul_(self.scale).clamp_(-self.limit, self.limit)  # in place: signals are by far the largest array
