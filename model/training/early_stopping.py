"""Finds how often the ranker should see everyone: passes are added while they pay at the newest anchor.

Rehearsals come before the ranker in use: others, which know only the anchors whose windows had ended by the newest one, learn for one
pass, for two, for four, until twice as many are worse at the newest. Each is a training of its own with its whole schedule: what a
rate that is still high has learned says little of where it ends. The newest window stands in for the one to come; the ranker in use
then learns from all anchors, the newest too, for as many passes as were best. Early stopping with a patience of one (Prechelt, "Early
Stopping - But When?", 1998). What it gains, and where, is in model/LOG.md.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace

from model.training.ranker_training import AnchorSlates, RankerTrainer

_PHASE = 2_000
"""Of the first rehearsal; each that follows has one more."""


@dataclass(frozen=True)
class Passes:
    """The best number of those that were tried, and the NDCG@10 of each at the newest anchor."""

    best: int
    tried: dict[int, float]


def best_passes(trainer: RankerTrainer, anchors: list[AnchorSlates]) -> Passes | None:
    """None where no anchor's window had ended by the newest anchor. ``trainer`` and its ranker are left as they are."""
    newest = anchors[-1]
    horizon_us = trainer.settings.horizon.total_seconds() * 1e6
    before = [a for a in anchors[:-1] if a.moment.state.as_of_us + horizon_us <= newest.moment.state.as_of_us and len(a.useful)]
    if not before:
        return None
    tried: dict[int, float] = {}
    for n, passes in enumerate(_more_and_more(trainer)):
        tried[passes] = _rehearse(trainer, before, newest, passes, n)
        if tried[passes] < max(tried.values()) or trainer.loop.budget.stopped:
            break
    return Passes(max(tried, key=lambda passes: tried[passes]), tried)


def _more_and_more(trainer: RankerTrainer) -> Iterator[int]:
    training = trainer.settings.training
    passes = 1
    while passes <= max(training.epochs, training.ranker_epochs):
        yield passes
        passes *= 2


def _rehearse(trainer: RankerTrainer, before: list[AnchorSlates], newest: AnchorSlates, passes: int, n: int) -> float:
    """NDCG@10 at the newest anchor of a ranker of those before; not done again where an earlier process of this training did."""
    loop, name = trainer.loop, f"rehearsal-{n}"
    known = loop.progress.rehearsed
    if n not in known:
        other = replace(trainer, ranker=copy.deepcopy(trainer.ranker), name=name)
        other.fit_scale(before)
        other.fit(before, passes, _PHASE + n)
        # All processes must go on alike, and a GPU's sums may differ in a last bit.
        known[n] = loop.world.add(other.ndcg(newest) if loop.world.first else 0.0)[0]
        if loop.checkpoints is not None:
            loop.checkpoints.drop(name)
    return known[n]
