"""Whether new events may be written at all: the share rejected, their freshness, the volume of the newest day.

Each limit is judged before anything is written, on what is visible at ``--as-of``, and also when no new file came.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import reduce
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf import columns as c
from features import quality
from features.contracts import EVENTS
from features.events import Looked
from features.quality import Judge
from features.windows import between, from_micros, to_micros, visible
from jobs.cli import Context
from jobs.errors import DataQualityError, UsageError
from jobs.progress import console, step
from jobs.store import sources
from jobs.store.run_log import Run, finished

_DAY = timedelta(days=1)
_WEEK = timedelta(days=7)
_US = timedelta(microseconds=1)


def require_known_checks(context: Context) -> None:
    """Raise UsageError for a setting of a check that there is not, or that cannot be."""
    try:
        quality.require_known(context.settings.ingest.checks)
    except ValueError as error:
        raise UsageError(str(error)) from None


def looked(context: Context) -> Looked | None:
    """When the source was last looked at, for one that does not say when its rows arrived.

    Any finished ingest counts, also one that found no new file: what is new now was not there then.
    """
    done = None if context.settings.source.events.columns.available_ts else finished(context.warehouse, "ingest")
    if done is None:
        return None
    newest = done.agg(F.max(F.unix_micros(c.AS_OF_TS))).first()[0]  # type: ignore[index]
    return None if newest is None else Looked(from_micros(newest), max(from_micros(newest), context.as_of))


def newest_visible(asked: Sequence[Judge], as_of: datetime) -> Column:
    """An aggregate over rows of ``read_events``: when the newest good event that is visible at as_of happened (micros)."""
    at = to_micros(as_of)
    happened, known = F.unix_micros(c.EVENT_TS), F.unix_micros(c.AVAILABLE_TS)
    return F.max(F.when((happened < at) & (known <= at) & ~quality.is_rejected(asked), happened))


def check_share(context: Context, row: Mapping[str, Any], asked: Sequence[Judge], checked: DataFrame) -> None:
    """Raise DataQualityError when the log is empty, or too much of it is not usable. ``row`` is that of ``tally``."""
    where = sources.locate(context.settings.source.events)
    read, bad = int(row["read"]), int(row["rejected"])
    if read == 0:
        raise DataQualityError(f"the event log at {where} is empty; check source.events.path in the settings")
    limit = context.settings.ingest.max_rejected_share
    if bad / read > limit:
        found = sorted(quality.hits(row, asked, "reject").items(), key=lambda pair: (-pair[1], pair[0]))
        told = ", ".join(f"{name} {n:,}" for name, n in found[:5])
        sample = checked.where(F.size(c.REASONS) > 0).select(c.RAW).first()[0]  # type: ignore[index]
        raise DataQualityError(
            f"{bad:,} of {read:,} events at {where} are not usable ({told}), more than ingest.max_rejected_share = {limit:g}; "
            f"e.g. {sample[:300]}; mend the source or source.events.columns; nothing was written"
        )


def check_fresh(context: Context, newest_us: int | None) -> None:
    """Raise DataQualityError when neither the table nor the new rows have a young event. ``newest_us`` is of the new rows."""
    limit, as_of = context.settings.ingest.max_staleness, context.as_of
    if limit is None or (newest_us is not None and newest_us >= to_micros(as_of - limit)):
        return
    if context.warehouse.exists(EVENTS):
        # The young part alone is read first: Delta knows which files have none of it.
        events = visible(context.warehouse.read(EVENTS), as_of)
        for frame in (between(events, as_of - limit, as_of), events):
            found = frame.agg(F.max(F.unix_micros(c.EVENT_TS))).first()[0]  # type: ignore[index]
            newest_us = max((us for us in (found, newest_us) if us is not None), default=None)
            if newest_us is not None and newest_us >= to_micros(as_of - limit):
                return
    last = "there is none" if newest_us is None else f"the newest happened {_utc(from_micros(newest_us))}"
    raise DataQualityError(
        f"no event of the last {_spelt(limit)} before {_utc(as_of)} is known from {sources.locate(context.settings.source.events)}: "
        f"{last}, and ingest.max_staleness = {_spelt(limit)}; see why the feed stopped, then run ingest again; nothing was written"
    )


def check_volume(context: Context, good: DataFrame | None) -> None:
    """Raise DataQualityError when the newest full UTC day has far fewer or more events than that weekday used to have.

    ``good`` are the new rows. A weekday without any event says nothing (the log may not reach back so far) and is left out.
    """
    limits, as_of = context.settings.ingest.volume, context.as_of
    if limits.least_share is None and limits.most_share is None:
        return
    day = datetime(as_of.year, as_of.month, as_of.day, tzinfo=UTC) - _DAY
    first = day - _WEEK * limits.weeks
    since = F.unix_micros(c.EVENT_TS) - to_micros(first)
    parts = [context.warehouse.read(EVENTS)] if context.warehouse.exists(EVENTS) else []
    parts += [] if good is None else [good]
    days = [
        between(visible(part, as_of), first, day + _DAY)
        .where(F.pmod(since, F.lit(_WEEK // _US)) < _DAY // _US)
        .select(c.EVENT_ID, F.floor(since / (_WEEK // _US)).alias("week"))
        for part in parts
    ]
    if not days:
        return
    with step(context.spark, f"compare {day:%Y-%m-%d} with the {limits.weeks} weeks before"):
        each = reduce(DataFrame.unionAll, days).distinct().groupBy("week").count().collect()
    counts = {row["week"]: row["count"] for row in each}
    found, before = counts.pop(limits.weeks, 0), list(counts.values())
    if not before:
        return
    usual = sum(before) / len(before)
    low, high = limits.least_share, limits.most_share
    wrong = low is not None and found < low * usual
    if wrong or (high is not None and found > high * usual):
        limit = f"fewer than ingest.volume.least_share = {low:g}" if wrong else f"more than ingest.volume.most_share = {high:g}"
        raise DataQualityError(
            f"{day:%A %Y-%m-%d} (UTC) has {found:,} events from {sources.locate(context.settings.source.events)}, {limit} of the "
            f"{usual:,.0f} that this weekday had in {len(before)} of the {limits.weeks} weeks before; "
            "see whether the source is complete, then run ingest again; nothing was written"
        )


def report(run: Run, row: Mapping[str, Any], asked: Sequence[Judge], what: str, prefix: str = "") -> None:
    """Keep the hits of each check in the run's counts, and print a line of those that are worth a word."""
    warned = quality.hits(row, asked, "warn")
    for verb, found in (("rejected", quality.hits(row, asked, "reject")), ("warned", warned)):
        run.counts |= {f"{prefix}{verb}_{name}": n for name, n in found.items()}
    expected = {judge.check.id: judge.check.expected for judge in asked}
    told = [f"{name} {n:,} ({n / row['read']:.1%})" for name, n in warned.items() if n > expected[name] * row["read"]]
    if told:
        console.print(f"  [yellow]warning[/yellow] of {row['read']:,} {what}: {', '.join(told)}")


def _utc(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _spelt(span: timedelta) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if span.total_seconds() % size == 0:
            return f"{span.total_seconds() / size:.0f}{unit}"
    return f"{span.total_seconds():g}s"
