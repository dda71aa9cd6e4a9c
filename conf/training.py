"""How the model is fitted (model/train.py, jobs/training/trainer.py)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field

from conf.nodes import Count, Duration, Node, Positive, Share


class Augment(Node):
    """Histories that might have been, for the encoder to learn from (model/training/augment.py). All off: none was better where it was tried."""

    crop: Share = Field(0.0, description="up to this share of the oldest events of a window is left out")
    mask: Share = Field(0.0, description="an event's item is read as unknown with this chance")
    shift: Duration | None = Field(None, description="all times of a window move together, by up to this, back or forth")


class Training(Node):
    """How the model is fitted."""

    every: Duration | Literal["never"] | None = Field(
        None,
        description="a night trains anew when the newest version is so much older than it; if not set a week, rounded up to whole distances "
        "of anchors; never: only where there is no model",
    )
    anchors: Positive | None = Field(
        None,
        description="past as_of moments to learn from; if not set the newest 14 for a horizon up to two days, 20 for one from 30 days, 4 "
        "between them, and older ones, up to 40 (of hours 96), until they have enough_users",
    )
    enough_users: Positive = Field(2_500, description="labelled users of all anchors, beyond which older anchors teach nothing more")
    anchor_every: Duration | None = Field(
        None, description="distance between anchors; the horizon if not set, a third of one from 30 days"
    )
    anchor_half_life: Duration | None = Field(
        None, description="the ranker weighs users half at an anchor that is so much older than the newest; all alike if not set, as nothing was better where it was tried"
    )
    users_per_anchor: Positive = Field(20_000, description="labelled users an anchor, chosen by hash")
    retrieval_epochs: Positive = 2
    epochs: Positive = 3
    ranker_steps: Positive = Field(180, description="on a small log the ranker goes on after its epochs, until it has taken so many steps")
    ranker_epochs: Positive = Field(9, description="but sees everyone no more often than this, or its epochs if they are more: of a few dozen users it would learn each by heart")
    early_stopping: bool = Field(False, description="how often the ranker sees everyone is found at the newest anchor, by rankers of those before (model/training/early_stopping.py); twice its time")
    signal_prior: Annotated[float, Field(ge=0)] = Field(100, description="the ranker leans on the best single signal as if that had spoken for so many labelled users, within bounds; 0: not at all")
    batch_users: Positive = 128
    negatives: Positive = 512
    augment: Augment = Augment()  # type: ignore[call-arg]
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    processes: Annotated[int, Field(ge=1, le=1024)] = 1
    launcher: Literal["torchrun", "spark"] = Field(
        "torchrun", description="torchrun: processes of this machine (one starts by itself); spark: processes run on Spark's executors, with a GPU each where these have them"
    )
    threads: Count = Field(0, description="torch threads a process; 0: cores / processes")
    shards: Positive = Field(2, description="pieces of a step; up to so many processes take the same steps as one does")
    sparse_rows: Positive = Field(1_000_000, description="an id table of more rows learns only those that a step touches")
    max_seconds: Positive = Field(3600, description="stop cleanly after the epoch that passes this")
    checkpoints: str = Field("{warehouse}/.training", description="where they lie: a folder that every node of a training sees")
    checkpoint_every: Duration = timedelta(minutes=1)
    checkpoint_steps: Count = Field(0, description="and after at most so many steps; 0: by time alone")
    checkpoints_kept: Positive = 2
    restarts: Count = Field(3, description="times that a trainer that died or fell silent is started again")
    silence: Duration = Field(timedelta(seconds=40), description="a process that gives no sign for so long counts as dead")
    compile: bool = Field(False, description="torch.compile the ranker on a GPU; compiling takes longer (37 s on an H200) than a ranker of thousands of users learns")
    seed: int = 0

    def enough_anchors(self, labelled: Sequence[int], least: int) -> int:
        """How many of the newest anchors are learned from, given how many users have a label at each, newest first.

        To older ones than the ``least`` newest it looks only as long as those after them have few: what it gains, and where, is in model/LOG.md.
        """
        taken = users = 0
        for here in labelled:
            if taken >= least and users >= self.enough_users:
                break
            users += min(here, self.users_per_anchor)
            taken += 1
        return taken
