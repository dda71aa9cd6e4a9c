"""Full nights of features for a range of past moments: those that are on record are skipped, so it can be stopped and run again."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from jobs import cli
from jobs.build_features import build
from jobs.cli import Context
from jobs.errors import UsageError
from jobs.progress import console
from jobs.store.nights import nights


def backfill(context: Context, since: datetime, every: timedelta, newest_first: bool) -> None:
    """Build features at as_of, as_of - every, … down to ``since``, where no finished night is on record."""
    wanted = moments(since, context.as_of, every)
    done = nights(context.warehouse)
    missing = [moment for moment in wanted if moment not in done]
    console.print(f"{len(wanted)} nights from {wanted[0]:%Y-%m-%d %H:%M} to {wanted[-1]:%Y-%m-%d %H:%M} UTC, {len(missing)} to build")
    for moment in reversed(missing) if newest_first else missing:
        build(replace(context, as_of=moment), backfill=False)


def moments(since: datetime, until: datetime, every: timedelta) -> list[datetime]:
    """until, until - every, … not before since; oldest first. Raises UsageError for an empty range."""
    if since > until:
        raise UsageError(f"--since {since:%Y-%m-%dT%H:%M:%SZ} is after --as-of {until:%Y-%m-%dT%H:%M:%SZ}; swap them")
    return [until - k * every for k in reversed(range((until - since) // every + 1))]


def distance(text: str) -> timedelta:
    """A number of hours or days, as an option says it. Raises UsageError."""
    found = re.fullmatch(r"([1-9]\d*)([hd])", text)
    if not found:
        raise UsageError(f"--every {text!r} is not a number of hours or days; write e.g. 6h or 1d")
    return timedelta(**{{"h": "hours", "d": "days"}[found[2]]: int(found[1])})


def main(
    settings: Annotated[Path, typer.Option(help="settings file, e.g. conf/completejourney.yaml")],
    since: Annotated[str, typer.Option(help="the oldest moment, e.g. 2017-11-01T00:00:00Z")],
    as_of: Annotated[str, typer.Option(help="the newest moment, e.g. 2017-12-01T00:00:00Z")],
    every: Annotated[str, typer.Option(help="distance between nights, e.g. 1d")] = "1d",
    newest_first: Annotated[bool, typer.Option("--newest-first", help="begin with the newest")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be done; write nothing")] = False,
) -> None:
    """Full nights of features for a range of past moments.

    Exit codes: 0 ok · 2 usage · 3 data quality · 75 busy
    """

    def body(context: Context) -> None:
        backfill(context, cli.parse_as_of(since), distance(every), newest_first)

    sys.exit(cli.run(body, "backfill", settings, as_of, "nightly", dry_run))


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
