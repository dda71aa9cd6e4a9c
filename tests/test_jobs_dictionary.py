"""The README's lists of tables and checks are the code's own word."""

from pathlib import Path

import pytest

from features.contracts import TABLES
from features.quality import EVENT_CHECKS, ITEM_CHECKS
from jobs.dictionary import rewrite

README = Path(__file__).parents[1] / "README.md"


def test_the_readme_has_every_table_and_column_as_the_contracts_have_them():
    text = README.read_text(encoding="utf-8")
    assert rewrite(text) == text, "run: python -m jobs.dictionary README.md"
    for table in TABLES.values():
        assert all(f"| `{column}` |" in text for column in table.column_names)


def test_the_readme_has_every_check_and_an_id_means_one_thing():
    text = README.read_text(encoding="utf-8")
    known = {}
    for check in (*EVENT_CHECKS, *ITEM_CHECKS):
        assert known.setdefault(check.id, check) == check
        assert f"| `{check.id}` |" in text


def test_a_text_without_the_marks_is_refused():
    with pytest.raises(ValueError, match="lacks"):
        rewrite("nothing here")
