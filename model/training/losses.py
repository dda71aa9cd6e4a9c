"""Losses. Each is a sum over its targets together with their number, so that any split over ranks averages alike."""

from __future__ import annotations

import torch
from torch import Tensor


def local_softmax(x_PD: Tensor, y_PD: Tensor, item_P: Tensor, block: int = 256) -> tuple[Tensor, int]:
    """Each position against the targets of the positions nearest in time (the caller sorts positions by time).

    The other targets of a block are draws from what was chosen at that time. Left uncorrected, the softmax learns
    log p(item | user) - log p(item at that time): taste, freed of fashion, which the popularity term adds back
    (sampling bias as in Yi et al. 2019, here wanted). Nothing released later can be a negative.
    """
    total, count = x_PD.new_zeros(()), 0
    for x, y, item in zip(x_PD.split(block), y_PD.split(block), item_P.split(block), strict=True):
        logits = (x @ y.T).float()
        same = (item[:, None] == item[None, :]).fill_diagonal_(False)
        logits = logits.masked_fill(same, -1e9)
        total = total + torch.nn.functional.cross_entropy(logits, torch.arange(len(x), device=x.device), reduction="sum")
        count += len(x)
    return total, count


def multi_positive_softmax(score_BN: Tensor, target_BN: Tensor) -> tuple[Tensor, int]:
    """Cross-entropy of the slate's softmax with the uniform distribution over its positives (ListNet, Cao 2007).

    Rows without a positive do not count. Padded candidates have score -inf and target 0.
    """
    positives = target_BN.sum(dim=1)
    rows = positives > 0
    log_p = score_BN[rows].float().log_softmax(dim=1).masked_fill(target_BN[rows] == 0, 0.0)
    return -((log_p * target_BN[rows]).sum(dim=1) / positives[rows]).sum(), int(rows.sum())


def sampled_softmax(
    positive_P: Tensor, negative_PM: Tensor, log_q_M: Tensor, hit_PM: Tensor, weight_P: Tensor
) -> tuple[Tensor, Tensor]:
    """Softmax of each positive against shared sampled negatives with logQ correction (Bengio and Senecal 2008).

    ``log_q_M``: log of the expected number of times a negative is drawn; ``hit_PM``: the negative is a positive;
    ``weight_P``: weight of each positive.
    """
    positive_P = positive_P.float()
    logits = (negative_PM.float() - log_q_M).masked_fill(hit_PM, -1e9)
    each = torch.cat([positive_P[:, None], logits], dim=1).logsumexp(dim=1) - positive_P
    return (each * weight_P).sum(), weight_P.sum()
