"""What the ledger promises whoever has claimed an orphan, and what is told of it."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from orphanage import called_for, leave, ledger_of
from support import only

from puffle_accounts.orphans.attempt import UNREADABLE, Retrier

pytestmark = only("sqlite")
WHICH = ("orphan", "plugin", "account")


@pytest.fixture
def ledger(live):
    return ledger_of(live)


def claim(ledger, most=9):
    return ledger.claim("unipile", most, ledger.now())


def test_what_is_given_back_can_be_claimed_and_what_another_works_on_cannot(live, ledger):
    leave(live, 3)
    first, second, third = claim(ledger)
    ledger.release([first, replace(second, leased_until=third.leased_until + "?")])
    assert [orphan.key for orphan in claim(ledger)] == [first.key]


def test_a_lease_that_is_renewed_begins_anew(live, ledger):
    leave(live)
    [orphan] = claim(ledger)
    late = replace(orphan, claimed_at=0.0)
    before = time.monotonic()
    renewed = ledger.renew(late)
    assert before <= renewed.claimed_at <= time.monotonic()
    assert ledger.renew(replace(renewed, leased_until="another's")) is None


def test_what_has_waited_for_its_call_is_leased_anew_or_left_to_another(live, ledger):
    leave(live)
    [orphan] = claim(ledger)
    retrier = Retrier(ledger, live.service.plugins, 2.0)
    late = replace(orphan, claimed_at=orphan.claimed_at - 2)
    assert retrier.call(late).orphan.claimed_at >= orphan.claimed_at
    assert len(called_for(live)) == 1
    assert retrier.call(replace(late, leased_until="another's")) is None
    assert len(called_for(live)) == 1


def test_what_a_person_gives_up_is_told_with_the_reason(live, ledger, events):
    leave(live)
    [orphan] = claim(ledger)
    assert ledger.drop(orphan.key, "the workspace\nis gone") is True
    assert ledger.drop(orphan.key, "again") is False
    [fields] = [fields for event, fields in events() if event == "orphan.dropped"]
    assert [fields[name] for name in WHICH] == [orphan.id, "unipile", orphan.account_id]
    assert fields["reason"] == "the workspace is gone"


@pytest.mark.parametrize(("status", "outcome"), [("fail", "session revoke"), (None, UNREADABLE)])
def test_what_is_parked_is_told_with_why(live, events, status, outcome):
    leave(live, permanent=True)
    if status is None:
        live.sql("UPDATE orphans SET account = '{}'")
    live.sql("UPDATE orphans SET parked_at = NULL, attempts = 9")
    live.make_due()
    live.sandbox.behave("unipile", "fail")
    assert live.retry() == {"parked": 1}
    [fields] = [fields for event, fields in events() if event == "orphan.parked"]
    [left] = live.orphans()
    assert fields["orphan"] == str(left["id"])
    assert fields["user"] == str(left["user_id"])
    assert fields["levelname"] == "WARNING"
    assert fields["outcome"] == left["reason"]
    assert outcome in left["reason"]


def test_what_is_done_is_told_as_an_everyday_thing(live, events):
    [account] = leave(live)
    assert live.retry() == {"done": 1}
    [fields] = [fields for event, fields in events() if event == "orphan.retried"]
    assert (fields["levelname"], fields["outcome"]) == ("INFO", "done")
    assert (fields["account"], fields["user"]) == (account.id, account.user_id)
