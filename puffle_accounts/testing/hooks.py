"""The hooks that a plugin may have besides: a list, and a check."""

from __future__ import annotations

from contextlib import suppress
from itertools import islice

import pytest

from puffle_accounts.hooks.hookimpls import CHECK, FIND, verify
from puffle_accounts.testing.calls import check, holdings
from puffle_accounts.testing.case import HTML, Case
from puffle_accounts.testing.provider import FakeProvider, Reply

MOST = 10_000  # items, of a list that has no end


class Hooks(Case):
    """`find_resources` and `check_provider`, if the plugin has them."""

    def test_the_list_is_read_to_its_last_page(self) -> None:
        self._require(FIND)
        self._ask().reply(*self.pages)
        assert tuple(found.id for found in holdings(self.plugin)) == self.listed
        assert len(self.provider.requests) == len(self.first) + len(self.pages)

    def test_a_list_that_cannot_be_read_to_its_end_is_a_failure(self) -> None:
        self._require(FIND)
        *first, last = self.pages
        for instead in (
            Reply(500),
            Reply(401),
            HTML,
            Reply(200, {"another": "thing"}),
            Reply(200, b"{"),
        ):
            self._ask().reply(*first, instead)
            self._cannot_be_read(instead)
        self._ask().reply(*first).cut(last.status, last.body)
        self._cannot_be_read("a page that is cut short")
        if first:
            self._ask().reply(first[0])
            self._cannot_be_read("a page that names itself as the next one")

    def _cannot_be_read(self, case: object) -> None:
        with suppress(Exception):  # whatever it is, nothing is compared
            found = len(list(islice(holdings(self.plugin), MOST)))
            pytest.fail(f"{case}: {found} resources, as if these were all")

    def test_the_check_accepts_the_key_and_deletes_nothing(self) -> None:
        self._require(CHECK)
        self._ask().reply(self._accepted)
        assert check(self.plugin) is None
        assert self.provider.requests, "nobody was asked"
        assert "DELETE" not in {sent.method for sent in self.provider.requests}

    def test_the_check_tells_a_wrong_key(self) -> None:
        self._require(CHECK)
        for status in (401, 403):
            self._ask().answer(status)
            assert check(self.plugin), status
        self.monkeypatch.delenv(self.key_variable)
        assert self.key_variable in (check(self.plugin) or "")

    def test_the_check_tells_a_wrong_url(self) -> None:
        self._require(CHECK)
        for reply in (HTML, Reply(404, HTML.body), Reply(404, {"message": "Not Found"})):
            self._ask().reply(reply)
            assert check(self.plugin), reply
        self._ask().redirect()
        assert check(self.plugin), "a redirect"

    @pytest.mark.parametrize("what", ["hang", "drip", "refuse"])
    def test_the_check_tells_a_silent_host(self, what: str) -> None:
        self._require(CHECK)
        getattr(self._ask(), what)()
        assert check(self.plugin, self.patience), what

    def _ask(self) -> FakeProvider:
        """Let the provider answer what is asked before anything else."""
        return self.provider.forget().reply(*self.first)

    @property
    def _accepted(self) -> Reply:
        usual = self.pages[0] if self.pages else Reply(200, {})
        return self.accepted or usual

    def _require(self, hook: str) -> None:
        if not verify(self.plugin)[hook]:
            pytest.skip(f"the plugin has no {hook}")
        if hook == FIND and not self.pages:
            pytest.fail("say pages, what the provider answers page by page, and listed, its ids")
