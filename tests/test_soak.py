"""The soak is repeatable, its planted faults are still ones of this product, its books can fail."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from soak.book import Answer, Book, Search, Trouble
from soak.books import Books, answer_before, key_at_work
from soak.faults import LANES, PROVIDERS, plan
from soak.page import _soaks
from soak.planted import FAULTS, plant
from soak.providers import Call
from soak.search import wrong_of_find


def test_the_same_seed_is_the_same_plan_and_another_is_another():
    planned = plan(7, 600)
    assert planned == plan(7, 600)
    assert planned != plan(8, 600)
    assert {each.lane for each in planned} == {*LANES, *PROVIDERS}
    assert {each.name for each in planned} >= {name for lane in LANES.values() for name in lane}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_fits_the_product_and_is_python(fault, tmp_path):
    plant(fault, tmp_path / "copy", only=("puffle_accounts",))
    for file, _, _ in fault.changes:
        source = (tmp_path / "copy" / "puffle_accounts" / file).read_text()
        compile(source, file, "exec")


@pytest.fixture
def books(tmp_path):
    """Books of a world that nothing has happened in; its service says that it took 30 s for `r`."""
    service = SimpleNamespace(address="here", name="service-0", log=tmp_path / "log")
    service.log.write_text('{"event": "served r 30000"}')
    return Books(
        SimpleNamespace(
            book=Book(),
            sql=lambda *_: [],
            holds=lambda *_: True,
            alive=lambda: {("unipile", "x")},
            services=[service],
        )
    )


def answer(status=200, began=10.0, ended=11.0, **details) -> Answer:
    return Answer("a", details.pop("key", None), "r", began, ended, status, **details)


def test_alive_and_named_by_nobody_is_lost(books):
    books.book.hold("a", {"unipile": "x"})
    assert [account for account, _ in books.lost()] == ["a"]
    books.named.add(("unipile", "x"))
    assert list(books.lost()) == []


@pytest.mark.parametrize(("earlier", "found"), [(9.0, ["b"]), (1.0, [])])
def test_a_call_for_what_a_live_account_names_is_wrong_once_somebody_must_have_seen_it(
    books, earlier, found
):
    now = time.time()
    books.book.hold("b", {"unipile": "x"})
    books.book.holds["unipile", "x"][0].since = now - earlier
    books.book.called(Call("unipile", "x", "127.0.0.2", "r", now, None), [])
    assert [account for account, _ in books.torn_down()] == found


def test_where_a_delete_that_was_given_up_is_done_late_its_account_is_not_live_any_more(books):
    now = time.time()
    books.book.hold("b", {"unipile": "x"})
    books.book.holds["unipile", "x"][0].since = now - 9
    books.of["b"] = [Answer("b", None, "r", now - 30, now - 20)]
    for caller in ("127.0.0.1", "127.0.0.2"):
        books.book.called(Call("unipile", "x", caller, "r", now, None), [])
    assert list(books.torn_down()) == []


def test_what_a_provider_lied_about_is_not_lost_but_must_be_gone_after_a_search(books):
    books.book.hold("a", {"unipile": "x"})
    books.book.lied.add(("unipile", "x"))
    assert list(books.lost()) == []
    assert [account for account, _ in books.left()] == ["a"]
    books.named.add(("unipile", "x"))
    assert list(books.left()) == []


@pytest.mark.parametrize(("since", "found"), [(9.0, ["a"]), (11.0, [])])
def test_what_a_live_account_names_during_all_of_a_search_must_not_be_shown(books, since, found):
    books.book.hold("a", {"unipile": "x"})
    books.book.holds["unipile", "x"][0].since = since
    books.book.searches.append(Search(10.0, 12.0, 1, {("unipile", "x")}))
    assert [account for account, _ in books.shown_and_live()] == found


@pytest.mark.parametrize(
    ("status", "shown", "err", "is_right"),
    [
        (0, False, "Asking unipile", True),
        (0, True, "", False),
        (1, True, "", True),
        (1, False, "", False),
        (2, False, "unipile could not be asked: 500", True),
        (2, False, "", False),
        (1, True, "Traceback (most recent call last):\nRude", False),
        (None, False, "", False),
    ],
)
def test_a_search_ends_as_its_page_says_or_was_a_mistake(status, shown, err, is_right):
    search = Search(10.0, 12.0, status, {("unipile", "x")} if shown else set())
    assert (wrong_of_find(search, err) == "") is is_right


def test_a_run_of_before_there_was_a_row_is_shown_without_it():
    old = {"seed": 1, "date": "d", "commit": "c", "minutes": 1, "zeros": {}}
    old["figures"] = {"faults": {}}
    new = {**old, "zeros": {"left": 0}, "figures": {"faults": {}, "orphans find": {"found": 3}}}
    shown = _soaks([old, new])
    assert "| **left** | - | 0 |" in shown
    assert "| orphans find | - | found: 3 |" in shown


def test_what_takes_long_within_the_service_is_wrong_unless_there_was_a_fault_to_wait_for(books):
    books.book.answers += [answer(began=10, ended=50)]
    assert list(books.slow.unexplained())
    books.book.troubles.append(Trouble("unipile", "hang", 10, 50))
    assert list(books.slow.unexplained()), "a provider's failure excuses nothing"
    books.book.troubles.append(Trouble("database", "frozen", 20, 45))
    assert not list(books.slow.unexplained())


def test_of_the_slowest_answer_it_is_said_what_it_waited_for(books):
    books.book.answers += [answer(began=10, ended=50)]
    books.book.answers[0].service = "here"
    books.book.troubles.append(Trouble("process", "master SIGKILL", 12, 13, "service-0"))
    assert books.slow.slowest() == (
        "40.0 s until 200, 10.0 s of them before service-0 took it up,"
        " which met then or shortly before: master SIGKILL"
    )


@pytest.mark.parametrize(("lane", "status"), [("database", 503), ("process", 0)])
def test_a_failure_is_a_wrong_answer_unless_its_own_kind_of_fault_was_there(books, lane, status):
    books.of["a"] = [answer(status)]
    assert list(books.wrong_answers())
    books.book.troubles.append(Trouble("unipile", "fail", 0))
    assert list(books.wrong_answers()), "a provider's failure excuses nothing"
    books.book.troubles.append(Trouble(lane, "some", 10.5, 10.6))
    assert not list(books.wrong_answers())


def test_on_a_machine_that_has_no_time_a_wait_may_end_with_nothing_wrong(books):
    books.of["a"] = [answer(503)]
    books.book.lags.append((10.5, 5.0))
    assert not list(books.wrong_answers())
    assert books.unjudged == {"r"}


def test_the_first_404_of_an_own_account_is_wrong():
    late, early = answer(404, 10, 11), answer(200, 8, 9)
    assert answer_before(late)(early)
    assert not answer_before(late)(answer(200, 12, 13))


def test_a_409_needs_somebody_who_works_under_the_key():
    refused = answer(409, 10, 11, key="k")
    assert key_at_work(refused)(answer(200, 10.5, 12, key="k"))
    assert not key_at_work(refused)(answer(200, 8, 9, key="k"))
    assert not key_at_work(refused)(answer(200, 10.5, 12, key="another"))


def test_a_repeat_that_answers_otherwise_is_found(books):
    books.book.answers += [answer(teardown="complete", key="k")]
    assert not list(books.differing())
    books.book.answers += [answer(teardown="partial", key="k", replayed=True)]
    assert list(books.differing())
