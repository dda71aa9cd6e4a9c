"""Neural sequence models by RecTools, each with the same width, depth, budget and time of training.

Sources: SASRec (Kang and McAuley, "Self-attentive sequential recommendation", ICDM 2018); eSASRec, which is SASRec with LiGR
layers and sampled softmax (Tikhonovich et al., "eSASRec: enhancing transformer-based recommendations in a modular fashion",
RecSys 2025); HSTU, which sees when events happened and for which moment it is asked (Zhai et al., "Actions speak louder than
words: trillion-parameter sequential transducers for generative recommendations", ICML 2024).
"""

from __future__ import annotations

import logging
import os
import warnings
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from peers import popularity
from protocol import DEPTH, ITEM, TIME, USER, Choice, Lists, Log, MissingError, Recommender, Split

EPOCHS, BATCH, NEGATIVES, LONGEST = 30, 256, 512, 50


def sequence_model(split: Split, choice: Choice, kind: str) -> Lists:
    """Lists of a model that has learned for choice["seconds"]; who has no list of it gets what is popular now."""
    try:
        import pytorch_lightning as lightning
        from rectools import Columns
        from rectools.dataset import Dataset
        from rectools.models import HSTUModel, SASRecModel
        from rectools.models.nn.item_net import IdEmbeddingsItemNet
        from rectools.models.nn.transformers.ligr import LiGRLayers
    except ImportError as missing:
        raise MissingError(f"{kind} needs {missing.name}: pip install 'kairos-rec[peers]' (RecTools)") from None
    _quiet(lightning, int(choice.get("seed", 0)))
    names = {USER: Columns.User, ITEM: Columns.Item, TIME: Columns.Datetime}
    data = Dataset.construct(split.past.rename(columns=names).assign(**{Columns.Weight: 1.0}))
    events_of_user = np.bincount(split.coded.u)
    settings: dict[str, Any] = {
        "n_factors": choice["width"],
        "n_blocks": 2,
        "n_heads": 2,
        "dropout_rate": choice["dropout"],
        "lr": choice["rate"],
        "session_max_len": int(np.clip(np.quantile(events_of_user, 0.9), 10, LONGEST)),
        "batch_size": BATCH,
        "epochs": EPOCHS,
        "loss": "sampled_softmax",
        "n_negatives": min(NEGATIVES, len(split.coded.items) - 1),
        "item_net_block_types": (IdEmbeddingsItemNet,),
        "get_trainer_func": lambda **_: _trainer(lightning, choice["seconds"]),  # a partial has no name, which it wants
    }
    if kind == "eSASRec":
        settings["transformer_layers_type"] = LiGRLayers
    model = HSTUModel(**settings) if kind == "HSTU" else SASRecModel(**settings)
    model.fit(data)
    # HSTU is asked for the cutoff, not for the moment after the user's last event.
    asked: dict[str, Any] = {}
    if kind == "HSTU":
        asked["context"] = pd.DataFrame({Columns.User: split.users, Columns.Datetime: split.cutoff})
    made = model.recommend(
        split.users, data, k=DEPTH, filter_viewed=not split.log.repeats, on_unsupported_targets="ignore", **asked
    )
    made = made.sort_values([Columns.User, Columns.Rank])
    lists = popularity(split, {"half_life": split.log.half_lives[0]})
    return {**lists, **made.groupby(Columns.User)[Columns.Item].agg(list).to_dict()}


def _trainer(lightning: Any, seconds: int) -> Any:
    return lightning.Trainer(
        max_epochs=EPOCHS,
        max_time={"seconds": seconds},
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _quiet(lightning: Any, seed: int) -> None:
    """The same start in every run, as many threads as the environment says, and no chatter."""
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning|rectools|lightning_fabric|pydantic")
    lightning.seed_everything(seed, verbose=False)


def _choices(log: Log) -> list[Choice]:
    return [
        {"width": 64, "rate": 2e-3, "dropout": 0.2},
        {"width": 128, "rate": 1e-3, "dropout": 0.2},
        {"width": 64, "rate": 2e-3, "dropout": 0.5},
        {"width": 64, "rate": 5e-4, "dropout": 0.2},
    ]


RECOMMENDERS = tuple(
    Recommender(kind, partial(sequence_model, kind=kind), _choices, seeded=True, timed=True)
    for kind in ("SASRec", "eSASRec", "HSTU")
)
