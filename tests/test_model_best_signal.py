"""A ranker that few users taught leans on the signal that ranks best by itself."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from model_world import START, settings, shop, spec, write_tables

from model import train
from model.as_of.item_state import DAY_US
from model.machine.distributed import World
from model.slate.signals import signal_names
from model.training.best_signal import _best, _spread
from model.training.ranker_training import AnchorSlates, ndcg_each
from model.training.trained import Trained

MOMENTS = [START + day * DAY_US for day in (39, 46, 53)]


def trained(folder: Path, monkeypatch: pytest.MonkeyPatch, prior: float) -> tuple[Trained, list[AnchorSlates]]:
    """A training, and the slates that its ranker learned from."""
    torch.set_num_threads(1)
    write_tables(folder, shop(), MOMENTS, 7 * DAY_US)
    known, fit = [], train._fit_ranker
    monkeypatch.setattr(train, "_fit_ranker", lambda slates, *rest: (known.extend(slates), fit(slates, *rest)))
    chosen = settings(training={"epochs": 2, "ranker_epochs": 2, "signal_prior": prior})
    result = train.train(spec(folder, MOMENTS, chosen, folder / "bundle"), World(0, 1), tell=False)
    monkeypatch.undo()
    return result, known


def test_only_the_straight_weight_of_the_best_signal_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, slates = trained(tmp_path, monkeypatch, 0)
    leaning, _ = trained(tmp_path, monkeypatch, 20)
    assert plain.history["ranker"]["leans_on"] is None
    told, names = leaning.history["ranker"]["leans_on"], signal_names(leaning.catalogue.facet_names)
    column = names.index(told["name"])

    before, after = plain.ranker.state_dict(), leaning.ranker.state_dict()
    moved = after["straight.weight"][0] - before["straight.weight"][0]
    assert torch.equal(torch.nonzero(moved).squeeze(1), torch.tensor([column])) and torch.sign(moved[column]) == told["sign"]
    assert all(torch.equal(before[name], after[name]) for name in before if name != "straight.weight")

    users = sum(len(a.useful) for a in slates)
    assert told["weight"] == pytest.approx(20 / users)
    for name in names:  # none is better, whichever way it is read
        for sign in (1, -1):
            each = [ndcg_each(sign * np.where(a.item >= 0, a.signals[..., names.index(name)].astype(float), -sign * np.inf), a.target, a.labels) for a in slates]
            assert np.concatenate(each).mean() <= told["ndcg"] + 1e-9


def test_what_many_users_taught_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result, slates = trained(tmp_path, monkeypatch, 0.3)
    assert 0.3 / sum(len(a.item) for a in slates) < 0.01 and result.history["ranker"]["leans_on"] is None


def slates_of(signals: np.ndarray, target: np.ndarray) -> Any:
    """Slates as far as ``_best`` looks at them; the last candidate is padding."""
    item = np.tile(np.arange(target.shape[1]), (len(target), 1))
    item[:, -1] = -1
    return SimpleNamespace(item=item, signals=signals, target=target, labels=target.sum(axis=1).astype(int))


def test_a_signal_may_be_best_read_backwards() -> None:
    random = np.random.default_rng(3)
    signals = random.random((30, 12, 4)).astype(np.float16)
    first = signals[:, :-1, 2].argmin(axis=1)
    target = np.zeros((30, 12), np.float32)
    target[np.arange(30), first] = 1
    signals[:, -1] = -9  # padding would be best of all, were it not left out
    assert _best([slates_of(signals, target)]) == (2, -1, 1.0)


def test_spread_is_the_mean_deviation_within_slates() -> None:
    scores, item = np.array([[1.0, 3.0, -np.inf], [2.0, 4.0, 9.0]]), np.array([[0, 1, -1], [0, 1, 2]])
    assert _spread(scores, item) == pytest.approx((1 + np.std([2, 4, 9])) / 2)
