"""Settings: one typed, frozen tree; an unknown key is an error. ``conf/load.py`` reads it; ``conf/sources.py``, ``conf/gate.py``,
``conf/scoring.py`` and ``conf/training.py`` hold a group or two each."""

from __future__ import annotations

import hashlib
import json
import math
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from conf import columns as c
from conf.gate import Gate
from conf.nodes import Count, Duration, Node, Positive
from conf.scoring import Scoring
from conf.sources import Ingest, Sources
from conf.training import Training

#: Up to the one a list is for tomorrow, from the other on a log has few windows; how far back to look follows both.
SHORT_HORIZON, _LONG = timedelta(days=2), timedelta(days=30)
_WEEK = timedelta(days=7)
#: Anchors where labels are few: so many, or four days of hours, but at most 96.
_FAR, _DAYS, _MOST = 40, timedelta(days=4), 96


class Features(Node):
    """How history becomes features."""

    sequence_length: Positive = 100
    session_gap: Duration = timedelta(minutes=30)
    dwell: Literal["gaps", "value"] = Field("gaps", description="time spent: gaps inside sessions, or the events' values (seconds)")
    repeats_per_user: Positive | None = Field(
        None,
        description="(user, item) rows kept a user, by decayed count (90d); if not set 300, and 10,000 where items do not repeat: what has no row "
        "there may be recommended to who had it",
    )
    categories_per_user: Positive = 10
    neighbors: Positive = Field(100, description="neighbours kept an item")
    neighbor_reach: Positive = Field(10, description="an event meets this many earlier events of the same user")
    neighbor_session_weight: float = Field(1.0, ge=0.01, le=100, description="a meeting inside one session counts so many times")
    neighbor_min_together: Positive = Field(1, description="two items that met less often are no neighbours")
    neighbor_half_life: Duration = timedelta(days=28)
    neighbor_min_events: Positive = Field(3, description="items with fewer visible events have no neighbours")


class Model(Node):
    """Shape of the network; every component can be switched off for ablation."""

    width: Positive = 48
    heads: Positive = 2
    rnn: Literal["lstm", "gru"] = "lstm"
    item_layers: Positive = 1
    interaction_layers: Positive = 1
    slate_layers: Positive = 1
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    use_item_time: bool = Field(True, description="f_item: the Transformer over the item's series, and how often a user takes items of its age")
    use_interaction: bool = Field(True, description="g: cross-attention of candidate and events, and counts of those that are like it")
    use_slate: bool = Field(True, description="h: attention between the candidates of a slate, and where each stands among those that share a facet")
    use_repeats: bool = Field(True, description="the repeat term and its signals")
    use_time_gaps: bool = Field(True, description="encodings of time gaps and event ages, habits of the day and the week")


class Slate(Node):
    """How many candidates each source may add to a user's slate."""

    retrieved: Count = 40
    repeats: Count = 60
    audience: Count = Field(15, description="what people like the user chose, for each of three half-lives")
    trending: Count = Field(15, description="for each half-life")
    released: Count = 15
    neighbors: Count = 40


class Evaluation(Node):
    """What lists are measured against."""

    popularity_half_lives: tuple[str, ...] = ("1d", "7d", "28d")
    personal_half_lives: tuple[str, ...] = ("28d", "90d", "365d")
    windows: Positive = Field(3, description="nights judged, one horizon apart: --as-of and those before it")
    visit_parts: Count = Field(
        0, description="also judge lists that know when a user comes, to this many parts of the horizon; each is a scoring. 0: do not"
    )
    draws: Annotated[int, Field(ge=100, le=5000)] = Field(500, description="of the bootstrap, for intervals and p-values")

    @model_validator(mode="after")
    def _known(self) -> Evaluation:
        for name, allowed in (("popularity", c.ITEM_HALF_LIVES), ("personal", c.REPEAT_HALF_LIVES)):
            for half_life in getattr(self, f"{name}_half_lives"):
                if half_life not in allowed:
                    raise ValueError(f"{name} half-life {half_life!r} is not one of {', '.join(allowed)}")
        return self


class Tuning(Node):
    """How other settings are tried on past windows (jobs/tune_model.py)."""

    trials: Positive = Field(20, description="settings tried, the ones in use among them")
    parallel: Positive = Field(1, description="processes, each with its part of the cores; each needs the memory of a training")
    windows: Positive = Field(2, description="newest anchors that are held out and judged")
    max_seconds: Positive = Field(14_400, description="begin no further trial after this")


class Maintenance(Node):
    """How long what is old is kept (jobs/maintain.py). Never deleted: what training, judging and the lists on show need."""

    features: Duration = Field(timedelta(days=90), description="feature tables, before --as-of")
    recommendations: Duration = Field(timedelta(days=365), description="batches of lists, before --as-of")
    vacuum_retention: Duration = Field(
        timedelta(days=7), description="files of earlier versions, by the clock; longer than any reader or run takes"
    )


