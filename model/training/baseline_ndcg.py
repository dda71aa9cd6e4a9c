"""What the plain baselines would have had at a training anchor, over the same users and labels as the model."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from conf import columns as c
from conf.settings import Settings
from model.as_of.catalogue import Catalogue
from model.as_of.events import Events
from model.as_of.users import UserBatch
from model.baselines import personal_lists, popularity_lists
from model.data import read_table
from model.gate import PERSONAL, POPULARITY
from model.metrics import find_hits, ndcg
from model.spec import TrainSpec
from model.training.labels import anchor_labels

_TOP = 10


def baseline_ndcg(spec: TrainSpec, anchor_us: int, users: UserBatch, events: Events, catalogue: Catalogue, settings: Settings) -> dict[str, float]:
    """NDCG@10 of decayed popularity and, where items repeat, of personal frequency: each with the half-life that is best there."""
    judging = settings.evaluation
    labels = anchor_labels(events, users, anchor_us, spec.horizon_us, len(catalogue), spec.repeat_consumption)
    ids = users.user_ids.cast(pa.string())
    counts = np.bincount(labels.user, minlength=len(users))
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    truth = pa.ListArray.from_arrays(offsets, catalogue.item_ids.take(pa.array(labels.item)))
    temporal = read_table(spec, "item_temporal", anchor_us)
    repeats = read_table(spec, "user_item_repeats", anchor_us)
    seen = None if spec.repeat_consumption else repeats.select([c.USER_ID, c.ITEM_ID])
    made = {POPULARITY: [popularity_lists(temporal, ids, h, _TOP, seen) for h in judging.popularity_half_lives]}
    if spec.repeat_consumption:
        tie = judging.popularity_half_lives[-1]
        made[PERSONAL] = [personal_lists(repeats, temporal, ids, h, tie, _TOP) for h in judging.personal_half_lives]
    return {
        name: max(float(ndcg(find_hits(one, truth, _TOP), _TOP).mean()) for one in lists) for name, lists in made.items()
    }
