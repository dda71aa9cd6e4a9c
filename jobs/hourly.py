"""The hour: ingest what is new, refresh features and lists of those who acted since the last full night or whose lists are stale."""

from __future__ import annotations

from dataclasses import replace

from jobs import cli
from jobs.build_features import build
from jobs.cli import Context
from jobs.ingest import ingest
from jobs.progress import console
from jobs.score import score
from jobs.store.nights import nights


def hourly(context: Context) -> None:
    """Run the chain at ``--as-of`` for users who changed. Needs a night before it."""
    if context.as_of in nights(context.warehouse):
        console.print(f"the night of {context.as_of:%Y-%m-%d %H:%M} UTC speaks for this hour already; nothing to do")
        return
    hour = replace(context, mode="hourly")
    ingest(hour)
    build(hour, backfill=False)
    score(hour)


if __name__ == "__main__":
    cli.main("hourly", hourly, "Refresh the lists of those who acted since the last night, and stale ones.")