class Spark(Node):
    """The session, when this process starts it. Under spark-submit the submit command decides."""

    master: str = "local[*]"
    driver_memory: str = "2g"
    shuffle_partitions: Positive = 4
    conf: dict[str, str] = Field(default_factory=dict)


class Mlflow(Node):
    """Where runs and models are kept. ``{warehouse}`` stands for the warehouse path."""

    tracking_uri: str = "sqlite:///{warehouse}/mlflow.db"
    artifacts: str = "{warehouse}/mlartifacts"
    experiment: str = "kairos"
    model: str = Field("kairos", pattern=r"^[A-Za-z0-9_.-]+$")
    on_unreachable: Literal["fail", "local_copy"] = Field(
        "fail", description="local_copy: lists are made by the version that the newest run used, whose copy is checked again"
    )


class Settings(Node):
    """The whole tree."""

    domain: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    warehouse: str = "./warehouse"
    catalog: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)?$")] | None = Field(
        None, description="catalog.schema for table names; paths under warehouse if not set"
    )
    source: Sources
    repeat_consumption: bool = Field(True, description="may an item be recommended again to who had it?")
    horizon: Duration = timedelta(days=7)
    hourly_horizon: Duration | None = Field(
        None, description="what an hourly list is meant to predict; horizon if not set"
    )
    top_k: Positive = 20
    ingest: Ingest = Ingest()  # type: ignore[call-arg]
    features: Features = Features()  # type: ignore[call-arg]
    model: Model = Model()  # type: ignore[call-arg]
    slate: Slate = Slate()  # type: ignore[call-arg]
    training: Training = Training()  # type: ignore[call-arg]
    scoring: Scoring = Scoring()  # type: ignore[call-arg]
    evaluation: Evaluation = Evaluation()  # type: ignore[call-arg]
    gate: Gate = Gate()  # type: ignore[call-arg]
    tuning: Tuning = Tuning()  # type: ignore[call-arg]
    maintenance: Maintenance = Maintenance()  # type: ignore[call-arg]
    spark: Spark = Spark()
    mlflow: Mlflow = Mlflow()  # type: ignore[call-arg]

    @property
    def anchors(self) -> int:
        """How many past moments training learns from, at most: older ones only until there are labels enough (``training.enough_users``)."""
        return self.training.anchors or max(_FAR, min(_MOST, _DAYS // self.horizon))

    @property
    def least_anchors(self) -> int:
        """So many of them are learned from however many labelled users they have.

        A short window has few labels, so it takes more of them, of a day two weeks; of long ones the log has few, so they may overlap.
        """
        return self.training.anchors or (14 if self.horizon <= SHORT_HORIZON else 4 if self.horizon < _LONG else 20)

    @property
    def anchor_every(self) -> timedelta:
        """Distance between training anchors."""
        return self.training.anchor_every or (self.horizon if self.horizon < _LONG else self.horizon / 3)

    @property
    def repeats_per_user(self) -> int:
        """``features.repeats_per_user``, or what follows: what decays to nothing is no habit any more, but had all the same."""
        return self.features.repeats_per_user or (300 if self.repeat_consumption else 10_000)

    @property
    def trending_change(self) -> float:
        """``scoring.trending_change``, or what follows from the horizon: for a day or two what trends decides, and a list is old in an hour."""
        given = self.scoring.trending_change
        return given if given is not None else float(self.horizon > SHORT_HORIZON)

    @property
    def train_every(self) -> timedelta | None:
        """How old the newest version may be before a night trains anew; None: as old as it may become.

        What a week costs, and where, is in model/LOG.md. In whole distances of anchors, so that most of these have their features already.
        """
        if self.training.every == "never":
            return None
        return self.training.every or self.anchor_every * math.ceil(_WEEK / self.anchor_every)

    @model_validator(mode="after")
    def _reachable(self) -> Settings:
        # The p-value of a bootstrap is at least 2 / (1 + draws): a smaller bound would let everything through.
        if self.gate.significance * (1 + self.evaluation.draws) < 2:
            raise ValueError(
                f"gate.significance {self.gate.significance:g} cannot be reached with {self.evaluation.draws} draws; "
                f"set evaluation.draws to {round(2 / self.gate.significance)} or more"
            )
        if 0 < self.scoring.explore_places > self.top_k - self.scoring.pin_places:
            raise ValueError(
                f"scoring.explore_places {self.scoring.explore_places} and scoring.pin_places {self.scoring.pin_places} are more than "
                f"the {self.top_k} places of a list (top_k)"
            )
        return self

    def resolved(self) -> dict[str, Any]:
        """The tree as plain JSON values."""
        return self.model_dump(mode="json")

    def fingerprint(self) -> str:
        """SHA-256 of the resolved tree."""
        return hashlib.sha256(json.dumps(self.resolved(), sort_keys=True).encode()).hexdigest()
