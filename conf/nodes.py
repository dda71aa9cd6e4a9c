"""What every group of settings is made of: a frozen node that knows its keys, and the kinds of numbers and durations."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

_DURATION = re.compile(r"^(\d+)(s|m|h|d)$")
_UNIT = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def _duration(value: Any) -> Any:
    if isinstance(value, str) and not value.startswith("P"):  # P7D: ISO 8601, as resolved() writes it
        found = _DURATION.match(value)
        if not found:
            raise ValueError(f"{value!r} is not a duration such as 30m, 6h or 7d")
        return timedelta(**{_UNIT[found[2]]: int(found[1])})
    return value


Duration = Annotated[timedelta, BeforeValidator(_duration), Field(gt=timedelta(0))]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Node(BaseModel):
    """A group of settings. An unknown key is an error; defaults are checked like given values."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
