"""What a provider's answers mean."""

from __future__ import annotations

from typing import Any

import pytest

from puffle_accounts import clock
from puffle_accounts.testing.case import HTML, Case, left_for_good, left_for_later
from puffle_accounts.testing.provider import Reply

PERMANENT = (400, 401, 402, 403, 405, 422)
TEMPORARY = (408, 409, 425, 429, 500, 502, 503, 504, 520)
REDIRECTS = (301, 302, 303, 307, 308)

#: What gateways, frameworks and login pages say of a path that they do not know.
WRONG_URL: tuple[Any, ...] = (
    HTML.body,
    None,
    [],
    {},
    b"null",
    b'"not_found"',
    b"{",
    {"detail": "Not Found"},
    {"message": "Not Found"},
    {"message": "no Route matched with those values"},
    {"statusCode": 404, "error": "Not Found", "message": "Route DELETE:/x not found"},
    {"status": 404, "title": "Not Found", "type": "about:blank"},
    {"code": "NOT_FOUND", "message": "The page could not be found"},
    {"error": {"code": "404", "message": "The page could not be found"}},
)
ODD = (b"\xff\xfe", b"[" * 100_000, b"null", b"[]", b'"x"', b"{", HTML.body, b"x" * 1_000_000)


class Answers(Case):
    """Each answer of the table."""

    def test_an_account_that_is_not_its_own_asks_nobody(self) -> None:
        for account in self._others:
            result = self._try(self.done, of=account)
            assert (result.said, result.failure) == (None, None), account
            assert self.provider.requests == [], account

    def test_what_is_done_is_said(self) -> None:
        result = self._try(self.done)
        assert result.failure is None
        assert result.said, "say in a few words what was done"
        asked = len(self.first) + len(self.before) + 1
        assert len(self.provider.requests) == asked, "`first`, `before` and `done`, no more"

    def test_what_is_gone_already_is_a_success_that_says_so(self) -> None:
        done = self._try(self.done).said
        for gone in self._gone:
            result = self._try(gone)
            assert result.failure is None, gone
            assert result.said, "say in a few words that it was not there"
            assert result.said != done or gone == self.done, "it was not done, it was not there"

    def test_done_twice_in_a_row_is_a_success(self) -> None:
        for reply in (self.done, self._gone[0], self._gone[0]):
            assert self._try(reply).failure is None

    @pytest.mark.parametrize("status", [404, 410])
    def test_a_404_that_is_not_the_providers_own_is_a_wrong_url_and_permanent(
        self, status: int
    ) -> None:
        own = [gone.body for gone in self._gone]
        for body in (body for body in WRONG_URL if body not in own):
            left_for_good(self._try(Reply(status, body)), (status, body))

    @pytest.mark.parametrize("status", PERMANENT)
    def test_a_refusal_is_permanent(self, status: int) -> None:
        for body in self._bodies(status):
            left_for_good(self._try(Reply(status, body)), (status, body))

    @pytest.mark.parametrize("status", TEMPORARY)
    def test_what_passes_is_tried_again_when_the_provider_says(self, status: int) -> None:
        for body in self._bodies(status):
            result = self._try(Reply(status, body, {"Retry-After": "77"}))
            left_for_later(result, (status, body))
            assert result.retry_after == 77, (status, body)

    def test_retry_after_may_be_a_date_or_missing_or_nonsense(self) -> None:
        later = f"{clock.now().replace(year=clock.now().year + 1):%a, %d %b %Y %H:%M:%S GMT}"
        assert self._try(Reply(503, None, {"Retry-After": later})).retry_after > 86400
        for headers in ({}, {"Retry-After": "soon"}, {"Retry-After": "-1"}):
            result = self._try(Reply(503, None, headers))
            left_for_later(result, headers)
            assert result.retry_after == 0, headers

    @pytest.mark.parametrize("status", REDIRECTS)
    def test_a_redirect_is_permanent_and_not_followed(self, status: int) -> None:
        self._begin().redirect(status)
        left_for_good(self._again(), status)
        assert not [sent for sent in self.provider.requests if sent.path == "/elsewhere"]

    def test_odd_bodies_change_nothing_of_a_failure(self) -> None:
        for body in ODD:
            left_for_later(self._try(Reply(500, body)), (500, body[:20]))
            left_for_good(self._try(Reply(401, body)), (401, body[:20]))

    def test_a_success_that_is_not_the_apis_is_tried_again(self) -> None:
        left_for_later(self._try(HTML), "a web page")
        no_json = Reply(200, b'{"a": tru', {"Content-Type": "application/json"})
        left_for_later(self._try(no_json), "a body that is no JSON")

    def test_the_providers_own_answers_that_pass_and_that_do_not(self) -> None:
        for reply in self.temporary:
            left_for_later(self._try(reply), reply)
        for reply in self.permanent:
            left_for_good(self._try(reply), reply)

    def _bodies(self, status: int) -> list[object]:
        """Return bodies that leave a status what it is: the words of a 404 among them."""
        words = [gone.body for gone in self._gone if gone.status != status]
        return [None, HTML.body, *words]
