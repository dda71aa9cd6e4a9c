"""Do the events that a reason cites move the score? Each listed item is scored again without its three cited events, and without
three others drawn at random: everything that is known of the user (sequence, habits, repeats, profile) is made anew from what is left.

    python tests/benchmarks/reasons.py --users 60

In the generated shop of the tests, with a model trained on it. The slates are kept, so that the same candidates are compared.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
import typer

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "benchmarks"), str(TESTS), str(TESTS.parent)]

import model_world as small  # noqa: E402

import model.slate.candidates as candidates  # noqa: E402
from model import predict, train  # noqa: E402
from model.as_of.item_state import DAY_US  # noqa: E402
from model.as_of.users import UserBatch, join_user_tables  # noqa: E402
from model.machine.distributed import World  # noqa: E402
from model.scoring.cited import MOST, cited  # noqa: E402
from model.slate.slate import Slates  # noqa: E402
from model.spec import PredictSpec  # noqa: E402
from model.versions import checkpoint  # noqa: E402

MOMENTS = [small.START + day * DAY_US for day in (39, 46, 53)]
Event = tuple[str, str, int]


def rows(mine: dict[str, list[Event]]) -> pa.Table:
    """Users with these events, in the scorer's input format."""
    tables = [make(mine, MOMENTS[-1]) for make in (small._sequences, small._profiles, small._repeats)]
    return join_user_tables(*tables)


def points(scorer: predict.Scorer, users: UserBatch, slates: Slates) -> np.ndarray:
    """Scores of given slates for users."""
    p = scorer.prepared
    kept = candidates.build_slates
    candidates.build_slates = lambda *_: slates  # type: ignore[assignment]
    try:
        with torch.no_grad():
            return scorer._points(users, p.moment.candidates(p.bundle.encoder, p.table, users, p.bundle.settings, p.repeat))
    finally:
        candidates.build_slates = kept


def main(users: int = 60, top: int = 5, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    events = small.shop(users=users)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        small.write_tables(folder, events, MOMENTS, 7 * DAY_US)
        made = small.spec(folder, MOMENTS, small.settings(training={"epochs": 10}), folder / "bundle")
        digest = checkpoint.save(train.train(made, World(0, 1)), made)
        told = PredictSpec(tables=made.tables, as_of_us=MOMENTS[-1], top_k=top)
        scorer = predict.Scorer(predict.prepare(folder / "bundle", told, folder / "prepared", digest))
        mine: dict[str, list[Event]] = {}
        for event in events:
            if event[2] < MOMENTS[-1]:
                mine.setdefault(event[0], []).append(event)
        moved = movements(scorer, mine, top, rng)
    ratio = moved[:, 0] / np.maximum(moved[:, 1], 1)
    print(f"{len(moved)} listed items of {len(mine)} users: without the cited events the score moves {np.median(ratio):.1f} x as far (median);")
    print(f"at least 3 x for {(ratio >= 3).mean():.1%}; further at all for {(ratio > 1).mean():.1%}")


def movements(scorer: predict.Scorer, mine: dict[str, list[Event]], top: int, rng: np.random.Generator) -> np.ndarray:
    """(listed items, 2): how far the score moves without the cited events, and without as many others."""
    p = scorer.prepared
    names = sorted(mine)
    batch = UserBatch.from_table(rows(mine), p.moment.catalogue, 30)
    with torch.no_grad():
        slates = p.moment.candidates(p.bundle.encoder, p.table, batch, p.bundle.settings, p.repeat).slates
    before = points(scorer, batch, slates)
    best = np.argsort(np.where(slates.item >= 0, -before, np.inf), axis=1, kind="stable")[:, :top]
    variants: dict[str, list[Event]] = {}
    asked: list[tuple[int, int]] = []
    for b, name in enumerate(names):
        item = slates.item[b, best[b]]
        speak = cited(batch, np.full(top, b), item, p.moment.neighbors, p.moment.catalogue)
        first = len(mine[name]) - batch.length[b]
        for place, its in zip(best[b], speak, strict=True):
            chosen = its[its >= 0]
            others = np.setdiff1d(np.arange(batch.length[b]), chosen)
            if len(chosen) < MOST or len(others) < MOST + 1:
                continue
            for which, gone in enumerate((chosen, rng.choice(others, MOST, replace=False))):
                left = [e for at, e in enumerate(mine[name]) if at - first not in set(gone.tolist())]
                variants[f"{len(asked):06d} {which}"] = [(f"{len(asked):06d} {which}", *e[1:]) for e in left]
            asked.append((b, place))
    who = np.repeat([b for b, _ in asked], 2)
    changed = UserBatch.from_table(rows(variants), p.moment.catalogue, 30)
    after = points(scorer, changed, replace(slates, item=slates.item[who], source=slates.source[who]))
    place = np.repeat([place for _, place in asked], 2)
    return np.abs(after[np.arange(len(who)), place] - before[who, place]).reshape(-1, 2)


if __name__ == "__main__":
    typer.run(main)
