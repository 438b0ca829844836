"""A token that has to be fetched first, kept for all threads and greenlets of a worker."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode, urlsplit

from puffle_accounts import environment
from puffle_accounts.transport import Clock, NoAnswer, Transport
from puffle_accounts.upstream import addresses, bodies
from puffle_accounts.upstream.credentials import ClientCredentials
from puffle_accounts.upstream.judgement import Judge

HEADERS = {"Accept": "application/json", "User-Agent": "puffle-accounts"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
PASSING = frozenset({"server_error", "temporarily_unavailable"})


class Tokens:
    """Fetches tokens by client credentials (RFC 6749 §4.4), one at a time, and keeps the latest.

    Args:
        url: of the token endpoint.
        form: what it is sent.
        judge: knows how it says things.

    Raises:
        ConfigError: a proxy or a CA bundle of the environment cannot be used.
    """

    def __init__(self, url: str, form: Mapping[str, str], judge: Judge) -> None:
        where = urlsplit(url)
        self._path = where._replace(scheme="", netloc="").geturl() or "/"
        self._transport = Transport(f"{where.scheme}://{where.netloc}", {**HEADERS, **FORM})
        self._form = urlencode(form).encode()
        self._judge = judge
        self._lock = threading.Lock()
        self.latest = ""

    def get(self, refused: str | None, clock: Clock, tried: str) -> str:
        """Return a token that the provider has not refused; somebody else may fetch it meanwhile.

        Args:
            refused: the one that it has, if any.
            clock: for all of it.
            tried: what it is for, for messages.

        Raises:
            UpstreamFailed: there is none.
        """
        if self.latest and self.latest != refused:
            return self.latest
        tried = f"token for {tried}"
        with self._alone(clock, tried):
            if self.latest in ("", refused):
                self.latest = ""
                self.latest = self._fetch(clock, tried)
            return self.latest

    @contextmanager
    def _alone(self, clock: Clock, tried: str) -> Iterator[None]:
        try:
            alone = self._lock.acquire(timeout=clock.left())
        except TimeoutError:
            alone = False
        if not alone:
            raise self._judge.failed(tried, f"none within {clock.seconds:.1f} s")
        try:
            yield
        finally:
            self._lock.release()

    def _fetch(self, clock: Clock, tried: str) -> str:
        wanted = self._judge.wanted
        try:
            answer = self._transport.send("POST", self._path, {}, self._form, clock, wanted)
        except NoAnswer as error:
            raise self._judge.failed(tried, str(error)) from None
        self._judge.judge(answer, "POST", tried, wanted)
        body = bodies.json_object(answer, wanted(answer.status)[0]) or {}
        return str(body["access_token"])


def from_environ(
    how: ClientCredentials, judge: Judge, environ: Mapping[str, str], secret: str
) -> tuple[Tokens | None, list[str]]:
    """Return what fetches the tokens, or the variables that are missing for it.

    Args:
        judge: the provider's.
        secret: the client's; the variable that holds it is the judge's.

    Raises:
        ConfigError: a value cannot be used.
    """
    client_id = environment.text(environ, how.client_id_variable) or ""
    url, missing = addresses.address(environ, how.token_url_variable, how.token_url)
    if missing or not client_id:
        return None, [*([] if client_id else [how.client_id_variable]), *missing]
    form = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": secret}
    if how.scope:
        form["scope"] = how.scope
    endpoint = replace(
        judge,
        key_variable=f"{how.client_id_variable} and {judge.key_variable}",
        base_url_variable=how.token_url_variable,
        code="error",  # RFC 6749 §5.2
        is_gone=lambda body: False,
        is_done=lambda body: _is_token(body.get("access_token")),
        retry_after=None,
        temporary_codes=PASSING,
    )
    return Tokens(url, form, endpoint), []


def _is_token(value: Any) -> bool:
    """Return whether it can travel in a header; anything else is no token (RFC 6749 §A.12)."""
    return isinstance(value, str) and value != "" and all("!" <= c <= "~" for c in value)
