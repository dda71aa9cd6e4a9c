"""How lists are made, and what is asked of a batch before it is shown (jobs/score.py, jobs/lists/checks.py, jobs/lists/stale.py)."""

from __future__ import annotations

from pydantic import Field

from conf.nodes import Count, Node, Positive, Share


class Scoring(Node):
    """How lists are made and checked."""

    batch_users: Positive = 512
    hide: str | None = Field(
        None,
        description="items that nobody is to be recommended: SQL over the columns of table items, e.g. category = 'tobacco' or price < 1; "
        "heeded from the next night or hour on",
    )
    category_cap: Positive | None = Field(None, description="at most so many items of one category in a list")
    pin: str | None = Field(
        None,
        description="items that stand first in the list of everyone who may be recommended them: SQL over the columns of table items, "
        "e.g. attributes['campaign'] = 'spring'",
    )
    pin_places: Positive = Field(1, description="at most so many of them in a list, the best for its user")
    explore_places: Count = Field(
        0,
        description="so many places at the end of a list are drawn, for each user once and for all, from the candidates that would stand "
        "there and three lists' length of those after them: more of the catalogue is shown, and clicks tell about it",
    )
    max_unserved: Share = Field(0.01, description="a batch that leaves more than this share of its users without a list is refused")
    max_shrink: Share = Field(0.5, description="a nightly batch with lists for this share fewer users than are shown one is refused")
    max_coverage_shrink: Share = Field(0.5, description="so is one that lists this share fewer different items than are shown")
    max_turnover: Share | None = Field(
        None,
        description="so is one where more than this share of places has an item that its user is not shown now. Not set: not asked, "
        "for news turns over whole in a day and groceries hardly at all",
    )
    trending_change: Share | None = Field(
        None,
        description="an hour lists anew whom it showed lists of a moment since when more than this share of the top_k trending items "
        "(available, by sales decayed with half-life 1d) has changed; 1: it does not. Not set: as 0 for a horizon of up to two days, whose "
        "lists are old within hours (such an hour may be everyone's), and as 1 for a longer one",
    )
