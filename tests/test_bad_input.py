"""A few of the odd answers and odd rows that `make badinput` tries by the thousand."""

from __future__ import annotations

from support import only

from soak.bad_answers import Answers, Provider
from soak.bad_rows import Rows, values
from soak.odd_answers import KINDS, odd

SEED = 11


@only("sqlite")
def test_whatever_a_provider_answers_is_a_200_and_an_orphan_unless_nothing_is_left(stack, request):
    numbers = [n for n in range(100) if odd(SEED, n).name != "slow"]
    assert len({odd(SEED, n).name for n in numbers}) >= len(KINDS) - 1
    with Provider(SEED) as provider:
        stack.environ["UNIPILE_BASE_URL"] = provider.url
        live = request.getfixturevalue("live")
        answers = Answers("", stack.database_url, SEED, 0, None)
        answers.send(live, numbers)
    assert answers.found == []


def test_whatever_a_row_holds_it_is_ended_or_refused_before_a_provider_is_called(live):
    rows = Rows("", live.database_url, None)
    live.sandbox.behave("unipile", "fail")
    every = list(values(live.database_url.startswith("sqlite")))[::29]
    for column, mark, value in every:
        rows.try_one(live, live.sandbox, live.add_linkedin(), column, mark, value)
    assert rows.found == []
    assert rows.answers["200"] > 5


@only("sqlite")
def test_a_row_that_is_refused_after_a_provider_was_called_would_be_noticed(live):
    rows, account = Rows("", live.database_url, None), live.add_linkedin()
    live.sql(
        "CREATE TRIGGER t BEFORE UPDATE OF updated_at ON accounts"
        " BEGIN SELECT RAISE(ABORT, 'refused'); END"
    )
    rows.try_one(live, live.sandbox, account, "display_name", "?", "x")
    assert rows.found == ['display_name = "x": refused after providers were called']
