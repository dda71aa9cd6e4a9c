"""One pre-norm Transformer block, shared by f_item and h.

Dropout stands on the branches only: dropping attention weights costs a random number per pair and rules out the fused
kernel, which on CPU was half of the time of a step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Self-attention and feed-forward on (B, N, D); padded places neither give nor matter."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.norm, self.qkv, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, real_BN: Tensor | None = None, first_only: bool = False) -> Tensor:
        """``real_BN``: places that may be attended to; ``first_only``: return the first place only, (B, 1, D)."""
        q, k, v = (self._split(t) for t in self.qkv(self.norm(x)).chunk(3, dim=-1))
        if first_only:
            x, q = x[:, :1], q[:, :, :1]
        mask = None if real_BN is None else real_BN[:, None, None, :]
        read = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.drop(self.out(read.transpose(1, 2).flatten(2)))
        return x + self.drop(self.feed(x))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
