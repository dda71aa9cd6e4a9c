"""The generated worlds of the ablation benchmark: seeded, with chances that are chances, and an oracle worth the name."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

# After the tests' own folder: nothing there is hidden.
sys.path.append(str(Path(__file__).parent / "benchmarks"))

from planted import DEPTH, World, ndcg, recall
from planted_effects import WORLDS, News

from model import metrics
from model.metrics import find_hits

ALL = [*WORLDS.values(), News]


def small(world: type[World], seed: int = 0) -> World:
    """The same world with a tenth of the users, items and days."""
    size = {"users": 120, "items": 150, "as_of": 20, "categories": 6}
    return type(world.__name__, (world,), size)(seed)  # type: ignore[return-value]


@pytest.mark.parametrize("world", ALL, ids=lambda world: world.name)
def test_a_world_is_the_same_for_the_same_seed(world: type[World]) -> None:
    one, two, other = small(world), small(world), small(world, 1)
    assert one.log.equals(two.log) and np.array_equal(one.oracle, two.oracle)
    assert not one.log.equals(other.log)


@pytest.mark.parametrize("world", ALL, ids=lambda world: world.name)
def test_chances_sum_to_one_over_what_is_on_offer(world: type[World]) -> None:
    made = small(world)
    rows, now = np.arange(made.users), np.full(made.users, made.as_of + 0.5)
    chance = made.chances(rows, now, made.past)
    assert np.allclose(chance.sum(axis=1), 1)
    assert not chance[:, ~made.on_offer(made.as_of + 0.5)].any()
    if not made.repeats:
        assert not chance[made.past.had].any()
        assert not made.log.duplicated(["user", "item"]).any()


@pytest.mark.parametrize("world", ALL, ids=lambda world: world.name)
def test_the_oracle_beats_what_is_popular(world: type[World]) -> None:
    made = small(world)
    count = np.bincount(made.log["item"], minlength=made.items)
    score = np.where(made.past.had & (not made.repeats), -1, np.where(made.on_offer(made.as_of), count, -1))
    popular = np.argsort(-score, axis=1, kind="stable")[:, :DEPTH]
    oracle, blind, plain = (np.nanmean(ndcg(lists, made.truth)) for lists in (made.oracle, made.blind, popular))
    assert oracle > 1.5 * plain
    # What is planted is worth something, and nothing is planted in the base world.
    assert (oracle > 1.1 * blind) == (world is not World)


def test_lists_are_judged_as_the_projects_metrics_do_it() -> None:
    made = small(World)
    truth = made.truth[:1]
    rows = np.flatnonzero(truth[0].any(axis=1))
    shown = [[str(item) for item in made.oracle[row]] for row in rows]
    hits = find_hits(shown, [[str(item) for item in np.flatnonzero(truth[0, row])] for row in rows], DEPTH)
    assert np.allclose(ndcg(made.oracle, truth)[rows], metrics.ndcg(hits, 10))
    assert np.allclose(recall(made.oracle, truth)[rows], metrics.recall(hits, DEPTH))
