"""The hours of a day in one session, each run when it has come: what Spark has compiled for one hour serves the next ones.

An hour that is past is run at once; one that had been run before gives the same rows again, so that after a stop the same command is
right, and one that begins with the missing hour is quicker. The first that fails ends the run with its exit code. A night in between,
run by ``jobs/nightly.py``, is what later hours add to.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from jobs import cli
from jobs.backfill import distance
from jobs.cli import Context
from jobs.errors import UsageError
from jobs.hourly import hourly
from jobs.progress import console


def _now() -> datetime:
    return datetime.now(UTC)


def hours(
    context: Context, until: datetime, every: timedelta, wait: timedelta,
    now: Callable[[], datetime] = _now, sleep: Callable[[float], None] = time.sleep,
) -> None:  # fmt: skip
    """Run the chain of an hour at as_of, as_of + every, … up to ``until``, each no sooner than ``wait`` after its moment."""
    if until < context.as_of:
        raise UsageError(f"--until {until:%Y-%m-%dT%H:%M:%SZ} is before --as-of {context.as_of:%Y-%m-%dT%H:%M:%SZ}; swap them")
    for k in range((until - context.as_of) // every + 1):
        moment = context.as_of + k * every
        left = (moment + wait - now()).total_seconds()
        if left > 0 and not context.dry_run:
            console.print(f"the hour of {moment:%Y-%m-%d %H:%M} UTC begins in {left:,.0f} s")
            sleep(left)
        hourly(replace(context, as_of=moment))


def main(
    settings: Annotated[Path, typer.Option(help="settings file, e.g. conf/completejourney.yaml")],
    as_of: Annotated[str, typer.Option(help="the first hour, e.g. 2017-12-01T01:00:00Z")],
    until: Annotated[str, typer.Option(help="the last one, e.g. 2017-12-01T23:00:00Z")],
    every: Annotated[str, typer.Option(help="distance between them, e.g. 1h")] = "1h",
    wait: Annotated[int, typer.Option(min=0, help="minutes after an hour until its events have arrived")] = 5,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be done; write nothing")] = False,
) -> None:
    """The hours of a day in one session, each when it has come.

    Exit codes: 0 ok · 2 usage · 3 data quality · 4 model gate · 75 busy
    """

    def body(context: Context) -> None:
        hours(context, cli.parse_as_of(until), distance(every), timedelta(minutes=wait))

    sys.exit(cli.run(body, "hours", settings, as_of, "hourly", dry_run))


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
