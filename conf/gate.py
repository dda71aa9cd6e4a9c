"""When a new model may be used (model/gate.py, jobs/gate_model.py)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from conf.nodes import Duration, Node, Positive, Share


class Gate(Node):
    """Which new version becomes champion, and when one that disappoints is taken back."""

    policy: Literal["fresh", "proven"] = Field(
        "fresh",
        description="fresh: used at once when nothing looks wrong, judged once its window has passed, taken back if worse. "
        "proven: used only after it was better in its window",
    )
    window: Duration | None = Field(
        None, description="a version is judged by a run this long after its as_of, or later; the horizon if not set, never less"
    )
    users: Positive = Field(20_000, description="users judged or compared at most, chosen by hash")
    significance: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.01, description="a lead or a loss counts below this p-value (paired bootstrap of evaluation.draws)"
    )
    segment_loss: Share = Field(0.1, description="a segment may lose up to this share of the champion's NDCG@10")
    least_training_share: Share = Field(
        0.7, description="a new version whose training NDCG@10 is below this share of the champion's is refused"
    )
    least_overlap: Share = Field(
        0.1, description="a new version whose first ten share less than this with the champion's must prove itself first"
    )
    below_baselines: Literal["warn", "refuse"] = Field(
        "warn", description="a first version that loses to popularity and to personal frequency"
    )
