"""Every column name and the rules by which names are generated, in one place.

Generated names read ``what_window``: ``item_sales_7d`` is the number of sales of the item in the seven days before
``as_of``. Windows are half-open, ``[as_of - window, as_of)``.
"""

from typing import Final

# Identity
EVENT_ID: Final = "event_id"
USER_ID: Final = "user_id"
ITEM_ID: Final = "item_id"
NEIGHBOR_ID: Final = "neighbor_id"
SESSION_ID: Final = "session_id"
RUN_ID: Final = "run_id"
BATCH_ID: Final = "batch_id"
EVENTS_VERSION: Final = "events_version"

# Time: event_ts happened, available_ts known to us, as_of_ts the moment a run speaks for. All UTC microseconds.
EVENT_TS: Final = "event_ts"
AVAILABLE_TS: Final = "available_ts"
AS_OF_TS: Final = "as_of_ts"
VALID_UNTIL_TS: Final = "valid_until_ts"

# Events
EVENT_TYPE: Final = "event_type"
VALUE: Final = "value"
SOURCE: Final = "source"
REASONS: Final = "reasons"
RAW: Final = "raw"

# Items
RELEASE_TS: Final = "release_ts"
RELEASE_KNOWN: Final = "release_known"
AVAILABLE_FROM: Final = "available_from"
AVAILABLE_UNTIL: Final = "available_until"
TITLE: Final = "title"
CATEGORY: Final = "category"
PRICE: Final = "price"
ATTRIBUTES: Final = "attributes"
EMBEDDING: Final = "embedding"

# Recommendations
RANK: Final = "rank"
SCORE: Final = "score"
REASON: Final = "reason"
MODE: Final = "mode"
MODEL_VERSION: Final = "model_version"
COLD: Final = "cold"

#: The event types that features tell apart; a raw type outside the settings' mapping becomes ``other``.
EVENT_TYPES: Final = ("view", "click", "play", "cart", "purchase", "rate", "share", "other")

#: Look-back windows of counts, name -> seconds.
WINDOWS: Final = {"1h": 3_600, "6h": 21_600, "1d": 86_400, "7d": 604_800, "28d": 2_419_200}

#: Half-lives of decayed item sums, name -> seconds.
ITEM_HALF_LIVES: Final = {"1h": 3_600, "6h": 21_600, "1d": 86_400, "3d": 259_200, "7d": 604_800, "28d": 2_419_200,
                          "180d": 15_552_000}  # fmt: skip

#: Half-lives of decayed personal counts, name -> seconds: habits are slower than markets.
REPEAT_HALF_LIVES: Final = {"1d": 86_400, "7d": 604_800, "28d": 2_419_200, "90d": 7_776_000, "365d": 31_536_000}

#: Lengths of an item's life as a series: the last 48 hours and the last 56 days, oldest first.
HOUR_BUCKETS: Final = 48
DAY_BUCKETS: Final = 56

LIFE_STAGES: Final = ("new", "rising", "peak", "falling", "evergreen")
#: An item is new for so many days; then the trend (a logarithm of rates) and the days since its best day decide.
NEW_DAYS: Final = 7.0
STAGE_TREND: Final = 0.2
PEAK_DAYS: Final = 2.0


def item_sales(window: str) -> str:
    """Column of an item's sales in a window, e.g. ``item_sales_7d``."""
    return f"item_sales_{window}"


def item_decayed(half_life: str) -> str:
    """Column of an item's sales decayed with a half-life, e.g. ``item_decayed_7d``."""
    return f"item_decayed_{half_life}"


def user_events(window: str) -> str:
    """Column of a user's events of any type in a window, e.g. ``user_events_7d``; window ``all`` has no start."""
    return f"user_events_{window}"


def user_type_events(event_type: str, window: str) -> str:
    """Column of a user's events of one type in a window, e.g. ``user_purchase_7d``."""
    return f"user_{event_type}_{window}"


def repeat_decayed(half_life: str) -> str:
    """Column of a user's decayed count of one item, e.g. ``repeat_decayed_28d``."""
    return f"repeat_decayed_{half_life}"
