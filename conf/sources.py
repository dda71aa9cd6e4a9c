"""Where raw data comes from, and what of it is accepted (jobs/ingest.py)."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from conf import columns as c
from conf.nodes import Duration, Node, Positive, Share


def _severity(value: Any) -> Any:
    return "off" if value is False else value  # YAML reads a bare off as false


class EventColumns(Node):
    """Which source column holds what. Only user_id, item_id and event_ts are needed."""

    user_id: str
    item_id: str
    event_ts: str
    event_id: str | None = None
    event_type: str | None = None
    available_ts: str | None = None
    value: str | None = None
    session_id: str | None = None


class ItemColumns(Node):
    """Which catalogue column holds what. Only item_id is needed."""

    item_id: str
    release_ts: str | None = None
    available_from: str | None = None
    available_until: str | None = None
    title: str | None = None
    category: str | None = None
    price: str | None = None
    embedding: str | None = None
    attributes: tuple[str, ...] = ()


class _Files(Node):
    path: str
    format: Literal["parquet", "csv", "json", "delta"] = "parquet"
    package: str | None = Field(None, description="path lies inside this installed Python package")


class EventSource(_Files):
    """The raw event log."""

    columns: EventColumns
    default_type: Literal[c.EVENT_TYPES] = "other"  # type: ignore[valid-type]
    event_types: dict[str, Literal[c.EVENT_TYPES]] = Field(default_factory=dict)  # type: ignore[valid-type]
    name: str = "events"


class ItemSource(_Files):
    """The raw catalogue."""

    columns: ItemColumns


class Sources(Node):
    """Where raw data comes from."""

    events: EventSource
    items: ItemSource | None = None


class Volume(Node):
    """Events of the newest full UTC day before --as-of against the mean of the same weekday in the weeks before."""

    weeks: Positive = 4
    least_share: Annotated[float, Field(gt=0)] | None = Field(None, description="fewer than this share fail the run")
    most_share: Annotated[float, Field(gt=0)] | None = Field(None, description="more than this share fail the run")


class Ingest(Node):
    """What is accepted. A value above ``value_cap`` is cut to it; one at or below ``value_floor`` is rejected."""

    value_cap: float | None = None
    value_floor: float | None = None
    earliest: str = "1990-01-01T00:00:00Z"
    latest: str = "2100-01-01T00:00:00Z"
    clock_tolerance: Duration = Field(timedelta(days=1), description="event_ts may lie this far after available_ts")
    max_lateness: Duration | None = Field(None, description="an event that arrives later than this is rejected")
    checks: dict[str, Annotated[Literal["reject", "warn", "off"], BeforeValidator(_severity)]] = Field(
        default_factory=dict, description="check id -> reject, warn or off, where it shall not be as features/quality.py has it"
    )
    max_rejected_share: Share = 0.1
    max_staleness: Duration | None = Field(None, description="a newest visible event older than this fails the run")
    volume: Volume = Volume()  # type: ignore[call-arg]
