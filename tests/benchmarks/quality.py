"""How good the lists are: beside what everybody could have instead, on real logs, by the protocol of ``protocol.py``.

    python tests/benchmarks/quality.py run --logs ../shared/data                 # all logs, all peers that are installed
    python tests/benchmarks/quality.py run --log memetracker_blogs --peer EASE --peer LightGBM
    python tests/benchmarks/quality.py table                                     # what was measured, and a plot

Each peer's choices are judged on the window before the cutoff; the best is fitted again at the cutoff and judged on the window
after it. Peers beyond counts and EASE need the extra ``peers``, best in an environment of its own: RecTools needs NumPy 1.
Everything finished is kept under --scratch and not measured again.
"""

from __future__ import annotations

import os
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Annotated, TypeVar

# One thread: sums in one order, and seconds that can be compared. Before NumPy is imported, which reads it once.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[2])]

import kairos_lists  # noqa: E402
import numpy as np  # noqa: E402
import peers  # noqa: E402
import peers_lightgbm  # noqa: E402
import peers_rectools  # noqa: E402
import plotly.graph_objects as go  # noqa: E402
import typer  # noqa: E402
from plotly.subplots import make_subplots  # noqa: E402
from protocol import LOGS, Choice, Lists, MissingError, Recommender, Split, moment_of  # noqa: E402
from results import KAIROS, METRICS, Results, Run  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)
console = Console(width=None if sys.stdout.isatty() else 120)
Scratch = Annotated[Path, typer.Option(help="where results are kept")]
T = TypeVar("T")
SCRATCH = Path("warehouse/benchmarks/quality")


def recommenders() -> dict[str, Recommender]:
    """Every method by name, Kairos first."""
    found = (kairos_lists, peers, peers_lightgbm, peers_rectools)
    return {recommender.name: recommender for module in found for recommender in module.RECOMMENDERS}


