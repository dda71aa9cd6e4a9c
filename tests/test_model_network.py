"""The networks: padding changes nothing, time does, and switches switch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model_world import settings

from model.layers.interaction import Interaction
from model.layers.recommend import Ranker
from model.layers.time_encoding import calendar_features, gap_features
from model.layers.user_interest import UserInterest
from model.training.losses import local_softmax, multi_positive_softmax, sampled_softmax

DAY = 86_400_000_000


def inputs(candidates: int, events: int, facets: int = 2, signals: int = 7) -> dict:
    generator = torch.Generator().manual_seed(0)

    def rand(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    real = torch.ones(2, events + 1, dtype=torch.bool)
    real[:, -1] = False  # the last place is that of no event
    return {
        "signals_BNF": rand(2, candidates, signals), "x_BD": rand(2, 16), "y_BND": rand(2, candidates, 16),
        "real_BN": torch.ones(2, candidates, dtype=torch.bool),
        "events": {
            "e_BLD": rand(2, events + 1, 16), "kind_BL": torch.zeros(2, events + 1, dtype=torch.long),
            "age_BL": torch.arange(2 * events + 2).reshape(2, events + 1) * DAY, "real_BL": real,
            "same_BMLN": (rand(2, 1 + facets, events + 1, candidates) > 1).float() * real[:, None, :, None],
        },
    }  # fmt: skip


@torch.no_grad()
def test_padding_of_slate_and_events_changes_no_score() -> None:
    ranker = Ranker(7, 2, settings().model).eval()
    torch.nn.init.normal_(ranker.straight.weight)
    given = inputs(5, 4)
    plain = ranker(**given)
    wide = {k: torch.nn.functional.pad(v, (0, 0, 0, 3)) for k, v in given.items() if k in ("signals_BNF", "y_BND")}
    events = given["events"]
    padded = {
        "e_BLD": torch.nn.functional.pad(events["e_BLD"], (0, 0, 0, 6), value=9.0),
        "kind_BL": torch.nn.functional.pad(events["kind_BL"], (0, 6)),
        "age_BL": torch.nn.functional.pad(events["age_BL"], (0, 6)),
        "real_BL": torch.nn.functional.pad(events["real_BL"], (0, 6)),
        "same_BMLN": torch.nn.functional.pad(torch.nn.functional.pad(events["same_BMLN"], (0, 3, 0, 5), value=1.0), (0, 0, 0, 1)),
    }
    real = torch.nn.functional.pad(given["real_BN"], (0, 3))
    both = ranker(**wide, x_BD=given["x_BD"], real_BN=real, events=padded)
    assert torch.allclose(both[:, :5], plain, atol=1e-5)
    assert torch.isneginf(both[:, 5:]).all()


@pytest.mark.parametrize("rnn", ["lstm", "gru"])
@torch.no_grad()
def test_events_behind_the_end_do_not_reach_the_last_state(rnn: str) -> None:
    interest = UserInterest(settings(model={"width": 16, "dropout": 0.0, "rnn": rnn}).model).eval()
    item, us = torch.randn(1, 6, 16), torch.arange(6)[None] * DAY
    kind, value, start = torch.zeros(1, 6, dtype=torch.long), torch.ones(1, 6), torch.zeros(1, 6, dtype=torch.bool)
    length = torch.tensor([4])
    whole = interest.last(interest.states(item, kind, us, value, start), length)
    short = interest.last(interest.states(*(t[:, :4] for t in (item, kind, us, value, start))), length)
    assert torch.allclose(whole, short, atol=1e-6)


@torch.no_grad()
def test_the_age_of_events_matters_only_when_time_gaps_are_used() -> None:
    for used in (True, False):
        look = Interaction(2, settings(model={"width": 16, "dropout": 0.0, "use_time_gaps": used}).model).eval()
        given = inputs(5, 4)
        older = given["events"] | {"age_BL": given["events"]["age_BL"] + 100 * DAY}
        same = torch.allclose(look(given["y_BND"], **given["events"]), look(given["y_BND"], **older), atol=1e-6)
        assert same != used


@torch.no_grad()
def test_events_like_a_candidate_are_counted_by_how_long_ago_they_were() -> None:
    days = torch.tensor([[2, 2, 24, 1000, 2]]) * DAY
    same = torch.zeros(1, 3, 5, 2)
    same[0, 0, 0, 0] = same[0, 1, 1, 0] = same[0, 1, 2:, 0] = 1  # the second candidate is like none of them
    real = torch.tensor([[True, True, True, True, False]])
    for used in (True, False):
        look = Interaction(2, settings(model={"width": 16, "use_time_gaps": used}).model)
        many = look.counts(days, real, same)[0].expm1().unflatten(-1, (3, -1))
        assert many.sum(dim=-1).tolist() == [[pytest.approx(1), pytest.approx(3), 0.0], [0.0, 0.0, 0.0]]
        told = [pytest.approx(1), pytest.approx(1), pytest.approx(1)] if used else [pytest.approx(3 / many.shape[-1])] * 3
        assert many[0, 1, [3, 10, 12]].tolist() == told, "around two days, 24, and 70 or more"


@pytest.mark.parametrize("switch", ["use_interaction", "use_slate"])
@torch.no_grad()
def test_a_component_that_is_off_has_no_weights(switch: str) -> None:
    on = Ranker(7, 2, settings().model)
    off = Ranker(7, 2, settings(model={"width": 16, switch: False}).model)
    gone = set(on.state_dict()) - set(off.state_dict())
    assert gone and all(name.startswith(("interaction.", "layers.")) for name in gone)
    assert torch.isfinite(off(**inputs(5, 4))).all()


def test_moments_a_minute_and_a_day_apart_are_told_apart() -> None:
    gaps = gap_features(torch.tensor([0, 60_000_000, DAY, 365 * DAY]))
    assert torch.cdist(gaps, gaps).fill_diagonal_(1).min() > 0.01
    noon, midnight = (calendar_features(torch.tensor([1_600_000_000_000_000 // DAY * DAY + h])) for h in (DAY // 2, 0))
    assert not torch.allclose(noon, midnight)


def test_the_listwise_loss_is_visible_arithmetic() -> None:
    score = torch.log(torch.tensor([[1.0, 2.0, 1.0], [1.0, 1.0, 1.0]]))
    target = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    total, rows = multi_positive_softmax(score, target)
    assert rows == 1
    assert total.item() == pytest.approx(-(np.log(1 / 4) + np.log(2 / 4)) / 2, rel=1e-5)


def test_the_sampled_loss_is_the_full_softmax_when_every_item_is_drawn_once() -> None:
    score = torch.tensor([[0.3, -1.0, 2.0, 0.5]])
    loss, weight = sampled_softmax(
        score[:, 2], score[:, [0, 1, 3]], torch.zeros(3), torch.zeros(1, 3, dtype=torch.bool), torch.ones(1)
    )
    assert weight == 1
    assert loss.item() == pytest.approx(-score.log_softmax(dim=1)[0, 2].item(), rel=1e-5)


def test_a_position_does_not_compete_with_its_own_item() -> None:
    x, y = torch.ones(3, 2), torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    apart, count = local_softmax(x, y, torch.tensor([7, 8, 9]))
    alike, _ = local_softmax(x, y, torch.tensor([7, 7, 9]))
    assert count == 3
    assert apart.item() == pytest.approx(3 * np.log(3), rel=1e-5)
    assert alike.item() == pytest.approx(2 * np.log(2) + np.log(3), rel=1e-5)
