"""One provider's HTTP API, as a plugin calls it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from puffle_accounts import environment
from puffle_accounts.errors import UpstreamFailed
from puffle_accounts.upstream import addresses, bodies, lists
from puffle_accounts.upstream.credentials import ClientCredentials, Query
from puffle_accounts.upstream.judgement import Judge
from puffle_accounts.upstream.session import Session
from puffle_accounts.upstream.tokens import from_environ

PATIENCE = (1.0, 5.0, 15.0)  # seconds to wait for a list whose provider says 429, but not when
LONGEST_WAIT = 60.0


class Upstream:
    """One provider's HTTP API. Safe to share between threads and greenlets.

    Args:
        name: the provider's, for messages.
        key_variable: the environment variable with the API key.
        base_url_variable: the environment variable with the base URL.
        base_url: where the API is if that variable is not set; `{VARIABLE}` in it
            stands for the value of another variable.
        authenticate: returns the headers that carry the key; `in_query` and `basic` make one.
            `ClientCredentials` are for a token that has to be fetched first.
        code: the field of an error's body that holds the provider's short code, by its
            dotted path ("error.code"), or a function that finds it in the body.
        is_gone: whether the body of a 404 or a 410 is the provider's own "there is no
            such resource", which makes it a success. Any other one is a wrong URL.
        temporary_codes: short codes that will pass, whatever the status says.
        is_done: whether the body of a 2xx says that it is a success, where the status alone
            does not. If not, `is_gone` and `code` are asked as for any other failure.
        retry_after: the field of an error's body that holds the seconds to wait, as `code`.
    """

    def __init__(
        self,
        name: str,
        *,
        key_variable: str,
        base_url_variable: str,
        base_url: str,
        authenticate: Callable[[str], Mapping[str, str] | Query] | ClientCredentials,
        code: str | Callable[[Mapping[str, Any]], Any],
        is_gone: Callable[[Mapping[str, Any]], bool],
        temporary_codes: frozenset[str] = frozenset(),
        is_done: Callable[[Mapping[str, Any]], bool] | None = None,
        retry_after: str | Callable[[Mapping[str, Any]], Any] | None = None,
    ) -> None:
        self.name = name
        self.missing: str | None = None
        self._key_variable = key_variable
        self._base_url_variable = base_url_variable
        self._default_base_url = base_url
        self._authenticate = authenticate
        self._judge = Judge(
            name,
            key_variable,
            base_url_variable,
            code,
            is_gone,
            is_done,
            retry_after,
            temporary_codes,
            lambda word: self._session.is_secret(word),
        )
        self._wanted = self._judge.wanted
        self._session: Session
        self._configured = False

    @property
    def variables(self) -> tuple[str, ...]:
        """The environment variables that it reads."""
        how, own = self._authenticate, (self._key_variable, self._base_url_variable)
        others = how.variables if isinstance(how, ClientCredentials) else ()
        return (*own, *addresses.named_in(self._default_base_url), *others)

    def configure(self, environ: Mapping[str, str]) -> None:
        """Read the provider's variables; afterwards `missing` names one that is not set.

        Called by the service at its start; otherwise by the first request, with
        the process's environment.

        Raises:
            ConfigError: a value cannot be used.
        """
        key = environment.secret(environ, self._key_variable) or ""
        base_url, missing = addresses.address(
            environ, self._base_url_variable, self._default_base_url
        )
        missing = [*([] if key else [self._key_variable]), *missing]
        how, tokens = self._authenticate, None
        if isinstance(how, ClientCredentials):
            tokens, without = from_environ(how, self._judge, environ, key)
            missing += without
        self.missing = ", ".join(dict.fromkeys(missing)) or None
        if not self.missing:
            given = {} if isinstance(how, ClientCredentials) else how(key)
            self._session = Session(base_url.rstrip("/"), key, given, tokens, self._judge.failed)
        self._configured = True

    def delete(
        self,
        *segments: str,
        tried: str,
        params: Mapping[str, str] | None = None,
        share: float = 1.0,
    ) -> bool:
        """Remove a resource; return whether it was there.

        Args:
            segments: of the path below the base URL, each quoted as a whole.
            tried: what this is, for messages ("session revoke").
            params: the query; each value is quoted as a whole.
            share: part of the time that is left, from 0 to 1.

        Raises:
            UpstreamFailed: it is left, or may be.
        """
        return self._request("DELETE", segments, tried, share, params)

    def post(
        self,
        *segments: str,
        payload: Any,
        tried: str,
        params: Mapping[str, str] | None = None,
        share: float = 1.0,
    ) -> bool:
        """Send `payload` as JSON; arguments, answer and errors as for `delete`."""
        return self._request("POST", segments, tried, share, params, payload)

    def put(
        self,
        *segments: str,
        payload: Any,
        tried: str,
        params: Mapping[str, str] | None = None,
        share: float = 1.0,
    ) -> bool:
        """Send `payload` as JSON; arguments, answer and errors as for `delete`."""
        return self._request("PUT", segments, tried, share, params, payload)

    def patch(
        self,
        *segments: str,
        payload: Any,
        tried: str,
        params: Mapping[str, str] | None = None,
        share: float = 1.0,
    ) -> bool:
        """Send `payload` as JSON; arguments, answer and errors as for `delete`."""
        return self._request("PATCH", segments, tried, share, params, payload)

    def get(self, *segments: str, params: Mapping[str, str] | None = None, tried: str) -> None:
        """Ask for JSON that has to be there; arguments and errors as for `delete`."""
        self._request("GET", segments, tried, 1.0, params)

    def pages(
        self,
        *segments: str,
        items: str | None,
        cursor: str | tuple[str, ...] = (),
        cursor_param: str | None = None,
        offset_param: str | None = None,
        next_url: str | None = None,
        limit: int,
        limit_param: str = "limit",
        params: Mapping[str, str] | None = None,
        tried: str,
    ) -> Iterator[Mapping[str, Any]]:
        """Return the items of a list, page by page, to its end.

        The way to the next page is one of three: its cursor, the number of items before it, or
        its URL, which has to be below the base URL. A provider that asks to wait (429) is waited
        for, a few times. Fields are named by their dotted path.

        Args:
            segments: of the list's path below the base URL.
            items: the field with a page's items, `None` if the page itself is the list.
            cursor: the field with the cursor of the next page, or several that may have it.
            cursor_param: the query parameter that the cursor is given in.
            offset_param: the query parameter for the number of items before the page.
            next_url: the field with the URL of the next page.
            limit: items on a page, at most.
            limit_param: the query parameter that the limit is given in.
            params: more of the query.
            tried: what this is, for messages ("inbox list").

        Raises:
            UpstreamFailed: the list could not be read to its end.
            TypeError: there is no way, or more than one.
        """
        self._be_ready(tried)
        start = lists.Place(
            self._path(segments, tried), {limit_param: str(limit), **(params or {})}
        )
        follow = lists.following(
            cursor, cursor_param, offset_param, next_url, self._session.base_url
        )
        try:
            yield from lists.read(start, lambda place: self._page(place, tried), items, follow)
        except lists.NoEnd as error:
            raise self._judge.failed(tried, str(error)) from None

    def _page(self, place: lists.Place, tried: str) -> Any:
        for patience in PATIENCE:
            try:
                return self._read_page(place, tried)
            except UpstreamFailed as error:
                if error.status != 429:
                    raise
                time.sleep(min(error.retry_after or patience, LONGEST_WAIT))
        return self._read_page(place, tried)

    def _read_page(self, place: lists.Place, tried: str) -> Any:
        answer = self._session.send("GET", place.path, place.params, None, bodies.whole_page, tried)
        self._judge.judge(answer, "GET", tried, bodies.whole_page)
        page = bodies.json_page(answer)
        if not isinstance(page, (dict, list)):
            raise self._judge.failed(tried, "an answer that is no list, or was cut short")
        return page

    def _request(
        self,
        method: str,
        segments: tuple[str, ...],
        tried: str,
        share: float,
        params: Mapping[str, str] | None,
        payload: Any = None,
    ) -> bool:
        if not self._configured or self.missing:
            self._be_ready(tried)
        path, wanted = self._path(segments, tried), self._wanted
        answer = self._session.send(method, path, params, payload, wanted, tried, share)
        return self._judge.judge(answer, method, tried, wanted)

    def _be_ready(self, tried: str) -> None:
        if not self._configured:
            self.configure(os.environ)
        if self.missing:
            raise self._judge.failed(tried, f"{self.missing} is not set", permanent=True)

    def _path(self, segments: tuple[str, ...], tried: str) -> str:
        try:
            return "".join(f"/{_quoted(segment)}" for segment in segments)
        except ValueError:
            why = "an id that cannot be part of a URL"
            raise self._judge.failed(tried, why, permanent=True) from None


def _quoted(segment: str) -> str:
    if segment in ("", ".", ".."):  # quoting keeps these
        raise ValueError(segment)
    return quote(segment, safe="")
