"""What an hour of lists costs beside a night of them: the scoring job on the tables of a generated shop.

    python tests/benchmarks/list_costs.py compare --events 20000000    # 500,000 users, of whom about 5 % act in the hour

The shop is that of feature_costs.py and its tables are made where they are not there yet; the weights of the model are drawn, not
learned, for what scoring costs does not depend on them. Night and hour are processes of their own with two cores; seconds are those
of the job, without the start of Spark. Then three hours in one session, as jobs/hours.py runs them, of which the last is told.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import typer

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "benchmarks"), str(TESTS), str(TESTS.parent)]

import feature_costs as costs  # noqa: E402
import scoring_world as world  # noqa: E402
from measured import Measured, measure, tell  # noqa: E402

from features.windows import to_micros  # noqa: E402

HOURS = {"nightly": ["0"], "hourly": ["1"]}
STAYS = ["1", "2", "3"]
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(hidden=True)
def model(folder: Path) -> None:
    """A champion with drawn weights, as if trained at the night."""
    from conf import columns as c
    from jobs.lists.models import artifacts, tracking_uri
    from model.as_of.catalogue import build_catalogue
    from model.data import dataset
    from model.spec import TRAIN_TABLES, TableRef, TrainSpec
    from model.versions import champions, checkpoint, registry

    chosen, night = costs.settings(folder), to_micros(costs.moment(0))
    refs = {name: TableRef(path=f"{chosen.warehouse}/{name}") for name in TRAIN_TABLES}
    items = dataset(refs["items"]).to_table()
    spec = TrainSpec(
        tables=refs, as_of_us=night, anchors_us=(night - world.WEEK_US,), horizon_us=world.WEEK_US, settings=chosen.resolved(), output=str(folder / "bundle")
    )
    checkpoint.save(world.drawn(build_catalogue(items, items[c.ITEM_ID].combine_chunks()), chosen), spec)
    uri, mlflow = tracking_uri(chosen), chosen.mlflow
    run = registry.start_run(uri, mlflow.experiment, artifacts(chosen), "drawn")
    champions.promote(uri, registry.register(folder / "bundle", uri, mlflow.model, run, {registry.TRAINED_AS_OF: night}))


@app.command(hidden=True)
def batch(folder: Path, mode: str, hours: list[int]) -> None:
    """The job: lists for everyone, or for those who acted, each so many hours after the night, in one session; told is the last."""
    from features.contracts import RUNS
    from jobs.cli import Context
    from jobs.score import score
    from jobs.store.table_io import Warehouse

    spark, chosen = costs.session(), costs.settings(folder)
    warehouse = Warehouse(spark, chosen)
    for number in hours:
        tick = time.monotonic()
        score(Context(spark, chosen, warehouse, costs.moment(number), mode, False))
        seconds = time.monotonic() - tick
        print(f"{mode} {number}: {seconds:.1f} s", flush=True)
    newest = warehouse.read(RUNS).where("job = 'score'").orderBy("started_ts", ascending=False).first()
    tell(**{mode: seconds}, lists=newest["counts"]["lists"])
    spark.stop()


def one(folder: Path, mode: str, hours: list[str], events: int) -> Measured:
    """Measured and printed."""
    found = measure(__file__, "batch", folder, mode, *hours)
    lists, seconds = found.work["lists"], found.work[mode]
    told = f"{lists:9,.0f} lists {seconds:7.1f} s  {lists / seconds:7,.0f} a second  CPU {found.cpu_s:6.0f} s  peak {found.peak_gib:5.2f} GiB"
    print(f"{events:,} events, {mode:8s} {' '.join(hours):5s} {told}", flush=True)
    return found


@app.command()
def compare(events: costs.Events = costs.TWO_MILLION, scratch: costs.Scratch = costs.SCRATCH) -> None:
    """A night of lists, and an hour of them."""
    for n in events:
        folder = costs.made(scratch, n)
        if not (folder / "bundle").exists():
            for mode, hours in {**HOURS, "hourly": STAYS}.items():
                measure(costs.__file__, "chain", folder, mode, *hours)
            measure(__file__, "model", folder)
        found = {mode: one(folder, mode, hours, n) for mode, hours in HOURS.items()}
        night, hour = (measured.work for measured in found.values())
        print(f"hour / night = {hour['hourly'] / night['nightly']:.3f} of the time for {hour['lists'] / night['lists']:.3f} of the lists", flush=True)
        stays = one(folder, "hourly", STAYS, n).work
        print(f"third hour of a session / night = {stays['hourly'] / night['nightly']:.3f} of the time for {stays['lists'] / night['lists']:.3f} of the lists")


if __name__ == "__main__":
    app()