@app.command()
def run(
    log: Annotated[list[str] | None, typer.Option(help="which logs; may be said several times (default: all)")] = None,
    peer: Annotated[list[str] | None, typer.Option(help="which methods; may be said several times (default: all)")] = None,
    cutoff: Annotated[list[datetime] | None, typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H"], help="which moments (default: the log's own)")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="for methods that draw; may be said several times (default: 0)")] = None,
    seconds: Annotated[int, typer.Option(help="what one fit of a neural peer may take")] = 420,
    logs: Annotated[Path | None, typer.Option(help="folder of the shared logs (default: KAIROS_LOGS)")] = None,
    scratch: Scratch = SCRATCH,
) -> None:
    """Measure what is not measured yet."""
    if logs is not None:
        os.environ["KAIROS_LOGS"] = str(logs.resolve())  # Kairos reads the files itself
    results, known, gone = Results(scratch), recommenders(), set()
    methods = [_known(name, known, "--peer") for name in peer or known]
    for spec in [_known(name, LOGS, "--log") for name in log or LOGS]:
        try:
            events = spec.events()
        except MissingError as missing:
            console.print(f"skipped: {missing}", style="yellow", markup=False)
            continue
        for moment in cutoff or spec.cutoffs:
            split = Split.at(spec, events, moment)
            console.rule(f"{spec.name} at {moment_of(split.cutoff)}: {len(split.past):,} events, {len(split.users):,} users judged", align="left")
            if not len(split.users) or not len(split.dev().users):
                console.print("skipped: nobody with a past did anything new in this window, or in the one before, by which methods choose", style="yellow")
                continue
            for method in methods:
                for number in (seed or [0]) if method.seeded else [0]:
                    try:
                        if method.name not in gone:
                            _measure(results, split, method, number, seconds)
                    except MissingError as missing:
                        gone.add(method.name)
                        console.print(f"skipped: {missing}", style="yellow", markup=False)


def _measure(results: Results, split: Split, method: Recommender, seed: int, seconds: int) -> None:
    """Choose on the window before, judge on the window after."""
    choices = [{**choice, "seconds": seconds} if method.timed else choice for choice in method.choices(split.log)]
    if not choices:
        return
    # One choice needs no choosing.
    scores = [_once(results, split, method, "dev", seed, choice)["ndcg@10"] for choice in choices if len(choices) > 1]
    best = choices[scores.index(max(scores))] if scores else choices[0]
    row = _once(results, split, method, "test", seed, best)
    told = "  ".join(f"{metric} {row[metric]:.4f}" for metric in METRICS)
    console.print(f"{method.name:22s} {told}  {row['seconds']:6.1f} s  {row['choice']}", highlight=False, soft_wrap=True)


def _once(results: Results, split: Split, method: Recommender, part: str, seed: int, choice: Choice) -> dict:
    of = Run(split.log.name, moment_of(split.cutoff), method.name, part, seed, Run.text(choice))
    done = results.find(of)
    if done is not None:
        return done
    judged = split.dev() if part == "dev" else split
    tick = time.monotonic()
    lists: Lists = method.make(judged, {**choice, "seed": seed} if method.seeded else choice)
    took = time.monotonic() - tick
    found, each = judged.judge(lists)
    return results.add(of, found, took, judged.users, each)


def _known(name: str, known: dict[str, T], option: str) -> T:
    if name not in known:
        raise typer.BadParameter(f"{name}: there are {', '.join(known)}", param_hint=option)
    return known[name]


@app.command()
def table(
    scratch: Scratch = SCRATCH,
    plot: Annotated[Path | None, typer.Option(help=".html, or .png with kaleido (default: quality.html in --scratch)")] = None,
) -> None:
    """What was measured, a table a log: means over its cutoffs; how far Kairos is ahead, with a paired 95 % interval, and over all logs."""
    results = Results(scratch)
    tests = results.tests()
    if tests.empty:
        raise typer.BadParameter(f"nothing is measured under {scratch} yet: quality.py run", param_hint="--scratch")
    names = [name for name in LOGS if (tests["log"] == name).any()]
    for name in names:
        _table(results, name)
    _leads(results)
    path = plot or scratch / "quality.html"
    figure = _plot(results, names)
    if path.suffix == ".html":
        figure.write_html(path, include_plotlyjs=True)
    else:
        figure.write_image(path)
    console.print(f"plot: {path}", highlight=False)


def _table(results: Results, name: str) -> None:
    means = results.means(name)
    ours = KAIROS in means.index
    grid = Table("method", *METRICS, "s", "cutoffs", *["kairos is ahead by"] * ours, title=name, title_justify="left")
    for method, row in means.iterrows():
        cells = [f"{row[metric]:.4f}" for metric in METRICS] + [f"{row['seconds']:.0f}", f"{row['cutoffs']:.0f}"]
        ahead = results.ahead(name, str(method)) if ours and method != KAIROS else None
        if ours:
            cells.append("" if ahead is None else f"{ahead[0]:+.4f} [{ahead[1]:+.4f}, {ahead[2]:+.4f}]")
        grid.add_row(str(method), *cells, style="bold" if method == KAIROS else None)
    console.print(grid, markup=False)


def _leads(results: Results) -> None:
    leads = results.leads()
    if leads.empty:
        return
    grid = Table("peer", *leads.columns, "mean of the logs", title="by how much the NDCG@10 of kairos is above a peer's", title_justify="left")
    for method, row in leads.iterrows():
        cells = ["" if np.isnan(lead) else f"{lead:+.1%}" for lead in [*row, row.mean()]]
        grid.add_row(str(method), *cells)
    console.print(grid, markup=False)


def _plot(results: Results, names: list[str]) -> go.Figure:
    """NDCG@10 against coverage@10, a panel a log: good and broad is up and to the right."""
    figure = make_subplots(rows=(len(names) + 1) // 2, cols=2, subplot_titles=names)
    for place, name in enumerate(names):
        means = results.means(name)
        colors = ["crimson" if method == KAIROS else "steelblue" for method in means.index]
        points = go.Scatter(
            x=means["coverage@10"], y=means["ndcg@10"], text=means.index, mode="markers+text", textposition="top center",
            marker={"color": colors, "size": 9}, showlegend=False,
        )  # fmt: skip
        row, column = place // 2 + 1, place % 2 + 1
        figure.add_trace(points, row=row, col=column)
        figure.update_xaxes(title="coverage@10", type="log", row=row, col=column)
        figure.update_yaxes(title="NDCG@10", rangemode="tozero", row=row, col=column)
    return figure.update_layout(height=450 * ((len(names) + 1) // 2), width=1300, template="plotly_white")


if __name__ == "__main__":
    app()
