"""What each component of the model is worth where its effect is planted, and where it is not.

    python tests/benchmarks/ablation.py run                                  # every world, every component, two seeds
    python tests/benchmarks/ablation.py run --world tired --seed 0
    python tests/benchmarks/ablation.py newcomers                            # young items, new users

Worlds have known chances (planted.py): lists are judged on 20 futures, beside an oracle that ranks by the chances. An ablation
is one switch of the settings' group ``model``, nothing else. The blind oracle knows all but what is planted: what is planted
is worth the difference. Lists are kept under --scratch and not made again.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

# One thread: sums in one order. Before NumPy is imported, which reads it once.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[2])]

import numpy as np  # noqa: E402
import torch  # noqa: E402
import typer  # noqa: E402
from planted import DEPTH, World, ndcg, recall  # noqa: E402
from planted_effects import WORLDS, News  # noqa: E402
from planted_lists import Training, by_id_alone, kairos, listed, timeless  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from model.metrics import bootstrap_interval  # noqa: E402

#: What is switched off, by the name of its column.
SWITCHES = {
    "f_item": "use_item_time", "g": "use_interaction", "h": "use_slate", "repeats": "use_repeats", "time encoding": "use_time_gaps",
}  # fmt: skip
SCRATCH = Path("warehouse/benchmarks/ablation")
Scratch = Annotated[Path, typer.Option(help="where worlds, models and lists are kept")]
Seeds = Annotated[list[int] | None, typer.Option(help="of training; may be said several times (default: 0 and 1)")]
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)
console = Console(width=None if sys.stdout.isatty() else 160)


@app.command()
def run(
    world: Annotated[list[str] | None, typer.Option(help="which worlds; may be said several times (default: all)")] = None,
    seed: Seeds = None,
    anchors: Annotated[int, typer.Option(help="moments to learn from, at most 10")] = 4,
    passes: Annotated[int, typer.Option(help="train so many times as long as by default")] = 1,
    scratch: Scratch = SCRATCH,
) -> None:
    """Measure what is not measured yet, and print the table: NDCG@10, and what it loses without each component."""
    torch.set_num_threads(1)
    unknown = set(world or []) - set(WORLDS)
    if unknown:
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: there are {', '.join(WORLDS)}", param_hint="--world")
    columns = ["seeds", *SWITCHES, "no time", "oracle", "blind oracle", "of the oracle's gain"]
    grid = Table("world", "Kairos", *columns, title="NDCG@10; without a component: change in % [95 %], * where it is planted")
    made = [(WORLDS[name](), scratch.absolute() / name) for name in world or WORLDS]
    trainings = [Training(number, anchors, passes) for number in seed or [0, 1]]
    for training in trainings:  # all worlds with the first seed first: a table that is cut short still has every row
        for each, folder in made:
            for switch in (None, *SWITCHES.values()):
                _lists(each, folder, switch, training)
    for each, folder in made:
        grid.add_row(*_row(each, folder, trainings))
    console.print(grid, markup=False)


def _row(world: World, folder: Path, trainings: list[Training]) -> list[str]:
    def of(switch: str | None) -> np.ndarray:
        return np.array([ndcg(_lists(world, folder, switch, training), world.truth) for training in trainings])

    full = of(None)
    judged = np.isfinite(full[0]) & world.past.had.any(axis=1)
    mean = full[:, judged].mean()
    cells = [world.name, f"{mean:.4f}", " ".join(f"{one[judged].mean():.4f}" for one in full)]
    for switch in SWITCHES.values():
        less = (of(switch) - full)[:, judged].mean(axis=0) / mean * 100
        low, high = bootstrap_interval(less, seed=0)
        cells.append(f"{'*' * (switch in world.planted)}{less.mean():+.1f} [{low:+.1f}, {high:+.1f}]")
    scores = {name: ndcg(lists, world.truth)[judged].mean() for name, lists in timeless(world).items()}
    best = max(scores, key=scores.__getitem__)
    oracle, blind = (ndcg(lists, world.truth)[judged].mean() for lists in (world.oracle, world.blind))
    share = (mean - scores[best]) / (oracle - scores[best])
    return [*cells, f"{scores[best]:.4f} {best}", f"{oracle:.4f}", f"{blind:.4f}", f"{share:.0%}"]


def _lists(world: World, folder: Path, switch: str | None, training: Training) -> np.ndarray:
    name = f"{switch or 'full'}-{training.seed}"
    name += f"-{training.anchors}a" * (training.anchors != 4) + f"-{training.passes}x" * (training.passes > 1)
    return _kept(folder, name, lambda: listed(kairos(world, folder, training, switch), world, folder))


def _kept(folder: Path, name: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    path = folder / "lists" / f"{name}.npy"
    if not path.exists():
        tick = time.monotonic()
        lists = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, lists, allow_pickle=False)
        print(f"made {folder.name} {name} in {time.monotonic() - tick:.0f} s", flush=True)
    return np.load(path, allow_pickle=False)


@app.command()
def newcomers(seed: Seeds = None, scratch: Scratch = SCRATCH) -> None:
    """Recall@20 in a world of news: of items younger than a day, and of everything for users who are new."""
    torch.set_num_threads(1)
    world, folder, seeds = News(), scratch.absolute() / "news", seed or [0, 1]

    def several(name: str, make: Callable[[int], np.ndarray]) -> list[np.ndarray]:
        return [_kept(folder, f"{name}-{number}", lambda number=number: make(number)) for number in seeds]  # type: ignore[misc]

    def trained(number: int, before: int) -> np.ndarray:
        return listed(kairos(world, folder, Training(number, before=before)), world, folder)

    def bare(number: int) -> np.ndarray:
        return by_id_alone(kairos(world, folder, Training(number), "use_item_time"), world, folder)

    found = {
        "Kairos": several("full", lambda number: trained(number, 0)),
        "Kairos, trained a day earlier": several("earlier", lambda number: trained(number, 1)),
        "ids alone": several("ids", bare),
        **{f"no time: {name}": [lists] for name, lists in timeless(world).items()},
        "newest first": [np.broadcast_to(np.argsort(np.where(world.on_offer(world.as_of), -world.released, np.inf))[:DEPTH], world.oracle.shape)],
        "oracle": [world.oracle],
    }
    first = world.log.groupby("user")["when"].min().reindex(range(world.users)).fillna(np.inf).to_numpy()
    young = (world.released < world.as_of) & (world.released >= world.as_of - 1)
    everyone, all_items = first < world.as_of, np.ones(world.items, bool)
    segments = {
        "all": (everyone, all_items, DEPTH),
        "items younger than a day": (everyone, young, DEPTH),
        "the same @5": (everyone, young, 5),  # there may be no more young items than a list has places
        "users first seen within a day": ((first >= world.as_of - 1) & everyone, all_items, DEPTH),
        "users never seen": (~everyone, all_items, DEPTH),
    }
    grid = Table("Recall@20", *segments, title=f"News: what the lists find; {young.sum()} items on offer are younger than a day")
    for name, several_lists in found.items():
        grid.add_row(name, *(f"{_recall(several_lists, world, *segment):.3f}" for segment in segments.values()))
    judged = [int(np.isfinite(recall(world.oracle, world.truth & items)[users]).sum()) for users, items, _ in segments.values()]
    grid.add_row("users judged", *map(str, judged))
    console.print(grid, markup=False)


def _recall(lists: list[np.ndarray], world: World, users: np.ndarray, items: np.ndarray, places: int) -> float:
    return float(np.mean([np.nanmean(recall(one[:, :places], world.truth & items)[users]) for one in lists]))


if __name__ == "__main__":
    app()
