"""The trainer as a whole, on a small generated shop."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from model_world import START, poisoned, settings, shop, spec, write_tables
from safetensors.numpy import load_file

from model import train
from model.as_of.item_state import DAY_US
from model.data import DataError
from model.machine.distributed import World
from model.slate.signals import signal_names
from model.spec import TrainSpec, write_spec
from model.training.ranker_training import AnchorSlates, RankerTrainer
from model.training.trained import Trained
from model.versions import checkpoint

MOMENTS = [START + day * DAY_US for day in (39, 46, 53)]
WEEK = 7 * DAY_US


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def world(folder: Path, events: list | None = None, **over: object) -> TrainSpec:
    write_tables(folder, shop() if events is None else events, MOMENTS, WEEK)
    return spec(folder, MOMENTS, settings(**over), folder / "bundle")


def weights(trained: Trained) -> dict[str, torch.Tensor]:
    return {**trained.encoder.state_dict(prefix="e."), **trained.ranker.state_dict(prefix="r.")}


def test_training_twice_gives_the_same_weights_to_the_bit(tmp_path: Path) -> None:
    made = world(tmp_path, model={"width": 16, "dropout": 0.2})
    one, two = (weights(train.train(made, World(0, 1))) for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    other = weights(train.train(world(tmp_path, training={"seed": 1, "threads": 1}), World(0, 1)))
    assert not torch.equal(one["e.items.id.weight"], other["e.items.id.weight"])


def ranker_losses(bundle: Path) -> list[float]:
    return json.loads((bundle / checkpoint.HISTORY).read_text())["ranker"]["loss"]


def losses(bundle: Path) -> np.ndarray:
    told = json.loads((bundle / checkpoint.HISTORY).read_text())
    return np.array([*told["encoder"]["positions"], *told["encoder"]["anchors"], *ranker_losses(bundle)])


@pytest.mark.parametrize(("training", "passes"), [
    ({"epochs": 2, "ranker_epochs": 4}, 4), ({"epochs": 5, "ranker_epochs": 4}, 5), ({"epochs": 2, "ranker_steps": 1}, 2),
])  # fmt: skip
def test_a_small_log_is_gone_through_more_often_but_not_for_ever(tmp_path: Path, training: dict[str, int], passes: int) -> None:
    trained = train.train(world(tmp_path, training={"retrieval_epochs": 1} | training), World(0, 1), tell=False)
    assert len(trained.history["ranker"]["loss"]) == passes


@pytest.mark.parametrize("sparse_rows", [1_000_000, pytest.param(1, marks=pytest.mark.soak)])
def test_two_processes_take_the_same_steps_as_one(tmp_path: Path, sparse_rows: int) -> None:
    stopping = sparse_rows > 1  # not where last bits differ (below): they could decide between two numbers of passes
    made = world(tmp_path, training={"anchors": 2, "batch_users": 16, "negatives": 32, "epochs": 1, "threads": 1, "sparse_rows": sparse_rows, "early_stopping": stopping})
    specs = {processes: str(tmp_path / f"spec{processes}.json") for processes in (1, 2)}
    for processes, path in specs.items():
        write_spec(made.model_copy(update={"output": str(tmp_path / f"bundle{processes}")}), path)
    train.main(["--spec", specs[1]])
    two_processes = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*two_processes, "-m", "model.train", "--spec", specs[2]], check=True, capture_output=True, timeout=240, cwd=Path(__file__).parents[1])
    results = [load_file(tmp_path / f"bundle{processes}" / checkpoint.WEIGHTS) for processes in specs]
    one, two = (losses(tmp_path / f"bundle{processes}") for processes in (1, 2))
    if sparse_rows == 1:
        # Sums of a table's rows end in other last bits. Weights to which the encoder's loss is blind (what is added to all items alike)
        # have gradients of nothing else, which Adam makes as large as any; the ranker reads them in its signals.
        one, two = one[: -len(ranker_losses(tmp_path / "bundle1"))], two[: -len(ranker_losses(tmp_path / "bundle2"))]
    else:
        far = max(float(np.abs(results[0][name] - results[1][name]).max()) for name in results[0])
        assert far < 1e-4, f"weights differ by up to {far}"
    assert len(one) >= 8 and np.abs(one - two).max() < 1e-5, f"losses differ by up to {np.abs(one - two).max()}"


@pytest.mark.parametrize("sources", [("retrieved", "audience", "released"), ("repeats", "trending", "neighbors")], ids="-".join)
def test_sources_may_give_nothing(tmp_path: Path, sources: tuple[str, ...]) -> None:
    slate, training = dict.fromkeys(sources, 0), {"anchors": 1, "epochs": 1, "retrieval_epochs": 1, "threads": 1}
    trained = train.train(world(tmp_path, slate=slate, training=training), World(0, 1))
    told = trained.history["candidate_recall"]
    gave = {name: share for one in told.values() for name, share in one.items()}
    several = {"neighbors": ("next", "like"), "trending": tuple(name for name in gave if name.startswith("trending"))}
    of_them = [name for source in sources for name in several.get(source, (source,)) if source != "retrieved"]  # of which there is a list's worth always
    assert of_them and all(gave[name] == 0 for name in of_them)
    assert gave["all"] > 0


def test_eight_users_are_learned_by_heart(tmp_path: Path) -> None:
    trained = train.train(world(tmp_path, shop(users=8, items=30), training={"epochs": 60, "threads": 1, "signal_prior": 0}), World(0, 1))
    assert trained.metrics["train_ndcg_at_10"] > 0.75 * trained.metrics["candidate_recall"]
    assert trained.history["ranker"]["loss"][-1] < 0.6 * trained.history["ranker"]["loss"][0]


def test_recent_anchors_count_more_where_asked(tmp_path: Path) -> None:
    made = world(tmp_path, training={"epochs": 1, "ranker_epochs": 1, "anchor_half_life": "7d"})
    plain, weighed = (train.train(s, World(0, 1), tell=False) for s in (world(tmp_path, training={"epochs": 1, "ranker_epochs": 1}), made))
    one, two = weights(plain), weights(weighed)
    assert all(torch.equal(one[name], two[name]) for name in one if name.startswith("e.")) and not torch.equal(one["r.straight.weight"], two["r.straight.weight"])

    anchors = [SimpleNamespace(moment=SimpleNamespace(state=SimpleNamespace(as_of_us=us)), item=np.zeros((users, 1))) for us, users in ((0, 30), (WEEK, 10))]
    older, newest = RankerTrainer(None, made.resolved_settings(), None)._weights(anchors)  # type: ignore[arg-type]
    assert older == newest / 2 and 30 * older + 10 * newest == pytest.approx(40)


def collected(made: TrainSpec, monkeypatch: pytest.MonkeyPatch) -> list[AnchorSlates]:
    found: list[AnchorSlates] = []
    original = train.collect

    def keep(*arguments: object) -> AnchorSlates:
        found.append(original(*arguments))  # type: ignore[arg-type]
        return found[-1]

    monkeypatch.setattr(train, "collect", keep)
    train.train(made, World(0, 1))
    monkeypatch.undo()
    return found


@pytest.mark.parametrize(("switch", "says"), [("use_repeats", ["repeat"]), ("use_slate", ["newest", "best"]), ("use_item_time", ["age_taken"])])
def test_a_component_that_is_off_tells_no_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, switch: str, says: list[str]) -> None:
    for told in (True, False):
        made = world(tmp_path, model={"width": 16, "dropout": 0.0, switch: told})
        slate = collected(made, monkeypatch)[-1]
        names = signal_names(slate.moment.catalogue.facet_names)
        for word in says:
            own = [j for j, name in enumerate(names) if word in name and name != "user_repeat_share"]
            rows = slate.signals[slate.item >= 0][:, own]
            assert (rows == rows[0]).all() != told


def test_nothing_that_happens_after_an_anchor_reaches_its_slates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [e for e in shop() if e[2] < MOMENTS[-1]]
    clean = collected(world(tmp_path / "a", events), monkeypatch)
    dirty = collected(world(tmp_path / "b", poisoned(events, MOMENTS[1])), monkeypatch)
    assert np.array_equal(clean[1].item, dirty[1].item) and np.array_equal(clean[1].signals, dirty[1].signals)
    assert not np.array_equal(clean[1].target, dirty[1].target), (
        "the poison must change the labels, or nothing is tested"
    )


def test_what_is_delivered_after_an_anchor_does_not_reach_its_slates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Late events happened before the anchor and became known after it, so the feature tables at the anchor lack them too."""
    clean = collected(world(tmp_path / "a"), monkeypatch)
    late = world(tmp_path / "b")
    table = pq.read_table(tmp_path / "b" / "events.parquet")
    more = table.filter(pc.less(table["event_ts"], pa.scalar(MOMENTS[1]).cast(table["event_ts"].type)))
    more = more.set_column(0, "event_id", pa.array([f"late {n}" for n in range(len(more))]))
    known = pa.array([MOMENTS[1] + 1] * len(more), pa.int64()).cast(table["available_ts"].type)
    more = more.set_column(more.column_names.index("available_ts"), "available_ts", known)
    pq.write_table(pa.concat_tables([table, more]), tmp_path / "b" / "events.parquet")
    dirty = collected(late, monkeypatch)
    assert np.array_equal(clean[1].item, dirty[1].item) and np.array_equal(clean[1].signals, dirty[1].signals)


