"""One provider's HTTP API, as a plugin calls it."""

from __future__ import annotations

import os
import string
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from puffle_accounts import config, context
from puffle_accounts.errors import UpstreamFailed
from puffle_accounts.transport import Answer, Clock, NoAnswer, Transport, Wanted
from puffle_accounts.upstream import bodies, lists
from puffle_accounts.upstream.credentials import Query
from puffle_accounts.upstream.judgement import Judge

DEFAULT_SECONDS = 10.0  # where no deadline has been set
OF_DEADLINE = 0.95  # give up before the core does, to say what it was that took so long
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
        authenticate: Callable[[str], Mapping[str, str] | Query],
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
        )
        self._query: Mapping[str, str] = {}
        self._base_url: str
        self._transport: Transport
        self._configured = False

    def configure(self, environ: Mapping[str, str]) -> None:
        """Read the provider's variables; afterwards `missing` names one that is not set.

        Called by the service at its start; otherwise by the first request, with
        the process's environment.

        Raises:
            ConfigError: a value cannot be used.
        """
        key = config.secret(environ, self._key_variable)
        wanted = [v for _, v, *_ in string.Formatter().parse(self._default_base_url) if v]
        needed = {name: config.host(environ, name) for name in wanted}
        base_url = config.url(environ, self._base_url_variable)
        if base_url is None and all(needed.values()):
            base_url = self._default_base_url.format(**needed)
        without = [self._key_variable] if not key else []
        without += [n for n, value in needed.items() if not value] if not base_url else []
        self.missing = ", ".join(without) or None
        if key and base_url:
            self._connect(base_url, key)
        self._configured = True

    def _connect(self, base_url: str, key: str) -> None:
        given = self._authenticate(key)
        headers: Mapping[str, str] = {}
        if isinstance(given, Query):
            self._query = given.params
        else:
            self._query, headers = {}, given
        own = {"Accept": "application/json", "User-Agent": "puffle-accounts"}
        self._base_url = base_url.rstrip("/")
        self._transport = Transport(base_url, {**own, **headers})

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
            params: the query, each value quoted as a whole.
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
        cursor_param: str = "",
        offset_param: str = "",
        next_url: str = "",
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
        """
        self._be_ready(tried)
        start = lists.Place(
            self._path(segments, tried), {limit_param: str(limit), **(params or {})}
        )
        if next_url:
            follow = lists.by_link(next_url, self._base_url)
        elif offset_param:
            follow = lists.by_offset(offset_param)
        else:
            names = (cursor,) if isinstance(cursor, str) else cursor
            follow = lists.by_cursor(names, cursor_param)
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
        answer = self._ask("GET", place.path, place.params, tried, bodies.whole_page)
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
        self._be_ready(tried)
        path, wanted = self._path(segments, tried), self._judge.wanted
        answer = self._ask(method, path, params, tried, wanted, share, payload)
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
            raise self._no_url(tried) from None

    def _no_url(self, tried: str) -> UpstreamFailed:
        return self._judge.failed(tried, "an id that cannot be part of a URL", permanent=True)

    def _ask(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        tried: str,
        wanted: Wanted,
        share: float = 1.0,
        payload: Any = None,
    ) -> Answer:
        """Send a request and return whatever is answered."""
        if params or self._query:
            try:
                path += f"?{urlencode({**(params or {}), **self._query})}"
            except ValueError:
                raise self._no_url(tried) from None
        seconds = context.seconds_left(DEFAULT_SECONDS) * OF_DEADLINE * share
        if seconds <= 0:
            raise self._judge.failed(tried, "no time was left for it")
        request_id = context.request_id.get()
        headers = {"X-Request-ID": request_id} if request_id else {}
        try:
            return self._transport.send(method, path, headers, payload, Clock(seconds), wanted)
        except NoAnswer as error:
            raise self._judge.failed(tried, str(error)) from None


def _quoted(segment: str) -> str:
    if segment in ("", ".", ".."):  # quoting keeps these
        raise ValueError(segment)
    return quote(segment, safe="")
