"""The checks of raw rows, as data: what is a fault (the row is rejected), what is only worth a word (it is kept, and counted).

A check says which rows are bad. All of them are judged in the one pass that counts the rows; settings may turn a check off or
change its severity, except where a table's contract or the time law rests on it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import reduce
from typing import Any, Literal, TypeVar

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf import columns as c
from conf.sources import EventSource, Ingest, ItemSource
from features.raw_values import EPOCH_UNITS
from features.user_inputs import EVERYONE_ELSE

#: Beyond this a value is a fault, and sums of it would overflow.
LARGEST_VALUE = 1e12
LONGEST_ID = 512
#: What exports write where there is no id. All rows with it would become one person who did everything.
PLACEHOLDERS = (
    "null", "(null)", "none", "nan", "nil", "undefined", "unknown", "missing", "n/a", "#n/a", "-", "--", "?", "-1", "<na>",
    "\\n", "[object object]",
)  # fmt: skip
#: What systems write where there is no time: the zero of .NET and SQL, of Excel, of Unix, and "never".
PLACEHOLDER_DAYS = ("0001-01-01", "1900-01-01", "1970-01-01", "9999-12-31")
_DAY_US = 86_400_000_000
T = TypeVar("T")


@dataclass(frozen=True)
class Check:
    """One check of a raw row.

    ``holds`` gives a condition that is true for a bad row, or None where the source has nothing to ask. A check with
    ``kinds`` gives a text instead, one of these, and the bad rows are those that are not of the commonest kind.
    """

    id: str
    severity: Literal["reject", "warn"]
    about: str
    holds: Callable[[Any, Ingest], Column | None]
    needed: str | None = field(default=None)  # why it always rejects, whatever the settings say
    kinds: tuple[str, ...] = ()
    expected: float = 0.0  # a share of bad rows up to this is counted, but no news


@dataclass(frozen=True)
class Judge:
    """A check as the settings have it, on the columns of one source."""

    check: Check
    severity: str
    bad: Column


def judges(checks: Sequence[Check], source: EventSource | ItemSource, ingest: Ingest) -> tuple[Judge, ...]:
    """The checks that can be asked of the source and are not turned off, in order."""
    chosen = ((check, ingest.checks.get(check.id, check.severity)) for check in checks)
    bound = ((check, severity, check.holds(source, ingest)) for check, severity in chosen if severity != "off")
    return tuple(Judge(check, severity, bad) for check, severity, bad in bound if bad is not None)


def is_rejected(asked: Sequence[Judge]) -> Column:
    """True for a row that a check rejects; never NULL."""
    faults = [F.coalesce(j.bad, F.lit(False)) for j in asked if j.severity == "reject"]
    return reduce(Column.__or__, faults, F.lit(False))


def reasons(asked: Sequence[Judge]) -> Column:
    """The ids of the checks that reject the row, in order; a check that cannot be judged (NULL) does not."""
    names = [F.when(j.bad, F.lit(j.check.id)) for j in asked if j.severity == "reject"]
    # Most rows are good: they are spared the making of an array.
    return F.when(is_rejected(asked), F.array_compact(F.array(*names))).otherwise(F.array().cast("array<string>"))


def tally(rows: DataFrame, asked: Sequence[Judge], **more: Column) -> DataFrame:
    """One row: how many rows were ``read`` and ``rejected``, how many each check found, and what else is asked."""
    found = [F.count_if(j.bad).alias(j.check.id) for j in asked if not j.check.kinds]
    found += [F.count_if(j.bad == kind).alias(f"{j.check.id}_{kind}") for j in asked for kind in j.check.kinds]
    others = [column.alias(name) for name, column in more.items()]
    return rows.agg(F.count("*").alias("read"), F.count_if(is_rejected(asked)).alias("rejected"), *found, *others)


def hits(row: Mapping[str, Any], asked: Sequence[Judge], severity: str) -> dict[str, int]:
    """Check id -> bad rows, from the row of ``tally``; only checks of this severity that found some."""
    found = {}
    for judge in asked:
        if judge.severity == severity:
            of_kind = [int(row[f"{judge.check.id}_{kind}"]) for kind in judge.check.kinds]
            found[judge.check.id] = sum(of_kind) - max(of_kind) if of_kind else int(row[judge.check.id])
    return {name: n for name, n in found.items() if n}


def require_known(choices: Mapping[str, str]) -> None:
    """Raise ValueError for an id that is no check's, or a severity that the check cannot have."""
    known = {check.id: check for check in (*ITEM_CHECKS, *EVENT_CHECKS)}
    for name, severity in choices.items():
        check = known.get(name)
        if check is None:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(sorted(known))}"
            raise ValueError(f"unknown check ingest.checks.{name}; {hint}")
        if check.needed and severity != "reject":
            raise ValueError(
                f"ingest.checks.{name} cannot be {severity}: {check.needed}; remove the line, or mend the source"
            )
        if check.kinds and severity == "reject":
            raise ValueError(f"ingest.checks.{name} speaks of the source, not of a row; it can be warn or off")