def test_nothing_that_happens_after_as_of_reaches_the_weights(tmp_path: Path) -> None:
    clean = weights(train.train(world(tmp_path / "a"), World(0, 1)))
    dirty = weights(train.train(world(tmp_path / "b", poisoned(shop(), MOMENTS[-1])), World(0, 1)))
    assert all(torch.equal(clean[name], dirty[name]) for name in clean)


def test_anchors_without_any_label_are_said_so(tmp_path: Path) -> None:
    made = world(tmp_path)
    late = made.model_copy(update={"tables": made.tables | {"events": made.tables["events"]}, "horizon_us": 1})
    with pytest.raises(DataError, match="no user has a label at any anchor"):
        train.train(late, World(0, 1))


def test_training_stops_after_the_epoch_that_passes_the_limit(tmp_path: Path) -> None:
    trained = train.train(world(tmp_path, training={"max_seconds": 1, "epochs": 2000, "threads": 1}), World(0, 1))
    assert trained.history["stopped_by_max_seconds"] == 1
    assert len(trained.history["ranker"]["loss"]) < 2000
    assert pa.types.is_string(trained.catalogue.item_ids.type)


@pytest.mark.parametrize(("enough", "anchors"), [(1, 4), (170, 5), (10_000, 6)])
def test_to_older_anchors_it_looks_only_where_newer_ones_have_few_labelled_users(tmp_path: Path, enough: int, anchors: int) -> None:
    moments = [START + day * DAY_US for day in (11, 18, 25, 32, 39, 46, 53)]
    write_tables(tmp_path, shop(), moments, WEEK)  # forty users, nearly all of whom come in a week
    made = spec(tmp_path, moments, settings(training={"retrieval_epochs": 1, "epochs": 1, "ranker_steps": 1, "anchors": None, "enough_users": enough}), tmp_path / "bundle")
    trained = train.train(made, World(0, 1), tell=False)
    assert trained.anchors_us == tuple(moments[:-1][-anchors:])
    checkpoint.save(trained, made)
    assert json.loads((tmp_path / "bundle" / checkpoint.CARD).read_text())["anchors_us"] == list(trained.anchors_us)
