"""When a new model may be used (model/gate.py, jobs/gate_model.py)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from conf.nodes import Duration, Node, Positive, Share

Index = Annotated[float, Field(gt=0)]


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
    drift_warn: Index | None = Field(0.25, description="an input whose PSI against the champion's data is above this is told")
    drift_stop: Index | None = Field(None, description="above this the new version is refused, and the run ends with exit code 3")
    volume_warn: Share | None = Field(0.5, description="fewer events than this share of the champion's are told")
    volume_stop: Share | None = Field(None, description="fewer than this end the run with exit code 3")
    new_warn: Share | None = Field(0.5, description="a greater share of users or items first seen in the newest window is told")
    new_stop: Share | None = Field(None, description="a greater one ends the run with exit code 3")
    below_baselines: Literal["warn", "refuse"] = Field(
        "warn", description="a first version that loses to popularity and to personal frequency"
    )
