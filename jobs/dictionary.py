"""The README's list of tables, made from the contracts: ``python -m jobs.dictionary README.md`` rewrites it."""

from __future__ import annotations

import sys
from pathlib import Path

from features.contracts import TABLES, Table

START, END = "<!-- tables: made by jobs/dictionary.py -->", "<!-- end of tables -->"


def overview() -> str:
    """One line a table, then every column of every table, as Markdown."""
    lines = ["| table | one row is | key | owner |", "|---|---|---|---|"]
    lines += [f"| `{t.name}` | {t.row} | {', '.join(t.key) or '–'} | {t.owner} |" for t in TABLES.values()]
    return "\n".join([*lines, "", *(part for table in TABLES.values() for part in _columns(table))])


def _columns(table: Table) -> list[str]:
    rows = [
        f"| `{k.name}` | {k.type.lower()}{'?' if k.nullable else ''} | {k.comment.replace('|', '∣')} |"
        for k in table.columns
    ]
    head = f"<details><summary><code>{table.name}</code>: {len(table.columns)} columns (? may be NULL)</summary>"
    return [head, "", "| column | type | meaning |", "|---|---|---|", *rows, "", "</details>", ""]


def rewrite(text: str) -> str:
    """The text with the part between the two marks made anew. Raises ValueError when a mark is missing."""
    before, _, rest = text.partition(START)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"the text lacks {START} … {END}")
    return f"{before}{START}\n{overview()}\n{END}{after}"


if __name__ == "__main__":
    readme = Path(sys.argv[1])
    readme.write_text(rewrite(readme.read_text(encoding="utf-8")), encoding="utf-8")
