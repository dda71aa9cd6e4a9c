"""A large log on its way to the trainer: streamed from the table, ordered part by part, kept as mapped columns.

Users are cut into parts of about a million events. One pass over the table finds the users, a second one lays each row into its
part's file, then each part is ordered by itself and appended to the columns. So no more than a part is in memory, whatever the
size of the table. One process writes the store, beside the checkpoints; all others, and a trainer that is started again, map it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from conf import columns as c
from model.as_of.events import BLOCK, COLUMNS, READ, Events, arranged, read_events, visible
from model.data import dataset, index_of
from model.machine.distributed import World
from model.machine.memory import give_back
from model.spec import TablesSpec

#: A table of fewer rows is read into memory.
FEW = 2 * BLOCK
_MOST_PARTS = 256
_USERS, _ABOUT = "users.arrow", "about.json"


def stored_events(spec: TablesSpec, as_of_us: int, item_ids: pa.Array, folder: Path | None, world: World, few: int = FEW) -> Events:
    """The events visible at a moment, mapped from ``folder`` where they are many."""
    source, where = dataset(spec.table("events")), visible(as_of_us)
    rows = source.count_rows(filter=where)
    if rows <= few or folder is None:
        return read_events(spec, as_of_us, item_ids)
    store = folder / "events"
    if world.first and not (store / _ABOUT).exists():
        _write(source, where, rows, item_ids, store)
    world.add(0.0)  # nobody opens it before it is there
    return _open(store)


def _write(source: ds.Dataset, where: ds.Expression, rows: int, item_ids: pa.Array, store: Path) -> None:
    beside = store.with_name(store.name + ".part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    users = _users(source, where)
    with pa.OSFile(str(beside / _USERS), "wb") as file, pa.ipc.new_file(file, pa.schema([(c.USER_ID, users.type)])) as sink:
        sink.write_table(pa.table({c.USER_ID: users}))
    parts = min(_MOST_PARTS, -(-rows // BLOCK))
    _lay_out(source, where, users, parts, beside)
    give_back()
    counts = []
    with ExitStack() as stack:
        files = {name: stack.enter_context((beside / f"{name}.bin").open("wb")) for name in COLUMNS}
        for part in range(parts):
            counts.append(_append(beside / f"part-{part}.arrow", users, item_ids, files))
            give_back()
    if sum(counts) != rows:
        raise OSError(f"{store}: {sum(counts)} events were laid out of {rows}")
    (beside / _ABOUT).write_text(json.dumps({"rows": rows}), encoding="utf-8")
    shutil.rmtree(store, ignore_errors=True)
    beside.rename(store)


def _append(part: Path, users: pa.Array, item_ids: pa.Array, files: Mapping[str, BinaryIO]) -> int:
    """Order a part, add it to the columns, and remove it. Returns its rows. A function, so that no two parts are in memory."""
    with pa.memory_map(str(part)) as mapped:
        found = arranged(pa.ipc.open_file(mapped).read_all(), users, item_ids)
    part.unlink()
    for name, kind in COLUMNS.items():
        files[name].write(np.ascontiguousarray(found[name], kind).data)
    return len(found["us"])


def _users(source: ds.Dataset, where: ds.Expression) -> pa.Array:
    found = pa.array([], pa.string())
    for batch in _stream(source, where, [c.USER_ID]):
        found = pc.unique(pa.concat_arrays([found, pc.unique(batch[c.USER_ID]).cast(pa.string())]))
    return found.take(pc.sort_indices(found))


def _lay_out(source: ds.Dataset, where: ds.Expression, users: pa.Array, parts: int, folder: Path) -> None:
    """Each row into the file of its user's part."""
    with ExitStack() as stack:
        sinks: dict[int, pa.ipc.RecordBatchFileWriter] = {}
        for batch in _stream(source, where, READ):
            part = index_of(batch[c.USER_ID], users).astype(np.int64) * parts // len(users)
            order = np.argsort(part, kind="stable")
            ends = np.searchsorted(part[order], np.arange(parts + 1))
            for k in range(parts):
                if k not in sinks:
                    file = stack.enter_context(pa.OSFile(str(folder / f"part-{k}.arrow"), "wb"))
                    sinks[k] = stack.enter_context(pa.ipc.new_file(file, batch.schema))
                mine = order[ends[k] : ends[k + 1]]
                if len(mine):
                    sinks[k].write_batch(batch.take(pa.array(mine)))


def _stream(source: ds.Dataset, where: ds.Expression, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """A row group at a time: a scan of the whole reads up to a gigabyte ahead of whoever takes its time over the rows."""
    once = ds.ParquetFragmentScanOptions(pre_buffer=False)
    told = {"schema": source.schema, "columns": columns, "filter": where, "batch_size": BLOCK // 4, "fragment_scan_options": once, "use_threads": False}
    for file in source.get_fragments(filter=where):
        for group in file.split_by_row_group(filter=where, schema=source.schema):
            yield from group.to_batches(**told)
            give_back()


def _open(store: Path) -> Events:
    rows = json.loads((store / _ABOUT).read_text(encoding="utf-8"))["rows"]
    users = pa.ipc.open_file(pa.memory_map(str(store / _USERS))).read_all()[c.USER_ID].combine_chunks()
    columns = {name: np.memmap(store / f"{name}.bin", kind, "r", shape=(rows,)) for name, kind in COLUMNS.items()}
    return Events(users=users, **columns)
