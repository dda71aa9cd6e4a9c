"""How much of the catalogue anybody is shown."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from model.metrics.lists import Lists, ragged


def coverage(lists: Lists, k: int, catalogue: int) -> float:
    """Share of a catalogue of this many items that stands in the first k places of anybody's list.

    Source: Ge, Delgado-Battenfeld and Jannach, "Beyond accuracy: evaluating recommender systems by coverage and serendipity",
    RecSys 2010 (catalogue coverage).
    """
    if catalogue < 1:
        raise ValueError(f"a catalogue of {catalogue} items")
    shown = ragged(lists)
    return len(pc.unique(shown.values.filter(pa.array(shown.places < k)))) / catalogue
