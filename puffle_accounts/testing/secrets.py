"""The key: needed, sent, and never told."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote, unquote

import pytest

from puffle_accounts import logs
from puffle_accounts.testing.calls import check
from puffle_accounts.testing.case import Case, left_for_good
from puffle_accounts.testing.provider import Reply, Request


class Secrets(Case):
    """The plugin's key."""

    def test_the_key_is_sent(self) -> None:
        self._try(self.done)
        told = [part for sent in self.provider.requests for part in _parts(sent)]
        assert any(self.key in part for part in told), f"no request has {self.key_variable}"

    def test_without_its_key_it_is_a_permanent_failure_that_names_the_variable(self) -> None:
        self.monkeypatch.delenv(self.key_variable)
        result = self._try(self.done)
        left_for_good(result, "without a key")
        assert self.key_variable in (result.failure or "")
        assert self.provider.requests == []

    def test_no_key_is_told_whatever_the_provider_says(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        said = [str(self._try(reply)) for reply in self._telling()]
        said += [str(check(self.plugin, self.patience))]
        self.provider.refuse()
        said += [str(self._again())]
        service = logs.formatter("json")
        said += [service.format(record) for record in caplog.records]
        for text in said:
            for secret in (self.key, quote(self.key, safe="")):
                assert secret not in text

    def _telling(self) -> Iterator[Reply]:
        """Return answers in which the provider gives the key away."""
        headers = {"Location": f"https://elsewhere.example/?key={self.key}"}
        for like in self._gone:
            for status in (200, 302, 400, 401, 404, 500):
                yield Reply(status, _told(like.body, self.key), headers)


def _parts(sent: Request) -> Iterator[str]:
    """Return where a key may be, as it was before it was packed."""
    yield unquote(sent.path)
    yield unquote(sent.body.decode(errors="replace"))
    for value in sent.headers.values():
        yield value
        with suppress(ValueError):
            yield base64.b64decode(value.rpartition(" ")[2]).decode()


def _told(body: Any, key: str) -> Any:
    """Return a body with the key for each of its texts."""
    if isinstance(body, dict):
        return {name: _told(value, key) for name, value in body.items()}
    if isinstance(body, list):
        return [_told(value, key) for value in body]
    return key if isinstance(body, (str, bytes)) or body is None else body
