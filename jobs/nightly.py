"""The night: ingest, features, (training, where there is no model or it has grown old), the gate, lists, and the score of the last closed window.

One Spark session for the whole chain. On an empty warehouse it goes from raw files to published lists.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from jobs import cli
from jobs.build_features import build
from jobs.cli import Context
from jobs.errors import JobError
from jobs.evaluate import evaluate, listed_nights
from jobs.gate_model import settle
from jobs.ingest import ingest
from jobs.lists.models import grown_old, has_model
from jobs.progress import console
from jobs.score import score
from jobs.train_model import train_model


def nightly(context: Context) -> None:
    """Run the chain at ``--as-of`` for everyone."""
    ingest(context)
    untrained = not has_model(context.settings, context.as_of)
    old = not untrained and grown_old(context.settings, context.as_of)
    build(context, backfill=untrained or old)
    failed = None
    if untrained:
        train_model(context)
    elif old:
        failed = _train_anew(context)
    elif not context.dry_run:
        settle(context)
    score(context)
    if not context.dry_run:
        _judge_last_closed(context)
    if failed is not None:
        raise failed


def _train_anew(context: Context) -> JobError | None:
    """Train, and give back what went wrong, to be raised once the champion's lists are out: a night without lists would be worse."""
    try:
        train_model(context)
    except JobError as error:
        console.print(f"  {error}; this night's lists are by the champion", markup=False)
        return error
    return None


def _judge_last_closed(context: Context) -> None:
    """Evaluate the newest night whose horizon has passed at as_of."""
    past = datetime.min.replace(tzinfo=UTC)
    closed = [night for night in listed_nights(context.warehouse, past) if night + context.settings.horizon <= context.as_of]
    if closed:
        evaluate(replace(context, as_of=max(closed)))


if __name__ == "__main__":
    cli.main("nightly", nightly, "From raw data to published lists for everyone.")
