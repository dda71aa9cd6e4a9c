"""Whether a new model may be used: what is asked when it is made, and what users did afterwards.

A model may be judged only by events after what it was trained on, and when it is made there are none. So there are two gates.

``at_birth`` asks what can be known at once: are its numbers finite, is it as good on what it was trained on as the champion
was on its own, does it beat the plain baselines there, do its lists resemble the champion's. Those numbers are seen in
training; they can refuse a broken model and cannot show that one is better.

``in_arrears`` judges a version trained at t once [t, t + window) is known: it and its rival make lists from the features at t,
and each user's NDCG@10 is paired (bootstrap). Neither model has seen an event of that window, and no second training is needed.

Verdicts: ``promote``, ``keep`` (as it is: the difference may be chance, so nothing moves to and fro), ``reject``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from conf.gate import Gate
from conf.settings import Settings
from model.metrics import FEWEST, Draws

ALL = "all"
#: Settings of training that decide when, where and how fast, and not what comes out.
HOW = frozenset({
    "every", "processes", "launcher", "threads", "max_seconds", "checkpoints", "checkpoint_every", "checkpoint_steps", "checkpoints_kept", "restarts",
    "silence", "compile",
})  # fmt: skip
#: Metrics of a training (model/train.py) that are compared.
TRAINED, POPULARITY, PERSONAL = "train_ndcg_at_10", "train_ndcg_popularity", "train_ndcg_personal"


@dataclass(frozen=True)
class Decision:
    """What to do with a version, why, and the numbers that it rests on."""

    verdict: Literal["promote", "keep", "reject"]
    reasons: tuple[str, ...]
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Shadow:
    """Lists of two models for the same users at the same moment, of which nothing is known to be true.

    ``overlap``: mean share of the first ten items that both show. ``coverage``: share of the items on offer that stand in
    the first ten of anybody. ``drift``: the new scores' mean less the old ones', in standard deviations of the old.
    """

    users: int
    overlap: float
    coverage: float
    coverage_before: float
    drift: float

    def figures(self) -> dict[str, float]:
        """As numbers by name."""
        return {f"shadow_{name}": float(value) for name, value in vars(self).items()}


def recipe(settings: Settings) -> dict[str, Any]:
    """The settings that decide what a training makes of given data, and not only where and how fast."""
    tree = settings.model_dump(mode="json", include={"features", "model", "slate", "training", "horizon", "repeat_consumption"})
    tree["training"] = {k: v for k, v in tree["training"].items() if k not in HOW}
    return tree


def at_birth(
    mine: Mapping[str, float], theirs: Mapping[str, float] | None, shadow: Shadow | None, same_settings: bool, gate: Gate
) -> Decision:
    """Whether a version that was just trained is used at once. ``mine``, ``theirs``: metrics of its training and the champion's.

    ``theirs`` is None where there is no champion to compare with: then there is nothing better to show either.
    """
    figures = {name: mine[name] for name in (TRAINED, POPULARITY, PERSONAL) if name in mine}
    broken = sorted(name for name, value in mine.items() if not math.isfinite(value))
    if broken:
        return Decision("reject", (f"not finite: {', '.join(broken)}",), figures)
    warned = _below_baselines(mine)
    if theirs is None:
        if warned and gate.below_baselines == "refuse":
            return Decision("reject", tuple(warned), figures)
        return Decision("promote", ("there is no champion to compare with", *warned), figures)
    figures |= {} if shadow is None else shadow.figures()
    own, bar = mine.get(TRAINED), theirs.get(TRAINED)
    if own is not None and bar is not None:
        figures["champion_train_ndcg_at_10"] = bar
        if own < bar * gate.least_training_share:
            told = f"training NDCG@10 {own:.4f} is below {gate.least_training_share:g} of the champion's {bar:.4f}"
            return Decision("reject", (told, *warned), figures)
    doubts = []
    if gate.policy == "proven":
        doubts.append("gate.policy is proven: it must be better in its window first")
    if not same_settings:
        doubts.append("trained by other settings than the champion: it must be better in its window first")
    if shadow is not None and shadow.users and not shadow.overlap >= gate.least_overlap:
        doubts.append(f"its first ten share {shadow.overlap:.2f} with the champion's, less than {gate.least_overlap:g}")
    if doubts:
        return Decision("keep", (*doubts, *warned), figures)
    return Decision("promote", ("fresher than the champion, by the same settings, and nothing looks wrong", *warned), figures)


def in_arrears(segments: Mapping[str, tuple[Draws, Draws]], gate: Gate) -> Decision:
    """Whether a version was better than its rival in its window.

    ``segments``: name -> (this version, its rival), NDCG@10 of the same users with the same weights; ``all`` among them.
    """
    mine, theirs = segments[ALL]
    figures = {"users": float(mine.users)}
    lead = mine.less(theirs)
    if lead is None:
        return Decision("keep", (f"{mine.users} users did something in the window, fewer than {FEWEST}: too few to tell",), figures)
    figures |= {"ndcg": mine.mean, "rival_ndcg": theirs.mean, "lead": lead.value, "lead_p": lead.p}
    figures |= {"lead_low": lead.interval.low, "lead_high": lead.interval.high}
    sure = lead.p < gate.significance
    reasons = []
    if sure and lead.value < 0:
        reasons.append(f"worse overall: NDCG@10 {mine.mean:.4f}, its rival {theirs.mean:.4f} (p {lead.p:.3f})")
    for name, (own, other) in segments.items():
        part = None if name == ALL else own.less(other)
        if part is None:
            continue
        figures |= {f"lead {name}": part.value, f"p {name}": part.p}
        # A segment is one of several, and small: it must lose both surely and much.
        if part.p < gate.significance and part.value < -gate.segment_loss * other.mean:
            reasons.append(f"worse for {name}: NDCG@10 {own.mean:.4f}, its rival {other.mean:.4f} (p {part.p:.3f})")
    if reasons:
        return Decision("reject", tuple(reasons), figures)
    if sure:
        return Decision("promote", (f"better: NDCG@10 {mine.mean:.4f}, its rival {theirs.mean:.4f} (p {lead.p:.3f})",), figures)
    return Decision("keep", (f"no difference that is more than chance: {lead.value:+.4f} (p {lead.p:.3f})",), figures)


def beside_baselines(mine: Draws, baselines: Mapping[str, Draws], gate: Gate) -> Decision:
    """A version without a rival, in its window: whether every baseline is better."""
    figures = {"users": float(mine.users), "ndcg": mine.mean} | {f"ndcg {name}": one.mean for name, one in baselines.items()}
    leads = {name: mine.less(one) for name, one in baselines.items()}
    losses = [name for name, lead in leads.items() if lead is not None and lead.value < 0 and lead.p < gate.significance]
    if not baselines or len(losses) < len(baselines):
        return Decision("keep", ("there is no other version to compare with; not worse than every baseline",), figures)
    told = f"worse than {', '.join(losses)}: NDCG@10 {mine.mean:.4f}"
    return Decision("reject" if gate.below_baselines == "refuse" else "keep", (told,), figures)


def _below_baselines(mine: Mapping[str, float]) -> list[str]:
    bars = {"popularity": mine.get(POPULARITY), "personal frequency": mine.get(PERSONAL)}
    known = {name: bar for name, bar in bars.items() if bar is not None}
    own = mine.get(TRAINED)
    if own is None or not known or any(own >= bar for bar in known.values()):
        return []
    return [f"on its newest anchor it loses to {' and '.join(f'{n} ({b:.4f})' for n, b in known.items())}: NDCG@10 {own:.4f}"]
