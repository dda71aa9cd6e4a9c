"""Trains the model: ``python -m model.train --spec spec.json``, or that under ``torch.distributed.run --nproc-per-node N``.

Walk-forward over the anchors, oldest first: make slates with the encoder as it stands, then let the encoder learn from
the anchor's window, then go to the next anchor. At the end the encoder has seen everything up to as_of, and the ranker
has slates whose scores were as fresh as they will be in use.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from conf import columns as c
from conf.settings import Settings
from model.as_of.audience import Audience, audience, half_lives, histories, item_basis
from model.as_of.catalogue import Catalogue, build_catalogue
from model.as_of.ease import fit_ease
from model.as_of.event_store import stored_events
from model.as_of.events import Events
from model.as_of.item_state import COLUMNS, ItemState, build_item_state
from model.as_of.neighbors import build_neighbors
from model.as_of.users import UserBatch, join_user_tables
from model.data import DataError, newest_partition, read_table, require_partition
from model.layers.item_temporal import ItemTable
from model.layers.recommend import Ranker
from model.machine.distributed import World, join_world, leave_world, set_threads
from model.machine.life import live, refuse
from model.network import Encoder
from model.slate.candidates import Moment
from model.slate.newcomers import best_ranking
from model.slate.signals import signal_names
from model.spec import TrainSpec, read_spec
from model.training.baseline_ndcg import baseline_ndcg
from model.training.best_signal import lean_on_best_signal
from model.training.budget import Budget
from model.training.checkpoints import Checkpoints
from model.training.early_stopping import best_passes
from model.training.encoder_training import EncoderTrainer
from model.training.inputs import spreads, volume
from model.training.labels import anchor_labels, labelled_users
from model.training.loop import Loop, NonFiniteLoss
from model.training.ranker_training import AnchorSlates, RankerTrainer, collect, restored, stored
from model.training.report import REPORT, report
from model.training.trained import Trained
from model.versions import checkpoint


def read_users(spec: TrainSpec, as_of_us: int, catalogue: Catalogue, settings: Settings) -> UserBatch:
    """The users of one anchor as arrays; none where nobody with a past did anything in its window."""
    names = ("user_sequences", "user_profiles", "user_item_repeats")
    rows = join_user_tables(*(read_table(spec, name, as_of_us) for name in names))
    return UserBatch.from_table(rows, catalogue, settings.features.sequence_length, settings.features.categories_per_user)


def read_state(spec: TrainSpec, as_of_us: int, catalogue: Catalogue) -> ItemState:
    """The items at one anchor as arrays."""
    return build_item_state(require_partition(spec, "item_temporal", as_of_us, list(COLUMNS)), catalogue, as_of_us)


def sales(seen: Events, items: int) -> np.ndarray:
    """How often each item was chosen in what a moment has seen: what the encoder can have learned of it."""
    return seen.counted("item", items, lambda part: seen.item[part] >= 0).astype(np.float32)


def audience_at(seen: Events, moment_us: int, items: int, settings: Settings) -> Audience:
    """The audiences of all items at a moment, in a basis from what it has seen."""
    basis = item_basis(seen, items, settings.training.seed)
    return audience(basis, histories(seen, settings.features.sequence_length), moment_us, half_lives(settings.horizon))


def moment_at(spec: TrainSpec, encoder: Encoder, table: ItemTable, seen: Events, state: ItemState, catalogue: Catalogue,
              settings: Settings) -> Moment:  # fmt: skip
    """The moment of ``state`` as a run at it prepares it: all it knows of the items is what was ``seen`` by then."""
    now, items = state.as_of_us, len(catalogue)
    neighbors = build_neighbors(newest_partition(spec, "item_neighbors", now), catalogue)
    table.know(sales(seen, items))
    known = audience_at(seen, now, items, settings)
    return Moment.prepare(encoder, table, state, neighbors, catalogue, known, fit_ease(seen, items), settings)


def train(spec: TrainSpec, world: World, tell: bool = True) -> Trained:
    """Run the whole walk; every rank returns the same networks. ``tell``: print what is done.

    With ``spec.checkpoints`` it goes on from the newest checkpoint there: what that has done is passed over, and ends in the
    same weights to the bit as without interruption, on the CPU and with as many processes.
    """
    settings = spec.resolved_settings()
    torch.set_deterministic_debug_mode("default" if world.cuda else "error")
    if world.cuda:
        torch.set_float32_matmul_precision("high")
        torch.backends.cuda.enable_cudnn_sdp(False)  # plans anew for each shape, 40 ms; here each step has its own
    torch.manual_seed(settings.training.seed)
    budget = Budget(settings.training.max_seconds, world)
    clock = _Clock(world, budget, tell)
    loop = _loop(spec, settings, world, budget, clock)
    ids = require_partition(spec, "item_temporal", spec.as_of_us, [c.ITEM_ID])[c.ITEM_ID].combine_chunks()
    catalogue = build_catalogue(read_table(spec, "items"), ids)
    folder = Path(spec.checkpoints) if spec.checkpoints else None
    events = stored_events(spec, spec.as_of_us, catalogue.item_ids, folder, world)
    if not len(events.us):
        raise DataError("no event is visible at as_of: nothing to learn from; run jobs/ingest.py, or choose a later --as-of")
    # Counted anew, newest first, until there are enough: nights before this one have left more anchors than are needed.
    labelled = labelled_users(events, spec.anchors_us[::-1], spec.horizon_us, spec.repeat_consumption).tolist()
    anchors = spec.anchors_us[-settings.training.enough_anchors(labelled, settings.least_anchors) :]
    if len(anchors) < len(spec.anchors_us):
        clock.say(f"the newest {len(anchors)} of {len(spec.anchors_us)} anchors have enough labelled users (training.enough_users)")
        spec = spec.model_copy(update={"anchors_us": anchors})
    sold = sales(events, len(catalogue))
    vocabulary = np.where(sold > 0, np.cumsum(sold > 0), 0)
    table = ItemTable(catalogue, vocabulary, world.device)
    content = 0 if catalogue.content is None else catalogue.content.shape[1]
    encoder = Encoder(int(vocabulary.max()) + 1, content, settings.model)
    ranker = Ranker(len(signal_names(catalogue.facet_names)), len(catalogue.facet_names), settings.model)
    for network in (encoder, ranker):
        network.to(world.device)
    if settings.training.compile:
        ranker.compile(dynamic=True)
    trainer = EncoderTrainer(encoder, table, catalogue, settings, loop)
    clock.done("read events and catalogue", events=len(events.us), items=len(catalogue), parameters=_size(encoder, ranker))

    basis = item_basis(events, len(catalogue), settings.training.seed)
    ease = fit_ease(events, len(catalogue))
    result = Trained(encoder, ranker, catalogue, table, sold, basis, ease, settings, anchors)
    slates = _walk(spec, trainer, events, result, clock)
    seen = [(anchor.moment.state, anchor.moment.shared) for anchor in slates]
    result.newcomers, result.history["newcomers"] = best_ranking(seen, events, spec.horizon_us)
    clock.done(f"list of newcomers: {result.newcomers}", ndcg=result.history["newcomers"][result.newcomers])
    table.know(sold)
    _fit_ranker(slates, RankerTrainer(ranker, settings, loop), result, clock)
    newest = slates[-1]
    result.volume = volume(events, newest.moment.state.as_of_us, len(catalogue))
    result.inputs = spreads(newest.moment.state, newest.users)
    result.report = report(loop.progress, newest, RankerTrainer(ranker, settings, loop).scores(newest))
    result.metrics |= baseline_ndcg(spec, newest.moment.state.as_of_us, newest.users, events, catalogue, settings)
    result.metrics["seconds"] = result.report["seconds"] = budget.used()
    result.history["stopped_by_max_seconds"] = int(budget.stopped)
    for network in (encoder, ranker):
        network.cpu()
    result.metrics["encoder_targets"] = loop.progress.examples.get("encoder", 0)
    return result


def _loop(spec: TrainSpec, settings: Settings, world: World, budget: Budget, clock: _Clock) -> Loop:
    """The loop at the place where the newest checkpoint stands."""
    training = settings.training
    if spec.checkpoints is None:
        return Loop(training, world, budget)
    every = training.checkpoint_every.total_seconds()
    checkpoints = Checkpoints(Path(spec.checkpoints), world, every, training.checkpoint_steps, training.checkpoints_kept, clock.say)
    progress = checkpoints.resume()
    world.agree(progress.steps, "checkpoint")
    progress.shards = progress.shards or world.all_shards
    world = replace(world, all_shards=progress.shards)
    budget.go_on(progress.seconds, progress.stopped)
    return Loop(training, world, budget, progress, checkpoints)


def _walk(spec: TrainSpec, trainer: EncoderTrainer, events: Events, result: Trained, clock: _Clock) -> list[AnchorSlates]:
    settings, catalogue, table, encoder = trainer.settings, trainer.catalogue, trainer.table, trainer.encoder
    epochs, items, checkpoints = settings.training.retrieval_epochs, len(trainer.catalogue), trainer.loop.checkpoints
    first = spec.anchors_us[0]
    seen = events.seen_at(first)
    table.at(None).know(sales(seen, items))
    curve = {"positions": trainer.fit_positions(seen, np.iinfo(np.int64).min, first, epochs, phase=0), "anchors": []}
    clock.done("encoder on history before the first anchor", loss=curve["positions"][-1])
    slates: list[AnchorSlates] = []
    ends = (*spec.anchors_us[1:], spec.as_of_us)
    for k, (anchor, end) in enumerate(zip(spec.anchors_us, ends, strict=True)):
        users = read_users(spec, anchor, catalogue, settings)
        state = read_state(spec, anchor, catalogue)
        labels = anchor_labels(events, users, anchor, spec.horizon_us, items, spec.repeat_consumption)
        if not len(labels.keys):
            clock.done(f"anchor {k + 1} has no labels: skipped", users=len(users))
            continue
        if not slates:
            encoder.fit_scales(state, users)
        moment = moment_at(spec, encoder, table, events.seen_at(anchor), state, catalogue, settings)
        kept = None if checkpoints is None else checkpoints.slates(k)
        if kept is not None:
            slates.append(restored(kept, moment, users, labels))
        else:
            slates.append(collect(moment, encoder, table, users, labels, settings, spec.repeat_consumption, trainer.loop.world))
            if checkpoints is not None:
                checkpoints.anchors[k] = partial(stored, slates[-1])
        clock.done(f"slates at anchor {k + 1}", users=len(slates[-1].item), width=slates[-1].item.shape[1], recall=slates[-1].recall["all"])
        losses = trainer.fit_anchor(users, labels, state, epochs, phase=2 * k + 1)
        curve["anchors"] += losses
        curve["positions"] += trainer.fit_positions(events.seen_at(end), anchor, end, 1, phase=2 * k + 2)
        clock.done(f"encoder on anchor {k + 1}", loss=losses[-1])
    if not slates:
        raise DataError("no user has a label at any anchor: choose a later --as-of, a longer horizon or more anchors")
    result.history["encoder"] = curve
    result.history["candidate_recall"] = {str(s.moment.state.as_of_us): s.recall for s in slates}
    result.metrics["candidate_recall"] = slates[-1].recall["all"]
    return slates


def _fit_ranker(slates: list[AnchorSlates], trainer: RankerTrainer, result: Trained, clock: _Clock) -> None:
    training = trainer.settings.training
    found = best_passes(trainer, slates) if training.early_stopping else None
    passes = trainer.epochs(slates) if found is None else found.best
    if found is not None:
        clock.done(f"rehearsals of the ranker, the best of {passes} passes", ndcg=found.tried[passes])
    elif training.early_stopping:
        clock.say(f"early stopping needs an anchor whose window ended by the newest one: training.anchors is too few; {passes} passes")
    trainer.fit_scale(slates)
    losses = trainer.fit(slates, passes, phase=1000)
    clock.done("ranker", loss=losses[-1])
    leans = lean_on_best_signal(trainer, slates, signal_names(result.catalogue.facet_names))
    if leans is not None:
        clock.done(f"ranker leans on {leans.name}", sign=leans.sign, ndcg=leans.ndcg, weight=leans.weight)
    result.history["ranker"] = {
        "loss": losses,
        "rehearsed": None if found is None else {str(tried): ndcg for tried, ndcg in found.tried.items()},
        "leans_on": None if leans is None else asdict(leans),
    }
    result.metrics["train_ndcg_at_10"] = trainer.ndcg(slates[-1])


def _size(*modules: torch.nn.Module) -> int:
    return sum(p.numel() for m in modules for p in m.parameters())


class _Clock:
    """Tells rank 0's reader what was done and how long it took."""

    def __init__(self, world: World, budget: Budget, tell: bool):
        self.tell, self.budget = tell and world.first, budget
        self.last = 0.0

    def say(self, text: str) -> None:
        if self.tell:
            print(f"train: {text}", flush=True)  # noqa: T201

    def done(self, what: str, **numbers: float) -> None:
        now = self.budget.used()
        if self.tell:
            said = ", ".join(f"{k} {v:,.4g}" if isinstance(v, float) else f"{k} {v:,}" for k, v in numbers.items())
            print(f"train: {what} ({said}) in {now - self.last:.1f} s", flush=True)  # noqa: T201
        self.last = now


def main(arguments: list[str] | None = None) -> None:
    """Entry of each rank."""
    parser = argparse.ArgumentParser(prog="model.train", description="Train the temporal model.")
    parser.add_argument("--spec", required=True, help="JSON written by jobs/train_model.py")
    parser.add_argument("--signs", help="folder for signs of life, which whoever started the trainer watches")
    parser.add_argument("--supervisor", type=int, help="process without which the trainer ends")
    told = parser.parse_args(arguments)
    if told.signs:
        live(Path(told.signs), told.supervisor)
    spec = read_spec(told.spec)
    training = spec.resolved_settings().training
    world = join_world(training.shards)
    set_threads(training.threads, world.size)
    try:
        trained = train(spec, world)
        if world.first:
            digest = checkpoint.save(trained, spec)
            Path(spec.output).with_suffix(REPORT).write_text(json.dumps(trained.report), encoding="utf-8")
            print(f"train: wrote {Path(spec.output)} (sha256 {digest})", flush=True)  # noqa: T201
    except (DataError, NonFiniteLoss) as error:
        if told.signs:
            refuse(Path(told.signs))  # it would end alike each time
        raise SystemExit(f"train: {error}") from None
    finally:
        leave_world(world)


if __name__ == "__main__":
    main()
