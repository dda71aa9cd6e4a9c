"""The README's lists of tables and of checks, made from the code: ``python -m jobs.dictionary README.md`` rewrites them."""

from __future__ import annotations

import sys
from pathlib import Path

from features.contracts import TABLES, Table
from features.quality import EVENT_CHECKS, ITEM_CHECKS


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


def checks() -> str:
    """One line a check of events and of items, as Markdown."""
    lines = ["| check | of | by default | bad is |", "|---|---|---|---|"]
    of_events, of_items = ({check.id: check for check in some} for some in (EVENT_CHECKS, ITEM_CHECKS))
    for name, check in (of_events | of_items).items():
        of = " and ".join(what for what, some in (("events", of_events), ("items", of_items)) if name in some)
        verdict = f"{check.severity}, always" if check.needed else check.severity
        lines.append(f"| `{name}` | {of} | {verdict} | {check.about.replace('|', '∣')} |")
    return "\n".join(lines)


#: What is made -> by whom. Each part of the README lies between two marks that name it.
PARTS = {"tables": overview, "checks": checks}


def rewrite(text: str) -> str:
    """The text with the parts between their marks made anew. Raises ValueError when a mark is missing."""
    for name, make in PARTS.items():
        start, end = f"<!-- {name}: made by jobs/dictionary.py -->", f"<!-- end of {name} -->"
        before, _, rest = text.partition(start)
        _, found, after = rest.partition(end)
        if not found:
            raise ValueError(f"the text lacks {start} … {end}")
        text = f"{before}{start}\n{make()}\n{end}{after}"
    return text


if __name__ == "__main__":
    readme = Path(sys.argv[1])
    readme.write_text(rewrite(readme.read_text(encoding="utf-8")), encoding="utf-8")