def _text(*names: str) -> Callable[[Callable[[Column], Column]], Column]:
    """Any of the columns satisfies a condition; NULL does not."""
    return lambda holds: reduce(Column.__or__, (F.coalesce(holds(F.col(name)), F.lit(False)) for name in names))


_event_ids = _text(c.USER_ID, c.ITEM_ID, c.SESSION_ID, "_event_id")
_item_ids = _text(c.ITEM_ID)


def _ids(source: EventSource | ItemSource) -> Callable[[Callable[[Column], Column]], Column]:
    return _event_ids if isinstance(source, EventSource) else _item_ids


def _is_placeholder(name: str) -> Column:
    column = F.col(name)
    # The first sign is looked at before the pattern: most ids are spared it.
    return F.lower(column).isin(*PLACEHOLDERS) | (column.startswith("0") & column.rlike("^0[0-]{7,}$"))


def _outside(name: str, ingest: Ingest) -> Column:
    return (F.col(name) < F.lit(ingest.earliest).cast("timestamp")) | (
        F.col(name) >= F.lit(ingest.latest).cast("timestamp")
    )


def _later_by(name: str, other: str, than: timedelta) -> Column:
    # try_: the distance of two absurd moments does not fit a BIGINT.
    gap = F.try_subtract(F.unix_micros(name), F.unix_micros(other))
    return gap > than // timedelta(microseconds=1)


def _finite(name: str) -> Column:
    return ~F.isnan(name) & (F.abs(name) < float("inf"))


def _if(setting: T | None, column: Callable[[T], Column]) -> Column | None:
    """The condition, where there is something to ask: a mapped column, a limit that is set."""
    return None if setting is None else column(setting)


_ID_CHECKS = (
    Check("item_id_missing", "reject", "no item", lambda s, i: F.col(c.ITEM_ID).isNull(), "no row is without an item"),
    Check("item_id_placeholder", "reject", "the item is a word for none (null, nan, unknown, -, -1, zeros, …)",
          lambda s, i: _is_placeholder(c.ITEM_ID)),
    Check("id_too_long", "reject", f"an id has more than {LONGEST_ID} characters",
          lambda s, i: _ids(s)(lambda x: F.length(x) > LONGEST_ID)),
    Check("id_with_control_characters", "reject", "an id holds a tab, a line break or another control character",
          lambda s, i: _ids(s)(lambda x: x.rlike(r"[\x00-\x1f\x7f]")), "ids are told apart by such characters"),
    Check("id_badly_encoded", "warn", "an id holds the sign for a byte that is not UTF-8",
          lambda s, i: _ids(s)(lambda x: F.contains(x, F.lit("\ufffd")))),
    Check("id_with_blanks", "warn", "blanks around an id were cut off", lambda s, i: F.col("_blanks")),
)  # fmt: skip

