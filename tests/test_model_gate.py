"""The gate's decisions: a model that is worse is refused with the reason, a better one taken, an equal one left where it is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from model_world import START, settings, shop, spec, write_tables

from conf.gate import Gate
from conf.load import SettingsError
from features.segments import HEAD, TAIL
from model import train
from model.as_of.item_state import DAY_US
from model.as_of.users import join_user_tables
from model.data import read_table
from model.gate import ALL, PERSONAL, POPULARITY, TRAINED, Shadow, at_birth, beside_baselines, in_arrears, recipe
from model.machine.distributed import World
from model.metrics import Draws, find_hits, ndcg, poisson_weights
from model.predict import Scorer, prepare
from model.spec import PREDICT_TABLES, PredictSpec
from model.versions import checkpoint

GATE = Gate()
SEEDS = range(12)
USERS, ITEMS, DAYS, TOP = 400, 80, 90, 10


# -- a world of counts: who chose what, with tastes that drift -------------------------------------------------------


@dataclass(frozen=True)
class Log:
    user: np.ndarray
    item: np.ndarray
    day: np.ndarray

    def where(self, chosen: np.ndarray) -> Log:
        return Log(self.user[chosen], self.item[chosen], self.day[chosen])


def world(seed: int) -> tuple[Log, list[np.ndarray]]:
    """Events of DAYS days, and what each user chose in the week after: half of it from favourites of the last month."""
    rng = np.random.default_rng(seed)
    popular = 1 / np.arange(1, ITEMS + 1)
    taste = rng.gamma(0.15, size=(4, USERS, ITEMS)) * popular
    user, item, day = [], [], []
    truth = []
    for u in range(USERS):
        days = np.sort(rng.integers(0, DAYS, rng.integers(3, 60)))
        for d in days:
            now = taste[min(d * 3 // DAYS, 2), u] + popular * 0.005
            user.append(u)
            item.append(rng.choice(ITEMS, p=now / now.sum()))
            day.append(d)
        now = taste[2, u] + popular * 0.005
        truth.append(np.unique(rng.choice(ITEMS, 4, p=now / now.sum())))
    return Log(np.array(user), np.array(item), np.array(day)), truth


def lists(log: Log) -> pa.Array:
    """A model of counts: own ones, newer ones count more, and a little of everybody's."""
    weight = 0.5 ** ((DAYS - log.day) / 28)
    own = np.zeros((USERS, ITEMS))
    np.add.at(own, (log.user, log.item), weight)
    score = own + 0.05 * own.sum(0) / max(own.sum(0).max(), 1e-9)
    return pa.array(np.argsort(-score, axis=1, kind="stable")[:, :TOP].tolist())


