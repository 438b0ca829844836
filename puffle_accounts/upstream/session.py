"""The way to one provider, once its variables are read: what every request carries along."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from puffle_accounts import context
from puffle_accounts.errors import UpstreamFailed
from puffle_accounts.text import SHORTEST_SECRET
from puffle_accounts.transport import Answer, Clock, NoAnswer, Transport, Wanted
from puffle_accounts.upstream.credentials import Query
from puffle_accounts.upstream.tokens import HEADERS, Tokens

DEFAULT_SECONDS = 10.0  # where no deadline has been set
OF_DEADLINE = 0.95  # give up before the core does, to say what it was that took so long


def seconds_left() -> float:
    """Return the seconds that the call under way may take, 10 outside of any.

    They are a little fewer than the service waits, so that you can say what took so long.
    """
    return max(context.seconds_left(DEFAULT_SECONDS) * OF_DEADLINE, 0.0)


def request_id() -> str | None:
    """Return the `X-Request-ID` of the call under way, `None` outside of any."""
    return context.request_id.get()


class Session:
    """Sends requests below one base URL.

    Args:
        base_url: without a slash at its end.
        key: the provider's.
        given: how the key travels.
        tokens: where the token comes from that travels instead.
        failed: makes an error of what was tried and why that failed.
    """

    def __init__(
        self,
        base_url: str,
        key: str,
        given: Mapping[str, str] | Query,
        tokens: Tokens | None,
        failed: Callable[..., UpstreamFailed],
    ) -> None:
        headers = {} if isinstance(given, Query) else given
        self.base_url = base_url
        query = given.params if isinstance(given, Query) else {}
        self._taken = query.keys()
        self._tokens = tokens
        self._failed = failed
        self._secrets = {key, *query.values(), *" ".join(headers.values()).split()}
        self._transport = Transport(base_url, {**HEADERS, **headers}, urlencode(query))

    def is_secret(self, word: str) -> bool:
        """Return whether a word holds what the requests carry as credentials."""
        secrets = {*self._secrets, self._tokens.latest if self._tokens else ""}
        return any(each in word for each in secrets if len(each) >= SHORTEST_SECRET)

    def send(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        payload: Any,
        wanted: Wanted,
        tried: str,
        share: float = 1.0,
    ) -> Answer:
        """Send a request and return whatever is answered.

        Raises:
            UpstreamFailed: nothing is, or there is no token for it.
        """
        if params:
            path += self._query(params, tried)
        seconds = context.seconds_left(DEFAULT_SECONDS) * OF_DEADLINE * share
        if seconds <= 0:
            raise self._failed(tried, "no time was left for it")
        id_ = context.request_id.get()
        headers = {"X-Request-ID": id_} if id_ else {}
        body = None
        if payload is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(payload).encode()
        clock = Clock(seconds)
        try:
            if not self._tokens:
                return self._transport.send(method, path, headers, body, clock, wanted)
            token = self._tokens.get(None, clock, tried)
            headers["Authorization"] = f"Bearer {token}"
            answer = self._transport.send(method, path, headers, body, clock, wanted)
            if answer.status == 401:  # once: it may have run out, or been revoked
                headers["Authorization"] = f"Bearer {self._tokens.get(token, clock, tried)}"
                answer = self._transport.send(method, path, headers, body, clock, wanted)
            return answer
        except NoAnswer as error:
            raise self._failed(tried, str(error)) from None

    def _query(self, params: Mapping[str, str], tried: str) -> str:
        own = {name: value for name, value in params.items() if name not in self._taken}
        try:
            return f"?{urlencode(own)}" if own else ""
        except ValueError:
            why = "an id that cannot be part of a URL"
            raise self._failed(tried, why, permanent=True) from None