EVENT_CHECKS: tuple[Check, ...] = (
    Check("user_id_missing", "reject", "no user", lambda s, i: F.col(c.USER_ID).isNull(), "no event is without a user"),
    Check("user_id_placeholder", "reject", "the user is a word for none (null, nan, unknown, -, -1, zeros, …)",
          lambda s, i: _is_placeholder(c.USER_ID)),
    Check("user_id_reserved", "reject", f"the user is {EVERYONE_ELSE}, the name of the list for everyone who is not known",
          lambda s, i: F.col(c.USER_ID) == EVERYONE_ELSE, "the list for everyone who is not known has this name"),
    *_ID_CHECKS,
    Check("event_id_missing", "reject", "event_id is mapped, and empty",
          lambda s, i: _if(s.columns.event_id, lambda _: F.col("_event_id").isNull()), "event_id is the key of events"),
    Check("event_ts_unreadable", "reject", "no moment, or none that can be read",
          lambda s, i: F.col(c.EVENT_TS).isNull(), "an event without its time has no place before or after as_of"),
    Check("event_ts_placeholder", "reject", f"a date that stands for none: {', '.join(PLACEHOLDER_DAYS)}",
          lambda s, i: F.col(c.EVENT_TS).cast("date").isin(*[F.lit(d).cast("date") for d in PLACEHOLDER_DAYS])),
    Check("event_ts_out_of_range", "reject", "not in [ingest.earliest, ingest.latest)",
          lambda s, i: _outside(c.EVENT_TS, i), "set ingest.earliest and ingest.latest to what is true of the source"),
    Check("event_ts_at_midnight", "warn", "exactly 00:00:00 UTC: a date without a time of day? (told above 1 %)",
          lambda s, i: F.pmod(F.unix_micros(c.EVENT_TS), F.lit(_DAY_US)) == 0, expected=0.01),
    Check("event_ts_units_mixed", "warn", "epoch numbers of more than one unit (s, ms, µs, ns) in one source",
          lambda s, i: F.col("_unit"), kinds=EPOCH_UNITS),
    Check("available_ts_unreadable", "reject", "available_ts is mapped, and cannot be read",
          lambda s, i: _if(s.columns.available_ts, lambda _: F.col(c.AVAILABLE_TS).isNull()),
          "an event of which nobody knows when it became known could tell the past what came later"),
    Check("available_ts_out_of_range", "reject", "arrival not in [ingest.earliest, ingest.latest)",
          lambda s, i: _if(s.columns.available_ts, lambda _: _outside(c.AVAILABLE_TS, i)),
          "set ingest.earliest and ingest.latest to what is true of the source"),
    Check("event_ts_after_available", "reject", "happened more than ingest.clock_tolerance after it arrived",
          lambda s, i: _if(s.columns.available_ts, lambda _: _later_by(c.EVENT_TS, c.AVAILABLE_TS, i.clock_tolerance))),
    Check("too_late", "reject", "arrived more than ingest.max_lateness after it happened (off unless set)",
          lambda s, i: _if(i.max_lateness, lambda most: _later_by(c.AVAILABLE_TS, c.EVENT_TS, most) & ~F.col("_known"))),
    Check("unknown_event_type", "warn", "a raw type that is neither mapped nor one of ours: it becomes other",
          lambda s, i: _if(s.columns.event_type, lambda _: ~F.col("_raw_type").isin(*c.EVENT_TYPES, *s.event_types))),
    Check("event_type_missing", "warn", "event_type is mapped, and empty: the default type is taken",
          lambda s, i: _if(s.columns.event_type, lambda _: F.col("_raw_type").isNull())),
    Check("value_unreadable", "reject", "a value that is no number (as a warning: the value is NULL)",
          lambda s, i: F.col("_value").isNull() & F.col("_value_text").isNotNull()),
    Check("value_not_finite", "reject", "NaN or infinite",
          lambda s, i: _if(s.columns.value, lambda _: ~_finite("_value")), "one such value would make every sum of it useless"),
    Check("value_out_of_range", "reject", f"beyond {LARGEST_VALUE:,.0f} in size",
          lambda s, i: (F.abs(c.VALUE) > LARGEST_VALUE) & _finite("_value"), "sums would lose all smaller values"),
    Check("value_at_or_below_floor", "reject", "at or below ingest.value_floor (off unless set)",
          lambda s, i: _if(i.value_floor, lambda floor: F.col("_value") <= floor)),
    Check("value_capped", "warn", "above ingest.value_cap, and cut to it (off unless set)",
          lambda s, i: _if(i.value_cap, lambda cap: F.col("_value") > cap)),
    Check("value_missing", "warn", "value is mapped, and empty",
          lambda s, i: _if(s.columns.value, lambda _: F.col("_value").isNull() & F.col("_value_text").isNull())),
    Check("session_id_missing", "warn", "session_id is mapped, and empty",
          lambda s, i: _if(s.columns.session_id, lambda _: F.col(c.SESSION_ID).isNull())),
)  # fmt: skip

_ITEM_TIMES = (c.RELEASE_TS, c.AVAILABLE_FROM, c.AVAILABLE_UNTIL)


def _unreadable(name: str, text: str) -> Callable[[Any, Ingest], Column]:
    return lambda s, i: F.col(name).isNull() & F.col(text).isNotNull()


ITEM_CHECKS: tuple[Check, ...] = (
    *_ID_CHECKS,
    *(Check(f"{name}_unreadable", "reject", f"{name} is no moment (as a warning: it is NULL)", _unreadable(name, f"_{name}_text"))
      for name in _ITEM_TIMES),
    Check("item_ts_out_of_range", "reject", "a moment before year 1 or after year 9999",
          lambda s, i: _text(*_ITEM_TIMES)(lambda t: ~F.year(t).between(1, 9999)), "no reader could show it"),
    # Kept: without this row the item would be known by its events only, and be on offer at any time.
    Check("available_until_before_from", "warn", "available_until is not after available_from: the item is never on offer",
          lambda s, i: F.col(c.AVAILABLE_UNTIL) <= F.col(c.AVAILABLE_FROM)),
    Check("release_after_available_until", "warn", "released when it is no longer on offer",
          lambda s, i: F.col(c.RELEASE_TS) >= F.col(c.AVAILABLE_UNTIL)),
    Check("price_unreadable", "reject", "a price that is no number (as a warning: it is NULL)", _unreadable(c.PRICE, "_price_text")),
    Check("price_not_finite", "reject", "NaN or infinite", lambda s, i: ~_finite(c.PRICE), "the model reads the price"),
    Check("price_negative", "reject", "below zero", lambda s, i: F.col(c.PRICE) < 0),
    Check("embedding_unreadable", "reject", "no array of finite numbers (as a warning: it is NULL)",
          lambda s, i: F.col("_has_embedding") & F.col(c.EMBEDDING).isNull()),
    Check("title_missing", "warn", "title is mapped, and empty",
          lambda s, i: _if(s.columns.title, lambda _: F.col(c.TITLE).isNull())),
    Check("item_id_duplicate", "reject", "another row of the catalogue has the same item, and was kept",
          lambda s, i: F.col("_again"), "item_id is the key of items"),
)  # fmt: skip