def segments(log: Log, truth: list[np.ndarray], mine: pa.Array, theirs: pa.Array) -> dict[str, tuple[Draws, Draws]]:
    head = set(np.argsort(-np.bincount(log.item, minlength=ITEMS))[: ITEMS // 5].tolist())
    few = np.bincount(log.user, minlength=USERS) < 10
    parts = {
        ALL: truth,
        HEAD: [t[[i in head for i in t.tolist()]] for t in truth],
        TAIL: [t[[i not in head for i in t.tolist()]] for t in truth],
        "cold": [t if few[u] else t[:0] for u, t in enumerate(truth)],
    }
    weights = poisson_weights(np.arange(USERS) * 7919, 500)
    found = {}
    for name, true in parts.items():
        rows = np.flatnonzero([len(t) > 0 for t in true])
        wanted = pa.array([true[u].tolist() for u in rows])
        each = [ndcg(find_hits(one.take(pa.array(rows)), wanted, TOP), TOP) for one in (mine, theirs)]
        found[name] = tuple(Draws.of(values, weights[rows]) for values in each)
    return found


def shuffled(log: Log, rng: np.random.Generator) -> Log:
    return replace(log, item=rng.permutation(log.item))


WORSE = {
    "labels shuffled": shuffled,
    "a tenth of the data": lambda log, rng: log.where(rng.random(len(log.user)) < 0.1),
    "last month's": lambda log, rng: log.where(log.day < DAYS - 30),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("spoilt", WORSE)
def test_a_worse_challenger_is_rejected_and_told_why(spoilt: str, seed: int) -> None:
    log, truth = world(seed)
    bad = lists(WORSE[spoilt](log, np.random.default_rng(seed)))
    decision = in_arrears(segments(log, truth, bad, lists(log)), GATE)
    assert decision.verdict == "reject"
    assert decision.reasons[0].startswith("worse overall: NDCG@10")
    assert decision.figures["lead_high"] < 0 and decision.figures["users"] == USERS


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("spoilt", WORSE)
def test_a_better_challenger_is_promoted(spoilt: str, seed: int) -> None:
    log, truth = world(seed)
    bad = lists(WORSE[spoilt](log, np.random.default_rng(seed)))
    decision = in_arrears(segments(log, truth, lists(log), bad), GATE)
    assert decision.verdict == "promote", decision.reasons


@pytest.mark.parametrize("seed", SEEDS)
def test_an_equal_challenger_does_not_flap(seed: int) -> None:
    log, truth = world(seed)
    half = np.random.default_rng(seed).random(len(log.user)) < 0.5
    one, two = lists(log.where(half)), lists(log.where(~half))
    assert one != two
    for mine, theirs in ((one, two), (two, one), (one, one)):
        assert in_arrears(segments(log, truth, mine, theirs), GATE).verdict == "keep"


def test_equal_models_move_nothing_in_many_worlds() -> None:
    moved = 0
    for seed in range(100, 130):
        log, truth = world(seed)
        half = np.random.default_rng(seed).random(len(log.user)) < 0.5
        moved += in_arrears(segments(log, truth, lists(log.where(half)), lists(log.where(~half))), GATE).verdict != "keep"
    assert moved <= 1


# -- single rules ----------------------------------------------------------------------------------------------------


def draws(mean: float, users: int = 400, seed: int = 0) -> Draws:
    """Users with a common part, so that a difference of means is seen."""
    base = np.random.default_rng(seed).random(users) * 0.2
    return Draws.of(base + mean, poisson_weights(np.arange(users), 500))


def test_a_segment_may_not_pay_for_the_rest() -> None:
    pairs = {ALL: (draws(0.40), draws(0.39)), TAIL: (draws(0.10, 60), draws(0.20, 60))}
    decision = in_arrears(pairs, GATE)
    assert decision.verdict == "reject" and decision.reasons[0].startswith(f"worse for {TAIL}")
    assert in_arrears(pairs, GATE.model_copy(update={"segment_loss": 0.6})).verdict == "promote"


def test_too_few_users_tell_nothing() -> None:
    decision = in_arrears({ALL: (draws(0.1, 9), draws(0.9, 9))}, GATE)
    assert decision.verdict == "keep" and "too few" in decision.reasons[0]


def test_a_significance_that_no_draw_can_reach_is_no_setting() -> None:
    with pytest.raises(SettingsError, match=r"cannot be reached with 100 draws; set evaluation\.draws to 200"):
        settings(evaluation={"draws": 100})


GOOD = {TRAINED: 0.3, POPULARITY: 0.1, PERSONAL: 0.2}
LIKE = Shadow(100, 0.6, 0.1, 0.1, 0.0)


@pytest.mark.parametrize(
    ("mine", "theirs", "shadow", "same", "changes", "verdict", "said"),
    [
        (GOOD, None, None, True, {}, "promote", "no champion"),
        (GOOD, GOOD, LIKE, True, {}, "promote", "fresher"),
        (GOOD, GOOD, LIKE, True, {"policy": "proven"}, "keep", "proven"),
        (GOOD, GOOD, LIKE, False, {}, "keep", "other settings"),
        (GOOD, GOOD, replace(LIKE, overlap=0.05), True, {}, "keep", "share 0.05"),
        (GOOD, GOOD, replace(LIKE, overlap=float("nan")), True, {}, "keep", "share nan"),
        (GOOD | {TRAINED: 0.2}, GOOD, LIKE, True, {}, "reject", "below 0.7 of the champion's"),
        (GOOD | {"loss": float("nan")}, GOOD, LIKE, True, {}, "reject", "not finite: loss"),
        (GOOD | {TRAINED: 0.05}, None, None, True, {}, "promote", "loses to popularity (0.1000) and personal"),
        (GOOD | {TRAINED: 0.05}, None, None, True, {"below_baselines": "refuse"}, "reject", "loses to popularity"),
        (GOOD | {TRAINED: 0.15}, None, None, True, {"below_baselines": "refuse"}, "promote", "no champion"),
    ],
)
def test_what_is_asked_of_a_new_model(mine, theirs, shadow, same, changes, verdict, said) -> None:
    decision = at_birth(mine, theirs, shadow, same, Gate(**changes))
    assert decision.verdict == verdict
    assert said in "; ".join(decision.reasons)


def test_a_model_alone_is_judged_beside_the_baselines() -> None:
    plain = {"popularity": draws(0.5), "personal": draws(0.4)}
    assert beside_baselines(draws(0.45), plain, GATE).verdict == "keep"
    lost = beside_baselines(draws(0.3), plain, GATE)
    assert lost.verdict == "keep" and "worse than popularity, personal" in lost.reasons[0]
    assert beside_baselines(draws(0.3), plain, Gate(below_baselines="refuse")).verdict == "reject"


def test_other_settings_are_those_that_change_the_model() -> None:
    mine = recipe(settings())
    assert mine == recipe(settings(training={"threads": 7}, evaluation={"windows": 9}))
    assert mine != recipe(settings(training={"epochs": 9}))
    assert mine != recipe(settings(model={"width": 32}))


# -- with real trainings ---------------------------------------------------------------------------------------------

MOMENTS = [START + day * DAY_US for day in (39, 46, 53)]


def test_a_model_that_learned_shuffled_labels_is_rejected(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    log = shop(users=80)
    past = [e for e in log if e[2] < MOMENTS[-1]]
    items = np.random.default_rng(0).permutation([item for _, item, _ in past]).tolist()
    nonsense = [(user, item, us) for (user, _, us), item in zip(past, items, strict=True)]
    made = settings(training={"epochs": 6}, top_k=10)
    write_tables(tmp_path / "true", log, MOMENTS, 7 * DAY_US)
    write_tables(tmp_path / "shuffled", nonsense, MOMENTS, 7 * DAY_US)
    bundles, cards = {}, {}
    for name in ("true", "shuffled"):
        told = spec(tmp_path / name, MOMENTS, made, tmp_path / f"bundle-{name}")
        trained = train.train(told, World(0, 1), tell=False)
        checkpoint.save(trained, told)
        bundles[name], cards[name] = tmp_path / f"bundle-{name}", trained.metrics
    # Seen in training alone it is refused already: there was nothing to learn.
    assert at_birth(cards["shuffled"], cards["true"], LIKE, True, GATE).verdict == "reject"

    after = {u: sorted({i for v, i, t in log if v == u and MOMENTS[-1] <= t < MOMENTS[-1] + 7 * DAY_US}) for u in {e[0] for e in log}}
    users = sorted(u for u, true in after.items() if true)
    weights = poisson_weights(np.arange(len(users)), 500)
    true_tables = spec(tmp_path / "true", MOMENTS, made, tmp_path / "x").tables
    rows = join_user_tables(*(read_table(spec(tmp_path / "true", MOMENTS, made, tmp_path / "x"), name, MOMENTS[-1])
                              for name in ("user_sequences", "user_profiles", "user_item_repeats")))  # fmt: skip
    each = {}
    for name, bundle in bundles.items():
        asked = PredictSpec(tables={t: true_tables[t] for t in PREDICT_TABLES}, as_of_us=MOMENTS[-1], top_k=10)
        shown = Scorer(prepare(bundle, asked, tmp_path / f"prepared-{name}")).score(rows).to_pandas()
        best = shown.sort_values(["user_id", "rank"]).groupby("user_id")["item_id"].agg(list)
        each[name] = ndcg(find_hits(pa.array([best[u] for u in users]), pa.array([after[u] for u in users]), 10), 10)
    pair = Draws.of(each["shuffled"], weights), Draws.of(each["true"], weights)
    decision = in_arrears({ALL: pair}, GATE)
    assert decision.verdict == "reject" and decision.reasons[0].startswith("worse overall")
    assert in_arrears({ALL: pair[::-1]}, GATE).verdict == "promote"
